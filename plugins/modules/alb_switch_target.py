#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alb_switch_target
version_added: 0.1.0
short_description: Move an Application Load Balancer to another target group
description:
  - Sends the requests that go to one target group to another one, in every rule of every listener that forwards to it,
    default actions included. Authentication, order, stickiness and the shares of other target groups stay as they are.
  - The new target group must have healthy targets first. Where no listener refers to it yet it is attached at weight 0,
    which starts its health checks, and gets requests once it is healthy.
  - All requests move at once, or in O(steps). With several steps each is watched for O(step_seconds), and when the
    targets of the new group turn unhealthy or too many of its answers are errors, the rules go back to what they were and
    the verb fails, saying why.
  - Interrupted anywhere the same task goes on from the weights that it finds.
  - B(Risk:) users get the other version. What it does to data that the present version wrote is not checked.
options:
  load_balancer_arn:
    description: ARN of the Application Load Balancer, in O(region).
    type: str
    required: true
  old_target_group_arn:
    description: ARN of the target group that gets the requests now.
    type: str
    required: true
  new_target_group_arn:
    description: ARN of the target group that shall get them. It must have the VPC and protocol of the other one.
    type: str
    required: true
  steps:
    description:
      - Percentages of the requests that the new group gets one after the other, rising to V(100).
      - Weights are whole numbers. Where a rule's weights are too small for a step, all weights of that rule are multiplied
        by the same number.
    type: list
    elements: int
    default: [100]
  step_seconds:
    description:
      - How long each of several O(steps), the last one included, is watched, in seconds. A single step is not watched.
      - CloudWatch counts the answers of a load balancer by the minute and up to a minute late, so less than 120 sees
        little of them.
    type: int
    default: 120
  max_error_percent:
    description:
      - Percentage of the new group's requests that may fail with a 5xx, or a broken connection, during a step.
    type: float
    default: 5
  min_healthy_targets:
    description:
      - Number of healthy targets that the new group must have, before and during the move.
      - V(0) sends requests there whatever the health checks say. B(Risk:) users are sent to targets that may not serve
        them.
    type: int
    default: 1
  detach_old:
    description:
      - Leave the old group out of the rules at the end. CodeDeploy wants one target group in a listener.
      - With V(false) it stays at weight 0, so that it is still checked and the way back is immediate. A rule with target
        group stickiness loses it in any case, since cookies would go on sending clients there.
    type: bool
    default: false
  services:
    description:
      - ECS services that run the targets. A deployment of one of them that is under way moves the listener or the targets
        itself, whether ECS or CodeDeploy carries it out, and is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      cluster:
        description: Name or ARN of the ECS cluster.
        type: str
        required: true
      service:
        description: Name of the ECS service.
        type: str
        required: true
  accept_deployment:
    description:
      - Move the rules although a deployment is under way; RV(notes) says which. B(Risk:) that deployment may move them
        again.
    type: bool
    default: false
  restore:
    description:
      - The rules to move, and the exact actions that each has at the end; no other rule is touched. RV(undo) uses it to
        bring back what was there.
    type: list
    elements: dict
    default: []
    suboptions:
      arn:
        description: ARN of the rule, or of the listener for its default actions.
        type: str
        required: true
      actions:
        description: Actions as DescribeRules gives them.
        type: list
        elements: dict
        required: true
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - A record of Route 53 that evaluates the health of the load balancer counts it as unhealthy while one of its target groups
    has no healthy target, at weight 0 too. A group that does not become healthy is therefore detached again.
seealso:
  - module: sre.runbooks.ecs_scale
"""

EXAMPLES = r"""
- name: Back to the version that still runs beside the present one
  sre.runbooks.alb_switch_target:
    load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
    old_target_group_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg/73e2d6bc24d8a067
    new_target_group_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg-green/943f017f100becff
    services:
      - {cluster: regami-cluster, service: regami-service}
      - {cluster: regami-cluster, service: regami-service-green}
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Forward to a new version, a little at a time
  sre.runbooks.alb_switch_target:
    load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
    old_target_group_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg/73e2d6bc24d8a067
    new_target_group_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg-green/943f017f100becff
    steps: [10, 50, 100]
    step_seconds: 180
    max_error_percent: 1
    region: us-east-1
"""

RETURN = r"""
before:
  description:
    - C(rules) is what each rule forwards to that names one of the two groups, as weights. C(healthy) is the
      number of healthy targets of each group.
  returned: unless refused
  type: dict
  sample:
    rules:
      port 80 default: {regami-tg: 1}
    healthy: {regami-tg: 2, regami-tg-green: 2}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample:
    rules:
      port 80 default: {regami-tg: 0, regami-tg-green: 1}
    healthy: {regami-tg: 2, regami-tg-green: 2}
steps:
  description:
    - What was done, or would be done in check mode, in order. The steps C(wait_healthy) and C(watch) only look.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: shift
      what: send 100 % of the requests for regami-tg to regami-tg-green
      before: {port 80 default: {regami-tg: 1}}
      after: {port 80 default: {regami-tg: 0, regami-tg-green: 1}}
undo:
  description:
    - This verb the other way round, with the exact actions that the rules had. Empty where nothing was changed, or where the
      change was taken back. After an interrupted move it brings back the weights that this run found.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.alb_switch_target
      arguments:
        load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
        old_target_group_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg-green/943f017f100becff
        new_target_group_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg/73e2d6bc24d8a067
        region: us-east-1
        restore:
          - arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/app/regami-alb/50dc6c495c0c9188/f2f7dc8efc522ab2
            actions:
              - Type: forward
                TargetGroupArn: arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg/73e2d6bc24d8a067
checks:
  description:
    - What was seen of the new group in each watched step. C(requests) and C(errors) are what CloudWatch had counted by its
      end; null where it had nothing, and only the health of the targets was watched.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {percent: 10, healthy: 2, requests: 241, errors: 0}
notes:
  description: Overrides used, and what a person should know.
  returned: success
  type: list
  elements: str
  sample: ["regami-tg-green has 1 healthy targets where regami-tg has 2: each gets more requests"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 1.2
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, elbv2, listener_switch
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import (
    LostAnswer,
    Refusal,
    Stop,
    TakenBack,
    Throttled,
    Unreachable,
    WaitTimeout,
)
from ansible_collections.sre.runbooks.plugins.module_utils.forwarding import same, sent
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("elbv2", "ecs", "cloudwatch")
# Seconds that new targets usually take to be found healthy: five checks of 30 s are the default of ELB, one is enough.
USUAL_HEALTHY = 30
TRIES = 5

ARGUMENTS = dict(
    load_balancer_arn=dict(type="str", required=True),
    old_target_group_arn=dict(type="str", required=True),
    new_target_group_arn=dict(type="str", required=True),
    steps=dict(type="list", elements="int", default=[100]),
    step_seconds=dict(type="int", default=120),
    max_error_percent=dict(type="float", default=5),
    min_healthy_targets=dict(type="int", default=1),
    detach_old=dict(type="bool", default=False),
    services=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(cluster=dict(type="str", required=True), service=dict(type="str", required=True)),
    ),
    accept_deployment=dict(type="bool", default=False),
    restore=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(arn=dict(type="str", required=True), actions=dict(type="list", elements="dict", required=True)),
    ),
)


class NotServing(Exception):
    """The new group must not get requests (any longer)."""


class AlbSwitchTarget(Verb):
    """Move the rules of a load balancer to another target group."""

    plan = staticmethod(listener_switch.plan)

    def __init__(self, module):
        super().__init__(module)
        self.balancer, self.old, self.new = (
            self.params[name] for name in ("load_balancer_arn", "old_target_group_arn", "new_target_group_arn")
        )
        self.found, self.checks = None, []

    # --- looking ---

    def observe(self):
        reads = {
            "places": self._rules,
            "groups": self._groups,
            "old": lambda: self._targets(self.old),
            "new": lambda: self._targets(self.new),
        }
        if len(self.params["steps"]) > 1:  # a permission that is missing must not be found out half way
            reads["traffic"] = lambda: self._traffic(time.time())
        for number, each in enumerate(self.params["services"]):
            reads[f"service {number}"] = ecs.Service(self.aws, each["cluster"], each["service"]).describe
        seen = together(**reads)
        services = [seen[name] for name in reads if name.startswith("service ")]
        if self.found is None:
            self.found = seen["places"]
        return {
            "places": seen["places"],
            "groups": seen["groups"],
            "targets": {self.old: seen["old"], self.new: seen["new"]},
            "services": services,
            "deployments": self._deployments(services),
        }

    def _rules(self):
        if ":loadbalancer/app/" not in self.balancer:
            raise Refusal(f"{self.balancer} is no Application Load Balancer: this verb moves no other kind")
        return elbv2.rules(self.aws, self.balancer, self.aws.region)

    def _groups(self):
        try:
            answer = self.aws.read("elbv2", "describe_target_groups", TargetGroupArns=[self.old, self.new])
        except Exception as error:
            if code_of(error) in ("TargetGroupNotFound", "ValidationError"):
                raise Refusal(
                    f"there is no target group {self.old} or {self.new} in {self.aws.region}: check both arns and the region"
                ) from error
            raise
        return {group["TargetGroupArn"]: group for group in answer["TargetGroups"]}

    def _targets(self, group):
        return elbv2.target_health(self.aws, group, self.aws.region)

    def _traffic(self, since):
        """What the new group was asked and failed at; None where CloudWatch does not answer, which stops no move."""
        seen = attempt(
            lambda: elbv2.traffic(self.aws, self.balancer, self.new, since, self.aws.region), Unreachable, Throttled
        )
        return None if isinstance(seen, Stop) else seen

    def _deployments(self, services):
        """{id: deployment} of CodeDeploy that made a task set: `externalId` names it.

        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskSet.html
        """
        found = {}
        for service in services:
            if ecs.controller(service) == "CODE_DEPLOY":
                for name in {each.get("externalId") for each in service.get("taskSets", [])} - {None}:
                    answer = self.aws.read("codedeploy", "get_deployment", deploymentId=name)
                    found[name] = answer["deploymentInfo"]
        return found

    # --- changing ---

    def attach(self, places):
        self._change(places)

    def shift(self, places):
        self._change(places)

    def _change(self, places):
        """Give rules their new actions side by side, where each still has those that were planned on."""
        present = {place["arn"]: place["actions"] for place in self._rules()}
        for place in places:
            if not same(present.get(place["arn"], []), place["actions"]):
                raise Stop(
                    f"{place['name']} was changed by somebody else since it was looked at: nothing was sent; find out who, "
                    f"then run the same command again"
                )
        self._set({place["arn"]: place["wished"] for place in places})

    def _set(self, actions):
        together(
            **{
                arn: lambda arn=arn: elbv2.set_actions(self.aws, arn, sent(actions[arn]), self.aws.region)
                for arn in actions
            }
        )

    def wait_healthy(self):
        def done(targets):
            if ecs.healthy(targets) >= self.params["min_healthy_targets"]:
                return True
            why = listener_switch.hopeless(targets, self.params)
            if why:
                raise NotServing(why)
            return False

        name = elbv2.short(self.new)
        try:
            self.wait(lambda: self._targets(self.new), done, f"{name} becomes healthy", USUAL_HEALTHY, ecs.states)
        except (NotServing, WaitTimeout) as error:
            self._take_back(f"{name} does not become healthy: {error}")

    def watch(self, percent):
        started, seconds = time.time(), self.params["step_seconds"]
        first = self._traffic(started)

        def look():
            traffic = self._traffic(started)
            return {
                "targets": self._targets(self.new),
                # The minute in which the step began holds requests from before it.
                "traffic": traffic and first and {name: traffic[name] - first[name] for name in traffic},
            }

        def done(seen):
            why = listener_switch.worse(seen, self.params)
            if why:
                self._note(percent, seen)
                raise NotServing(why)
            return time.time() - started >= seconds

        name = elbv2.short(self.new)
        try:
            seen = self.wait(look, done, f"{name} serves {percent:g} %", seconds, _progress)
        except NotServing as error:
            self._take_back(f"{name} does not serve at {percent:g} %: {error}")
        self._note(percent, seen)

    def _note(self, percent, seen):
        counts = seen["traffic"] or {"requests": None, "errors": None}
        self.checks.append({"percent": percent, "healthy": ecs.healthy(seen["targets"]), **counts})

    def _take_back(self, why):
        """Send every request to the old group again and say so. The same actions sent twice do no harm."""
        back = listener_switch.way_back(self.found, self.params)
        for remaining in reversed(range(TRIES)):
            present = {place["arn"]: place["actions"] for place in self._rules()}
            changes = {arn: actions for arn, actions in back.items() if not same(present.get(arn, actions), actions)}
            try:
                if changes:
                    self._set(changes)
                break
            except LostAnswer:
                if not remaining:
                    raise
        raise TakenBack(
            f"{why}. Every rule is back at {elbv2.short(self.old)}: users have what they had; see what is wrong with "
            f"{elbv2.short(self.new)} before the next try"
        )

    # --- telling ---

    def undo(self, before, done):
        names = {name for step in done for name in step["after"]}
        arguments = {
            "load_balancer_arn": self.balancer,
            "old_target_group_arn": self.new,
            "new_target_group_arn": self.old,
            "region": self.aws.region,
            "restore": [
                {"arn": place["arn"], "actions": place["actions"]} for place in self.found if place["name"] in names
            ],
        }
        if self.params["services"]:
            arguments["services"] = self.params["services"]
        return [{"verb": "sre.runbooks.alb_switch_target", "arguments": arguments}]

    def view(self, observed):
        return {
            "rules": listener_switch.rules_view(observed["places"], self.params),
            "healthy": {elbv2.short(arn): ecs.healthy(targets) for arn, targets in observed["targets"].items()},
        }

    def returned(self):
        return {"checks": self.checks}


def _progress(seen):
    traffic = seen["traffic"]
    counted = f", {traffic['errors']:.0f} of {traffic['requests']:.0f} requests failed" if traffic else ""
    return f"{ecs.states(seen['targets'])}{counted}"


def main():
    run(verb_module(ARGUMENTS), AlbSwitchTarget)


if __name__ == "__main__":
    main()
