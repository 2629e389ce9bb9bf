# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_scale: its plan, and the exact changes it makes, in order."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.modules import ecs_scale
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    CLUSTER,
    REGION,
    SERVICE,
    Region,
    carry_out,
    stopped_task,
)


@pytest.fixture
def scale(monkeypatch):
    def run(region, desired_count, **given):
        return carry_out(monkeypatch, ecs_scale, ecs_scale.EcsScale, region, desired_count=desired_count, **given)

    return run


def update(count):
    return ("update_service", {"cluster": CLUSTER, "service": SERVICE, "desiredCount": count})


def bound(floor, ceiling=10, suspended=False):
    state = {
        "DynamicScalingInSuspended": False,
        "DynamicScalingOutSuspended": suspended,
        "ScheduledScalingSuspended": suspended,
    }
    return (
        "register_scalable_target",
        {
            "ServiceNamespace": "ecs",
            "ResourceId": f"service/{CLUSTER}/{SERVICE}",
            "ScalableDimension": "ecs:service:DesiredCount",
            "MinCapacity": floor,
            "MaxCapacity": ceiling,
            "SuspendedState": state,
        },
    )


def started(region):
    region.service["runningCount"] = region.service["desiredCount"]
    region.targets = ["initial"] * region.service["desiredCount"]


def serving(region):
    started(region)
    region.targets = ["healthy"] * region.service["desiredCount"]


def stopping(region):
    region.service["runningCount"] = 0
    region.targets = ["draining"] * 2


def stopped(region):
    region.service["runningCount"] = 0
    region.targets = []


def primary(**changes):
    region = Region(desired=2)
    region.scalable = {"MinCapacity": 2, "MaxCapacity": 10, "RoleARN": "arn:role"} | changes
    return region


def test_starting_the_standby_lifts_the_floor_first_and_waits_for_healthy_targets(scale):
    region = Region()
    region.later = [lambda _region: None, started, serving]
    result = scale(region, 2, at_least=True)
    assert region.changes == [bound(2), update(2)]
    assert result["before"] == {
        "desired": 0,
        "running": 0,
        "task_definition": "regami-api:3",
        "floor": 0,
        "ceiling": 10,
        "suspended": [],
    }
    assert result["after"] == result["before"] | {"desired": 2, "running": 2, "floor": 2}
    assert [step["do"] for step in result["steps"]] == ["bound", "update", "settle"]
    assert result["undo"] == [
        {
            "verb": "sre.runbooks.ecs_scale",
            "arguments": {
                "cluster": CLUSTER,
                "service": SERVICE,
                "region": REGION,
                "desired_count": 0,
                "scaling": {"floor": 0, "ceiling": 10, "suspended": []},
            },
        }
    ]
    assert region.asked()["describe_services"] == 5  # observe, three looks, after


def test_draining_stops_what_starts_tasks_and_waits_for_the_last_target(scale):
    region = primary()
    region.later = [stopping, stopped]
    result = scale(region, 0)
    assert region.changes == [bound(0, suspended=True), update(0)]
    assert not result["failed"] and result["after"]["suspended"] == ["dynamic_out", "scheduled"]
    assert region.scalable["RoleARN"] == "arn:role"
    assert region.targets == []


def test_draining_waits_for_tasks_that_are_still_stopping(scale):
    def end(region):
        region.tasks[0]["lastStatus"] = "STOPPED"

    region = primary()
    region.tasks = [stopped_task(1, lastStatus="STOPPING", stopCode="ServiceSchedulerInitiated")]
    region.later = [stopped, lambda _region: None, end]
    result = scale(region, 0)
    assert not result["failed"] and not region.later


@pytest.mark.parametrize("region", [primary(), Region()])
def test_the_second_run_finds_it_done(scale, region):
    count = region.service["desiredCount"]
    if not count:
        region.scalable["SuspendedState"] = {"DynamicScalingOutSuspended": True, "ScheduledScalingSuspended": True}
    result = scale(region, count)
    assert (region.changes, result["changed"], result["steps"], result["undo"]) == ([], False, [], [])


@pytest.mark.parametrize(("count", "finish"), [(2, serving), (0, stopped)])
def test_a_run_killed_after_the_update_still_verifies_without_a_change(scale, count, finish):
    region = Region(desired=count, running=1)
    suspended = {"DynamicScalingOutSuspended": not count, "ScheduledScalingSuspended": not count}
    region.scalable = {"MinCapacity": count, "MaxCapacity": 10, "SuspendedState": suspended}
    region.changes.append(("an earlier run", {}))
    region.later = [lambda _region: None, lambda _region: None, finish]
    result = scale(region, count)
    assert region.changes == [("an earlier run", {})]
    assert [step["do"] for step in result["steps"]] == ["settle"]
    assert not result["changed"] and not result["failed"] and result["undo"] == []


def test_check_mode_shows_the_plan_and_changes_nothing(scale):
    region = primary()
    result = scale(region, 0, check=True)
    assert region.changes == [] and result["changed"]
    assert [step["what"] for step in result["steps"]] == [
        f"let scaling keep {SERVICE} at 0 to 10 tasks, dynamic_out and scheduled suspended",
        f"set the desired count of {SERVICE} to 0",
        f"wait until {SERVICE} has no task and no target left",
    ]
    assert (result["after"]["desired"], result["after"]["running"], result["after"]["floor"]) == (0, 0, 0)


def test_at_least_lowers_neither_count_nor_floor(scale):
    region = Region(desired=5)
    region.scalable = {"MinCapacity": 3, "MaxCapacity": 10}
    assert not scale(region, 2, at_least=True)["changed"]
    assert region.changes == []


def test_a_count_above_the_ceiling_lifts_it_too(scale):
    region = primary(MaxCapacity=3)
    region.later = [serving]
    scale(region, 6)
    assert region.changes == [bound(6, 6), update(6)]


def test_a_service_that_nothing_scales_only_gets_its_count(scale):
    region = Region()
    region.scalable, region.later = None, [serving]
    result = scale(region, 2)
    assert region.changes == [update(2)]
    assert result["before"]["floor"] is None and "scaling" not in result["undo"][0]["arguments"]


def test_scaling_left_alone_is_noted_when_it_will_undo_the_count(scale):
    region = primary()
    region.later = [stopped]
    result = scale(region, 0, lift_floor=False)
    assert region.changes == [update(0)]
    assert result["notes"] == [f"scaling keeps {SERVICE} at 2 to 10 tasks and will undo a count of 0"]


def test_undo_brings_back_count_and_bounds(scale):
    region = primary(SuspendedState={"ScheduledScalingSuspended": True})
    region.later = [stopped]
    (undo,) = scale(region, 0)["undo"]
    region.changes.clear()
    region.later = [serving]
    arguments = {key: value for key, value in undo["arguments"].items() if key != "region"}
    result = scale(region, **arguments)
    restored = bound(2)
    restored[1]["SuspendedState"]["ScheduledScalingSuspended"] = True
    assert region.changes == [restored, update(2)] and not result["failed"]


@pytest.mark.parametrize("way", ["lose", "drop"])
@pytest.mark.parametrize("operation", ["register_scalable_target", "update_service"])
def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(scale, way, operation):
    region = Region()
    getattr(region, way)[operation] = 1
    region.update_service = lambda **given: type(region).update_service(region, **given) if not serving(region) else {}
    region.later = [lambda _region: None] * 2 + [serving]
    result = scale(region, 2)
    times = [name for name, _arguments in region.changes].count(operation)
    assert times == (1 if way == "lose" else 2) and not result["failed"]
    assert [step["do"] for step in result["steps"]] == ["bound", "update", "settle"]


def test_a_region_that_is_gone_is_refused_or_recorded(scale):
    region = primary()
    region.cut = True
    result = scale(region, 0)
    assert result["failed"] and "when_unreachable=record goes on without it" in result["msg"]

    result = scale(region, 0, when_unreachable="record")
    assert not result["failed"] and not result["changed"] and result["reachable"] is False
    assert result["notes"] == [f"us-west-2 does not answer: {SERVICE} was not scaled to 0 and its tasks may still run"]
    assert (result["before"], result["steps"], result["undo"], region.changes) == ({}, [], [], [])


def test_a_region_that_goes_away_after_a_change_is_not_recorded_as_untouched(scale, monkeypatch):
    monkeypatch.setattr(ecs_scale, "SILENCE", 0)

    def cut(region):
        region.cut = True

    region = primary()
    region.later = [cut, cut]
    result = scale(region, 0, when_unreachable="record")
    assert result["failed"] and "got no answer" in result["msg"] and "The same command again" in result["msg"]
    assert result["changed"] and result["undo"]


def test_tasks_that_fail_again_and_again_end_the_wait(scale):
    def fail(region):
        region.tasks += [stopped_task(len(region.tasks), started_by="ecs-svc/1")]

    region = Region()
    region.tasks = [stopped_task(number + 100, started_by="ecs-svc/1") for number in range(5)]  # from before this run
    region.later = [lambda _region: None, fail, fail, fail]
    result = scale(region, 2, wait_timeout=60)
    assert "3 of its tasks failed one after the other. stopped tasks: Essential container" in result["msg"]


def test_a_count_that_something_else_sets_ends_the_wait(scale):
    def fight(region):
        region.service["desiredCount"] = 2

    region = primary()
    region.later = [fight]
    result = scale(region, 0, wait_timeout=60)
    assert "something else set its desired count to 2" in result["msg"]


def test_running_out_of_time_tells_what_is_missing(scale):
    region = Region()
    region.later = [started]
    result = scale(region, 2, wait_timeout=0.05)
    assert "still 2 of 2 running, regami-tg-secondary: 2 initial" in result["msg"]
    assert "targets: 10.0.0.1:8080 is initial" in result["msg"]


@pytest.mark.parametrize(
    ("count", "given", "expected"),
    [
        (-1, {}, "desired_count is -1"),
        (0, {"at_least": True}, "at_least=true never lowers a count"),
        (2, {"scaling": {"floor": 4, "ceiling": 3, "suspended": []}}, "the floor 4 is above the ceiling 3"),
    ],
)
def test_bad_input_gets_one_line_and_changes_nothing(scale, count, given, expected):
    region = Region()
    result = scale(region, count, **given)
    assert result["failed"] and expected in result["msg"] and region.changes == []


def test_a_daemon_has_no_count(scale):
    region = Region()
    region.service["schedulingStrategy"] = "DAEMON"
    assert "DAEMON" in scale(region, 2)["msg"]
