# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DaemonSets: one pod on every node that takes pods.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/
"""

from __future__ import annotations

import time
from typing import Any

from .. import events
from ..defaults import TEMPLATE_GENERATION
from ..resources import DAEMON_SETS, NODES, PODS
from ..store import Store
from . import revisions
from .rolling import of_total
from .workloads import active_pods, create_pod, is_available, is_ready, tied_node

COMPONENT = "daemonset-controller"
REVISION_LABEL = "controller-revision-hash"


class DaemonSets:
    def __init__(self, store: Store, api: Any) -> None:
        self._store, self._api = store, api

    def sync(self) -> None:
        for owner in self._store.list(DAEMON_SETS):
            revision = revisions.newest(self._store, DAEMON_SETS, owner)
            hashed = revisions.hash_of(revision, "DaemonSet")
            if "deletionTimestamp" not in owner["metadata"]:
                self._provide(owner, hashed)
                self._roll(owner, hashed)
            self._report(owner, hashed)
            live = {f"{owner['metadata']['name']}-{_hash(pod)}" for pod in self._store.owned(PODS, owner)}
            revisions.forget(self._store, owner, live | {revision["metadata"]["name"]})

    def _nodes(self) -> list[str]:
        return [node["metadata"]["name"] for node in self._store.list(NODES) if not node["spec"].get("unschedulable")]

    def _by_node(self, owner: dict) -> dict[str | None, list[dict]]:
        found: dict[str | None, list[dict]] = {}
        for pod in active_pods(self._store, owner):
            found.setdefault(tied_node(pod), []).append(pod)
        return found

    def _provide(self, owner: dict, hashed: str) -> None:
        """A pod where none is; none where no pod belongs. One that still ends on a node is waited for."""
        nodes, present = self._nodes(), self._by_node(owner)
        ending = {tied_node(pod) for pod in self._store.owned(PODS, owner) if "deletionTimestamp" in pod["metadata"]}
        generation = (owner["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "1")
        labels = {REVISION_LABEL: hashed, "pod-template-generation": generation}
        for node in nodes:
            if node not in present and node not in ending:
                create_pod(
                    self._store, DAEMON_SETS, owner, owner["spec"]["template"], COMPONENT, labels=labels, node=node
                )
        for node in present.keys() - set(nodes):
            for pod in present[node]:
                self._delete(owner, pod)

    def _roll(self, owner: dict, hashed: str) -> None:
        """Replace old pods as far as the nodes without a serving one allow; broken ones cost nothing."""
        strategy = owner["spec"]["updateStrategy"]
        if strategy["type"] != "RollingUpdate":
            return
        nodes, present, now = self._nodes(), self._by_node(owner), time.time()
        wait = owner["spec"].get("minReadySeconds", 0)

        def serves(node: str) -> bool:
            return any(is_available(pod, wait, now) for pod in present.get(node, []))

        allowed = max(1, of_total(strategy["rollingUpdate"].get("maxUnavailable", 1), len(nodes), True))
        allowed -= sum(not serves(node) for node in nodes)
        for node in nodes:
            for pod in present.get(node, []):
                if _hash(pod) == hashed:
                    continue
                if not serves(node):
                    self._delete(owner, pod)
                elif allowed > 0:
                    allowed -= 1
                    self._delete(owner, pod)

    def _delete(self, owner: dict, pod: dict) -> None:
        self._api.delete(PODS, pod, {})
        what = f"Deleted pod: {pod['metadata']['name']}"
        events.record(self._store, DAEMON_SETS, owner, "SuccessfulDelete", what, COMPONENT)

    def _report(self, owner: dict, hashed: str) -> None:
        nodes, present, now = self._nodes(), self._by_node(owner), time.time()
        wait = owner["spec"].get("minReadySeconds", 0)
        pods = [present[node][0] for node in nodes if node in present]
        available = sum(is_available(pod, wait, now) for pod in pods)
        status: dict[str, int] = {
            "currentNumberScheduled": len(pods),
            "numberMisscheduled": sum(len(present[node]) for node in present.keys() - set(nodes)),
            "desiredNumberScheduled": len(nodes),
            "numberReady": sum(is_ready(pod) for pod in pods),
            "observedGeneration": owner["metadata"]["generation"],
        }
        counts = {
            "updatedNumberScheduled": sum(_hash(pod) == hashed for pod in pods),
            "numberAvailable": available,
            "numberUnavailable": len(nodes) - available,
        }
        status |= {name: number for name, number in counts.items() if number}
        self._store.change(DAEMON_SETS, owner, lambda it: it.update(status=status))


def _hash(pod: dict) -> str:
    return (pod["metadata"].get("labels") or {}).get(REVISION_LABEL, "")
