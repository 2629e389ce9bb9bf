#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_scale
version_added: 0.1.0
short_description: Set the desired count of an ECS service so that it lasts
description:
  - Sets the number of tasks of a service together with the bounds in which Application Auto Scaling moves it, and
    waits until the service is there. Without the bounds the next scaling activity would undo the change.
  - A count above 0 is reached when that many tasks run, the rollout is complete, and each target group of the service
    has as many healthy targets. Tasks that fail again and again end the wait at once, with the reasons of the stopped
    tasks, the last events and the health of the targets.
  - A count of 0 drains the service. That is reached when no task runs or is still stopping, and no target is left in
    its target groups, a draining one included.
  - B(Risk:) draining takes the service off the air.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service.
    type: str
    required: true
  desired_count:
    description: Number of tasks. V(0) drains the service.
    type: int
    required: true
  at_least:
    description:
      - Leave a count that is already higher, and a higher floor, as they are. For starting a standby that scaling may
        have enlarged meanwhile.
    type: bool
    default: false
  lift_floor:
    description:
      - Where Application Auto Scaling manages the service, set its minimum to O(desired_count), and raise its maximum
        if that is lower. At V(0) dynamic scaling out and scheduled scaling are suspended as well, since both start
        tasks; a count above 0 resumes them. All else of the scalable target is kept.
      - V(false) leaves scaling alone. RV(notes) says when it is going to undo the count.
    type: bool
    default: true
  scaling:
    description:
      - Set the scalable target to exactly this instead of what O(lift_floor) derives. RV(undo) uses it to bring back
        the former bounds.
    type: dict
    suboptions:
      floor:
        description: Minimum number of tasks.
        type: int
        required: true
      ceiling:
        description: Maximum number of tasks.
        type: int
        required: true
      suspended:
        description: Scaling activities that are suspended; all others are not.
        type: list
        elements: str
        choices: [dynamic_in, dynamic_out, scheduled]
        default: []
  when_unreachable:
    description:
      - What to do when the region does not answer at all. V(refuse) fails.
      - V(record) ends without a change after about 4 seconds, with RV(reachable) false and a note. That is how a
        failover goes on when the old region is gone. B(Risk:) tasks that are still alive there go on working.
      - A region that stops answering after the first change fails in both cases, since what became of the change is
        not known. The same task again goes on, or records it.
    type: str
    choices: [refuse, record]
    default: refuse
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - It also serves services that CodeDeploy or an external controller deploys; their count is set the same way.
seealso:
  - module: sre.runbooks.ecs_repoint
"""

EXAMPLES = r"""
- name: Drain the old side, or go on without it when its region is gone
  sre.runbooks.ecs_scale:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    desired_count: 0
    when_unreachable: record
    lease: "{{ lock.lease }}"

- name: Start the standby
  sre.runbooks.ecs_scale:
    cluster: regami-cluster-secondary
    service: regami-service-secondary
    region: us-west-2
    desired_count: 2
    at_least: true
    lease: "{{ lock.lease }}"

- name: Back to the former count and bounds
  sre.runbooks.ecs_scale:
    cluster: regami-cluster-secondary
    service: regami-service-secondary
    region: us-west-2
    desired_count: 0
    scaling: {floor: 0, ceiling: 10}
"""

RETURN = r"""
reachable:
  description: Whether the region answered.
  returned: success
  type: bool
  sample: true
before:
  description:
    - The service and its scaling as found, empty where the region did not answer. C(floor), C(ceiling) and
      C(suspended) are null where nothing scales the service.
  returned: unless refused
  type: dict
  sample: {desired: 0, running: 0, task_definition: "regami-api:4", floor: 0, ceiling: 10, suspended: []}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {desired: 2, running: 2, task_definition: "regami-api:4", floor: 2, ceiling: 10, suspended: []}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: bound, what: let scaling keep regami-service-secondary at 2 to 10 tasks, before: 0 to 10 tasks,
       after: 2 to 10 tasks}
    - {do: update, what: set the desired count of regami-service-secondary to 2, before: 0, after: 2}
    - {do: settle, what: wait until regami-service-secondary serves with 2 tasks, before: null, after: null}
undo:
  description: The same verb with the former count and bounds; empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ecs_scale
      arguments:
        cluster: regami-cluster-secondary
        service: regami-service-secondary
        region: us-west-2
        desired_count: 0
        scaling: {floor: 0, ceiling: 10, suspended: []}
notes:
  description: What a person should know, for example that the region did not answer.
  returned: success
  type: list
  elements: str
  sample: ["us-east-1 does not answer: regami-service was not drained and its tasks may still run"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 41.7
"""

import time

from ansible_collections.amazon.aws.plugins.module_utils.botocore import get_aws_connection_info

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, scaling
from ansible_collections.sre.runbooks.plugins.module_utils.aws import Aws, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.task_definition import short
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that tasks usually take to start and turn healthy, and to drain (the default deregistration delay is 300).
USUAL_START = 90
USUAL_DRAIN = 300
# With when_unreachable=record: seconds until a call counts as not answered, and seconds of silence that end a wait.
ANSWER_WITHIN = 4
SILENCE = 15

SERVICES = ("ecs", "application-autoscaling", "elbv2", "dynamodb")
ARGUMENTS = dict(
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    desired_count=dict(type="int", required=True),
    at_least=dict(type="bool", default=False),
    lift_floor=dict(type="bool", default=True),
    scaling=dict(
        type="dict",
        options=dict(
            floor=dict(type="int", required=True),
            ceiling=dict(type="int", required=True),
            suspended=dict(type="list", elements="str", choices=["dynamic_in", "dynamic_out", "scheduled"], default=[]),
        ),
    ),
    when_unreachable=dict(type="str", choices=["refuse", "record"], default="refuse"),
)


class EcsScale(Verb):
    """Set the desired count of a service, and the bounds that let it last."""

    def __init__(self, module):
        super().__init__(module)
        self.record = self.params["when_unreachable"] == "record"
        if self.record:
            self.aws = Aws(get_aws_connection_info(module), read_timeout=ANSWER_WITHIN)
        self.names = {"cluster": self.params["cluster"], "service": self.params["service"]}
        self.service = ecs.Service(self.aws, **self.names)
        self.count = self.params["desired_count"]
        self.groups, self.reachable, self.touched = (), True, False

    def observe(self):
        try:
            seen = together(service=self.service.describe, bounds=lambda: scaling.describe(self.aws, **self.names))
            self.groups = ecs.target_groups(seen["service"])
            seen["targets"] = self.service.targets(self.groups)
            seen["unfinished"] = self._unfinished(seen)
        except Unreachable as error:
            if self.touched:
                raise
            if not self.record:
                raise Refusal(f"{error}: if that region is gone, when_unreachable=record goes on without it") from error
            self.reachable = False
            self.aws.silent.add(self.aws.region)
            left = f"{ecs.short(self.names['service'])} was not scaled to {self.count} and its tasks may still run"
            return {"unreachable": f"{self.aws.region} does not answer: {left}"}
        return seen

    def _unfinished(self, seen):
        """Tasks that still work although the service counts none: asked only where that matters."""
        return self.service.unfinished() if self.count == 0 and ecs.is_idle(seen) else []

    @staticmethod
    def plan(observed, wanted):
        if "unreachable" in observed:
            return Plan(notes=(observed["unreachable"],))
        service, bounds, count = observed["service"], observed["bounds"], wanted["desired_count"]
        name = service["serviceName"]
        if count < 0 or (count == 0 and wanted["at_least"]):
            raise Refusal(f"desired_count is {count}: give 0 to drain (at_least=true never lowers a count), or more")
        if service.get("schedulingStrategy") == "DAEMON":
            raise Refusal(f"{name} runs one task on each container instance (DAEMON): it has no desired count to set")
        present = service["desiredCount"]
        final = max(count, present) if wanted["at_least"] else count
        steps, goal, notes = [], None, ()
        if bounds is not None:
            goal = _goal(bounds, wanted)
            if goal != bounds:
                steps.append(
                    Step(
                        "bound",
                        f"let scaling keep {name} at {scaling.text(goal)}",
                        scaling.text(bounds),
                        scaling.text(goal),
                        {"bounds": goal},
                    )
                )
            if not goal["floor"] <= final <= goal["ceiling"]:
                notes = (f"scaling keeps {name} at {scaling.text(goal)} and will undo a count of {final}",)
        if final != present:
            steps.append(Step("update", f"set the desired count of {name} to {final}", present, final))
        if steps or not _is_settled(observed, count):
            what = f"serves with {ecs.tasks(count)}" if count else "has no task and no target left"
            steps.append(Step("settle", f"wait until {name} {what}", waits=True))
        return Plan(tuple(steps), _view(dict(service, desiredCount=final, runningCount=final), goal), notes)

    def bound(self, bounds):
        self.touched = True
        scaling.register(self.aws, bounds=bounds, **self.names)

    def update(self):
        self.touched = True
        self.aws.change("ecs", "update_service", **self.names, desiredCount=self.count)

    def settle(self):
        self.touched = True
        name, answered, new_stops = ecs.short(self.names["service"]), time.monotonic(), ecs.new_stops(self.service)

        def look():
            nonlocal answered
            try:
                seen = together(service=self.service.describe, targets=lambda: self.service.targets(self.groups))
                seen["unfinished"], seen["stops"] = self._unfinished(seen), []
                if self.count and not ecs.is_serving(seen, self.count):
                    seen["stops"] = new_stops()
            except Unreachable as error:
                if self.record and time.monotonic() - answered > SILENCE:
                    raise Stop(str(error)) from error
                raise
            answered = time.monotonic()
            return seen

        ecs.watch(
            self.wait,
            look,
            lambda seen: _is_settled(seen, self.count),
            lambda seen: ecs.scaling_failure(seen, self.count),
            f"{name} serves with {ecs.tasks(self.count)}" if self.count else f"{name} drains",
            USUAL_START if self.count else USUAL_DRAIN,
        )

    def undo(self, before, done):
        arguments = dict(self.names, region=self.aws.region, desired_count=before["desired"])
        if before["floor"] is not None:
            arguments["scaling"] = {key: before[key] for key in ("floor", "ceiling", "suspended")}
        return [{"verb": "sre.runbooks.ecs_scale", "arguments": arguments}]

    def view(self, observed):
        return {} if "unreachable" in observed else _view(observed["service"], observed["bounds"])

    def returned(self):
        return {"reachable": self.reachable}


def _goal(bounds, wanted):
    """The bounds that scaling is to have."""
    if wanted["scaling"]:
        goal = dict(wanted["scaling"], suspended=sorted(wanted["scaling"]["suspended"]))
        if goal["floor"] > goal["ceiling"]:
            raise Refusal(f"scaling: the floor {goal['floor']} is above the ceiling {goal['ceiling']}")
        return goal
    return scaling.fitting(bounds, wanted["desired_count"], wanted["at_least"]) if wanted["lift_floor"] else bounds


def _is_settled(seen, count):
    return ecs.is_serving(seen, count) if count else ecs.is_idle(seen) and not seen["unfinished"]


def _view(service, bounds):
    return dict(
        {
            "desired": service["desiredCount"],
            "running": service["runningCount"],
            "task_definition": short(service["taskDefinition"]),
            "floor": None,
            "ceiling": None,
            "suspended": None,
        },
        **(bounds or {}),
    )


def main():
    run(verb_module(ARGUMENTS), EcsScale)


if __name__ == "__main__":
    main()
