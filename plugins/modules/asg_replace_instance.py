#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: asg_replace_instance
version_added: 0.2.0
short_description: Replace one instance of an Auto Scaling group that went wrong
description:
  - Terminates the one instance without lowering the capacity, so that the group launches another in its place, and waits until
    that one serves. The group takes the instance out of its load balancers first.
  - An instance that is gone already is none to terminate; the task then waits for its replacement, so that a run that was killed
    is gone on with.
  - It ends at once, with the reasons, when the group cannot launch another one.
  - B(Risk:) what is on the disks of the instance is lost, and the group is one instance short until the new one serves. The only
    instance in service is therefore refused.
options:
  auto_scaling_group:
    description: Name of the group, in O(region).
    type: str
    required: true
  instance_id:
    description: The instance.
    type: str
    required: true
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.hotspots_assess
  - module: sre.runbooks.asg_capacity
"""

EXAMPLES = r"""
- name: Another instance for the one that is hot
  sre.runbooks.asg_replace_instance:
    auto_scaling_group: regami-fleet
    instance_id: i-0123456789abcdef0
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: The state of the instance, null where it is gone, and how many serve.
  returned: unless refused
  type: dict
  sample: {instance: InService, in_service: 2, desired: 2}
after:
  description: The same at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {instance: null, in_service: 2, desired: 2}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: terminate, what: "terminate i-0123456789abcdef0 of regami-fleet", before: InService, after: null}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "terminate i-0123456789abcdef0 of regami-fleet"
      instead: "its group has launched another in its place, so nothing is left to do"
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 141.5
"""

from ansible_collections.sre.runbooks.plugins.module_utils import group_serving, instance_refresh
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, near
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("autoscaling", "elbv2", "dynamodb")
ARGUMENTS = dict(
    auto_scaling_group=dict(type="str", required=True),
    instance_id=dict(type="str", required=True),
)


class AsgReplaceInstance(Verb):
    """Terminate one, wait for another."""

    INSTEAD = "its group has launched another in its place, so nothing is left to do"

    def __init__(self, module):
        super().__init__(module)
        self.id = self.params["instance_id"]
        self.group = instance_refresh.Group(self.aws, self.params["auto_scaling_group"])
        self.known = None  # ids of the scaling activities of before

    def observe(self):
        seen = together(
            group=self.group.describe, activities=lambda: group_serving.activities(self.aws, self.group.name)
        )
        if self.known is None:
            self.known = {each["ActivityId"] for each in seen["activities"]}
        return dict(seen, targets=group_serving.targets(self.aws, seen["group"]))

    @staticmethod
    def plan(observed, wanted):
        group, meant = observed["group"], wanted["instance_id"]
        name, count = group["AutoScalingGroupName"], group["DesiredCapacity"]
        others = group_serving.serving(observed) - {meant}
        there = [each["InstanceId"] for each in instance_refresh.staying(group)]
        steps = []
        if meant in there:
            if not others:
                raise Refusal(
                    f"{meant} is the only instance of {name} that serves: sre.runbooks.asg_capacity gives it another one first"
                )
            instance_refresh.refuse_suspended(
                group,
                (*group_serving.UP, *group_serving.DOWN),
                f"no other instance would serve in the place of {meant}",
            )
            steps.append(Step("terminate", f"terminate {meant} of {name}", _state(group, meant), None))
        elif not _was_there(observed, meant):
            raise Refusal(f"{name} has no instance {meant} ({near(meant, there)}): check instance_id")
        if steps or len(others) < count:
            what = f"wait until {name} serves with {count} instances without it"
            steps.append(Step("settle", what, arguments={"count": count}, waits=True))
        return Plan(tuple(steps), {"instance": None, "in_service": count})

    def terminate(self):
        self.aws.change(
            "autoscaling",
            "terminate_instance_in_auto_scaling_group",
            InstanceId=self.id,
            ShouldDecrementDesiredCapacity=False,
        )

    def settle(self, count):
        group_serving.settle(self.wait, self.aws, self.group, count, self.known, without=(self.id,))

    def view(self, observed):
        group = observed["group"]
        return {
            "instance": _state(group, self.id),
            "in_service": len(group_serving.in_service(group)),
            "desired": group["DesiredCapacity"],
        }


def _state(group, instance_id):
    """Its state while it stays, None from when it goes."""
    found = {each["InstanceId"]: each["LifecycleState"] for each in instance_refresh.staying(group)}
    return found.get(instance_id)


def _was_there(observed, instance_id):
    """Does the group remember that it goes, or went? Activities are remembered for six weeks."""
    leaving = {each["InstanceId"] for each in observed["group"]["Instances"]}
    return instance_id in leaving or any(instance_id in each.get("Description", "") for each in observed["activities"])


def main():
    run(verb_module(ARGUMENTS), AsgReplaceInstance)


if __name__ == "__main__":
    main()
