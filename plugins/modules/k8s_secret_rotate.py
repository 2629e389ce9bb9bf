#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_secret_rotate
version_added: 0.3.0
short_description: Move a Kubernetes workload to a new Secret, then remove the old one
description:
  - Makes a Secret of a new name, with the values of the old one but for those in O(values), and moves every reference of the
    workload to it, in environment, C(envFrom), volumes and C(imagePullSecrets). All else of the pod template stays as it is. It
    waits until the rollout is over, and fails with the reason when it never will be.
  - The old Secret stays until O(state=retired), which is refused while any workload, CronJob or pod of the namespace still uses
    it.
  - A Secret of the new name that an earlier run made is used again, so a run that was killed generates nothing twice.
  - B(Risk:) all pods of the workload are replaced, as its rollout strategy allows. O(state=retired) cannot be undone.
options:
  secret:
    description: Name of the Secret that is to be replaced.
    type: str
    required: true
  new_secret:
    description: Name of the new one. Default is the old name with the next number, such as C(database-2) after C(database).
    type: str
  state:
    description:
      - V(created) makes the new Secret only, so that what checks it can be told of it first.
      - V(moved) moves the workload, too. V(former) moves it back.
      - V(retired) deletes the old Secret.
    type: str
    choices: [created, moved, former, retired]
    default: moved
extends_documentation_fragment:
  - sre.runbooks.new_values
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
notes:
  - It needs the verbs get, create and delete on secrets, get and patch on the workload, and list on pods, workloads and CronJobs.
  - The options of AWS are those of the lease.
seealso:
  - module: sre.runbooks.pg_login_rotate
"""

EXAMPLES = r"""
- name: Another database login for the application
  sre.runbooks.k8s_secret_rotate:
    kubernetes:
      context: shop-prod
      namespace: alchemorsel
      name: alchemorsel-api
    secret: database
    values:
      - {key: url, user: regami_2}
      - {key: password, length: 40}
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: Which of the two Secrets there are, and which the workload uses.
  returned: unless refused
  type: dict
  sample: {secrets: [database], used: [database]}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {secrets: [database, database-2], used: [database-2]}
new_secret:
  description: Name of the new Secret.
  returned: unless refused
  type: str
  sample: database-2
steps:
  description: What was done, or in check mode would be. The step C(settle) only waits.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: create, what: "make the Secret database-2 with new values of password, url", before: null, after: database-2}
    - {do: move, what: move alchemorsel-api to the Secret database-2, before: database, after: database-2}
    - {do: settle, what: wait until alchemorsel-api has rolled out, before: null, after: null}
undo:
  description: The same verb with O(state=former), where the workload was moved; that nothing does, where the old Secret was deleted.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.k8s_secret_rotate
      arguments:
        state: former
        secret: database
        new_secret: database-2
        kubernetes: {namespace: alchemorsel, kind: Deployment, name: alchemorsel-api}
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["the Secret database-2 was made at 2026-05-03T02:10:44Z and is used again: for newer values name database-2 as secret"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 8.2
"""

import base64
import contextlib
import copy

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api
from ansible_collections.sre.runbooks.plugins.module_utils import new_values
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_verb import QUARANTINE, KubernetesVerb, main_of
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_workload import is_live
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step

SERVICES = ("dynamodb",)
ARGUMENTS = dict(
    secret=dict(type="str", required=True, no_log=False),
    new_secret=dict(type="str", no_log=False),
    state=dict(type="str", choices=["created", "moved", "former", "retired"], default="moved"),
    values=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(key=dict(type="str", no_log=False), **new_values.VALUE_OPTIONS),
        **new_values.CONDITIONS,
    ),
)
# Of a Secret that this verb made: the one whose place it takes.
MARK = "sre.runbooks/takes-the-place-of"
# What may use a Secret by the pods that it makes.
USERS = (
    ("/apis/apps/v1", "deployments"),
    ("/apis/apps/v1", "statefulsets"),
    ("/apis/apps/v1", "daemonsets"),
    ("/apis/apps.openshift.io/v1", "deploymentconfigs"),
    ("/apis/batch/v1", "cronjobs"),
)


class K8sSecretRotate(KubernetesVerb):
    """A new Secret, the workload on it, the old one gone."""

    # Of one that was created.
    INSTEAD = "a Secret that nobody uses is deleted by hand: kubectl delete secret"

    def __init__(self, module):
        super().__init__(module)
        self.old = self.params["secret"]
        self.new = self.params["new_secret"] or new_values.next_name(self.old)
        self.workload = self.secret = None

    def observe(self):
        looks = {
            "seen": self.reader.look,
            **{name: lambda name=name: self._secret(name) for name in (self.old, self.new)},
        }
        if self.params["state"] == "retired":
            looks["users"] = self._users
        found = together(**looks)
        self.workload = found["seen"]["workload"]
        if found[self.old] and not found[self.new] and self.secret is None:
            self.secret = self._made(found[self.old])
        settled = self.reader.kind.progress(self.workload, None).done
        return {
            "workload": self.workload,
            "old": found[self.old],
            "new": found[self.new],
            "users": found.get("users", []),
            "names": (self.old, self.new),
            "settled": settled,
        }

    def _secret(self, name):
        try:
            return self.cluster.read(self._path(name))
        except api.NotFound:
            return None

    def _path(self, name=None):
        return api.objects(self.namespace, "secrets", name, api="/api/v1")

    def _users(self):
        """Who of the namespace still uses the old one, for people."""
        lists = {name: lambda at=at, name=name: self._all(at, name) for at, name in USERS}
        found = together(**lists, pods=lambda: self.cluster.read(self.reader.pods()))
        # One that is kept for an investigation is not to run again.
        kept = [pod for pod in found.pop("pods")["items"] if QUARANTINE not in (pod["metadata"].get("labels") or {})]
        pods = [pod for pod in kept if is_live(pod)]
        users = [f"pod {pod['metadata']['name']}" for pod in pods if self.old in used_by(pod["spec"])]
        return users + [
            f"{name.rstrip('s')} {each['metadata']['name']}"
            for name, answer in found.items()
            for each in answer["items"]
            if self.old in used_by(_pods_of(each))
        ]

    def _all(self, at, name):
        try:
            return self.cluster.read(api.objects(self.namespace, name, api=at))
        except api.NotFound:  # not every cluster has every kind
            return {"items": []}

    def _made(self, former):
        """The new Secret; here, so that a value that cannot be had refuses before anything is changed."""
        data = dict(former.get("data") or {})
        for given in self.params["values"]:
            key = given["key"]
            made = new_values.make(given, base64.b64decode(data[key]).decode() if key in data else None)
            data[key] = base64.b64encode(made.encode()).decode()
        metadata = {
            "name": self.new,
            "labels": former["metadata"].get("labels") or {},
            "annotations": {MARK: self.old},
        }
        kind = {"apiVersion": "v1", "kind": "Secret", "type": former.get("type", "Opaque")}
        return {**kind, "metadata": metadata, "data": data}

    @staticmethod
    def plan(observed, wanted):
        return PLANS[wanted["state"]](observed, wanted)

    # The steps, named as in the plan.

    def create(self):
        self.cluster.change("POST", self._path(), self.secret)

    def move(self, source, target):
        template = self.workload["spec"]["template"]
        operations = [
            {"op": "test", "path": "/spec/template", "value": template},
            {"op": "replace", "path": "/spec/template", "value": moved(template, source, target)},
        ]
        self.workload = self.patch(self.reader.path, operations)

    def settle(self):
        self.await_rollout(self.workload["spec"]["template"])

    def delete(self):
        with contextlib.suppress(api.NotFound):
            self.cluster.change("DELETE", self._path(self.old))

    def undo(self, before, done):
        if any(step["do"] == "delete" for step in done):
            cannot = f"the Secret {self.old} was deleted, so no workload can go back to it"
            return [{"cannot": cannot, "instead": f"rotate {self.new} anew"}]
        if not any(step["do"] == "move" for step in done) or self.params["state"] == "former":
            return super().undo(before, done) if self.params["state"] == "created" else []
        return self.back("k8s_secret_rotate", state="former", secret=self.old, new_secret=self.new)

    def returned(self):
        return {"new_secret": self.new}

    def view(self, observed):
        there = [
            name for name, secret in zip(observed["names"], (observed["old"], observed["new"]), strict=True) if secret
        ]
        used = used_by(observed["workload"]["spec"]["template"]["spec"])
        return {"secrets": there, "used": [name for name in observed["names"] if name in used]}


def _references(spec):
    """(dict, key) of each place of a pod's spec that names a Secret.

    https://kubernetes.io/docs/concepts/configuration/secret/#using-secrets
    """
    for container in [*spec.get("containers", []), *(spec.get("initContainers") or [])]:
        for each in container.get("env") or []:
            yield (each.get("valueFrom") or {}).get("secretKeyRef"), "name"
        for each in container.get("envFrom") or []:
            yield each.get("secretRef"), "name"
    for volume in spec.get("volumes") or []:
        yield volume.get("secret"), "secretName"
        for each in (volume.get("projected") or {}).get("sources") or []:
            yield each.get("secret"), "name"
    for each in spec.get("imagePullSecrets") or []:
        yield each, "name"


def _pods_of(workload):
    """The spec of the pods that it makes; a CronJob makes Jobs, which make them."""
    spec = workload["spec"]
    return spec.get("jobTemplate", workload)["spec"]["template"]["spec"]


def used_by(spec):
    """Names of the Secrets that a pod's spec uses."""
    return {place[key] for place, key in _references(spec) if place and key in place}


def moved(template, source, target):
    """The template with each reference to `source` to `target`."""
    template = copy.deepcopy(template)
    for place, key in _references(template["spec"]):
        if place and place.get(key) == source:
            place[key] = target
    return template


def _create(observed, wanted):
    old, new = observed["names"]
    if observed["new"] is not None:
        place = (observed["new"]["metadata"].get("annotations") or {}).get(MARK)
        if place != old:
            raise Refusal(f"there is a Secret {new} already, which is not of this rotation: give another as new_secret")
        return []
    if observed["old"] is not None and new in used_by(_pods_of(observed["workload"])):
        # With new values in it the login that its pods have would be closed behind them.
        raise Refusal(
            f"{wanted['kubernetes']['name']} uses the Secret {new}, and somebody has deleted that: bring it back, or go back to "
            f"{old} by state=former"
        )
    if observed["old"] is None:
        raise Refusal(f"there is no Secret {old} in namespace {wanted['kubernetes']['namespace']}: check secret")
    if not wanted["values"]:
        raise Refusal(f"there is no new value for {new}: give values")
    if not all(given["key"] for given in wanted["values"]):
        raise Refusal("a value has no key: say which key of the Secret it is")
    keys = ", ".join(sorted(given["key"] for given in wanted["values"]))
    return [Step("create", f"make the Secret {new} with new values of {keys}", None, new)]


def _created(observed, wanted):
    steps, made = _create(observed, wanted), observed["new"]
    if steps:
        return Plan(tuple(steps), {"secrets": list(observed["names"])})
    new, at = observed["names"][1], made["metadata"].get("creationTimestamp")
    newer = f"name {new} as secret" if new in used_by(_pods_of(observed["workload"])) else "give another new_secret"
    return Plan(notes=(f"the Secret {new} was made at {at} and is used again: for newer values {newer}",))


def _moved(observed, wanted):
    """Pure: what is left until the workload uses the new one."""
    old, new = observed["names"]
    steps = _create(observed, wanted)
    return _moving(observed, wanted, old, new, steps, {"secrets": [old, new]})


def _former(observed, wanted):
    old, new = observed["names"]
    if observed["old"] is None:
        raise Refusal(f"the Secret {old} is gone, so nothing can go back to it")
    return _moving(observed, wanted, new, old, [], {})


def _moving(observed, wanted, source, target, steps, after):
    name, used = wanted["kubernetes"]["name"], used_by(observed["workload"]["spec"]["template"]["spec"])
    if source in used:
        arguments = {"source": source, "target": target}
        steps.append(Step("move", f"move {name} to the Secret {target}", source, target, arguments))
    elif target not in used:
        raise Refusal(
            f"{name} uses neither {source} nor {target} (it uses {', '.join(sorted(used)) or 'none'}): check secret"
        )
    if steps or not observed["settled"]:
        steps.append(Step("settle", f"wait until {name} has rolled out", waits=True))
    return Plan(tuple(steps), dict(after, used=[target]))


def _retired(observed, wanted):
    old, new = observed["names"]
    if observed["old"] is None:
        return Plan(notes=(f"there is no Secret {old} any more",))
    if observed["new"] is None:
        raise Refusal(f"there is no Secret {new} that takes the place of {old}: state=moved comes first")
    if observed["users"]:
        raise Refusal(f"the Secret {old} is still used by {', '.join(observed['users'])}: move them first")
    return Plan((Step("delete", f"delete the Secret {old}", old, None),), {"secrets": [new]})


PLANS = {"created": _created, "moved": _moved, "former": _former, "retired": _retired}


def main():
    main_of(K8sSecretRotate, ARGUMENTS)


if __name__ == "__main__":
    main()
