# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""asg_zone: its plan, out of a zone and back, killed or unanswered at any change."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import verb, waiting, zones
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer
from ansible_collections.sre.runbooks.plugins.modules import asg_zone
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

WHERE = {"s-a": "e1a", "s-b": "e1b"}


class Group:
    """A group of two instances that moves one of them at each third look, as AZRebalance does."""

    region = "us-east-1"

    def __init__(self):
        self.subnets, self.tags, self.suspended = ["s-a", "s-b"], {}, []
        self.instances = {"i-0": "e1a", "i-1": "e1b"}
        self.silent, self.missed, self.changes, self.looks = set(), [], [], 0
        self.die_at, self.how = None, LostAnswer("no answer")

    def describe(self):
        self.looks += 1
        allowed = [WHERE[subnet] for subnet in self.subnets]
        strayed = [name for name, zone in self.instances.items() if zone not in allowed]
        if strayed and self.looks % 3 == 0:
            del self.instances[strayed[0]]
            self.instances[f"i-{self.looks + 1}"] = allowed[0]
        return {
            "AutoScalingGroupName": "fleet",
            "DesiredCapacity": 2,
            "VPCZoneIdentifier": ",".join(self.subnets),
            "TargetGroupARNs": [],
            "SuspendedProcesses": [{"ProcessName": name} for name in self.suspended],
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
            "Instances": [
                {"InstanceId": name, "AvailabilityZone": zone, "LifecycleState": "InService", "HealthStatus": "Healthy"}
                for name, zone in self.instances.items()
            ],
        }

    def read(self, _api, operation, /, region=None, **arguments):
        if operation == "describe_auto_scaling_groups":
            return {"AutoScalingGroups": [self.describe()]}
        if operation == "describe_subnets":
            names = arguments["Filters"][0]["Values"]
            return {"Subnets": [{"SubnetId": name, "AvailabilityZone": WHERE[name]} for name in names]}
        return {"Activities": []}

    def change(self, _api, operation, /, region=None, **arguments):
        self.changes.append(operation)
        if operation == "update_auto_scaling_group":
            assert set(arguments) == {"AutoScalingGroupName", "VPCZoneIdentifier"}
            self.subnets = arguments["VPCZoneIdentifier"].split(",")
        elif operation == "delete_tags":
            self.tags.clear()
        else:
            self.tags = {tag["Key"]: tag["Value"] for tag in arguments["Tags"]}
        if self.die_at == len(self.changes):
            raise self.how


@pytest.fixture
def group(monkeypatch):
    found = Group()
    monkeypatch.setattr(verb, "Aws", lambda *_arguments: found)
    monkeypatch.setattr(waiting.time, "sleep", lambda _seconds: None)
    return found


def carry_out(check=False, **arguments):
    return run_main(asg_zone.main, check, auto_scaling_group="fleet", region="us-east-1", **arguments)


def test_out_and_back(group):
    planned = carry_out(True, zone="e1b")
    assert planned["changed"] and group.changes == [] and planned["after"]["subnets"] == ["s-a"]
    out = carry_out(zone="e1b")
    assert out["after"]["zones"] == {"e1a": 2} and group.tags == {zones.MARK: "e1b s-b"}
    assert carry_out(zone="e1b")["changed"] is False
    back = carry_out(state="back")
    assert group.subnets == ["s-a", "s-b"] and group.tags == {} and back["undo"][0]["arguments"]["zone"] == "e1b"
    assert carry_out(state="back")["changed"] is False


@pytest.mark.parametrize("how", [LostAnswer("no answer"), KeyboardInterrupt()])
@pytest.mark.parametrize("die_at", [1, 2, 3, 4])
def test_killed_or_unanswered_at_each_change(group, how, die_at):
    group.die_at, group.how = die_at, how
    for arguments in ({"zone": "e1b"}, {"state": "back"}):
        try:
            assert carry_out(**arguments)["failed"] is False
        except KeyboardInterrupt:
            assert carry_out(**arguments)["failed"] is False
    assert group.subnets == ["s-a", "s-b"] and group.tags == {}
    update = "update_auto_scaling_group"
    assert group.changes == ["create_or_update_tags", update, update, "delete_tags"]


@pytest.mark.parametrize("process", ["AZRebalance", "Launch", "Terminate"])
def test_a_group_that_would_not_move_is_refused(group, process):
    group.suspended = [process]
    refused = carry_out(zone="e1b")
    assert refused["failed"] and f"{process} of fleet is suspended" in refused["msg"] and group.changes == []


def test_one_without_subnets_is_refused(group):
    group.subnets = []
    assert "no subnets to take out" in carry_out(zone="e1b")["msg"]
