# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_replace_task: its plan, and that it stops one task once whatever becomes of the answers."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.modules import ecs_replace_task
from ansible_collections.sre.runbooks.tests.unit.ecs_region import ARN, CLUSTER, SERVICE, Region, carry_out


def task(number, **changes):
    about = {"desiredStatus": "RUNNING", "lastStatus": "RUNNING", "group": f"service:{SERVICE}"}
    return {"taskArn": f"{ARN}task/{CLUSTER}/{number}", **about, **changes}


class Tasks(Region):
    """Two tasks, of which one is stopped, and another begins in the third look after that."""

    def __init__(self, count=2):
        super().__init__(desired=count)
        self.tasks = [task(number) for number in range(1, count + 1)]
        self.later = [lambda _region: None, lambda _region: None, Tasks.begin]

    def describe_tasks(self, cluster, tasks):
        short = {name.rpartition("/")[2] for name in tasks}
        return {"tasks": [each for each in self.tasks if each["taskArn"].rpartition("/")[2] in short]}

    def stop_task(self, cluster, task, reason):
        found = next(each for each in self.tasks if each["taskArn"].endswith(f"/{task}"))
        found |= {"desiredStatus": "STOPPED", "lastStatus": "STOPPED", "stopCode": "UserInitiated"}
        self.targets[0] = "draining"
        self.service["runningCount"] -= 1
        return {"task": found}

    def begin(self):
        self.tasks.append(task(9))
        self.targets.append("healthy")
        self.service["runningCount"] += 1


@pytest.fixture
def replace(monkeypatch):
    def run(region, task="1", **given):
        verb = ecs_replace_task.EcsReplaceTask
        return carry_out(monkeypatch, ecs_replace_task, verb, region, task=task, **given)

    return run


def stops(region):
    return [arguments["task"] for name, arguments in region.changes if name == "stop_task"]


def test_one_stops_and_another_serves_in_its_place(replace):
    region = Tasks()
    result = replace(region)
    assert not result["failed"], result
    assert (stops(region), len(region.changes)) == (["1"], 1)
    assert result["changed"] and "started another" in result["undo"][0]["instead"]
    assert result["before"] == {"task": "RUNNING", "running": 2, "desired": 2}
    assert result["after"] == {"task": "STOPPED", "running": 2, "desired": 2}
    assert len(region.later) == 0, "it did not wait for the other one"
    again = replace(region)
    assert (again["changed"], again["steps"], len(region.changes)) == (False, [], 1)


def test_check_mode_plans_and_sends_nothing(replace):
    region = Tasks()
    result = replace(region, check=True)
    assert (region.changes, [step["do"] for step in result["steps"]]) == ([], ["stop", "settle"])


@pytest.mark.parametrize("trouble", ["lose", "drop"])
def test_a_lost_answer_stops_no_second_one(replace, trouble):
    region = Tasks()
    getattr(region, trouble)["stop_task"] = 1
    result = replace(region)
    assert not result["failed"], result
    assert stops(region) == ["1"] * (1 if trouble == "lose" else 2)
    assert [each["taskArn"][-1] for each in region.tasks if each["lastStatus"] == "RUNNING"] == ["2", "9"]


def test_a_run_that_was_killed_waits_for_the_replacement(replace):
    region = Tasks()
    region.stop_task(CLUSTER, "1", "")
    looks = iter([None, None, region.begin])
    describe = region.describe_services
    region.describe_services = lambda **arguments: ((next(looks, None) or (lambda: None))(), describe(**arguments))[1]
    result = replace(region)
    assert not result["failed"], result
    assert (region.changes, [step["do"] for step in result["steps"]]) == ([], ["settle"])


@pytest.mark.parametrize(
    ("change", "named", "complaint"),
    [
        ({"group": "service:mailer"}, "1", "task 1 is of service:mailer, not of regami-service-secondary"),
        (
            {},
            "7",
            "ECS knows no task 7 in regami-cluster-secondary (there are: 1, 2): check the task",
        ),
    ],
)
def test_it_refuses_with_a_way_out(replace, change, named, complaint):
    region = Tasks()
    region.tasks[0] |= change
    result = replace(region, task=named)
    assert result["failed"] and complaint in result["msg"]
    assert region.changes == []


def test_the_only_task_is_not_stopped(replace):
    region = Tasks(count=1)
    result = replace(region)
    assert (
        "is the only task of regami-service-secondary that runs: sre.runbooks.ecs_restart starts another one"
        in result["msg"]
    )
    assert region.changes == []


def test_without_a_load_balancer_the_replacement_must_run(replace):
    region = Tasks()
    region.service["loadBalancers"] = []
    result = replace(region)
    assert not result["failed"], result
    assert [each["taskArn"][-1] for each in region.tasks if each["lastStatus"] == "RUNNING"] == ["2", "9"]
