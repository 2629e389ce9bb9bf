#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: asg_zone
version_added: 0.3.0
short_description: Take an Auto Scaling group out of an availability zone, and bring it back
description:
  - Takes the subnets of O(zone) out of the group, which then launches instances in the others and ends those in that zone once
    they serve, and waits until all of its capacity serves outside of it.
  - The subnets that are taken out stand on the group, as the tag C(sre.runbooks/left-zone). V(back) gives them back, hours later and
    from any machine; the group then balances its instances by itself.
  - "B(Risk:) what is on the disks of the instances in that zone is lost."
options:
  auto_scaling_group:
    description: Name of the group, in O(region).
    type: str
    required: true
extends_documentation_fragment:
  - sre.runbooks.zone_leaving
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(autoscaling:DescribeAutoScalingGroups), C(autoscaling:DescribeScalingActivities), C(autoscaling:UpdateAutoScalingGroup),
    C(autoscaling:CreateOrUpdateTags), C(autoscaling:DeleteTags), C(ec2:DescribeSubnets) and
    C(elasticloadbalancing:DescribeTargetHealth).
seealso:
  - module: sre.runbooks.zone_assess
  - module: sre.runbooks.alb_zonal_shift
"""

EXAMPLES = r"""
- name: All instances in the other zones
  sre.runbooks.asg_zone:
    auto_scaling_group: regami-fleet
    zone: us-east-1b
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: The group in all its zones again
  sre.runbooks.asg_zone:
    auto_scaling_group: regami-fleet
    region: us-east-1
    state: back
"""

RETURN = r"""
before:
  description: As found.
  returned: unless refused
  type: dict
  sample: {subnets: [subnet-1, subnet-2], left: null, zones: {us-east-1a: 1, us-east-1b: 1}}
after:
  description: At the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {subnets: [subnet-1], left: us-east-1b subnet-2, zones: {us-east-1a: 2}}
steps:
  description: What was done, or would be done in check mode, in order. A step that only waits is no change.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: move, what: "take subnet-2 in us-east-1b out of regami-fleet", before: [subnet-1, subnet-2], after: [subnet-1]}]
undo:
  description: The same verb with the other state; empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample: [{verb: sre.runbooks.asg_zone, arguments: {auto_scaling_group: regami-fleet, region: us-east-1, state: back}}]
notes:
  description: What a person must know.
  returned: success
  type: list
  elements: str
  sample: ["regami-fleet stays out of us-east-1b until it is brought back: the same task with state=back"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 184.0
"""

from collections import Counter

from ansible_collections.sre.runbooks.plugins.module_utils import group_serving, instance_refresh, zones
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Suspended, these keep the group from leaving: AZRebalance is what ends instances in a zone that it has no more.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
NEEDED = (*group_serving.UP, *group_serving.DOWN, "AZRebalance")

SERVICES = ("autoscaling", "ec2", "elbv2", "dynamodb")
ARGUMENTS = dict(
    zones.ARGUMENTS,
    auto_scaling_group=dict(type="str", required=True),
)


class AsgZone(Verb):
    """Other subnets, the same capacity."""

    def __init__(self, module):
        super().__init__(module)
        self.name = self.params["auto_scaling_group"]
        self.group = instance_refresh.Group(self.aws, self.name)
        self.known = None  # ids of the scaling activities of before

    def observe(self):
        seen = together(group=self.group.describe, activities=lambda: group_serving.activities(self.aws, self.name))
        if self.known is None:
            self.known = {each["ActivityId"] for each in seen["activities"]}
        kept = _kept(seen["group"])
        more = together(
            where=lambda: zones.of_subnets(self.aws, [*_subnets(seen["group"]), *(kept.subnets if kept else ())]),
            targets=lambda: group_serving.targets(self.aws, seen["group"]),
        )
        return dict(seen, **more)

    @staticmethod
    def plan(observed, wanted):
        group, zone = observed["group"], wanted["zone"]
        name, present = group["AutoScalingGroupName"], _subnets(group)
        if not present:
            raise Refusal(f"{name} has no subnets to take out (VPCZoneIdentifier is empty): change its zones by hand")
        there = {each["InstanceId"] for each in _in_zone(group, zone)} if wanted["state"] == "left" else set()
        settled = not there and len(group_serving.serving(observed)) == group["DesiredCapacity"]
        found = zones.plan(name, present, _kept(group), observed["where"], wanted, settled)
        if any(step.do == "move" for step in found.steps):
            instance_refresh.refuse_suspended(group, NEEDED, f"{name} would not move its instances")
        return found

    # The steps, named as in the plan.

    def keep(self, line):
        self.aws.change("autoscaling", "create_or_update_tags", Tags=[self._tag(Value=line, PropagateAtLaunch=False)])

    def forget(self):
        self.aws.change("autoscaling", "delete_tags", Tags=[self._tag()])

    def _tag(self, **more):
        return dict(more, ResourceId=self.name, ResourceType="auto-scaling-group", Key=zones.MARK)

    def move(self, subnets):
        self.aws.change(
            "autoscaling",
            "update_auto_scaling_group",
            AutoScalingGroupName=self.name,
            VPCZoneIdentifier=",".join(subnets),
        )

    def settle(self):
        group = self.group.describe()
        without = _in_zone(group, self.params["zone"]) if self.params["state"] == "left" else []
        group_serving.settle(
            self.wait,
            self.aws,
            self.group,
            group["DesiredCapacity"],
            self.known,
            without=[each["InstanceId"] for each in without],
        )

    def undo(self, before, done):
        arguments = dict(zones.other_way(before, self.params), auto_scaling_group=self.name, region=self.aws.region)
        return [{"verb": "sre.runbooks.asg_zone", "arguments": arguments}]

    def view(self, observed):
        group, kept = observed["group"], _kept(observed["group"])
        return {
            "subnets": sorted(_subnets(group)),
            "left": kept and kept.text(),
            "zones": dict(Counter(each["AvailabilityZone"] for each in instance_refresh.staying(group))),
        }


def _subnets(group):
    return [each for each in group.get("VPCZoneIdentifier", "").replace(" ", "").split(",") if each]


def _in_zone(group, zone):
    """Its instances in a zone that are not on their way out."""
    return [each for each in instance_refresh.staying(group) if each["AvailabilityZone"] == zone]


def _kept(group):
    """What the group remembers, or None."""
    return zones.parse(next((tag["Value"] for tag in group.get("Tags", []) if tag["Key"] == zones.MARK), None))


def main():
    run(verb_module(ARGUMENTS, **zones.CONDITIONS), AsgZone)


if __name__ == "__main__":
    main()
