# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""asg_replace_instance: its plan, and that it terminates one instance once whatever becomes of the answers."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.modules import asg_replace_instance
from ansible_collections.sre.runbooks.tests.unit.ecs_region import carry_out
from ansible_collections.sre.runbooks.tests.unit.scaling_group import NAME, Fleet

TERMINATE = (
    "terminate_instance_in_auto_scaling_group",
    {"InstanceId": "i-1", "ShouldDecrementDesiredCapacity": False},
)


@pytest.fixture
def fleet():
    fleet = Fleet()
    fleet.later = [lambda _fleet: None, lambda _fleet: None, *([Fleet.replace] * 3)]
    return fleet


@pytest.fixture
def replace(monkeypatch):
    def run(fleet, **given):
        given = {"auto_scaling_group": NAME, "instance_id": "i-1"} | given
        verb = asg_replace_instance.AsgReplaceInstance
        return carry_out(monkeypatch, asg_replace_instance, verb, fleet, **given)

    return run


def test_one_goes_and_another_serves_in_its_place(fleet, replace):
    result = replace(fleet)
    assert not result["failed"], result
    assert fleet.changes == [TERMINATE]
    assert result["changed"] and "launched another" in result["undo"][0]["instead"]
    assert result["before"] == {"instance": "InService", "in_service": 2, "desired": 2}
    assert result["after"] == {"instance": None, "in_service": 2, "desired": 2}
    assert [each["InstanceId"] for each in fleet.instances] == ["i-0", "i-2"]


def test_check_mode_plans_and_sends_nothing(fleet, replace):
    result = replace(fleet, check=True)
    assert (fleet.changes, [step["do"] for step in result["steps"]]) == ([], ["terminate", "settle"])


@pytest.mark.parametrize("trouble", ["lose", "drop"])
def test_a_lost_answer_terminates_no_second_one(fleet, replace, trouble):
    getattr(fleet, trouble)[TERMINATE[0]] = 1
    result = replace(fleet)
    assert not result["failed"], result
    assert fleet.changes == [TERMINATE] * (1 if trouble == "lose" else 2)
    assert [each["InstanceId"] for each in fleet.instances] == ["i-0", "i-2"]


def test_a_run_that_was_killed_is_gone_on_with(fleet, replace):
    fleet.terminate_instance_in_auto_scaling_group("i-1", False)
    fleet.later, looks = [], iter([Fleet.replace])
    describe = fleet.describe_auto_scaling_groups

    def describe_later(**arguments):
        answer = describe(**arguments)
        next(looks, lambda _fleet: None)(fleet)
        return answer

    fleet.describe_auto_scaling_groups = describe_later
    result = replace(fleet)
    assert not result["failed"], result
    assert (fleet.changes, result["changed"]) == ([], False)
    assert [step["do"] for step in result["steps"]] == ["settle"]
    assert replace(fleet)["steps"] == []


@pytest.mark.parametrize(
    ("change", "given", "complaint"),
    [
        ({}, {"instance_id": "i-7"}, "fleet has no instance i-7 (there are: i-1, i-0): check instance_id"),
        (
            {"suspended": ["Launch"]},
            {},
            "Launch of fleet is suspended, so no other instance would serve in the place of i-1",
        ),
        ({}, {"auto_scaling_group": "flet"}, "there is no Auto Scaling group flet"),
    ],
)
def test_it_refuses_with_a_way_out(fleet, replace, change, given, complaint):
    vars(fleet).update(change)
    result = replace(fleet, **given)
    assert result["failed"] and complaint in result["msg"]
    assert fleet.changes == []


def test_the_only_one_that_serves_is_not_terminated(fleet, replace):
    fleet.instances[0]["LifecycleState"] = "Pending"
    result = replace(fleet)
    assert (
        "i-1 is the only instance of fleet that serves: sre.runbooks.asg_capacity gives it another one first"
        in result["msg"]
    )
    assert fleet.changes == []


def test_a_group_that_can_launch_no_other_one_ends_the_wait(fleet, replace):
    failure = {"StatusCode": "Failed", "StatusMessage": "Launching failed. (VcpuLimitExceeded)"}
    fleet.later = [lambda fleet: fleet.activities.append(failure | {"ActivityId": "a-1"})]
    result = replace(fleet)
    assert "fleet does not come to 2 instances that serve: 1 launches failed" in result["msg"]


def test_one_that_is_still_shown_in_service_is_not_taken_for_its_replacement(fleet, replace):
    """What AWS shows may be older than what it answered."""

    def begin(fleet):
        Fleet.terminate_instance_in_auto_scaling_group(fleet, "i-1", False)

    fleet.terminate_instance_in_auto_scaling_group = lambda **_arguments: None
    fleet.later = [lambda _fleet: None, lambda _fleet: None, begin, *([Fleet.replace] * 3)]
    result = replace(fleet)
    assert not result["failed"], result
    assert [each["InstanceId"] for each in fleet.instances] == ["i-0", "i-2"]
