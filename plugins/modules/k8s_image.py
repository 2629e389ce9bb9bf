#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_image
version_added: 0.3.0
short_description: Deploy a known good image to a Kubernetes workload, by its digest
description:
  - Does what C(kubectl set image) does, with gates and an end. The image is named by its digest, since a tag may mean what an
    intruder has pushed, and is asked for in Amazon ECR first.
  - It waits until the rollout is over, and fails as soon as a pod shows that it never will be.
  - An edit by somebody else between the look and the change is noticed, and nothing is overwritten.
  - B(Risk:) all pods of the workload are replaced, as its rollout strategy allows. A schema that the image cannot live with is
    not looked at.
options:
  image:
    description: The image with its digest, C(NAME@sha256:...).
    type: str
    required: true
  when_managed:
    description:
      - What to do when Argo CD, Flux or an operator manages the workload and would put the change back. V(refuse) fails and says
        how to suspend it; V(note) goes on.
    type: str
    choices: [refuse, note]
    default: refuse
extends_documentation_fragment:
  - sre.runbooks.known_good_image
  - sre.runbooks.kubernetes_workload.required
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - kubernetes
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.k8s_rollout
  - module: sre.runbooks.ecs_image
"""

EXAMPLES = r"""
- name: The image of which we know what is in it
  sre.runbooks.k8s_image:
    kubernetes:
      context: shop-prod
      namespace: alchemorsel
      name: alchemorsel-api
    image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/regami-api@sha256:{{ good_digest }}
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: The images of the containers as found.
  returned: unless refused
  type: dict
  sample: {images: {api: "regami-api:v3"}, available: 2}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {images: {api: "regami-api@sha256:9f2c"}, available: 2}
steps:
  description: What was done, or would be done in check mode. The step C(settle) only waits.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: deploy, what: "give container api of alchemorsel-api the image regami-api@sha256:9f2c", before: "regami-api:v3", after: "regami-api@sha256:9f2c"}
    - {do: settle, what: wait until alchemorsel-api has rolled out, before: null, after: null}
undo:
  description: C(k8s_rollout) with C(action=undo), which goes to the former revision; empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.k8s_rollout
      arguments: {namespace: alchemorsel, kind: Deployment, name: alchemorsel-api, action: undo, to_revision: 4}
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
  sample: 8.2
"""

import copy

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_history as history
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_workload as workloads
from ansible_collections.sre.runbooks.plugins.module_utils import registry
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_verb import KubernetesVerb, main_of
from ansible_collections.sre.runbooks.plugins.module_utils.task_definition import only_container
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step

SERVICES = ("ecr", "dynamodb")
ARGUMENTS = dict(
    image=dict(type="str", required=True),
    container=dict(type="str"),
    accept_unknown_image=dict(type="bool", default=False),
    when_managed=dict(type="str", choices=["refuse", "note"], default="refuse"),
)


class K8sImage(KubernetesVerb):
    """One container's image, by digest."""

    def __init__(self, module):
        super().__init__(module)
        self.workload = self.revision = None

    def observe(self):
        found = together(seen=self.reader.look, image=lambda: registry.look(self.aws, self.params["image"]))
        workload, revisions = found["seen"]["workload"], found["seen"]["revisions"]
        self.workload, now = workload, history.current(workload, revisions)
        if self.revision is None and now is not None:
            self.revision = now.number
        return {
            "workload": workload,
            "image": found["image"],
            "settled": self.reader.kind.progress(workload, now).done,
        }

    @staticmethod
    def plan(observed, wanted):
        workload, name, image = observed["workload"], wanted["kubernetes"]["name"], wanted["image"]
        notes = registry.known_good(observed["image"], wanted)
        template = copy.deepcopy(workload["spec"]["template"])
        container = only_container(template["spec"]["containers"], wanted["container"], name)
        steps, former = [], container["image"]
        if former != image:
            managers = "; ".join(workloads.reconcilers(workload))
            if managers and wanted["when_managed"] == "refuse":
                raise Refusal(
                    f"{name} is managed by {managers}, which would put the change back: suspend that, or say when_managed=note"
                )
            if managers:
                notes.append(f"override when_managed: {managers} may put the change back")
            container["image"] = image
            what = f"give container {container['name']} of {name} the image {image}"
            steps.append(Step("deploy", what, former, image, {"template": template}))
        if steps or not observed["settled"]:
            steps.append(Step("settle", f"wait until {name} has rolled out", waits=True))
        return Plan(tuple(steps), {"images": _images(template)}, tuple(notes))

    def deploy(self, template):
        operations = [
            {"op": "test", "path": "/spec/template", "value": self.workload["spec"]["template"]},
            {"op": "replace", "path": "/spec/template", "value": template},
        ]
        self.workload = self.patch(self.reader.path, operations)

    def settle(self):
        self.await_rollout(self.workload["spec"]["template"])

    def undo(self, before, done):
        if not any(step["do"] == "deploy" for step in done) or self.revision is None:
            return []
        (entry,) = self.back("k8s_rollout")
        where = entry["arguments"]["kubernetes"]
        return [dict(entry, arguments=dict(where, action="undo", to_revision=self.revision))]

    def view(self, observed):
        workload = observed["workload"]
        return {"images": _images(workload["spec"]["template"]), "available": workloads.available(workload)}


def _images(template):
    return {each["name"]: each["image"] for each in template["spec"]["containers"]}


def main():
    main_of(K8sImage, ARGUMENTS)


if __name__ == "__main__":
    main()
