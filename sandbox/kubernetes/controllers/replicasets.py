# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ReplicaSets and ReplicationControllers: as many pods as they say, and what became of them.

https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
"""

from __future__ import annotations

import time
from typing import Any

from .. import events
from ..errors import ApiError
from ..resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource
from ..store import Store, place_of
from .workloads import active_pods, create_pod, deletion_order, is_available, is_ready

COMPONENTS = {REPLICA_SETS: "replicaset-controller", REPLICATION_CONTROLLERS: "replication-controller"}


class ReplicaSets:
    def __init__(self, store: Store, api: Any) -> None:
        self._store, self._api = store, api

    def sync(self) -> None:
        for resource in COMPONENTS:
            for found in self._store.list(resource):
                self._sync_one(resource, found)

    def _sync_one(self, resource: Resource, owner: dict) -> None:
        pods = active_pods(self._store, owner)
        if "deletionTimestamp" not in owner["metadata"]:
            missing = owner["spec"]["replicas"] - len(pods)
            for _ in range(missing):
                create_pod(self._store, resource, owner, owner["spec"]["template"], COMPONENTS[resource])
            for pod in sorted(pods, key=deletion_order)[: max(0, -missing)]:
                self._api.delete(PODS, pod, {})
                what = f"Deleted pod: {pod['metadata']['name']}"
                events.record(self._store, resource, owner, "SuccessfulDelete", what, COMPONENTS[resource])
            pods = active_pods(self._store, owner)
        self._report(resource, owner, pods)

    def _report(self, resource: Resource, owner: dict, pods: list[dict]) -> None:
        spec, now = owner["spec"], time.time()
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        counts = {
            "fullyLabeledReplicas": sum(
                labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods
            ),
            "readyReplicas": sum(is_ready(pod) for pod in pods),
            "availableReplicas": sum(is_available(pod, spec.get("minReadySeconds", 0), now) for pod in pods),
        }

        def change(fresh: dict) -> None:
            fresh["status"] = {
                "replicas": len(pods),
                **{name: number for name, number in counts.items() if number},
                "observedGeneration": owner["metadata"]["generation"],
            }

        try:
            self._store.change(resource, owner, change)
        except ApiError:
            assert self._store.find(resource, *place_of(owner)) is None  # deleted meanwhile
