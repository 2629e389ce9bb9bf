# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""asg_capacity: its plan, and the exact changes it makes, in order."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import room
from ansible_collections.sre.runbooks.plugins.module_utils.room import Room
from ansible_collections.sre.runbooks.plugins.module_utils.temporary_capacity import MARK
from ansible_collections.sre.runbooks.plugins.modules import asg_capacity
from ansible_collections.sre.runbooks.tests.unit.ecs_region import carry_out
from ansible_collections.sre.runbooks.tests.unit.scaling_group import NAME, Fleet


@pytest.fixture
def fleet():
    fleet = Fleet()
    fleet.later = [lambda _fleet: None] + [Fleet.follow] * 3
    return fleet


@pytest.fixture
def scale(monkeypatch):
    def run(fleet, capacity=None, **given):
        given = {"restore": capacity is None, "capacity": capacity, "auto_scaling_group": NAME} | given
        return carry_out(monkeypatch, asg_capacity, asg_capacity.AsgCapacity, fleet, **given)

    return run


def did(fleet):
    return [name for name, _arguments in fleet.changes]


def sizes(fleet):
    return fleet.size["DesiredCapacity"], fleet.size["MinSize"], fleet.size["MaxSize"]


def test_more_is_written_down_first_and_sent_with_its_bounds_at_once(scale, fleet):
    result = scale(fleet, "+50%")
    assert not result["failed"] and sizes(fleet) == (3, 3, 6)
    assert did(fleet) == ["create_or_update_tags", "update_auto_scaling_group"]
    assert fleet.tags == {MARK: "2 in 2-6 to 3 in 3-6"}
    assert fleet.changes[0][1]["Tags"][0]["PropagateAtLaunch"] is False
    assert result["undo"][0]["arguments"] == {"auto_scaling_group": NAME, "region": "us-west-2", "restore": True}


def test_the_same_again_changes_nothing_and_restoring_ends_it(scale, fleet):
    scale(fleet, "+50%", give_back_after=60)
    fleet.changes.clear()
    again = scale(fleet, "+50%", give_back_after=60)
    assert (fleet.changes, again["changed"]) == ([], False)
    assert not scale(fleet)["failed"]
    assert sizes(fleet) == (2, 2, 6) and fleet.tags == {} and fleet.schedules == {}
    assert did(fleet) == ["delete_scheduled_action", "update_auto_scaling_group", "delete_tags"]


def test_the_return_is_scheduled_with_the_former_bounds(scale, fleet):
    scale(fleet, "6", give_back_after=60)
    action = fleet.schedules[asg_capacity.GIVE_BACK]
    assert (action["MinSize"], action["MaxSize"]) == (2, 6) and "DesiredCapacity" not in action


@pytest.mark.parametrize("way", ["lose", "drop"])
@pytest.mark.parametrize(
    "operation", ["create_or_update_tags", "put_scheduled_update_group_action", "update_auto_scaling_group"]
)
def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(scale, fleet, way, operation):
    getattr(fleet, way)[operation] = 1
    assert not scale(fleet, "+2", give_back_after=60)["failed"]
    assert sizes(fleet) == (4, 4, 6)
    assert did(fleet).count(operation) == (1 if way == "lose" else 2)


def test_check_mode_shows_the_plan_and_changes_nothing(scale, fleet):
    result = scale(fleet, "+2", check=True)
    assert fleet.changes == []
    assert [step["what"] for step in result["steps"]] == [
        "write down on fleet what it had",
        "give fleet 4 in 4-6 instances",
        "wait until fleet serves with 4 instances",
    ]


def test_fewer_are_no_instances_that_failed(scale, fleet):
    fleet.size["DesiredCapacity"] = 6
    fleet.follow()
    assert not scale(fleet, "2")["failed"]
    assert sizes(fleet) == (2, 2, 2)


def test_what_does_not_fit_is_refused_before_any_change(scale, fleet, monkeypatch):
    monkeypatch.setattr(room, "quota", lambda *_given: Room("vCPUs", 2, 2, "62 of 64 are used", "ask for more"))
    refused = scale(fleet, "+2")
    assert fleet.changes == []
    assert refused["msg"].startswith("2 more instances of fleet take 4 vCPUs, and 2 are left (62 of 64 are used)")


def test_for_what_is_there_already_nobody_is_asked_for_room(scale, fleet, monkeypatch):
    scale(fleet, "+50%")
    monkeypatch.setattr(room, "quota", lambda *_given: pytest.fail("asked for room"))
    assert scale(fleet, "+50%", check=True)["already_so"]


def test_instances_of_another_kind_are_not_counted_against_the_wrong_quota(scale, fleet):
    fleet.instances[0]["InstanceType"] = "g5.xlarge"
    result = scale(fleet, "+1")
    assert not result["failed"] and "g5.xlarge, t3.small may count against other quotas" in result["notes"][0]


@pytest.mark.parametrize(("process", "asked"), [("Launch", "+1"), ("AddToLoadBalancer", "+1"), ("Terminate", "-1")])
def test_a_suspended_process_refuses(scale, fleet, process, asked):
    fleet.suspended = [process]
    assert f"{process} of fleet is suspended" in scale(fleet, asked)["msg"] and fleet.changes == []


def failing(message):
    def fail(fleet):
        number = len(fleet.activities)
        fleet.activities.insert(0, {"ActivityId": f"new{number}", "StatusCode": "Failed", "StatusMessage": message})

    return fail


def test_a_launch_that_no_other_will_overcome_ends_the_wait(scale, fleet):
    fleet.activities = [{"ActivityId": "old", "StatusCode": "Failed", "StatusMessage": "VcpuLimitExceeded"}]
    fleet.later = [lambda _fleet: None, failing("You have requested more vCPU capacity (VcpuLimitExceeded)")]
    result = scale(fleet, "+1", wait_timeout=60)
    assert "1 launches failed: You have requested more vCPU capacity" in result["msg"]


def test_a_launch_that_may_do_better_next_time_does_not(scale, fleet):
    fleet.later = [lambda _fleet: None, failing("InsufficientInstanceCapacity"), Fleet.follow, Fleet.follow]
    assert not scale(fleet, "+1", wait_timeout=60)["failed"]


def test_instances_that_go_again_end_the_wait(scale, fleet):
    def replaced(fleet):
        del fleet.instances[2:]
        fleet.launch(LifecycleState="Pending")

    fleet.later = [lambda _fleet: None] + [replaced] * 5
    assert "3 instances went again, one after the other" in scale(fleet, "+1", wait_timeout=60)["msg"]


def test_a_capacity_that_something_else_sets_ends_the_wait(scale, fleet):
    fleet.later = [lambda _fleet: None, lambda fleet: fleet.size.update(DesiredCapacity=2)]
    assert "something else set the capacity of fleet to 2" in scale(fleet, "+1", wait_timeout=60)["msg"]


def test_a_typo_is_answered_with_what_there_is(scale, fleet):
    refused = scale(fleet, "+1", auto_scaling_group="flet")
    assert "there is no Auto Scaling group flet in us-west-2 (there are: fleet)" in refused["msg"]
