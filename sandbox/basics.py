# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the other parts stand on: the caller's identity, security groups, the lock table, the database's password."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .elbv2 import APP_PORT
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
    _follow_label()


def _follow_label() -> None:
    """Who asks for no version gets the one that is labelled AWSCURRENT; moto goes on giving the one that was.

    https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
    """
    from moto.secretsmanager.models import SecretsManagerBackend

    original = SecretsManagerBackend.update_secret_version_stage

    def update_secret_version_stage(
        self: SecretsManagerBackend, secret_id: str, version_stage: str, move_to_version_id: str, **more: str
    ) -> tuple[str, str]:
        answer = original(
            self, secret_id=secret_id, version_stage=version_stage, move_to_version_id=move_to_version_id, **more
        )
        if version_stage == "AWSCURRENT" and move_to_version_id:
            self.secrets[secret_id].set_default_version_id(move_to_version_id)
        return answer

    SecretsManagerBackend.update_secret_version_stage = update_secret_version_stage


def seed(world: World) -> None:
    _wrong_account.clear()
    world.state["lock_table"] = LOCK_TABLE
    for region in world.regions:
        facts = world.state["regions"].setdefault(region, {})
        facts["role"] = "primary" if region == world.regions[0] else "secondary"
        with world.lock:
            facts.update(_security_groups(world, region))
        _internet(world, region)
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
    """Who may speak to whom in the default VPC: anybody to the load balancers, these to the application, this to the database,
    which is open on every port that the sandbox may pick; and a quarantine group without any rule.
    """
    ec2 = world.backend("ec2", region)
    vpc = ec2.default_vpc.id
    made = {
        name: ec2.create_security_group(f"regami-{name}", what, vpc_id=vpc).id
        for name, what in (
            ("alb", "regami load balancers"),
            ("app", "regami application"),
            ("db", "regami database"),
            ("quarantine", "nothing may come in or go out"),
        )
    }
    ec2.revoke_security_group_egress(made["quarantine"], "-1", None, None, [{"CidrIp": "0.0.0.0/0"}])
    allow = ec2.authorize_security_group_ingress
    allow(made["alb"], "tcp", "80", "8080", ip_ranges=[{"CidrIp": "0.0.0.0/0"}])
    allow(made["app"], "tcp", str(APP_PORT), str(APP_PORT), ip_ranges=[], source_groups=[{"GroupId": made["alb"]}])
    allow(made["db"], "tcp", "1024", "65535", ip_ranges=[{"CidrIp": "10.0.0.0/8"}])
    allow(made["db"], "tcp", "1024", "65535", ip_ranges=[], source_groups=[{"GroupId": made["app"]}])
    return {
        "balancer_security_group": made["alb"],
        "app_security_group": made["app"],
        "db_security_group": made["db"],
        "quarantine_security_group": made["quarantine"],
    }


def _internet(world: World, region: str) -> None:
    """The default VPC's way out, which moto leaves out.

    https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc-components.html
    """
    client = world.client("ec2", region)
    vpc = client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    gateway = client.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    client.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = client.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0][
        "RouteTableId"
    ]
    client.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)


faults = {
    "wrong-account": Fault(
        f"the credentials belong to account {OTHER_ACCOUNT}",
        lambda world: _wrong_account.set(),
        lambda world: _wrong_account.clear(),
    )
}
