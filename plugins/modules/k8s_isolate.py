#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_isolate
version_added: 0.3.0
short_description: Cut a Kubernetes workload, or some of its pods, off the network
description:
  - With O(pods), puts these into quarantine. They lose their labels, so that Services send them nothing and their controller
    starts others in their place; they run on for the investigation, and a NetworkPolicy lets nothing in or out of them.
  - Without O(pods), a NetworkPolicy lets nothing in or out of any pod of the workload. It is off the air until it is released.
  - The former labels of a pod are kept in an annotation of it, and autoscalers of nodes are told to let it be.
  - Releasing deletes what this verb made, the pods in quarantine included, since their replacements serve. Take the evidence
    first.
  - B(Risk:) NetworkPolicies add up, so that one which allows something to these pods goes on allowing it. Such a one is refused
    with its name.
options:
  pods:
    description: Names of the pods to put into quarantine, for O(state=isolated). Empty means to cut off the whole workload.
    type: list
    elements: str
    default: []
  state:
    description: V(isolated), or V(released) for all that this verb did to the workload.
    type: str
    choices: [isolated, released]
    default: isolated
  accept_policies:
    description: Isolate although other NetworkPolicies go on allowing something to these pods.
    type: bool
    default: false
extends_documentation_fragment:
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
  - The network plugin of the cluster has to enforce NetworkPolicies; with one that does not nothing is cut. Whether connections
    end that are open is up to it, too.
  - It needs the verbs get on the workload, list on pods and its revisions, patch and delete on pods, and list, create and delete
    on networkpolicies.
  - The options of AWS are those of the lease.
seealso:
  - name: Network Policies
    description: Kubernetes documentation.
    link: https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

EXAMPLES = r"""
- name: Keep a pod that was broken into, and let another one serve
  sre.runbooks.k8s_isolate:
    kubernetes:
      context: shop-prod
      namespace: alchemorsel
      name: alchemorsel-api
    pods: "{{ suspects | default([]) }}"
    lease: "{{ lock.lease }}"

- name: Give the workload its network back
  sre.runbooks.k8s_isolate:
    kubernetes:
      namespace: alchemorsel
      name: alchemorsel-api
    state: released
"""

RETURN = r"""
before:
  description: What of the workload is isolated, and how many of its pods serve.
  returned: unless refused
  type: dict
  sample: {policies: [], quarantined: [], serving: 2}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample:
    policies: [sre.runbooks-quarantine-6c1f8a7e-0b1d-4b3e-9a53-6d3f0a9b7c11]
    quarantined: [alchemorsel-api-5d9c7b8f4-x2x7p]
    serving: 2
steps:
  description: What was done, or in check mode would be. The step C(settle) only waits.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: deny, what: let nothing in or out of pods of alchemorsel-api in quarantine, before: null, after: null}
    - {do: quarantine, what: put pod alchemorsel-api-5d9c7b8f4-x2x7p into quarantine, before: null, after: null}
    - {do: settle, what: wait until alchemorsel-api serves without them, before: null, after: null}
undo:
  description: The same verb with O(state=released); for a release what to do instead.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.k8s_isolate
      arguments: {state: released, kubernetes: {namespace: alchemorsel, kind: Deployment, name: alchemorsel-api}}
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["override accept_policies: allow-dns goes on allowing something to these pods"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 3.1
"""

import contextlib
import json

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_workload as workloads
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, near
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_verb import (
    QUARANTINE,
    USUAL,
    KubernetesVerb,
    main_of,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step

SERVICES = ("dynamodb",)
ARGUMENTS = dict(
    pods=dict(type="list", elements="str", default=[]),
    state=dict(type="str", choices=["isolated", "released"], default="isolated"),
    accept_policies=dict(type="bool", default=False),
)

# The annotation with the labels that a pod in quarantine had.
FORMER = "sre.runbooks/former-labels"
# So that no autoscaler takes the node, and with it the evidence, away.
# https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md and https://karpenter.sh/docs/concepts/disruption/
KEEP = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
POLICIES = "/apis/networking.k8s.io/v1"
SLICES = "/apis/discovery.k8s.io/v1"


class K8sIsolate(KubernetesVerb):
    """A NetworkPolicy without a rule, and pods without their labels."""

    # Of a release: the pods that were kept are gone.
    INSTEAD = "playbooks/security_breach.yml -e steps=isolate cuts it off again, but for the pods that are gone"

    def observe(self):
        seen = self.reader.look()
        uid = seen["workload"]["metadata"]["uid"]
        more = together(
            policies=lambda: self.cluster.read(self._policies())["items"],
            quarantined=lambda: self.cluster.read(self.reader.pods(), labelSelector=f"{QUARANTINE}={uid}")["items"],
        )
        return dict(seen, **more)

    def _policies(self, name=None):
        return api.objects(self.namespace, "networkpolicies", name, api=POLICIES)

    @staticmethod
    def plan(observed, wanted):
        return (_released if wanted["state"] == "released" else _isolated)(observed, wanted)

    # The steps, named as in the plan.

    def deny(self, name, selector):
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "annotations": {"sre.runbooks/isolates": self.name}},
            "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]},
        }
        with contextlib.suppress(Overtaken):  # it is there already
            self.cluster.change("POST", self._policies(), policy)

    def allow(self, name):
        with contextlib.suppress(api.NotFound):
            self.cluster.change("DELETE", self._policies(name))

    def quarantine(self, name, operations):
        self.patch(self.reader.pods(name), operations)

    def delete(self, name, uid):
        # With the precondition a pod of the same name that took its place meanwhile stays.
        with contextlib.suppress(api.NotFound, Overtaken):
            self.cluster.change("DELETE", self.reader.pods(name), {"preconditions": {"uid": uid}})

    def settle(self, uids):
        """Until its other pods serve, and no Service sends these anything."""

        def look():
            slices = api.objects(self.namespace, "endpointslices", api=SLICES)
            return together(seen=self.reader.look, slices=lambda: self.cluster.read(slices)["items"])

        def done(found):
            reached = {
                (each.get("targetRef") or {}).get("uid")
                for piece in found["slices"]
                for each in piece.get("endpoints") or []
            }
            seen = found["seen"]
            return not reached & set(uids) and len(_serving(seen["pods"])) >= workloads.wanted(seen["workload"])

        def state(found):
            seen = found["seen"]
            return f"{len(_serving(seen['pods']))} of {workloads.wanted(seen['workload'])} pods serve"

        self.wait(look, done, f"{self.name} serves without them", USUAL, state=state)

    def gone(self, uids):
        def look():
            there = self.cluster.read(self.reader.pods())["items"]
            return [pod["metadata"]["name"] for pod in there if pod["metadata"]["uid"] in uids]

        self.wait(look, lambda left: not left, "pods in quarantine end", 30, state=lambda left: f"{len(left)} left")

    def undo(self, before, done):
        if self.params["state"] == "released":
            return super().undo(before, done)
        return self.back("k8s_isolate", state="released")

    def view(self, observed):
        return {
            "policies": sorted(_ours(observed)),
            "quarantined": sorted(_names(observed["quarantined"])),
            "serving": len(_serving(observed["pods"])),
        }


def _serving(pods):
    """The pods that serve. The status of the workload is a moment behind, and still counts those that have just left it."""
    return [pod for pod in pods if workloads.is_live(pod) and not workloads.unready(pod)]


def _names(items):
    return [each["metadata"]["name"] for each in items]


def _named(workload):
    """(name of the policy of the whole workload, name of the one of pods in quarantine)"""
    uid = workload["metadata"]["uid"]
    return f"sre.runbooks-isolated-{uid}", f"sre.runbooks-quarantine-{uid}"


def _ours(observed):
    return [name for name in _names(observed["policies"]) if name in _named(observed["workload"])]


def _isolated(observed, wanted):
    """Pure: what is left to cut off."""
    workload, target = observed["workload"], wanted["kubernetes"]
    name, uid = target["name"], workload["metadata"]["uid"]
    whole, some = _named(workload)
    there = {pod["metadata"]["name"]: pod for pod in observed["pods"]}
    cut = {pod["metadata"]["name"]: pod for pod in observed["quarantined"]}
    unknown = [pod for pod in wanted["pods"] if pod not in there and pod not in cut]
    if unknown:
        raise Refusal(f"{name} has no pod {', '.join(unknown)} ({near(unknown[0], there)}): check pods")
    if wanted["pods"] and target["kind"] == "StatefulSet":
        raise Refusal(
            f"pods of the StatefulSet {name} cannot be replaced while they are kept, since theirs are the names: leave pods out to "
            f"cut off all of it"
        )
    if wanted["pods"]:
        policy, labels, selector = some, {QUARANTINE: uid}, {"matchLabels": {QUARANTINE: uid}}
        who = f"pods of {name} in quarantine"
    else:
        policy, labels = whole, workload["spec"]["template"]["metadata"].get("labels") or {}
        selector, who = _label_selector(workload), f"any pod of {name}"
    notes = _others(observed["policies"], labels, wanted["accept_policies"])
    steps = []
    if policy not in _ours(observed):
        steps.append(Step("deny", f"let nothing in or out of {who}", arguments={"name": policy, "selector": selector}))
    fresh = [pod for pod in dict.fromkeys(wanted["pods"]) if pod not in cut]
    steps += [
        Step(
            "quarantine",
            f"put pod {pod} into quarantine",
            arguments={"name": pod, "operations": _into(there[pod], uid)},
        )
        for pod in fresh
    ]
    if wanted["pods"]:
        uids = [(there.get(pod) or cut[pod])["metadata"]["uid"] for pod in wanted["pods"]]
        what = f"wait until {name} serves without them"
        steps.append(Step("settle", what, arguments={"uids": uids}, waits=True))
    after = {"policies": sorted({*_ours(observed), policy}), "quarantined": sorted({*cut, *fresh})}
    return Plan(tuple(steps), after, tuple(notes))


def _into(pod, uid):
    """The JSON patch that takes a pod out of everybody's selectors, if it still has the labels that it had."""
    meta = pod["metadata"]
    labels = meta.get("labels") or {}
    notes = {**(meta.get("annotations") or {}), **KEEP, FORMER: json.dumps(labels, sort_keys=True)}
    return [
        {"op": "test", "path": "/metadata/labels", "value": labels},
        {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
        {"op": "add", "path": "/metadata/annotations", "value": notes},
        {"op": "replace", "path": "/metadata/labels", "value": {QUARANTINE: uid}},
    ]


def _label_selector(workload):
    """As a NetworkPolicy takes it; a DeploymentConfig has a plain map."""
    chosen = workload["spec"]["selector"]
    return chosen if {"matchLabels", "matchExpressions"} & chosen.keys() else {"matchLabels": chosen}


def _others(policies, labels, accepted):
    """Notes about other policies that allow something to pods with these labels.

    https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation
    """
    names = [
        each["metadata"]["name"]
        for each in policies
        if (each["spec"].get("ingress") or each["spec"].get("egress"))
        and _selects(each["spec"].get("podSelector") or {}, labels)
    ]
    if not names:
        return []
    told = f"{', '.join(sorted(names))} goes on allowing something to these pods, since NetworkPolicies add up"
    if not accepted:
        raise Refusal(f"{told}: delete or narrow it for a while, or say accept_policies=true")
    return [f"override accept_policies: {told}"]


def _selects(selector, labels):
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements"""
    tests = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, _values: value is not None,
        "DoesNotExist": lambda value, _values: value is None,
    }
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        tests[each["operator"]](labels.get(each["key"]), each.get("values") or [])
        for each in selector.get("matchExpressions") or []
    )


def _released(observed, wanted):
    """Pure: what is left to give back."""
    name, steps = wanted["kubernetes"]["name"], []
    for pod in observed["quarantined"]:
        meta = pod["metadata"]
        if not meta.get("deletionTimestamp"):
            arguments = {"name": meta["name"], "uid": meta["uid"]}
            steps.append(Step("delete", f"delete pod {meta['name']}, which is in quarantine", arguments=arguments))
    uids = [pod["metadata"]["uid"] for pod in observed["quarantined"]]
    if uids:
        steps.append(Step("gone", "wait until they are gone", arguments={"uids": uids}, waits=True))
    for policy in sorted(_ours(observed)):
        steps.append(Step("allow", f"delete the NetworkPolicy {policy}", policy, None, {"name": policy}))
    notes = () if steps else (f"nothing of {name} is isolated: there is nothing to release",)
    return Plan(tuple(steps), {"policies": [], "quarantined": []}, notes)


def main():
    main_of(K8sIsolate, ARGUMENTS)


if __name__ == "__main__":
    main()
