# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_task_size: its plan, the exact changes it makes, and sizes that there are."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import task_size
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules import ecs_task_size
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    CLUSTER,
    REGION,
    SERVICE,
    Region,
    carry_out,
    definition,
    revision,
)


@pytest.fixture
def give(monkeypatch):
    def run(region, **given):
        return carry_out(monkeypatch, ecs_task_size, ecs_task_size.EcsTaskSize, region, **given)

    return run


def fargate(**more):
    region = Region(**more)
    region.service["launchType"] = "FARGATE"
    return region


class Instances(Region):
    """A service on container instances, of which so much memory is left."""

    def __init__(self, *left):
        super().__init__(desired=2)
        self.service["launchType"], self._left = "EC2", left
        limits = {"cpu": None, "memory": None, "requiresCompatibilities": ["EC2"]}
        container = definition(3)["containerDefinitions"][0] | {"memory": 512, "memoryReservation": 256}
        self.revisions = {3: definition(3, **limits, containerDefinitions=[container])}
        self.later.append(lambda region: region.service["deployments"][0].update(rolloutState="COMPLETED"))

    def list_container_instances(self, cluster, status):
        return {"containerInstanceArns": [f"arn:{number}" for number in range(len(self._left))]}

    def describe_container_instances(self, cluster, containerInstances):
        return {
            "containerInstances": [
                {"ec2InstanceId": f"i-{at}", "remainingResources": [{"name": "MEMORY", "integerValue": left}]}
                for at, left in enumerate(self._left)
            ]
        }


def test_more_memory_is_one_revision_and_one_deployment_without_a_count(give):
    region = fargate()
    region.revisions[3]["containerDefinitions"][0] |= {"memory": 400}
    result = give(region, memory="+100%")
    (register, update) = region.changes
    assert register[0] == "register_task_definition"
    assert (register[1]["cpu"], register[1]["memory"]) == ("256", "1024")
    assert register[1]["containerDefinitions"][0]["memory"] == 800
    assert register[1]["containerDefinitions"][0]["secrets"]
    assert {"key": task_size.MARK, "value": "512 to 1024"} in register[1]["tags"]
    assert update == ("update_service", {"cluster": CLUSTER, "service": SERVICE, "taskDefinition": revision(4)})
    assert result["before"] | {"task_definition": "regami-api:4", "memory": 1024} == result["after"]
    assert result["undo"] == [
        {
            "verb": "sre.runbooks.ecs_task_size",
            "arguments": {
                "cluster": CLUSTER,
                "service": SERVICE,
                "region": REGION,
                "task_definition": "regami-api:3",
            },
        }
    ]


def test_the_same_again_is_not_twice_as_much_again(give):
    region = fargate()
    give(region, memory="+100%")
    region.changes.clear()
    again = give(region, memory="+100%")
    assert (region.changes, again["changed"], again["after"]["memory"]) == ([], False, 1024)
    more = give(region, memory="+300%")
    assert more["after"]["memory"] == 2048


def test_a_lost_answer_to_the_registration_leaves_no_duplicate(give):
    region = fargate()
    region.lose["register_task_definition"] = 1
    result = give(region, memory="1024")
    assert [name for name, _arguments in region.changes] == ["register_task_definition", "update_service"]
    assert result["after"]["memory"] == 1024


def test_check_mode_and_undo(give):
    region = fargate()
    planned = give(region, memory="1500", check=True)
    assert region.changes == []
    assert planned["steps"][0]["what"] == "register a revision of regami-api with 256 CPU units and 2048 MiB"
    assert planned["notes"] == [
        "a task of regami-api had 512 MiB before; a deployment of the pipeline brings that back"
    ]
    (undo,) = give(region, memory="1500")["undo"]
    arguments = {key: value for key, value in undo["arguments"].items() if key != "region"}
    assert give(region, **arguments)["after"]["task_definition"] == "regami-api:3"


def test_container_instances_must_have_room_for_one(give):
    refused = give(Instances(700, 900), memory="1024")
    assert refused["failed"]
    assert (
        "1 more tasks of regami-service-secondary take 1024 MiB of memory of one container instance, and 900 are left"
        in (refused["msg"])
    )
    region = Instances(700, 900)
    taken = give(region, memory="1024", accept_shortage=True)
    assert taken["notes"][0].startswith("ACCEPTED: ")
    container = region.changes[0][1]["containerDefinitions"][0]
    assert (container["memory"], container["memoryReservation"]) == (1024, 512)
    assert not region.changes[0][1].get("memory")
    roomy = Instances(700, 2000)
    assert give(roomy, memory="1024")["after"]["memory"] == 1024


@pytest.mark.parametrize(
    ("memory", "cpu", "given", "size"),
    [
        (512, 256, False, (256, 512)),
        (1500, 256, False, (256, 2048)),
        (3000, 256, False, (512, 3072)),
        (9000, 1024, False, (2048, 9216)),
        (1, 512, True, (512, 1024)),
        (121000, 256, False, (16384, 122880)),
    ],
)
def test_sizes_of_fargate(memory, cpu, given, size):
    assert tuple(task_size.fitting(memory, cpu, given).values()) == size


@pytest.mark.parametrize(
    ("memory", "cpu", "given", "complaint"),
    [
        (4096, 256, True, r"256 CPU units with 4096 MiB of memory \(with these it has 512 to 2048 MiB\)"),
        (512, 300, True, "with these it has none"),
        (200000, 256, False, "122880 are the most"),
    ],
)
def test_sizes_that_fargate_has_not(memory, cpu, given, complaint):
    with pytest.raises(Refusal, match=complaint):
        task_size.fitting(memory, cpu, given)


def test_no_limit_to_raise_is_refused(give):
    region = Instances(9000)
    del region.revisions[3]["containerDefinitions"][0]["memory"]
    del region.revisions[3]["containerDefinitions"][0]["memoryReservation"]
    assert "has no memory limit" in give(region, memory="+100%")["msg"]
