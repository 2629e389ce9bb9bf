# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verbs of which no other test loses an answer, or kills them between two changes: each change is made once, in its order."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cases import the_image_before
from dying import dies_after_a_change
from kube import run_module
from world import EAST, PRIMARY, WEST, World

pytestmark = pytest.mark.soak


@dataclass(frozen=True)
class Case:
    """A run of `verb` that makes these changes, where an undo has put all back or `told` names something new each time."""

    verb: str
    changes: tuple[str, ...]
    told: Callable[[World], dict[str, Any]]
    prepare: Callable[[World], None] = lambda world: None


def service(world: World, **more: Any) -> dict[str, Any]:
    names = world.names(EAST)
    return {"cluster": names["cluster"], "service": names["service"], **more}


def balancer(world: World, **more: Any) -> dict[str, Any]:
    return {"load_balancer_arn": world.names(EAST)["load_balancer_arn"], **more}


def new(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:8]}"


def shifted(world: World) -> None:
    assert not verb(world, "alb_zonal_shift", balancer(world, zone="us-east-1b"))["failed"]


def aurora(world: World) -> None:
    """A global database whose writer is in us-east-1."""
    east, west = (world.sandbox.boto("rds", region) for region in (EAST, WEST))
    member = {"Engine": "aurora-postgresql"}
    login = {"MasterUsername": "regami_admin", "MasterUserPassword": "not-a-secret-1"}
    made = east.create_db_cluster(DBClusterIdentifier="regami-aurora", **member, **login)
    source = made["DBCluster"]["DBClusterArn"]
    east.create_global_cluster(GlobalClusterIdentifier="regami-global", SourceDBClusterIdentifier=source)
    west.create_db_cluster(
        DBClusterIdentifier="regami-aurora-secondary", GlobalClusterIdentifier="regami-global", **member
    )


def moved_writer(_world: World) -> dict[str, Any]:
    return {"global_cluster": "regami-global", "target_cluster": "regami-aurora-secondary", "region": WEST}


def database(world: World, **more: Any) -> dict[str, Any]:
    login = {"login_user": world.sandbox.state["db_admin_user"], "login_password": world.secret("db_admin")}
    where = {"db_instance": PRIMARY, "login_db": world.sandbox.state["db_name"], "sslmode": "prefer"}
    return {**where, **login, **more}


def snapshot(world: World) -> None:
    rds = world.aws("rds")
    rds.create_db_snapshot(DBInstanceIdentifier=PRIMARY, DBSnapshotIdentifier="evening")
    rds.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier="evening", WaiterConfig={"Delay": 1})


def rotated(world: World) -> dict[str, Any]:
    name = new("regami/key")
    world.aws("secretsmanager").create_secret(Name=name, SecretString="former")
    return {"secret": name, "rotation": "breach", "values": [{"length": 40}]}


ROLLED_OUT = ("ecs:RegisterTaskDefinition", "ecs:UpdateService")
CASES = (
    Case("ecs_image", ROLLED_OUT, lambda world: service(world, image=the_image_before(world)["good_image"])),
    Case("ecs_variables", ROLLED_OUT, lambda world: service(world, variables={"LEVEL": "DEBUG"})),
    Case("alb_zonal_shift", ("arc-zonal-shift:StartZonalShift",), lambda world: balancer(world, zone="us-east-1b")),
    Case(
        "alb_zonal_shift", ("arc-zonal-shift:CancelZonalShift",), lambda world: balancer(world, state="back"), shifted
    ),
    Case("aurora_global_failover", ("rds:SwitchoverGlobalCluster",), moved_writer, aurora),
    Case(
        "rds_instance_class",
        ("rds:ModifyDBInstance",),
        lambda _world: {"db_instance": PRIMARY, "instance_class": "db.r5.large"},
    ),
    Case(
        "rds_max_connections",
        ("rds:ModifyDBParameterGroup", "rds:RebootDBInstance") * 2,
        lambda world: database(world, max_connections="150"),
    ),
    Case(
        "rds_restore",
        ("rds:CreateDBSnapshot", "rds:RestoreDBInstanceFromDBSnapshot"),
        lambda world: database(world, snapshot="evening", restored_instance=new("restored")),
        snapshot,
    ),
    Case(
        "asg_capacity",
        ("autoscaling:CreateOrUpdateTags", "autoscaling:UpdateAutoScalingGroup"),
        lambda world: {"auto_scaling_group": world.sandbox.state["fleet"]["auto_scaling_group"], "capacity": "+50%"},
    ),
    Case("lease_table", ("dynamodb:CreateTable",), lambda _world: {"table": new("locks")}),
    Case(
        "record_bucket",
        ("s3:CreateBucket", "s3:PutBucketVersioning", "s3:PutBucketEncryption", "s3:PutPublicAccessBlock"),
        lambda _world: {"bucket": new("records")},
    ),
    Case(
        "secret_rotate",
        ("secretsmanager:PutSecretValue", *["secretsmanager:UpdateSecretVersionStage"] * 2),
        rotated,
    ),
)


def verb(world: World, name: str, told: dict[str, Any]) -> dict[str, Any]:
    keys = {"access_key": "sandbox", "secret_key": "sandbox-secret", "region": EAST}
    return run_module(name, endpoint_url=world.sandbox.state["endpoint_url"], **keys | told)


def applied(world: World, first: int) -> list[str]:
    calls = [call for call in world.sandbox.calls(first) if call["mutation"] and call["status"] in range(200, 300)]
    return [f"{call['service']}:{call['action']}" for call in calls]


@pytest.fixture
def healed(world: World) -> Iterator[World]:
    yield world
    world.sandbox.heal()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.verb} {case.changes[0].partition(':')[2]}")
def test_each_answer_is_lost_and_it_is_killed_after_each_change(healed: World, case: Case) -> None:
    world = healed
    case.prepare(world)
    told, first = case.told(world), world.sandbox.status()["calls"]
    for change in set(case.changes):
        service, action = change.split(":")
        for kind in ("reset", "lost-answer"):
            world.sandbox.fault("api", service=service, action=action, kind=kind, count=1)
    run = verb(world, case.verb, told)
    assert not run["failed"] and run["changed"], run
    assert applied(world, first) == list(case.changes)
    assert not verb(world, case.verb, told)["changed"]

    for back in run["undo"]:
        if "verb" in back:
            undone = verb(world, back["verb"].rpartition(".")[2], back["arguments"])
            assert not undone["failed"], undone
    told = case.told(world)
    first = world.sandbox.status()["calls"]
    deaths = 0
    while dies_after_a_change(lambda: verb(world, case.verb, told)):
        deaths += 1
    again = verb(world, case.verb, told)
    assert not again["failed"] and not again["changed"], again
    assert applied(world, first) in (list(case.changes), list(case.changes[1:])) and deaths >= 1
