# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_zone: its plan, out of a zone and back, killed or unanswered at any change."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import verb, waiting, zones
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer
from ansible_collections.sre.runbooks.plugins.modules import ecs_zone
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

WHERE = {"s-a": "e1a", "s-b": "e1b"}
LINE = "e1b s-b"


class Region:
    """ECS with one service in two zones. `die_at`: the number of the change after which the run gets no answer, or is gone."""

    region = "us-east-1"

    def __init__(self):
        self.network = {"subnets": ["s-a", "s-b"], "securityGroups": ["sg"], "assignPublicIp": "DISABLED"}
        self.tags, self.deployments, self.controller = {}, ["d-0"], "ECS"
        self.silent, self.missed, self.changes, self.looks, self.free = set(), [], [], 0, 90
        self.asked_for_room = 0
        self.die_at, self.how = None, LostAnswer("no answer")

    def service(self):
        self.looks += 1
        done = self.looks % 3 == 0
        return {
            "serviceName": "api",
            "serviceArn": "arn:api",
            "taskDefinition": "arn:x/api:3",
            "desiredCount": 2,
            "runningCount": 2,
            "deploymentController": {"type": self.controller},
            "networkConfiguration": {"awsvpcConfiguration": copy.deepcopy(self.network)} if self.network else {},
            "deployments": [
                {
                    "id": self.deployments[-1],
                    "status": "PRIMARY",
                    "rolloutState": "COMPLETED" if done or len(self.deployments) == 1 else "IN_PROGRESS",
                    "taskDefinition": "arn:x/api:3",
                }
            ],
            "tags": [{"key": key, "value": value} for key, value in self.tags.items()],
        }

    def read(self, _api, operation, /, region=None, **arguments):
        if operation == "describe_services":
            return {"services": [self.service()]}
        if operation == "describe_subnets":
            self.asked_for_room += "SubnetIds" in arguments
            names = arguments.get("SubnetIds") or arguments["Filters"][0]["Values"]
            found = [name for name in names if name in WHERE]
            return {
                "Subnets": [
                    {"SubnetId": name, "AvailabilityZone": WHERE[name], "AvailableIpAddressCount": self.free}
                    for name in found
                ]
            }
        return {"list_tasks": {"taskArns": []}, "describe_tasks": {"tasks": []}}[operation]

    def change(self, _api, operation, /, region=None, **arguments):
        self.changes.append(operation)
        if operation == "tag_resource":
            self.tags |= {tag["key"]: tag["value"] for tag in arguments["tags"]}
        elif operation == "untag_resource":
            for key in arguments["tagKeys"]:
                self.tags.pop(key, None)
        else:
            assert set(arguments) == {"cluster", "service", "networkConfiguration"}  # no task definition, no count
            self.network = arguments["networkConfiguration"]["awsvpcConfiguration"]
            self.deployments.append(f"d-{len(self.deployments)}")
        if self.die_at == len(self.changes):
            raise self.how
        return {"service": self.service()}


@pytest.fixture
def region(monkeypatch):
    found = Region()
    monkeypatch.setattr(verb, "Aws", lambda *_arguments: found)
    monkeypatch.setattr(waiting.time, "sleep", lambda _seconds: None)
    return found


def carry_out(check=False, **arguments):
    given = {"cluster": "c", "service": "api", "region": "us-east-1", **arguments}
    return run_main(ecs_zone.main, check, **given)


def test_out_and_back(region):
    planned = carry_out(True, zone="e1b")
    assert planned["changed"] and region.changes == [] and planned["after"]["subnets"] == ["s-a"]
    out = carry_out(zone="e1b")
    assert out["after"]["left"] == LINE == region.tags[zones.MARK]
    assert region.network == {"subnets": ["s-a"], "securityGroups": ["sg"], "assignPublicIp": "DISABLED"}
    assert out["undo"][0]["arguments"]["state"] == "back"
    asked = region.asked_for_room
    assert (carry_out(zone="e1b")["changed"], region.asked_for_room) == (False, asked)
    back = carry_out(state="back")
    assert back["changed"] and sorted(region.network["subnets"]) == ["s-a", "s-b"] and region.tags == {}
    assert back["undo"][0]["arguments"]["zone"] == "e1b"
    assert carry_out(state="back")["changed"] is False


@pytest.mark.parametrize("how", [LostAnswer("no answer"), KeyboardInterrupt()])
@pytest.mark.parametrize("die_at", [1, 2, 3, 4])
def test_killed_or_unanswered_at_each_change(region, how, die_at):
    region.die_at, region.how = die_at, how
    for arguments in ({"zone": "e1b"}, {"state": "back"}):
        try:
            assert carry_out(**arguments)["failed"] is False
        except KeyboardInterrupt:
            assert carry_out(**arguments)["failed"] is False
    assert sorted(region.network["subnets"]) == ["s-a", "s-b"] and region.tags == {}
    assert region.changes == ["tag_resource", "update_service", "update_service", "untag_resource"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"controller": "CODE_DEPLOY"}, "deployed by CODE_DEPLOY"),
        ({"network": {}}, "no subnets of its own"),
        ({"free": 1}, "1 would fit; accept_shortage=true"),
        ({"network": {"subnets": ["s-b"]}}, "nowhere to go"),
    ],
)
def test_what_is_refused_before_any_change(region, changes, told):
    for name, value in changes.items():
        setattr(region, name, value)
    refused = carry_out(zone="e1b")
    assert refused["failed"] and told in refused["msg"] and region.changes == []
