# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Assigns pods to nodes: the one with the fewest pods of those that may have it.

https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
"""

from __future__ import annotations

from collections import Counter

from .. import events
from ..kubelet import set_condition
from ..resources import NODES, PODS
from ..store import Store
from .workloads import tied_node


class Scheduler:
    def __init__(self, store: Store) -> None:
        self._store = store

    def sync(self) -> None:
        pods = self._store.list(PODS)
        load = Counter(pod["spec"].get("nodeName") for pod in pods)
        nodes = [node for node in self._store.list(NODES) if _takes_pods(node)]
        for pod in pods:
            if pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
                continue
            tied = tied_node(pod)
            names = [node["metadata"]["name"] for node in nodes if tied in (None, node["metadata"]["name"])]
            if not names:
                self._cannot(pod)
                continue
            chosen = min(names, key=lambda name: (load[name], name))
            load[chosen] += 1
            self._assign(pod, chosen)

    def _assign(self, pod: dict, node: str) -> None:
        def change(fresh: dict) -> None:
            fresh["spec"]["nodeName"] = node
            set_condition(fresh["status"], "PodScheduled", True)

        self._store.change(PODS, pod, change)
        name = pod["metadata"]
        what = f"Successfully assigned {name['namespace']}/{name['name']} to {node}"
        events.record(self._store, PODS, pod, "Scheduled", what, "default-scheduler")

    def _cannot(self, pod: dict) -> None:
        total = len(self._store.list(NODES))
        message = f"0/{total} nodes are available: {total} node(s) were unschedulable or not ready."
        status = {"reason": "Unschedulable", "message": message}
        self._store.change(PODS, pod, lambda it: set_condition(it["status"], "PodScheduled", False, **status))
        events.record(self._store, PODS, pod, "FailedScheduling", message, "default-scheduler", "Warning")


def _takes_pods(node: dict) -> bool:
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
    return ready and not node["spec"].get("unschedulable")
