#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_zone
version_added: 0.3.0
short_description: Take an ECS service out of an availability zone, and bring it back
description:
  - Takes the subnets of O(zone) out of the network configuration of a service, which starts a deployment, and waits for that very
    deployment, so that all its tasks run in the other zones. The task definition stays what it is.
  - The subnets that are taken out stand on the service, as the tag C(sre.runbooks/left-zone). V(back) gives them back, hours later
    and from any machine; what somebody changed meanwhile stays.
  - "B(Risk:) all tasks of the service are replaced, and an image that is named by a tag is looked up anew."
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service, which has subnets of its own (network mode awsvpc) and is rolled out by ECS itself.
    type: str
    required: true
  accept_shortage:
    description: Go on although the other subnets have too few free addresses, which is noted then.
    type: bool
    default: false
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
  - Needs C(ecs:DescribeServices), C(ecs:UpdateService), C(ecs:TagResource), C(ecs:UntagResource), C(ecs:ListTasks),
    C(ecs:DescribeTasks), C(ec2:DescribeSubnets) and C(elasticloadbalancing:DescribeTargetHealth).
seealso:
  - module: sre.runbooks.zone_assess
  - module: sre.runbooks.alb_zonal_shift
"""

EXAMPLES = r"""
- name: All tasks in the other zones
  sre.runbooks.ecs_zone:
    cluster: regami-cluster
    service: regami-service
    zone: us-east-1b
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: The service in all its zones again
  sre.runbooks.ecs_zone:
    cluster: regami-cluster
    service: regami-service
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
  sample: [{do: move, what: "take subnet-2 in us-east-1b out of regami-service", before: [subnet-1, subnet-2], after: [subnet-1]}]
undo:
  description: The same verb with the other state; empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample: [{verb: sre.runbooks.ecs_zone, arguments: {cluster: regami-cluster, service: regami-service, region: us-east-1, state: back}}]
notes:
  description: What a person must know.
  returned: success
  type: list
  elements: str
  sample: ["regami-service stays out of us-east-1b until it is brought back: the same task with state=back"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 61.2
"""

from collections import Counter

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, room, zones
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.revision_rollout import USUAL_ROLLOUT
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("ecs", "ec2", "elbv2", "dynamodb")
ARGUMENTS = dict(
    zones.ARGUMENTS,
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    accept_shortage=dict(type="bool", default=False),
)


class EcsZone(Verb):
    """Other subnets, the same tasks."""

    def __init__(self, module):
        super().__init__(module)
        self.names = {"cluster": self.params["cluster"], "service": self.params["service"]}
        self.service = ecs.Service(self.aws, **self.names)
        self.arn, self.network, self.deployment, self.wanted = None, {}, None, None

    def observe(self):
        service = self.service.describe(include=["TAGS"])
        self.arn, self.network = service["serviceArn"], _network(service)
        present = self.network.get("subnets", [])
        kept = _kept(service)
        seen = together(
            where=lambda: zones.of_subnets(self.aws, [*present, *(kept.subnets if kept else ())]),
            tasks=lambda: self.service.describe_tasks(self.service.task_arns(serviceName=self.service.name)),
        )
        others = [subnet for subnet in present if seen["where"].get(subnet) != self.params["zone"]]
        leaves = self.params["state"] == "left" and 0 < len(others) < len(present)
        rooms = [room.addresses(self.aws, others)] if leaves else []
        return dict(seen, service=service, rooms=rooms)

    @staticmethod
    def plan(observed, wanted):
        service = observed["service"]
        name, present = service["serviceName"], _network(service).get("subnets", [])
        if ecs.controller(service) != "ECS":
            raise Refusal(
                f"{name} is deployed by {ecs.controller(service)}, and ECS refuses to change its subnets: deploy it there with "
                f"other ones"
            )
        if not present:
            raise Refusal(
                f"{name} has no subnets of its own: its tasks are where its container instances are; take their Auto Scaling "
                f"group out of the zone (sre.runbooks.asg_zone)"
            )
        settled = ecs.is_rolled_out(service, ecs.primary(service))
        found = zones.plan(name, present, _kept(service), observed["where"], wanted, settled)
        if any(step.do == "move" for step in found.steps):
            # The deployment starts all tasks anew beside those that are there.
            shortage = room.check(
                f"tasks of {name}", service["desiredCount"], observed["rooms"], wanted["accept_shortage"]
            )
            return Plan(found.steps, found.after, (*found.notes, *shortage))
        return found

    # The steps, named as in the plan.

    def keep(self, line):
        self.aws.change("ecs", "tag_resource", resourceArn=self.arn, tags=[{"key": zones.MARK, "value": line}])

    def forget(self):
        self.aws.change("ecs", "untag_resource", resourceArn=self.arn, tagKeys=[zones.MARK])

    def move(self, subnets):
        network = {"awsvpcConfiguration": dict(self.network, subnets=subnets)}
        answer = self.aws.change("ecs", "update_service", **self.names, networkConfiguration=network)
        self.deployment = ecs.primary(answer["service"])["id"]

    def settle(self):
        """Wait for the deployment that `move` started, or an earlier run did."""
        if self.deployment is None:
            present = ecs.primary(self.service.describe())
            if present is None:
                raise Stop(f"{self.service.name} has no deployment to wait for")
            self.deployment = present["id"]
        what = f"{ecs.short(self.service.name)} serves in its zones"
        ecs.follow_deployment(self.wait, self.service, self.deployment, what, USUAL_ROLLOUT)

    def undo(self, before, done):
        return [
            {
                "verb": "sre.runbooks.ecs_zone",
                "arguments": dict(self.names, region=self.aws.region, **zones.other_way(before, self.params)),
            }
        ]

    def view(self, observed):
        kept = _kept(observed["service"])
        return {
            "subnets": sorted(_network(observed["service"]).get("subnets", [])),
            "left": kept and kept.text(),
            "zones": dict(Counter(task.get("availabilityZone", "unknown") for task in observed["tasks"])),
        }


def _network(service):
    return (service.get("networkConfiguration") or {}).get("awsvpcConfiguration") or {}


def _kept(service):
    """What the service remembers, or None."""
    return zones.parse(next((tag["value"] for tag in service.get("tags", []) if tag["key"] == zones.MARK), None))


def main():
    run(verb_module(ARGUMENTS, **zones.CONDITIONS), EcsZone)


if __name__ == "__main__":
    main()
