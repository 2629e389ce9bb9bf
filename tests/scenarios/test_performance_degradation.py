# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""performance_degradation.yml: what is hot is named with the command that helps, and helped, so that answers are quick again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from killing import said
from runbook import Result
from world import EAST, World

# The processes of an instance that eat its processors.
EATERS = """
for each in /proc/[0-9]*; do
    case "$(tr '\\0' ' ' <$each/cmdline)" in "python3 report.py "*) echo ${each#/proc/};; esac
done
"""


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def shop(first_world: World) -> Iterator[World]:
    yield first_world
    first_world.sandbox.heal()
    first_world.sandbox.control("load", action="stop")


@pytest.fixture
def fleet(shop: World) -> World:
    """With a process that eats one of its instances."""
    batch = shop.sandbox.state["batch"]["instance_ids"][0]
    if "allows no file systems" in shop.sandbox.control("instance", instance=batch, script="true")["stderr"]:
        pytest.skip("this machine allows no file systems of its own")
    return shop


def instances(world: World) -> list[str]:
    name = world.sandbox.state["fleet"]["auto_scaling_group"]
    found = world.aws("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    return sorted(each["InstanceId"] for each in found["Instances"])


def eaters(world: World, instance: str) -> list[str]:
    return world.sandbox.control("instance", instance=instance, script=EATERS)["stdout"].split()


def relieve(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run("performance_degradation", *flags, **quick(world, variables))


def quick(world: World, variables: dict) -> dict:
    """With a shorter test of the response times than the inventory's."""
    state = world.sandbox.state
    served = state["fleet"] if variables.get("env") == "sandbox_fleet" else state
    test = {"name": "response times", "url": f"{served['public_url']}/health?check=db", "duration": 1, "concurrency": 3}
    return {"performance_tests": [test], **variables}


def ends(world: World) -> list[dict]:
    """Every command that was to end a process, as SSM lists them."""
    found = world.aws("ssm").list_commands(MaxResults=50)["Commands"]
    return [each for each in found if " process-end " in each["Comment"]]


def test_a_process_that_eats_one_instance_is_named_and_ended_by_the_command_that_was_printed(fleet: World) -> None:
    fleet.start_users(name=fleet.sandbox.state["fleet"]["public_name"])
    fleet.sandbox.fault("hot-process")
    first, second = instances(fleet)
    (pid,) = eaters(fleet, first)
    planned = relieve(fleet, "--check", "--diff", env="sandbox_fleet", remediate=True)
    assert planned.returncode == 0, planned.output
    text = " ".join(planned.output.split())
    assert f"END_PROCESS: {first} is at " in text and "which runs on no other instance" in text
    assert f"1. end {pid} python3 report.py of " in text
    assert "report-s3cret" not in json.dumps([planned.output, planned.timeline])
    # It has looked, by the one call that looking and ending have in common, and ended nothing.
    assert {name.partition(" ")[0] for name in planned.mutations} == {"ssm:SendCommand"}
    assert (eaters(fleet, first), ends(fleet)) == ([pid], [])

    command = re.search(r"-e env=(\S+) -e remedy=(\S+) -e part=(\S+) -e pid=(\S+) -e started=(\S+)", text)
    assert command is not None, planned.output
    variables = dict(zip(("env", "remedy", "part", "pid", "started"), command.groups(), strict=True))
    assert (variables["remedy"], variables["part"], variables["pid"]) == ("end_process", first, pid)
    fleet.sandbox.fault("api", service="ssm", action="SendCommand", kind="lost-answer", count=4)
    run = relieve(fleet, p99_seconds=1, **variables)
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    # No answer ever came, and still there is one command that ends it.
    assert (eaters(fleet, first), len(ends(fleet))) == ([], 1)
    assert instances(fleet) == [first, second]


@pytest.mark.soak
def test_killed_and_run_again_it_sends_one_command_and_a_process_that_does_not_listen_is_killed(fleet: World) -> None:
    fleet.sandbox.fault("hot-process", stubborn="yes")
    known, (first, _second) = len(ends(fleet)), instances(fleet)
    variables = quick(fleet, {"env": "sandbox_fleet", "remediate": True, "grace_seconds": 4})
    running = fleet.runbook.start("performance_degradation", **variables)
    running.until(lambda run: said("process-end")(run, fleet))
    running.kill()
    # The look of the second run finds it hot, or gone already; what was sent is waited for.
    again = fleet.runbook.run("performance_degradation", **variables)
    assert again.returncode == 0, again.output
    assert (eaters(fleet, first), len(ends(fleet))) == ([], known + 1)


def test_one_task_is_replaced_and_the_other_stays(shop: World) -> None:
    names = shop.names(EAST)
    where = {"cluster": names["cluster"], "serviceName": names["service"]}
    first, second = (arn.rpartition("/")[2] for arn in shop.aws("ecs").list_tasks(**where)["taskArns"])
    # What cannot be seen keeps nobody from what is asked for.
    shop.sandbox.fault("api", service="cloudwatch", action="GetMetricData", kind="denied")
    refused = relieve(shop, remedy="restart", part=first[:-1] + ("0" if first[-1] != "0" else "1"))
    shop.sandbox.heal("api")
    assert "missing permission cloudwatch:GetMetricData in us-east-1" in " ".join(refused.output.split())
    assert refused.returncode != 0 and "ECS knows no task" in refused.output
    assert refused.mutations == []
    run = relieve(shop, remedy="restart", part=first)
    assert run.returncode == 0, run.output
    assert run.mutations == ["ecs:StopTask us-east-1"]
    there = {arn.rpartition("/")[2] for arn in shop.aws("ecs").list_tasks(**where)["taskArns"]}
    assert second in there and first not in there and len(there) == 2
    assert shop.healthy_targets(EAST) == 2


@pytest.mark.soak
def test_one_instance_is_replaced_and_the_other_stays(fleet: World) -> None:
    first, second = instances(fleet)
    run = relieve(fleet, env="sandbox_fleet", remedy="restart", part=first)
    assert run.returncode == 0, run.output
    assert [name for name in run.mutations if "SendCommand" not in name] == [
        "autoscaling:TerminateInstanceInAutoScalingGroup us-east-1"
    ]
    there = instances(fleet)
    assert second in there and first not in there and len(there) == 2


def test_where_sessions_wait_in_the_database_nothing_of_the_service_is_changed(shop: World) -> None:
    shop.start_users()
    shop.sandbox.fault("blocking-chain", count=4)
    run = relieve(shop, remediate=True, p99_seconds=0.0001)
    assert run.returncode != 0
    text = " ".join(run.output.split())
    assert "DATABASE: 3 sessions of regami-db-primary wait for others" in text
    assert (
        "go on with ansible-playbook playbooks/kill_queries.yml -e env=sandbox -e kill=blocking; nothing was changed"
        in text
    )
    assert run.mutations == []
    refused = relieve(shop, remedy="scal")
    assert "remedy=scal is none for ecs: say -e remedy=NAME with one of scale, " in " ".join(refused.output.split())


@pytest.mark.soak
def test_more_of_it_and_then_larger_tasks_are_had_once_whatever_answers_get_lost(shop: World) -> None:
    shop.start_users()
    planned = relieve(shop, "--check", "--diff", remedy="scale")
    assert (planned.returncode, planned.mutations) == (0, []), planned.output
    assert "set the desired count of regami-service to 3" in planned.output
    lose(shop, ("application-autoscaling", "RegisterScalableTarget"), ("ecs", "UpdateService"))
    more = relieve(shop, remedy="scale")
    assert (more.returncode, more.report["outcome"]) == (0, "recovered"), more.output
    assert (shop.service(EAST)["desiredCount"], shop.healthy_targets(EAST)) == (3, 3)
    assert any("emergency_scale.yml --tags restore" in note for note in more.report["notes"])

    lose(shop, ("ecs", "RegisterTaskDefinition"), ("ecs", "UpdateService"))
    larger = relieve(shop, remedy="resize", task_memory=2048)
    assert (larger.returncode, larger.report["outcome"]) == (0, "recovered"), larger.output
    assert larger.mutations == [f"ecs:RegisterTaskDefinition {EAST}", f"ecs:UpdateService {EAST}"]
    assert (memory(shop), shop.service(EAST)["desiredCount"], shop.healthy_targets(EAST)) == ("2048", 3, 3)

    for asked in ({"remedy": "scale"}, {"remedy": "resize", "task_memory": 2048}):
        again = relieve(shop, **asked)
        assert (again.returncode, again.mutations) == (0, []), again.output
    back = shop.runbook.run("emergency_scale", "--tags", "restore")
    assert back.returncode == 0, back.output
    assert (memory(shop), shop.service(EAST)["desiredCount"]) == ("2048", 2)
    users = shop.stop_users()
    assert (users["failed_requests"], users["lost_writes"]) == (0, 0)


def lose(world: World, *calls: tuple[str, str]) -> None:
    for service, action in calls:
        world.sandbox.fault("api", service=service, action=action, kind="lost-answer", region=EAST, count=1)


def memory(world: World) -> str:
    """Of a task of the revision that the service is to run."""
    definition = world.service(EAST)["taskDefinition"]
    return world.aws("ecs").describe_task_definition(taskDefinition=definition)["taskDefinition"]["memory"]
