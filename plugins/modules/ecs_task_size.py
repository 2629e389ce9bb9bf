#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_task_size
version_added: 0.2.0
short_description: Give the tasks of an ECS service more memory or processor
description:
  - Makes a new revision of the task definition that the service runs, with another size of its tasks, and rolls the service out
    to it. All else of the task definition stays as it is. Limits of containers grow with the task, each in its proportion.
  - On Fargate the size is the smallest that it has with so much memory, with more CPU units where it needs them for that. On
    container instances one of them must have so much memory left.
  - A change such as V(+100%) counts from what there was before this verb, as the revision remembers it, so that the same task
    again changes nothing.
  - The desired count is never sent, since scaling owns it. It waits for the deployment that it started; one that fails, tasks
    that fail again and again, or another deployment in between end the wait at once.
  - "B(Risk:) all tasks of the service are replaced, and larger ones cost more. A leak outgrows any memory: this only gains time."
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service. ECS itself must roll it out, not CodeDeploy or an external controller.
    type: str
    required: true
  memory:
    description:
      - Memory of a task, in MiB (V(2048)), or a change of what there was before (V(+100%), V(+512), V(-50%)).
    type: str
  cpu:
    description:
      - CPU units of a task, 1024 being a vCPU. By default they stay, or are as many as Fargate needs for O(memory).
    type: int
  task_definition:
    description:
      - Go to this existing revision (C(family:revision) or ARN, of the family that the service runs) instead of making one.
        RV(undo) uses it to go back to exactly what was.
    type: str
  accept_shortage:
    description:
      - Go on although a quota, or the memory of every container instance, will not last for it. RV(notes) says what.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Whoever registers a revision needs C(iam:PassRole) on the task role and the execution role, and C(ecs:TagResource).
seealso:
  - module: sre.runbooks.ecs_capacity
  - module: sre.runbooks.ecs_repoint
"""

EXAMPLES = r"""
- name: Twice as much memory for tasks that leak
  sre.runbooks.ecs_task_size:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    memory: +100%

- name: A larger size of Fargate, for what needs the processor
  sre.runbooks.ecs_task_size:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    cpu: 1024
    memory: 2048

- name: Back to the size before
  sre.runbooks.ecs_task_size:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    task_definition: regami-api:3
"""

RETURN = r"""
task_definition_arn:
  description: The task definition of the service at the end. In check mode the present one.
  returned: when the service was found
  type: str
  sample: arn:aws:ecs:us-east-1:123456789012:task-definition/regami-api:4
registered:
  description: The revision that this run registered, null where it registered none.
  returned: unless refused
  type: str
  sample: regami-api:4
before:
  description: The service as found, with the CPU units and MiB of memory of a task.
  returned: unless refused
  type: dict
  sample: {desired: 2, running: 2, task_definition: "regami-api:3", cpu: 256, memory: 512}
after:
  description: The service at the end. In check mode a revision that would be registered is called C(family:new).
  returned: success
  type: dict
  sample: {desired: 2, running: 2, task_definition: "regami-api:4", cpu: 256, memory: 1024}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: register
      what: register a revision of regami-api with 256 CPU units and 1024 MiB
      before: "regami-api:3"
      after: "regami-api:new"
    - do: update
      what: roll regami-service out to a revision with 256 CPU units and 1024 MiB
      before: "regami-api:3"
      after: "regami-api:new"
    - {do: settle, what: wait until regami-service has rolled out, before: null, after: null}
undo:
  description: The same verb with the former revision, which brings back exactly what ran; empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ecs_task_size
      arguments:
        cluster: regami-cluster
        service: regami-service
        region: us-east-1
        task_definition: "regami-api:3"
notes:
  description: What was rounded, what it grows from, and what is short.
  returned: unless refused
  type: list
  elements: str
  sample: ["a task of regami-api had 512 MiB before, and the next deployment of the pipeline brings that back"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 41.7
"""

from ansible_collections.sre.runbooks.plugins.module_utils import room, task_size
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.revision_rollout import (
    ROLLOUT_ARGUMENTS,
    RevisionRollout,
    Wish,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import run, verb_module

SERVICES = ("ecs", "service-quotas", "cloudwatch", "dynamodb")
ARGUMENTS = dict(
    ROLLOUT_ARGUMENTS,
    memory=dict(type="str"),
    cpu=dict(type="int"),
    accept_shortage=dict(type="bool", default=False),
)


class EcsTaskSize(RevisionRollout):
    """Roll a service out to a revision whose tasks have another size."""

    VERB = "ecs_task_size"

    def look_around(self, service, current):
        """Room for the larger tasks, which run beside the former ones for a while."""
        wanted, on_fargate = self.params, _on_fargate(service)
        request, _kept = task_size.resized(current["request"], wanted["memory"], wanted["cpu"], on_fargate)
        new, old = task_size.size(request), task_size.size(current["request"])
        asked = {}
        if on_fargate and new["cpu"] > old["cpu"]:
            asked = room.fargate(self.aws, service, new["cpu"] / room.CPU_UNITS)
        elif not on_fargate and new["memory"] and new["memory"] > (old["memory"] or 0):
            asked = {"memory": lambda: self._instances(new["memory"])}
        return {"rooms": list(together(**asked).values())}

    def _instances(self, memory):
        left = self.service.memory_left()
        most = max(left.values(), default=0)
        detail = (
            ", ".join(f"{count} on {name}" for name, count in sorted(left.items())) or "there is no container instance"
        )
        mend = "give the cluster a larger instance, or less memory to the task"
        return room.Room("MiB of memory of one container instance", memory, most, detail, mend)

    @staticmethod
    def wish(observed, wanted):
        service, current = observed["service"], observed["current"]["request"]
        request, kept = task_size.resized(current, wanted["memory"], wanted["cpu"], _on_fargate(service))
        old, new = task_size.size(current), task_size.size(request)
        notes = []
        if new != old:
            # On an instance one task at a time is enough to go on; the quota counts all of them.
            more = service["desiredCount"] if _on_fargate(service) else min(1, service["desiredCount"])
            notes = room.check(f"tasks of {service['serviceName']}", more, observed["rooms"], wanted["accept_shortage"])
        if kept != new["memory"]:
            family = current["family"]
            notes.append(f"a task of {family} had {kept} MiB before; a deployment of the pipeline brings that back")
        return Wish(request, tuple(notes))

    @staticmethod
    def shown(request, wanted):
        return task_size.size(request)

    @staticmethod
    def words(shown):
        return f"{shown['cpu'] or 'no'} CPU units and {shown['memory'] or 'no'} MiB"


def _on_fargate(service):
    return bool(room.fargate_kinds(service))


def main():
    run(
        verb_module(
            ARGUMENTS,
            required_one_of=[("memory", "cpu", "task_definition")],
            mutually_exclusive=[("memory", "task_definition"), ("cpu", "task_definition")],
        ),
        EcsTaskSize,
    )


if __name__ == "__main__":
    main()
