# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""max_connections (the plan of rds_max_connections): which groups, which reboots, in which order, and what refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import connection_limit, rds_parameters
from ansible_collections.sre.runbooks.plugins.module_utils.connection_limit import Group, Instance
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal

GIB = 1 << 30
DEFAULT = "LEAST({DBInstanceClassMemory/9531392},5000)"
MAIN = Instance(
    "db", "us-east-1", "available", "db.t3.medium", "mine", "postgres16", "in-sync", "100", 4 * GIB, running=100
)
REPLICA = replace(MAIN, id="db-replica", region="us-west-2")
WANTED = {"max_connections": "200", "reboot": True, "accept_memory_risk": False, "accept_replicas_stop": False}


def observed(main=MAIN, replicas=(), silent=None, source=None, target=None):
    return {
        "main": main,
        "replicas": list(replicas),
        "silent": silent or {},
        "source": source,
        "target": target or Group(main.group, main.value),
        "groups": ["default.postgres16", "mine"],
    }


def plan(wanted=None, **seen):
    return connection_limit.plan(observed(**seen), {**WANTED, **(wanted or {})})


def does(found):
    return [(step.do, step.arguments.get("id") or step.arguments.get("group")) for step in found.steps]


def refusal(wanted=None, **seen):
    with pytest.raises(Refusal) as caught:
        plan(wanted, **seen)
    return str(caught.value)


def test_a_static_parameter_is_written_noticed_and_rebooted_for():
    found = plan()
    assert does(found) == [("write", "mine"), ("await_notice", "db"), ("reboot", "db")]
    assert "no effect before a reboot" in found.steps[0].what
    assert "ends all its sessions" in found.steps[2].what
    assert (found.after["max_connections"], found.after["applied"]) == (200, "in-sync")


def test_what_is_there_already_needs_nothing():
    there = replace(MAIN, value="200", running=200)
    assert plan(main=there).steps == ()
    assert plan(main=replace(there, running=None)).steps == (), "in-sync is believed where nobody may log in"


def test_a_run_that_was_killed_before_the_reboot_goes_on_there():
    written = replace(MAIN, value="200")
    assert does(plan(main=written)) == [("await_notice", "db"), ("reboot", "db")]
    assert does(plan(main=replace(written, applied="pending-reboot", running=None))) == [("reboot", "db")]


def test_an_instance_that_reboots_already_is_waited_for_and_looked_at_again():
    steps = plan(main=replace(MAIN, status="rebooting", value="200", running=None)).steps
    assert [(step.do, step.look_again) for step in steps] == [("settle", True)]


def test_without_a_reboot_it_is_said_that_nothing_changes_yet():
    found = plan({"reboot": False})
    assert does(found) == [("write", "mine"), ("await_notice", "db")]
    assert "stays what it is until" in found.notes[0]
    assert (found.after["max_connections"], found.after["applied"]) == (100, "pending-reboot")


def test_replicas_go_first_and_only_those_that_have_fewer():
    second = replace(REPLICA, id="db-second", value="500", running=500)
    found = plan(replicas=[REPLICA, second])
    assert does(found) == [
        ("write", "mine"),
        ("await_notice", "db-replica"),
        ("reboot", "db-replica"),
        ("write", "mine"),
        ("await_notice", "db"),
        ("reboot", "db"),
    ]
    assert [step.arguments["region"] for step in found.steps[::3]] == ["us-west-2", "us-east-1"]


def test_fewer_connections_leave_the_replicas_alone_and_a_replica_never_goes_below_its_source():
    down = {"max_connections": "50"}
    assert does(plan(down, replicas=[REPLICA])) == [("write", "mine"), ("await_notice", "db"), ("reboot", "db")]
    assert "lower db first" in refusal(down, main=REPLICA, source=MAIN)


def test_a_silent_replica_refuses_unless_accepted():
    silent = {"db-replica": "rds:DescribeDBInstances in us-west-2 got no answer"}
    assert "accept_replicas_stop=true" in refusal(silent=silent)
    found = plan({"accept_replicas_stop": True}, silent=silent)
    assert does(found)[-1] == ("reboot", "db") and "stop replaying" in found.notes[0]
    assert plan({"max_connections": "50"}, silent=silent).steps


def test_a_group_of_aws_refuses_and_names_the_way_out():
    default = replace(MAIN, group="default.postgres16", value=DEFAULT, running=450)
    told = refusal(main=default)
    assert "default.postgres16" in told and "parameter_group=NAME" in told
    assert "db_instance=db-replica region=us-west-2" in refusal(
        {"max_connections": "449"},
        main=replace(MAIN, value="300", running=300),
        replicas=[replace(REPLICA, group="default.postgres16", value=DEFAULT, memory=2 * GIB, running=225)],
    )


def test_a_group_of_ones_own_is_made_written_and_attached():
    default = replace(MAIN, group="default.postgres16", value=DEFAULT, running=450)
    found = plan({"max_connections": "440"}, main=default, target=Group("db-own", None))
    assert does(found) == [
        ("create", "db-own"),
        ("write", "db-own"),
        ("attach", "db"),
        ("await_notice", "db"),
        ("reboot", "db"),
    ]
    assert "there is no DB parameter group nime" in refusal(target=Group("nime", None))
    assert "mine" in refusal(target=Group("nime", None))


def test_more_than_the_memory_is_made_for_refuses():
    most = rds_parameters.most_connections(4 * GIB)
    assert does(plan({"max_connections": str(most)}))
    told = refusal({"max_connections": str(most + 1)})
    assert "accept_memory_risk=true" in told and f"some {most} connections" in told
    assert "accepted: " in plan({"max_connections": "1000", "accept_memory_risk": True}).notes[0]
    assert "is not known" in plan(main=replace(MAIN, memory=None)).notes[0]


@pytest.mark.parametrize("value", ["many", "5", "-1", "9000000", ""])
def test_no_number(value):
    assert "give a number from 6" in refusal({"max_connections": value})


def test_a_broken_instance_refuses():
    assert "storage-full" in refusal(main=replace(MAIN, status="storage-full"))


def test_others_with_the_same_group_are_named():
    assert (
        "other shares it and takes it at its next reboot" in plan(main=replace(MAIN, sharing=("other",))).steps[0].what
    )


def test_the_way_back_is_what_was_in_the_groups_the_primary_first():
    ways = connection_limit.way_back(observed(replicas=[REPLICA]), WANTED)
    assert [(way["db_instance"], way["max_connections"], way["parameter_group"]) for way in ways] == [
        ("db", "100", "mine"),
        ("db-replica", "100", "mine"),
    ]
    back = observed(main=replace(MAIN, value="200", running=200), replicas=[replace(REPLICA, value="200", running=200)])
    assert does(connection_limit.plan(back, {**WANTED, "max_connections": "100"}))[-1] == ("reboot", "db")


@pytest.mark.parametrize(
    ("value", "memory", "number"),
    [
        ("100", None, 100),
        (DEFAULT, 4 * GIB, 450),
        ("LEAST({DBInstanceClassMemory/9531392}, 5000)", 64 * GIB, 5000),
        ("{DBInstanceClassMemory/9531392}", 4 * GIB, 450),
        (DEFAULT, None, None),
        ("GREATEST(1,2)", GIB, None),
        ("", GIB, None),
    ],
)
def test_formulas(value, memory, number):
    assert rds_parameters.number(value, memory) == number
