#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_variables
version_added: 0.1.0
short_description: Give the tasks of an ECS service other environment variables
description:
  - Makes a new revision of the task definition that the service runs, with other values of some variables, such as a switch
    that has the application do without its cache, and rolls the service out to it. All else of the task definition stays as it is.
  - Nothing is registered where the service runs such a revision, or the newest one of the family is like it.
  - The desired count is never sent, since scaling owns it. It waits for the deployment that it started; one that fails, tasks
    that fail again and again, or another deployment in between end the wait at once.
  - Values are never shown, since they may be secrets.
  - "B(Risk:) all tasks of the service are replaced. The next deployment of the pipeline brings its own variables back."
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service. ECS itself must roll it out, not CodeDeploy or an external controller.
    type: str
    required: true
  variables:
    description: Names and values; a null or empty value takes the variable out.
    type: dict
    default: {}
  container:
    description: The container that gets them. Needed where the task has several.
    type: str
  task_definition:
    description:
      - Go to this existing revision (C(family:revision) or ARN, of the family that the service runs) instead of making one.
        RV(undo) uses it to go back to exactly what was.
    type: str
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
  - module: sre.runbooks.ecs_repoint
  - module: sre.runbooks.ecs_task_size
"""

EXAMPLES = r"""
- name: Do without the cache
  sre.runbooks.ecs_variables:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    variables: {DISABLE_REDIS: "1"}
    lease: "{{ lock.lease }}"

- name: Use it again
  sre.runbooks.ecs_variables:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    variables: {DISABLE_REDIS: null}
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
  description: The service as found, with the names of those variables that its tasks have.
  returned: unless refused
  type: dict
  sample: {desired: 2, running: 2, task_definition: "regami-api:3", variables: []}
after:
  description: The service at the end. In check mode a revision that would be registered is called C(family:new).
  returned: success
  type: dict
  sample: {desired: 2, running: 2, task_definition: "regami-api:4", variables: [DISABLE_REDIS]}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: register
      what: register a revision of regami-api with the variable DISABLE_REDIS
      before: "regami-api:3"
      after: "regami-api:new"
    - do: update
      what: roll regami-service out to a revision with the variable DISABLE_REDIS
      before: "regami-api:3"
      after: "regami-api:new"
    - {do: settle, what: wait until regami-service has rolled out, before: null, after: null}
undo:
  description: The same verb with the former revision, which brings back exactly what ran; empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ecs_variables
      arguments:
        cluster: regami-cluster
        service: regami-service
        region: us-east-1
        task_definition: "regami-api:3"
notes:
  description: What a person should know.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 41.7
"""

import copy

from ansible_collections.sre.runbooks.plugins.module_utils import task_definition as revisions
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.revision_rollout import (
    ROLLOUT_ARGUMENTS,
    RevisionRollout,
    Wish,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import run, verb_module

SERVICES = ("ecs", "dynamodb")
ARGUMENTS = dict(
    ROLLOUT_ARGUMENTS,
    variables=dict(type="dict", default={}),
    container=dict(type="str"),
)


class EcsVariables(RevisionRollout):
    """Roll a service out with other environment variables."""

    VERB = "ecs_variables"

    @staticmethod
    def wish(observed, wanted):
        if not wanted["variables"]:
            raise Refusal("variables is empty: name those that shall change, or give task_definition")
        request = copy.deepcopy(observed["current"]["request"])
        container = revisions.container(request, wanted["container"])
        for name, value in wanted["variables"].items():
            revisions.set_variable(container, name, None if value in (None, "") else str(value))
        return Wish(request)

    @staticmethod
    def shown(request, wanted):
        there = {entry["name"] for each in request["containerDefinitions"] for entry in each.get("environment", [])}
        return {"variables": sorted(there & set(wanted["variables"]))}

    @staticmethod
    def words(shown):
        names = ", ".join(shown["variables"])
        return (
            f"the variable{'s' if len(shown['variables']) > 1 else ''} {names}" if names else "none of these variables"
        )


def main():
    run(verb_module(ARGUMENTS), EcsVariables)


if __name__ == "__main__":
    main()
