#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_replace_task
version_added: 0.2.0
short_description: Replace one task of an ECS service that went wrong
description:
  - Stops the one task, and waits until the service has another in its place and all of its tasks serve.
  - Unlike M(sre.runbooks.ecs_restart) it leaves the other tasks as they are, and starts no deployment.
  - A task that has stopped already is none to stop; the task then waits for its replacement, so that a run that was killed is
    gone on with.
  - B(Risk:) the service is one task short until the new one serves. The only task that serves is therefore refused.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service.
    type: str
    required: true
  task:
    description: Id or ARN of the task.
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
  - module: sre.runbooks.ecs_restart
"""

EXAMPLES = r"""
- name: Another task for the one that is hot
  sre.runbooks.ecs_replace_task:
    cluster: regami-cluster
    service: regami-service
    task: 0123456789abcdef0123456789abcdef
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: Whether the task runs, and how many do.
  returned: unless refused
  type: dict
  sample: {task: RUNNING, running: 2, desired: 2}
after:
  description: The same at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {task: STOPPED, running: 2, desired: 2}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: stop, what: "stop task 0123456789abcdef0123456789abcdef of regami-service", before: RUNNING, after: STOPPED}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "stop task 0123456789abcdef0123456789abcdef of regami-service"
      instead: "the service has started another in its place, so nothing is left to do"
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
  sample: 41.5
"""

from ansible_collections.sre.runbooks.plugins.module_utils import ecs
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds: image pulled, started, healthy.
USUAL = 120
# What ECS keeps with a task that somebody stopped; 255 characters at most.
REASON = "replaced by sre.runbooks.ecs_replace_task"

SERVICES = ("ecs", "elbv2", "dynamodb")
ARGUMENTS = dict(
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    task=dict(type="str", required=True),
)


class EcsReplaceTask(Verb):
    """Stop one, wait for another."""

    INSTEAD = "the service has started another in its place, so nothing is left to do"

    def __init__(self, module):
        super().__init__(module)
        self.cluster, self.task = self.params["cluster"], self.params["task"]
        self.service = ecs.Service(self.aws, self.cluster, self.params["service"])
        self.stops = ecs.new_stops(self.service)

    def observe(self):
        service = self.service.describe()
        seen = together(
            task=lambda: self.service.describe_tasks([self.task]),
            others=self._others,
            targets=lambda: self.service.targets(ecs.target_groups(service)),
        )
        return dict(seen, service=service, task=next(iter(seen["task"]), None))

    def _others(self):
        """Ids of the service's tasks that run, without this one."""
        arns = self.service.task_arns(serviceName=self.params["service"], desiredStatus="RUNNING")
        found = self.service.describe_tasks([arn for arn in arns if ecs.short(arn) != ecs.short(self.task)])
        return [ecs.short(each["taskArn"]) for each in found if each["lastStatus"] == "RUNNING"]

    @staticmethod
    def plan(observed, wanted):
        service, task, others = observed["service"], observed["task"], observed["others"]
        name, meant = service["serviceName"], ecs.short(wanted["task"])
        if task is None:  # ECS remembers those that stopped for an hour
            raise Refusal(
                f"ECS knows no task {meant} in {ecs.short(wanted['cluster'])} ({_there(others)}): check the task"
            )
        if task.get("group") != f"service:{name}":
            raise Refusal(
                f"task {meant} is of {task.get('group') or 'no service'}, not of {name}: check the task and the service"
            )
        steps = []
        if task["desiredStatus"] != "STOPPED":
            if not others:
                raise Refusal(
                    f"{meant} is the only task of {name} that runs: sre.runbooks.ecs_restart starts another one before it goes"
                )
            steps.append(Step("stop", f"stop task {meant} of {name}", task["lastStatus"], "STOPPED"))
        if steps or not _is_complete(observed):
            count = service["desiredCount"]
            what = f"wait until {name} serves with {ecs.tasks(count)} without it"
            steps.append(Step("settle", what, arguments={"count": count}, waits=True))
        return Plan(tuple(steps), {"task": "STOPPED", "running": service["desiredCount"]})

    def stop(self):
        self.stops()  # what failed before says nothing of the replacement
        self.aws.change("ecs", "stop_task", cluster=self.cluster, task=self.task, reason=REASON)

    def settle(self, count):
        def look():
            return dict(self.observe(), stops=self.stops())

        ecs.watch(
            self.wait,
            look,
            _is_complete,
            lambda seen: ecs.scaling_failure(seen, count),
            f"{ecs.short(self.params['service'])} serves without {ecs.short(self.task)}",
            USUAL,
        )

    def view(self, observed):
        task, service = observed["task"], observed["service"]
        return {
            "task": task and task["lastStatus"],
            "running": service["runningCount"],
            "desired": service["desiredCount"],
        }


def _is_complete(seen):
    """Do other tasks than this one do all the work?"""
    count = seen["service"]["desiredCount"]
    return len(seen["others"]) >= count and all(ecs.healthy(targets) >= count for _name, targets in seen["targets"])


def _there(others):
    return f"there are: {', '.join(sorted(others)[:5])}" if others else "there are none"


def main():
    run(verb_module(ARGUMENTS), EcsReplaceTask)


if __name__ == "__main__":
    main()
