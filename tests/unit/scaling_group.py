# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Auto Scaling group in memory: it takes the place of `Aws` and writes down each change."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter

from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer

NAME = "fleet"


class Fleet:
    """One Auto Scaling group of two instances in 2 to 6, in memory; `later` is done before each further look at it."""

    region = "us-west-2"

    def __init__(self):
        self.silent = set()
        self.missed = []
        self.numbers = itertools.count()
        self.size = {"MinSize": 2, "MaxSize": 6, "DesiredCapacity": 2}
        self.instances, self.tags, self.schedules, self.activities, self.suspended = [], {}, {}, [], []
        self.later, self.changes = [], []
        self.lose, self.drop = Counter(), Counter()
        self.follow()

    def follow(self):
        """Launch and terminate as the capacity says."""
        del self.instances[self.size["DesiredCapacity"] :]
        while len(self.instances) < self.size["DesiredCapacity"]:
            self.launch()

    def launch(self, **changes):
        self.instances.append(
            {
                "InstanceId": f"i-{next(self.numbers)}",
                "InstanceType": "t3.small",
                "LifecycleState": "InService",
                "HealthStatus": "Healthy",
            }
            | changes
        )

    def read(self, _service, operation, /, **arguments):
        return getattr(self, operation)(**arguments)

    def change(self, service, operation, /, **arguments):
        self.changes.append((operation, arguments))
        if self.drop[operation]:
            self.drop[operation] -= 1
            raise LostAnswer(f"{service}:{operation} got no answer")
        answer = getattr(self, operation)(**arguments)
        if self.lose[operation]:
            self.lose[operation] -= 1
            raise LostAnswer(f"{service}:{operation} got no answer")
        return answer

    def describe_auto_scaling_groups(self, AutoScalingGroupNames=(), MaxRecords=100):
        if self.later and self.changes:
            self.later.pop(0)(self)
        group = dict(
            self.size,
            AutoScalingGroupName=NAME,
            Instances=list(self.instances),
            VPCZoneIdentifier="subnet-a",
            TargetGroupARNs=["arn:group"],
            SuspendedProcesses=[{"ProcessName": name} for name in self.suspended],
            Tags=[{"Key": key, "Value": value} for key, value in self.tags.items()],
        )
        return {"AutoScalingGroups": [group] if NAME in AutoScalingGroupNames or not AutoScalingGroupNames else []}

    def describe_scheduled_actions(self, **_arguments):
        return {
            "ScheduledUpdateGroupActions": [
                dict(each, StartTime=datetime.datetime.fromisoformat(each["StartTime"]))
                for each in self.schedules.values()
            ]
        }

    def describe_scaling_activities(self, **_arguments):
        return {"Activities": list(self.activities)}

    def describe_instance_types(self, InstanceTypes):
        return {"InstanceTypes": [{"VCpuInfo": {"DefaultVCpus": 2}} for _name in InstanceTypes]}

    def get_service_quota(self, **_arguments):
        return {"Quota": {"Value": 64.0}}

    def describe_subnets(self, SubnetIds):
        return {"Subnets": [{"SubnetId": name, "AvailableIpAddressCount": 99} for name in SubnetIds]}

    def describe_target_health(self, **_arguments):
        states = {"InService": "healthy", "Pending": "unhealthy"}
        return {
            "TargetHealthDescriptions": [
                {
                    "Target": {"Id": each["InstanceId"], "Port": 80},
                    "TargetHealth": {"State": states.get(each["LifecycleState"], "draining")},
                }
                for each in self.instances
            ]
        }

    def update_auto_scaling_group(self, AutoScalingGroupName, **size):
        self.size |= size

    def terminate_instance_in_auto_scaling_group(self, InstanceId, ShouldDecrementDesiredCapacity):
        assert not ShouldDecrementDesiredCapacity
        next(each for each in self.instances if each["InstanceId"] == InstanceId)["LifecycleState"] = "Terminating"
        about = {"ActivityId": f"a-{InstanceId}", "StatusCode": "InProgress"}
        self.activities.insert(0, about | {"Description": f"Terminating EC2 instance: {InstanceId}"})

    def replace(self):
        """What is leaving is gone, and others are there instead."""
        self.instances = [each for each in self.instances if each["LifecycleState"] != "Terminating"]
        self.follow()

    def create_or_update_tags(self, Tags):
        self.tags |= {tag["Key"]: tag["Value"] for tag in Tags}

    def delete_tags(self, Tags):
        for tag in Tags:
            self.tags.pop(tag["Key"], None)

    def put_scheduled_update_group_action(self, **action):
        self.schedules[action["ScheduledActionName"]] = action

    def delete_scheduled_action(self, ScheduledActionName, **_arguments):
        del self.schedules[ScheduledActionName]
