# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controllers of workloads share: pods made from a template, which of them count, which go first."""

from __future__ import annotations

import copy
import json
from typing import Any

from .. import defaults, events, selectors
from ..names import suffix
from ..resources import PODS, Resource
from ..store import Store, owner_reference, timestamp


def is_active(pod: dict) -> bool:
    """It counts: neither ended nor on its way out."""
    return pod["status"].get("phase") not in ("Succeeded", "Failed") and "deletionTimestamp" not in pod["metadata"]


def is_ready(pod: dict) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions") or [])


def is_available(pod: dict, min_ready_seconds: int, moment: float) -> bool:
    """Ready for that long. `moment` is the time now, in seconds since the epoch."""
    ready = next((each for each in pod["status"].get("conditions") or [] if each["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        return False
    return not min_ready_seconds or timestamp(ready["lastTransitionTime"]) + min_ready_seconds <= moment


def active_pods(store: Store, owner: dict) -> list[dict]:
    """Those of its pods that count. One whose labels its selector no longer matches is let go, and lives on by itself.

    https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#isolating-pods-from-a-replicaset
    """
    chosen = owner["spec"]["selector"]
    matches = selectors.of_object(
        chosen if {"matchLabels", "matchExpressions"} & chosen.keys() else {"matchLabels": chosen}
    )
    kept = []
    for pod in filter(is_active, store.owned(PODS, owner)):
        if matches(pod["metadata"].get("labels")):
            kept.append(pod)
        else:
            store.change(PODS, pod, lambda it: it["metadata"].pop("ownerReferences"))
    return kept


def deletion_order(pod: dict) -> Any:
    """What goes first when there are too many: what runs least.

    https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset
    """
    annotations = pod["metadata"].get("annotations") or {}
    cost = annotations.get("controller.kubernetes.io/pod-deletion-cost", "0")
    restarts = sum(each.get("restartCount", 0) for each in pod["status"].get("containerStatuses") or [])
    return (
        bool(pod["spec"].get("nodeName")),
        pod["status"].get("phase") != "Pending",
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        -restarts,
        -timestamp(pod["metadata"]["creationTimestamp"]),
    )


def create_pod(
    store: Store,
    resource: Resource,
    owner: dict,
    template: dict,
    component: str,
    name: str | None = None,
    labels: dict | None = None,
    node: str | None = None,
    more: dict | None = None,
) -> dict:
    """A pod of the owner's, and the event that says so. `node` ties it to one; `more` joins its spec."""
    metadata = copy.deepcopy(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    prefix = f"{owner['metadata']['name']}-"
    metadata |= {"name": name or prefix + suffix(), "namespace": owner["metadata"]["namespace"]}
    if name is None:
        metadata["generateName"] = prefix
    metadata["labels"] = {**(metadata.get("labels") or {}), **(labels or {})}
    metadata["ownerReferences"] = [owner_reference(resource.group_version, resource.kind, owner)]
    pod = {
        "metadata": metadata,
        "spec": copy.deepcopy(template["spec"]) | (more or {}),
        "status": defaults.initial_status(PODS),
    }
    defaults.fill(PODS, pod)
    if node is not None:
        pod["spec"]["affinity"] = _tied_to(node)
    created = store.create(PODS, pod)
    events.record(store, resource, owner, "SuccessfulCreate", _made(resource, owner, created), component)
    return created


def _made(resource: Resource, owner: dict, pod: dict) -> str:
    name = pod["metadata"]["name"]
    if resource.kind == "StatefulSet":
        return f"create Pod {name} in StatefulSet {owner['metadata']['name']} successful"
    return f"Created pod: {name}"


def _tied_to(node: str) -> dict:
    """How a DaemonSet says on which node its pod belongs."""
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = [{"matchFields": fields}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def tied_node(pod: dict) -> str | None:
    affinity = pod["spec"].get("affinity") or {}
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field["key"] == "metadata.name":
                return field["values"][0]
    return None


def same_template(one: dict, other: dict, ignored_label: str = "pod-template-hash") -> bool:
    """Whether pods made from both are alike; the label that tells ReplicaSets apart does not count."""
    return _comparable(one, ignored_label) == _comparable(other, ignored_label)


def _comparable(template: dict, ignored_label: str) -> str:
    metadata = {key: value for key, value in (template.get("metadata") or {}).items() if key != "creationTimestamp"}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != ignored_label}
    whole = {**template, "metadata": {**metadata, "labels": labels}}
    return json.dumps(whole, sort_keys=True)
