# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the other parts stand on: the caller's identity, security groups, the lock table, the database's password."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .faults import Fault

if TYPE_CHECKING:
    from .world import World

LOCK_TABLE = "sre-incident-locks"
OTHER_ACCOUNT = "999999999999"

_wrong_account = threading.Event()


def install(world: World) -> None:
    from moto.sts.models import STSBackend

    original = STSBackend.get_caller_identity

    def get_caller_identity(self: STSBackend, access_key_id: str, region: str) -> tuple[str, str, str]:
        user, arn, account = original(self, access_key_id, region)
        if _wrong_account.is_set():
            arn, account = arn.replace(account, OTHER_ACCOUNT), OTHER_ACCOUNT
        return user, arn, account

    STSBackend.get_caller_identity = get_caller_identity


def seed(world: World) -> None:
    _wrong_account.clear()
    world.state["lock_table"] = LOCK_TABLE
    for region in world.regions:
        facts = world.state["regions"].setdefault(region, {})
        facts["role"] = "primary" if region == world.regions[0] else "secondary"
        with world.lock:
            facts.update(_security_groups(world, region))
        world.client("dynamodb", region).create_table(
            TableName=LOCK_TABLE,
            KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        secret = world.client("secretsmanager", region).create_secret(
            Name="regami/database-password", SecretString=world.secret("db_app")
        )
        facts["database_secret_arn"] = secret["ARN"]


def _security_groups(world: World, region: str) -> dict[str, str]:
    """The database's group, open on every port that the sandbox may pick, and a quarantine group without any rule."""
    ec2 = world.backend("ec2", region)
    vpc = ec2.default_vpc.id
    database = ec2.create_security_group("regami-db", "regami database", vpc_id=vpc)
    quarantine = ec2.create_security_group("regami-quarantine", "nothing may come in", vpc_id=vpc)
    ec2.authorize_security_group_ingress(database.id, "tcp", "1024", "65535", ip_ranges=[{"CidrIp": "10.0.0.0/8"}])
    return {"db_security_group": database.id, "quarantine_security_group": quarantine.id}


faults = {
    "wrong-account": Fault(
        f"the credentials belong to account {OTHER_ACCOUNT}",
        lambda world: _wrong_account.set(),
        lambda world: _wrong_account.clear(),
    )
}
