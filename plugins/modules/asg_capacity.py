#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: asg_capacity
version_added: 0.1.0
short_description: Give an EC2 Auto Scaling group more instances, or fewer, for as long as an emergency lasts
description:
  - Sets the desired capacity of a group together with its minimum and maximum, and waits until that many instances are in
    service and healthy in each of its target groups. A larger capacity lifts the minimum to it, a smaller one lowers the
    maximum to it as well, or the next scaling activity would undo it.
  - Before more is promised, the vCPU quota of EC2, the free addresses of the subnets and the connections of the database are
    looked at. Too little refuses before any change and says how many would fit.
  - "What there was before is written on the group, as the tag C(sre.runbooks/scaled). O(restore) goes back to it, hours later
    and from any machine; O(give_back_after) has the group do it by itself."
  - The wait ends early when instances cannot be launched or do not become healthy again and again, or when something else
    changes the capacity, with the reasons that AWS gives.
  - "B(Risk:) fewer instances carry less load; V(0) takes the service off the air."
options:
  auto_scaling_group:
    description: Name of the Auto Scaling group, in O(region).
    type: str
    required: true
  give_back_after:
    description:
      - Minutes after which a scheduled action gives the former bounds back. The capacity follows when the group's policies take
        it, and at once where it is outside of them. The same task again does not put that off.
      - Without it the capacity stays until O(restore).
    type: int
extends_documentation_fragment:
  - sre.runbooks.temporary_capacity
  - sre.runbooks.database_login
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(autoscaling:DescribeAutoScalingGroups), C(autoscaling:UpdateAutoScalingGroup),
    C(autoscaling:CreateOrUpdateTags), C(autoscaling:DeleteTags), C(autoscaling:DescribeScheduledActions),
    C(autoscaling:PutScheduledUpdateGroupAction), C(autoscaling:DeleteScheduledAction),
    C(autoscaling:DescribeScalingActivities), C(elasticloadbalancing:DescribeTargetHealth), C(ec2:DescribeInstanceTypes),
    C(ec2:DescribeSubnets), C(servicequotas:GetServiceQuota), C(servicequotas:GetAWSDefaultServiceQuota),
    C(cloudwatch:GetMetricStatistics) and C(rds:DescribeDBInstances). A quota or a subnet that may not be read is noted and
    does not refuse.
seealso:
  - module: sre.runbooks.asg_rollback
"""

EXAMPLES = r"""
- name: Two instances more, for two hours
  sre.runbooks.asg_capacity:
    auto_scaling_group: regami-fleet
    region: us-east-1
    capacity: +2
    give_back_after: 120
    lease: "{{ lock.lease }}"

- name: What the group had before
  sre.runbooks.asg_capacity:
    auto_scaling_group: regami-fleet
    region: us-east-1
    restore: true
"""

RETURN = r"""
before:
  description:
    - The group as found. C(in_service) counts its healthy instances, C(scaled) is what it remembers of a capacity that was given
      for a while.
  returned: unless refused
  type: dict
  sample: {desired: 2, in_service: 2, floor: 2, ceiling: 6, scaled: null}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {desired: 4, in_service: 4, floor: 4, ceiling: 6, scaled: 2 in 2-6 to 4 in 4-6}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: keep, what: write down on regami-fleet what it had, before: null, after: 2 in 2-6 to 4 in 4-6}
    - {do: resize, what: give regami-fleet 4 in 4-6 instances, before: 2 in 2-6, after: 4 in 4-6}
    - {do: settle, what: wait until regami-fleet serves with 4 instances, before: null, after: null}
undo:
  description:
    - The same verb, restoring, or with the former capacity where that was one for a while, too. Empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.asg_capacity
      arguments: {auto_scaling_group: regami-fleet, region: us-east-1, restore: true}
notes:
  description: What a person should know, for example until when the capacity lasts, and what could not be checked.
  returned: success
  type: list
  elements: str
  sample: ["regami-fleet keeps this until it is given back: playbooks/emergency_scale.yml --tags restore (restore=true)"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 141.7
"""

import re
import time

from ansible_collections.sre.runbooks.plugins.module_utils import group_serving, instance_refresh, room
from ansible_collections.sre.runbooks.plugins.module_utils import temporary_capacity as temporary
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.temporary_capacity import Size
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# On-Demand instances of the Standard families, counted in vCPUs.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits
STANDARD = re.compile(r"[acdhimrtz]\d")
STANDARD_QUOTA = "L-1216C47A"
# The scheduled action that gives bounds back.
GIVE_BACK = "sre.runbooks-give-back"

SERVICES = (
    "autoscaling",
    "ec2",
    "elbv2",
    "service-quotas",
    "cloudwatch",
    "rds",
    "secretsmanager",
    "dynamodb",
)
ARGUMENTS = dict(
    temporary.ARGUMENTS,
    **LOGIN_ARGUMENTS,
    auto_scaling_group=dict(type="str", required=True),
    give_back_after=dict(type="int"),
)


class AsgCapacity(Verb):
    """Another capacity, and the bounds that let it last, until it is given back."""

    def __init__(self, module):
        super().__init__(module)
        self.name = self.params["auto_scaling_group"]
        self.group = instance_refresh.Group(self.aws, self.name)
        self.known = None  # ids of the scaling activities of before

    def observe(self):
        seen = together(
            group=self.group.describe,
            scheduled=self._scheduled,
            activities=lambda: group_serving.activities(self.aws, self.name),
        )
        if self.known is None:
            self.known = {each["ActivityId"] for each in seen["activities"]}
        now = time.time()
        return dict(seen, rooms=self._rooms(seen["group"], now), now=now)

    def _scheduled(self):
        """{at, floor, ceiling} of the scheduled action that gives back, or None."""
        answer = self.aws.read(
            "autoscaling",
            "describe_scheduled_actions",
            AutoScalingGroupName=self.name,
            ScheduledActionNames=[GIVE_BACK],
        )
        found = next(iter(answer["ScheduledUpdateGroupActions"]), None)
        if found is None:
            return None
        return {"at": found["StartTime"].timestamp(), "floor": found["MinSize"], "ceiling": found["MaxSize"]}

    def _rooms(self, group, now):
        """What more instances take some of, as far as the present ones tell."""
        if temporary.growth(self.params["capacity"], _size(group), _kept(group), now) <= 0:
            return []
        asked = {"vcpus": lambda: self._vcpus(group)}
        if group.get("VPCZoneIdentifier"):
            asked["addresses"] = lambda: room.addresses(self.aws, group["VPCZoneIdentifier"].split(","))
        if self.params["connections_each"]:
            asked["connections"] = lambda: room.connections(
                self.aws,
                self.params["db_instance"],
                Login(self.params, self.aws),
                self.params["connections_each"],
                group["DesiredCapacity"],
            )
        return list(together(**asked).values())

    def _vcpus(self, group):
        what, mend = "vCPUs of EC2 On-Demand", "look at the quotas of EC2 in Service Quotas"
        types = sorted({each["InstanceType"] for each in group["Instances"] if each.get("InstanceType")})
        if not types or group.get("MixedInstancesPolicy") or not all(STANDARD.match(each) for each in types):
            why = f"instances of {', '.join(types) or 'no type yet'} may count against other quotas"
            return room.Room(what, 1, None, why, mend)
        found = self.aws.read("ec2", "describe_instance_types", InstanceTypes=types)["InstanceTypes"]
        each = max(kind["VCpuInfo"]["DefaultVCpus"] for kind in found)
        return room.quota(self.aws, "ec2", STANDARD_QUOTA, what, each, each * len(group["Instances"]))

    @staticmethod
    def plan(observed, wanted):
        group = observed["group"]
        name, present, kept = group["AutoScalingGroupName"], _size(group), _kept(group)
        if wanted["restore"]:
            if kept is None:
                return Plan(notes=(f"{name} was not given any capacity for a while: there is nothing to give back",))
            goal, notes = temporary.restored(name, present, kept)
            line = None
        else:
            goal, line, notes = temporary.changed(
                name, present, kept, wanted["capacity"], wanted["give_back_after"], observed["now"]
            )
            more = goal.count - present.count
            notes += room.check(f"instances of {name}", more, observed["rooms"], wanted["accept_shortage"])
            notes.append(temporary.lasting(name, present, line, wanted["give_back_after"]))
        steps = _steps(name, present, goal, kept, line, observed["scheduled"])
        if goal.count != present.count:
            needed = group_serving.UP if goal.count > present.count else group_serving.DOWN
            instance_refresh.refuse_suspended(group, needed, f"it would not come to {goal.count} instances that serve")
        if steps or len(group_serving.in_service(group)) != goal.count:
            what = f"wait until {name} serves with {goal.count} instances"
            steps.append(Step("settle", what, arguments={"count": goal.count}, waits=True))
        if line is None:
            steps.append(Step("forget", f"forget what {name} had before", kept.text(), None))
        after = {"desired": goal.count, "in_service": goal.count, "floor": goal.floor, "ceiling": goal.ceiling}
        return Plan(tuple(steps), dict(after, scaled=line and line.text()), tuple(notes))

    # The steps, named as in the plan.

    def keep(self, line):
        self.aws.change("autoscaling", "create_or_update_tags", Tags=[self._tag(Value=line, PropagateAtLaunch=False)])

    def forget(self):
        self.aws.change("autoscaling", "delete_tags", Tags=[self._tag()])

    def _tag(self, **more):
        return dict(more, ResourceId=self.name, ResourceType="auto-scaling-group", Key=temporary.MARK)

    def schedule(self, at, floor, ceiling):
        self.aws.change(
            "autoscaling",
            "put_scheduled_update_group_action",
            AutoScalingGroupName=self.name,
            ScheduledActionName=GIVE_BACK,
            StartTime=temporary.moment(at),
            MinSize=floor,
            MaxSize=ceiling,
        )

    def unschedule(self):
        self.aws.change(
            "autoscaling", "delete_scheduled_action", AutoScalingGroupName=self.name, ScheduledActionName=GIVE_BACK
        )

    def resize(self, goal):
        self.aws.change(
            "autoscaling",
            "update_auto_scaling_group",
            AutoScalingGroupName=self.name,
            MinSize=goal.floor,
            MaxSize=goal.ceiling,
            DesiredCapacity=goal.count,
        )

    def settle(self, count):
        group_serving.settle(self.wait, self.aws, self.group, count, self.known)

    def undo(self, before, done):
        where = {"auto_scaling_group": self.name, "region": self.aws.region}
        arguments = dict(where, **temporary.back(before["desired"], before["scaled"], self.params))
        return [{"verb": "sre.runbooks.asg_capacity", "arguments": arguments}]

    def view(self, observed):
        group = observed["group"]
        size, kept = _size(group), _kept(group)
        return {
            "desired": size.count,
            "in_service": len(group_serving.in_service(group)),
            "floor": size.floor,
            "ceiling": size.ceiling,
            "scaled": kept and kept.text(),
        }


def _size(group):
    return Size(group["DesiredCapacity"], group["MinSize"], group["MaxSize"])


def _kept(group):
    """What the group remembers, or None."""
    return temporary.parse(next((tag["Value"] for tag in group.get("Tags", []) if tag["Key"] == temporary.MARK), None))


def _steps(name, present, goal, kept, line, scheduled):
    """Pure: what is left to do to be at `goal`, with `line` written down."""
    steps = []
    if line is not None and line != kept:
        what = f"write down on {name} what it had"
        steps.append(Step("keep", what, kept and kept.text(), line.text(), {"line": line.text()}))
    action = None
    if line is not None and line.until is not None:
        action = {"at": line.until, "floor": line.before.floor, "ceiling": line.before.ceiling}
    if action is not None and action != scheduled:
        what = f"schedule the return to {action['floor']} to {action['ceiling']} instances of {name}"
        steps.append(Step("schedule", what, None, temporary.moment(line.until), action))
    if action is None and scheduled is not None:
        steps.append(Step("unschedule", f"cancel the scheduled return of {name}"))
    if goal != present:
        what = f"give {name} {goal.text()} instances"
        steps.append(Step("resize", what, present.text(), goal.text(), {"goal": goal}))
    return steps


def main():
    run(verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], **temporary.CONDITIONS), AsgCapacity)


if __name__ == "__main__":
    main()
