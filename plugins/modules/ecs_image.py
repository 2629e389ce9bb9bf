#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_image
version_added: 0.3.0
short_description: Deploy a known good image to an ECS service, by its digest
description:
  - Makes a new revision of the task definition that the service runs, in which one container has another image, and rolls the
    service out to it. All else of it stays as it is.
  - The image is named by its digest, since a tag may mean what an intruder has pushed, and is asked for in Amazon ECR first.
  - A newest revision that is already as wanted is used again, and a service that runs it is left as it is.
  - It waits for the deployment that it started, and fails with the reasons of its tasks when that will not end well.
  - B(Risk:) all tasks of the service are replaced. A schema that the image cannot live with is not looked at.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service. ECS itself must roll it out, not CodeDeploy or an external controller.
    type: str
    required: true
  image:
    description: The image with its digest, C(NAME@sha256:...). Give this or O(task_definition).
    type: str
  task_definition:
    description: Go to this existing revision of the family instead, as RV(undo) does.
    type: str
extends_documentation_fragment:
  - sre.runbooks.known_good_image
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Whoever registers a revision needs C(iam:PassRole) on the task role and the execution role.
seealso:
  - module: sre.runbooks.ecs_rollback
  - module: sre.runbooks.k8s_image
"""

EXAMPLES = r"""
- name: The image of which we know what is in it
  sre.runbooks.ecs_image:
    cluster: regami-cluster
    service: regami-service
    image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/regami-api@sha256:{{ good_digest }}
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
task_definition_arn:
  description: The task definition of the service at the end. In check mode the present one.
  returned: when the service was found
  type: str
  sample: arn:aws:ecs:us-east-1:123456789012:task-definition/regami-api:5
registered:
  description: The revision that this run registered, null where it registered none.
  returned: unless refused
  type: str
  sample: regami-api:5
before:
  description: The service as found, with the images of its containers.
  returned: unless refused
  type: dict
  sample: {desired: 2, running: 2, task_definition: "regami-api:4", images: {app: "regami-api:v3"}}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {desired: 2, running: 2, task_definition: "regami-api:5", images: {app: "regami-api@sha256:9f2c"}}
steps:
  description: What was done, or would be done in check mode. The step C(settle) only waits.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: update
      what: roll regami-service out to a revision with app of regami-api@sha256:9f2c
      before: "regami-api:4"
      after: "regami-api:new"
    - {do: settle, what: wait until regami-service has rolled out, before: null, after: null}
undo:
  description: The same verb with the former revision; empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ecs_image
      arguments: {cluster: regami-cluster, service: regami-service, region: us-east-1, task_definition: "regami-api:4"}
notes:
  description: Overrides that were used.
  returned: success
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

from ansible_collections.sre.runbooks.plugins.module_utils import registry
from ansible_collections.sre.runbooks.plugins.module_utils.revision_rollout import (
    ROLLOUT_ARGUMENTS,
    RevisionRollout,
    Wish,
)
from ansible_collections.sre.runbooks.plugins.module_utils.task_definition import only_container
from ansible_collections.sre.runbooks.plugins.module_utils.verb import run, verb_module

SERVICES = ("ecs", "ecr", "dynamodb")
ARGUMENTS = dict(
    ROLLOUT_ARGUMENTS,
    image=dict(type="str"),
    container=dict(type="str"),
    accept_unknown_image=dict(type="bool", default=False),
)


class EcsImage(RevisionRollout):
    """Roll a service out to a revision with another image."""

    VERB = "ecs_image"

    def look_around(self, service, current):
        return {"image": registry.look(self.aws, self.params["image"])}

    @staticmethod
    def wish(observed, wanted):
        notes = registry.known_good(observed["image"], wanted)
        request = copy.deepcopy(observed["current"]["request"])
        only_container(request["containerDefinitions"], wanted["container"], request["family"])["image"] = wanted[
            "image"
        ]
        return Wish(request, tuple(notes))

    @staticmethod
    def shown(request, wanted):
        return {"images": {each["name"]: each["image"] for each in request["containerDefinitions"]}}

    @staticmethod
    def words(shown):
        return ", ".join(f"{name} of {image}" for name, image in shown["images"].items())


def main():
    run(
        verb_module(
            ARGUMENTS,
            required_one_of=[("image", "task_definition")],
            mutually_exclusive=[("image", "task_definition")],
        ),
        EcsImage,
    )


if __name__ == "__main__":
    main()
