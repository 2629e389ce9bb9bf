# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_capacity: its plan, and the exact changes it makes, in order."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import room
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.room import Room
from ansible_collections.sre.runbooks.plugins.module_utils.scaling import GIVE_BACK
from ansible_collections.sre.runbooks.plugins.module_utils.temporary_capacity import MARK
from ansible_collections.sre.runbooks.plugins.modules import ecs_capacity
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    CLUSTER,
    REGION,
    SERVICE,
    Region,
    carry_out,
    stopped_task,
)

API = {"url": "http://recovery.test", "token": None, "request_timeout": 1.0, "dns_servers": []}


@pytest.fixture
def scale(monkeypatch):
    def run(region, capacity=None, **given):
        given = {"restore": capacity is None, "capacity": capacity} | given
        return carry_out(monkeypatch, ecs_capacity, ecs_capacity.EcsCapacity, region, **given)

    return run


def serving(region):
    count = region.service["desiredCount"]
    region.service["runningCount"], region.targets = count, ["healthy"] * count


def of_two(**scalable):
    region = Region(desired=2)
    region.scalable = {"MinCapacity": 2, "MaxCapacity": 10} | scalable
    region.later = [lambda _region: None] + [serving] * 3
    return region


def did(region):
    return [name for name, _arguments in region.changes]


def bounds(region):
    return region.scalable["MinCapacity"], region.scalable["MaxCapacity"]


def where(region):
    return region.service["desiredCount"], *bounds(region)


def test_more_is_written_down_first_and_lifts_the_floor(scale):
    region = of_two()
    result = scale(region, "+50%")
    assert not result["failed"] and where(region) == (3, 3, 10)
    assert did(region) == ["tag_resource", "register_scalable_target", "update_service"]
    assert region.service_tags == {MARK: "2 in 2-10 to 3 in 3-10"}
    assert result["before"] == {"desired": 2, "running": 2, "floor": 2, "ceiling": 10, "scaled": None}
    assert result["after"]["scaled"] == "2 in 2-10 to 3 in 3-10"
    assert result["undo"] == [
        {
            "verb": "sre.runbooks.ecs_capacity",
            "arguments": {"cluster": CLUSTER, "service": SERVICE, "region": REGION, "restore": True},
        }
    ]


def test_the_same_again_changes_nothing(scale):
    region = of_two()
    scale(region, "+50%", give_back_after=60)
    region.changes.clear()
    result = scale(region, "+50%", give_back_after=60)
    assert (region.changes, result["changed"], result["steps"]) == ([], False, [])


@pytest.mark.parametrize(
    "broken", ["tag_resource", "register_scalable_target", "put_scheduled_action", "update_service"]
)
def test_killed_anywhere_and_run_again_ends_where_an_uninterrupted_run_does(scale, broken):
    class Killed(Exception):
        pass

    region = of_two()
    original = getattr(region, broken)

    def kill(**arguments):
        original(**arguments)
        raise Killed

    setattr(region, broken, kill)
    with pytest.raises(Killed):
        scale(region, "+50%", give_back_after=60)
    setattr(region, broken, original)
    assert not scale(region, "+50%", give_back_after=60)["failed"]
    assert where(region) == (3, 3, 10) and did(region).count("update_service") == 1
    region.later = [serving] * 3
    scale(region)
    assert where(region) == (2, 2, 10) and region.service_tags == {} and region.schedules == {}


@pytest.mark.parametrize("way", ["lose", "drop"])
@pytest.mark.parametrize("operation", ["tag_resource", "register_scalable_target", "update_service"])
def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(scale, way, operation):
    region = of_two()
    getattr(region, way)[operation] = 1
    assert not scale(region, "+2")["failed"]
    assert where(region) == (4, 4, 10)
    assert did(region).count(operation) == (1 if way == "lose" else 2)


def test_restoring_brings_all_of_it_back_and_once_is_enough(scale):
    region = of_two()
    scale(region, "5", give_back_after=60)
    region.changes.clear()
    result = scale(region)
    assert not result["failed"] and where(region) == (2, 2, 10) and region.service_tags == {}
    assert did(region) == ["register_scalable_target", "delete_scheduled_action", "update_service", "untag_resource"]
    assert result["undo"][0]["arguments"]["capacity"] == "5"
    region.changes.clear()
    again = scale(region)
    assert (region.changes, again["changed"]) == ([], False)
    assert "there is nothing to give back" in again["notes"][0]


def test_less_lowers_the_ceiling_too(scale):
    region = of_two()
    assert not scale(region, "-1")["failed"]
    assert where(region) == (1, 1, 1)
    scale(region)
    assert where(region) == (2, 2, 10)


def test_none_at_all_waits_until_no_task_is_left(scale):
    def stopped(region):
        region.service["runningCount"], region.targets = 0, []

    region = of_two()
    region.later = [lambda _region: None, stopped]
    result = scale(region, "0")
    assert not result["failed"] and where(region) == (0, 0, 0)
    assert result["steps"][-1]["what"] == f"wait until {SERVICE} has no task and no target left"


def test_the_return_is_scheduled_with_the_former_bounds(scale):
    region = of_two()
    result = scale(region, "+50%", give_back_after=60)
    action = region.schedules[GIVE_BACK]
    assert action["ScalableTargetAction"] == {"MinCapacity": 2, "MaxCapacity": 10}
    assert action["Schedule"].startswith("at(20") and action["Schedule"].endswith(")")
    assert any("are given back at 20" in note for note in result["notes"])


def test_a_schedule_of_the_team_is_named(scale):
    region = of_two()
    region.schedules["night"] = {
        "ScheduledActionName": "night",
        "Schedule": "cron(0 22 * * ? *)",
        "ScalableTargetAction": {"MinCapacity": 1},
    }
    assert (
        f"the scheduled action night sets the bounds of {SERVICE} too: cron(0 22 * * ? *)"
        in scale(region, "4")["notes"]
    )


def test_a_service_that_nothing_scales_gets_its_count(scale):
    region = of_two()
    region.scalable = None
    result = scale(region, "4", give_back_after=60)
    assert did(region) == ["tag_resource", "update_service"] and region.service_tags == {MARK: "2 to 4"}
    assert "nothing scales" in result["notes"][-1]


def test_check_mode_shows_the_plan_and_changes_nothing(scale):
    region = of_two()
    result = scale(region, "+50%", check=True)
    assert region.changes == [] and result["changed"]
    assert [step["do"] for step in result["steps"]] == ["keep", "bound", "update", "settle"]
    assert result["after"]["desired"] == 3


def short(*_arguments):
    return Room("vCPUs of Fargate On-Demand", 0.25, 0.5, "9.5 of 10 are used", "ask for more")


def test_what_does_not_fit_is_refused_before_any_change(scale, monkeypatch):
    monkeypatch.setattr(room, "quota", short)
    region = of_two()
    region.service["launchType"] = "FARGATE"
    refused = scale(region, "5")
    assert refused["failed"] and region.changes == []
    assert refused["msg"].startswith(
        f"3 more tasks of {SERVICE} take 0.75 vCPUs of Fargate On-Demand, and 0.5 are left"
    )
    accepted = scale(region, "5", accept_shortage=True)
    assert not accepted["failed"] and accepted["notes"][0].startswith("ACCEPTED: ")


@pytest.mark.parametrize("asked", ["5", "+50%"])
def test_for_what_is_there_already_nobody_is_asked_for_room(scale, monkeypatch, asked):
    """By a run that goes on, or an undo that asks whether it is still so."""
    region = of_two()
    scale(region, asked)
    for name in ("quota", "addresses", "connections"):
        monkeypatch.setattr(room, name, lambda *_given: pytest.fail("asked for room"))
    region.service["launchType"] = "FARGATE"
    found = scale(region, asked, check=True, db_instance="db", connections_each=5)
    assert (found["failed"], found["already_so"]) == (False, True)


def test_connections_are_asked_of_the_database_that_is_named(scale, monkeypatch):
    asked = []
    monkeypatch.setattr(
        room, "connections", lambda _aws, *given: asked.append(given) or Room("connections", 5, 9, "", "")
    )
    refused = scale(of_two(), "4", db_instance="db", connections_each=5)
    assert (asked[0][0], *asked[0][2:]) == ("db", 5, 2)
    assert "2 more tasks" in refused["msg"] and "1 would fit" in refused["msg"]


def test_a_quota_that_is_reached_meanwhile_ends_the_wait(scale):
    def limited(region):
        event = {
            "id": "2",
            "message": "(service api) was unable to place a task. Reason: You've reached the limit on vCPUs",
        }
        region.service["events"].insert(0, event)

    region = of_two()
    region.later = [lambda _region: None, limited]
    result = scale(region, "6", wait_timeout=5)
    assert "serves with 6 tasks: (service api) was unable to place a task. Reason: You've reached" in result["msg"]


def test_tasks_that_fail_again_and_again_end_the_wait(scale):
    def fail(region):
        region.tasks += [stopped_task(len(region.tasks), started_by="ecs-svc/1")]

    region = of_two()
    region.later = [lambda _region: None, fail, fail, fail]
    assert "3 of its tasks failed one after the other" in scale(region, "4", wait_timeout=60)["msg"]


class Api:
    """In place of the recovery API; `answer` is raised where it is an exception."""

    def __init__(self, region, answer=None, applies=True):
        self.region, self.answer, self.applies, self.asked = region, answer, applies, []

    def scale(self, count, _reason):
        self.asked.append(count)
        if self.applies:
            self.region.service["desiredCount"] = count
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or {"status": "completed"}


def test_the_recovery_api_sets_the_count_and_nothing_else_does(scale, monkeypatch):
    region = of_two()
    api = Api(region)
    monkeypatch.setattr(ecs_capacity, "RecoveryApi", lambda *_given: api)
    assert not scale(region, "4", recovery_api=API)["failed"]
    assert api.asked == [4] and did(region) == ["tag_resource", "register_scalable_target"]


@pytest.mark.parametrize("answer", [Unreachable("it is down"), {"status": "failed", "error_message": "no credentials"}])
def test_aws_is_told_what_the_recovery_api_does_not_do(scale, monkeypatch, answer):
    region = of_two()
    monkeypatch.setattr(ecs_capacity, "RecoveryApi", lambda *_given: Api(region, answer, applies=False))
    result = scale(region, "4", recovery_api=API)
    assert not result["failed"] and where(region) == (4, 4, 10)
    assert any(note.startswith("through AWS, since the recovery API did not do it") for note in result["notes"])


@pytest.mark.parametrize("applies", [True, False])
def test_a_lost_answer_of_the_recovery_api_is_looked_up_in_ecs(scale, monkeypatch, applies):
    region = of_two()
    monkeypatch.setattr(ecs_capacity, "RecoveryApi", lambda *_given: Api(region, LostAnswer("no answer"), applies))
    assert not scale(region, "4", recovery_api=API)["failed"]
    assert where(region) == (4, 4, 10) and did(region).count("update_service") == (0 if applies else 1)


@pytest.mark.parametrize(("asked", "expected"), [("50%", "capacity is 50%"), ("-3", "-3 of 2 is less than none")])
def test_bad_input_gets_one_line_and_changes_nothing(scale, asked, expected):
    region = of_two()
    result = scale(region, asked)
    assert result["failed"] and expected in result["msg"] and region.changes == []
