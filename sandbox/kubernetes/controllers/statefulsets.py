# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""StatefulSets: pods with a name of their own, made in order, replaced in the reverse of it.

https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/
"""

from __future__ import annotations

import time
from typing import Any

from .. import events
from ..resources import CONTROLLER_REVISIONS, PODS, STATEFUL_SETS
from ..store import Store
from . import revisions
from .workloads import create_pod, is_available, is_ready

COMPONENT = "statefulset-controller"
REVISION_LABEL = "controller-revision-hash"


class StatefulSets:
    def __init__(self, store: Store, api: Any) -> None:
        self._store, self._api = store, api

    def sync(self) -> None:
        for owner in self._store.list(STATEFUL_SETS):
            update = revisions.newest(self._store, STATEFUL_SETS, owner)
            current = self._current(owner, update)
            if "deletionTimestamp" not in owner["metadata"]:
                self._step(owner, current, update)
            self._report(owner, current, update)

    def _current(self, owner: dict, update: dict) -> dict:
        name = owner["status"].get("currentRevision")
        found = self._store.find(CONTROLLER_REVISIONS, owner["metadata"]["namespace"], name) if name else None
        return found or update

    def _pods(self, owner: dict) -> dict[int, dict]:
        """By ordinal."""
        prefix = f"{owner['metadata']['name']}-"
        found = {pod["metadata"]["name"].removeprefix(prefix): pod for pod in self._store.owned(PODS, owner)}
        return {int(ordinal): pod for ordinal, pod in found.items() if ordinal.isdigit()}

    def _step(self, owner: dict, current: dict, update: dict) -> None:
        spec, pods = owner["spec"], self._pods(owner)
        ordered = spec["podManagementPolicy"] == "OrderedReady"
        partition = (spec["updateStrategy"].get("rollingUpdate") or {}).get("partition", 0)
        for ordinal in range(spec["replicas"]):
            pod = pods.get(ordinal)
            if pod is None:
                self._create(owner, ordinal, update if ordinal >= partition else current)
            elif pod["status"].get("phase") in ("Failed", "Succeeded"):
                self._delete(owner, pod)
            if ordered and (pod is None or not self._serves(owner, pod)):
                return
        surplus = sorted((ordinal for ordinal in pods if ordinal >= spec["replicas"]), reverse=True)
        for ordinal in surplus:
            self._delete(owner, pods[ordinal])
            if ordered:
                return
        if spec["updateStrategy"]["type"] != "RollingUpdate":
            return
        for ordinal in reversed(range(partition, spec["replicas"])):
            pod = pods.get(ordinal)
            if pod is None:
                return
            if pod["metadata"]["labels"].get(REVISION_LABEL) != update["metadata"]["name"]:
                self._delete(owner, pod)
                return
            if not self._serves(owner, pod):
                return

    @staticmethod
    def _serves(owner: dict, pod: dict) -> bool:
        return "deletionTimestamp" not in pod["metadata"] and is_available(
            pod, owner["spec"].get("minReadySeconds", 0), time.time()
        )

    def _create(self, owner: dict, ordinal: int, revision: dict) -> None:
        template = {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}
        name = f"{owner['metadata']['name']}-{ordinal}"
        labels = {
            "apps.kubernetes.io/pod-index": str(ordinal),
            REVISION_LABEL: revision["metadata"]["name"],
            "statefulset.kubernetes.io/pod-name": name,
        }
        more = {"hostname": name, "subdomain": owner["spec"].get("serviceName", "")}
        create_pod(self._store, STATEFUL_SETS, owner, template, COMPONENT, name, labels, more=more)

    def _delete(self, owner: dict, pod: dict) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            return
        self._api.delete(PODS, pod, {})
        what = f"delete Pod {pod['metadata']['name']} in StatefulSet {owner['metadata']['name']} successful"
        events.record(self._store, STATEFUL_SETS, owner, "SuccessfulDelete", what, COMPONENT)

    def _report(self, owner: dict, current: dict, update: dict) -> None:
        pods, now = list(self._pods(owner).values()), time.time()
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        wait = owner["spec"].get("minReadySeconds", 0)

        def at(revision: dict) -> int:
            name = revision["metadata"]["name"]
            return sum(pod["metadata"]["labels"].get(REVISION_LABEL) == name for pod in alive)

        replicas, ready = owner["spec"]["replicas"], sum(is_ready(pod) for pod in alive)
        if at(update) == ready == replicas == len(pods):
            current = update
        counts = {
            "readyReplicas": ready,
            "currentReplicas": at(current),
            "updatedReplicas": at(update),
        }
        status = {
            "observedGeneration": owner["metadata"]["generation"],
            "replicas": len(pods),
            **{name: number for name, number in counts.items() if number},
            "currentRevision": current["metadata"]["name"],
            "updateRevision": update["metadata"]["name"],
            "collisionCount": 0,
            "availableReplicas": sum(is_available(pod, wait, now) for pod in alive),
        }
        self._store.change(STATEFUL_SETS, owner, lambda it: it.update(status=status))
        live = {pod["metadata"]["labels"].get(REVISION_LABEL, "") for pod in pods}
        revisions.forget(self._store, owner, live | {current["metadata"]["name"], update["metadata"]["name"]})
