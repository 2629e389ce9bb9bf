#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_restart
version_added: 0.1.0
short_description: Replace all tasks of an ECS service by new ones of the same revision
description:
  - For tasks that run but do not serve, a state that only a new process leaves. New tasks are started before old ones are
    stopped as far as the service's deployment configuration says so, and the verb waits until its own deployment is
    complete.
  - It ends at once, with the reasons of the stopped tasks, the last events and the health of the targets, when new tasks
    fail as well.
  - A restart that is under way, for example of a run that was killed, is waited for and not begun a second time.
  - B(Risk:) a tag that was moved in the registry brings another image, unless the service resolves images to digests.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service.
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
  - module: sre.runbooks.ecs_rollback
"""

EXAMPLES = r"""
- name: New tasks for those that hang
  sre.runbooks.ecs_restart:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: The deployment found, what it runs and how many tasks of it.
  returned: unless refused
  type: dict
  sample: {deployment: ecs-svc/1111111111111111111, task_definition: "regami-api:7", running: 2, desired: 2}
after:
  description: The same for what runs now; in check mode the deployment is not known yet.
  returned: success
  type: dict
  sample: {deployment: ecs-svc/2222222222222222222, task_definition: "regami-api:7", running: 2, desired: 2}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: restart, what: "start new tasks of regami-service (regami-api:7)", before: null, after: null}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "start new tasks of regami-service (regami-api:7)"
      instead: "its tasks are new ones of the same revision, so nothing is left to do"
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 61.5
"""

from ansible_collections.sre.runbooks.plugins.module_utils import ecs
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds: image pulled, started, healthy, and the old tasks drained.
USUAL = 180

SERVICES = ("ecs", "elbv2", "dynamodb")
ARGUMENTS = dict(
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
)


class EcsRestart(Verb):
    """New tasks, the same revision."""

    INSTEAD = "its tasks are new ones of the same revision, so nothing is left to do"

    def __init__(self, module):
        super().__init__(module)
        self.names = {"cluster": self.params["cluster"], "service": self.params["service"]}
        self.service = ecs.Service(self.aws, **self.names)
        self.first = None  # the deployment that was found, whose tasks are to go

    def observe(self):
        service = self.service.describe()
        present = ecs.primary(service)
        if self.first is None and present is not None:
            self.first = present["id"]
        return {"service": service, "first": self.first}

    @staticmethod
    def plan(observed, wanted):
        service = observed["service"]
        name, owner, present = service["serviceName"], ecs.controller(service), ecs.primary(service)
        if owner != "ECS":
            raise Refusal(
                f"{name} is deployed by {owner}, which ECS lets restart nothing: deploy its present revision there"
            )
        if not service["desiredCount"]:
            raise Refusal(
                f"{name} is told to have no task, so there is none to restart: sre.runbooks.ecs_scale gives it some"
            )
        steps = []
        if present["id"] == observed["first"] and not _is_restarting(service, present):
            steps.append(Step("restart", f"start new tasks of {name} ({ecs.short(service['taskDefinition'])})"))
        if steps or not ecs.is_rolled_out(service, present):
            steps.append(Step("settle", f"wait until {name} runs new tasks only", waits=True))
        return Plan(tuple(steps), {"deployment": None} if steps else {})

    def restart(self):
        self.aws.change("ecs", "update_service", **self.names, forceNewDeployment=True)

    def settle(self):
        ours = ecs.primary(self.service.describe())["id"]
        what = f"{ecs.short(self.names['service'])} restarts"
        ecs.follow_deployment(self.wait, self.service, ours, what, USUAL)

    def view(self, observed):
        service = observed["service"]
        return {
            "deployment": (ecs.primary(service) or {}).get("id"),
            "task_definition": ecs.short(service["taskDefinition"]),
            "running": service["runningCount"],
            "desired": service["desiredCount"],
        }


def _is_restarting(service, present):
    """Is a deployment of the revision that runs already replacing it by itself?"""
    return present.get("rolloutState") == "IN_PROGRESS" and any(
        each is not present and each["taskDefinition"] == present["taskDefinition"] for each in service["deployments"]
    )


def main():
    run(verb_module(ARGUMENTS), EcsRestart)


if __name__ == "__main__":
    main()
