# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_connections.yml: a person is told who holds the connections; relief is confirmed, and goes as far as it must."""

from __future__ import annotations

import re

import pytest
from ill_api import applied
from killing import Point, killed_at, planned
from runbook import Result
from world import EAST, WEST, World

CONFIRMED = {"remediate": True}
# The sessions of a test are young.
AT_ONCE = {"max_idle_in_transaction_seconds": 0}


def relieve(world: World, *flags: str, **variables: object) -> Result:
    return world.runbook.run("db_connections", *flags, **variables)


def crowd(world: World) -> int:
    """Sessions of the application's role that are not the service's own."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'regami' AND application_name <> 'regami-api'"
    with world.session(EAST) as query:
        return query(others)[0][0]


def limit(world: World, region: str = EAST) -> str:
    with world.session(region) as query:
        return query("SHOW max_connections")[0][0]


def decisions(run: Result) -> list[str]:
    """The word of each look."""
    return [note.partition(":")[0] for note in run.report["notes"] if re.match(r"[a-z_]+: ", note)]


def test_nothing_is_short_and_nothing_is_done(untouched: World) -> None:
    looked = relieve(untouched)
    assert (looked.returncode, looked.report["outcome"], looked.mutations) == (0, "noop", [])
    assert decisions(looked) == ["none"] and "nothing has to be done" in looked.output
    assert [call for call in looked.calls if call["service"] == "dynamodb"] == [], "who only looks takes no lease"
    confirmed = relieve(untouched, **CONFIRMED)
    assert (confirmed.returncode, confirmed.mutations) == (0, [])


def test_what_refuses_names_the_way_out(untouched: World) -> None:
    for variables, told in (
        ({"steps": "kil,raise"}, "steps=kil,raise has kil, which is no step: say -e steps=NAME,NAME of kill, limit"),
        ({"steps": "resize"}, "db_instance_class"),
        ({"steps": "raise", "even_if_enough": True, "max_connections": 5000}, "accept_memory_risk=true"),
        ({"steps": "raise", "even_if_enough": True, "parameter_group": "regami-postgers16"}, "regami-postgres16"),
    ):
        run = relieve(untouched, **variables)
        assert (run.returncode, run.mutations) == (2, []), run.output
        assert told in run.complaints[0], run.complaints


def test_a_crowd_idle_in_transactions_is_ended_once_a_person_says_so(world: World) -> None:
    world.sandbox.fault("idle-in-transaction")
    full = crowd(world)
    assert full >= 90
    looked = relieve(world, **AT_ONCE)
    assert (looked.returncode, looked.report["outcome"]) == (0, "noop"), looked.output
    assert decisions(looked) == ["kill"]
    command = re.search(
        r"go on with ansible-playbook playbooks/db_connections.yml -e env=sandbox -e steps=(\w+)", looked.output
    )
    assert command[1] == "kill"
    planned = relieve(world, "--check", "--diff", **CONFIRMED, **AT_ONCE)
    assert (planned.returncode, planned.report["outcome"], planned.mutations) == (0, "planned", [])
    for cost in (
        "end 50 sessions",
        "start new tasks of regami-service",
        "reboot regami-db-primary: ends all its sessions",
    ):
        assert cost in planned.output
    assert crowd(world) == full

    run = relieve(world, steps=command[1], **AT_ONCE)
    assert run.returncode == 0, run.output
    assert (run.report["outcome"], run.mutations) == ("recovered", [])
    assert decisions(run) == ["kill", "none"]
    assert crowd(world) == 0


@pytest.mark.soak
def test_connections_that_nobody_gives_back_take_every_step(world: World) -> None:
    """They are held by something that no restart of the service ends, so that only the reboot does."""
    world.sandbox.fault("connection-leak")
    leaked = crowd(world)
    told = relieve(world, steps="kill")
    assert (told.returncode, told.mutations) == (2, [])
    assert "connections are still short" in told.complaints[0] and "-e steps=restart" in told.complaints[0]
    assert crowd(world) >= leaked

    point = Point("once the raise is planned", planned("Let the database take more connections"))
    killed = killed_at(world, point, "db_connections", **CONFIRMED)
    assert killed.mutations == [f"ecs:UpdateService {EAST}"]
    assert (limit(world), limit(world, WEST)) == ("100", "100")

    # What was wrong was healed after the kill. Somebody wrote the number into the group and thought that this was it.
    world.sandbox.fault("connection-leak")
    world.aws("rds").modify_db_parameter_group(
        DBParameterGroupName=world.names(EAST)["db_parameter_group"],
        Parameters=[{"ParameterName": "max_connections", "ParameterValue": "200", "ApplyMethod": "pending-reboot"}],
    )
    world.sandbox.fault("api", service="rds", action="RebootDBInstance", kind="lost-answer", count=1)
    # Two people type the next step, and the one who is first is held up.
    world.sandbox.fault("api", service="rds", action="RebootDBInstance", kind="latency", count=1, seconds=5)
    runs = [world.runbook.start("db_connections", steps="raise") for _each in range(2)]
    told, run = sorted((each.wait() for each in runs), key=lambda result: len(result.timeline))
    assert (run.returncode, told.returncode) == (0, 2), run.output + told.output
    assert "has held the lease regami-api since 20" in told.complaints[0]
    assert [each for each in applied(run) if each != f"ModifyDBParameterGroup {EAST}"] == [
        f"ModifyDBParameterGroup {WEST}",
        f"RebootDBInstance {WEST}",
        f"RebootDBInstance {EAST}",
    ], "the replica first, and a lost answer is no reason for a second reboot"
    assert (limit(world), limit(world, WEST)) == ("200", "200")
    assert crowd(world) < leaked, "it goes on leaking, and has begun anew"
    assert decisions(run) == ["restart", "none"]

    steps = {
        "steps": "limit,resize",
        "even_if_enough": True,
        "connection_limit": 60,
        "db_instance_class": "db.r5.large",
    }
    resized = relieve(world, **steps)
    assert resized.returncode == 0, resized.output
    assert world.database(EAST)["DBInstanceClass"] == "db.r5.large"
    with world.session(EAST) as query:
        assert query("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'regami'") == [(60,)]
    assert [each["verb"] for each in resized.report["undo"]] == [
        "sre.runbooks.rds_instance_class",
        "sre.runbooks.pg_role_limit",
    ]


def test_a_closed_security_group_is_found_and_named(world: World) -> None:
    group = world.names(EAST)["db_security_group"]
    ec2 = world.aws("ec2")
    rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rules)
    looked = relieve(world)
    assert looked.returncode == 0, looked.output
    assert decisions(looked) == ["security_groups"] and group in looked.output
    confirmed = relieve(world, **CONFIRMED)
    assert (confirmed.returncode, confirmed.mutations) == (2, [])
    assert group in confirmed.complaints[0]
