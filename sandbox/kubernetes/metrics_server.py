# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the processes of pods use, as metrics-server tells it: metrics.k8s.io, to be read only.

https://kubernetes.io/docs/reference/external-api/metrics.v1beta1/
"""

from __future__ import annotations

import time
from typing import Any

from .. import usage
from . import errors
from .kubelet import Kubelet
from .requests import Request, Target
from .resources import POD_METRICS, PODS
from .selectors import labels
from .store import Store, now

# Processor of so many seconds is measured.
WINDOW_SECONDS = 0.5


class MetricsServer:
    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self._store, self._kubelet = store, kubelet

    def read(self, request: Request, target: Target) -> tuple[int, Any]:
        """Raises ApiError: it measures nothing of that name, or is asked for a change."""
        if request.verb not in POD_METRICS.verbs:
            raise errors.method_not_allowed()
        wanted = request.query.get("labelSelector")
        pods = [self._store.get(PODS, target.namespace, target.name)] if target.name else []
        if not target.name:
            with self._store.lock:
                pods = self._store.list(PODS, target.namespace, labels(wanted) if wanted else None, None)
        measured = self._measured(pods)
        if target.name:
            return 200, {"kind": POD_METRICS.kind, "apiVersion": POD_METRICS.group_version, **measured[0]}
        head = {"kind": f"{POD_METRICS.kind}List", "apiVersion": POD_METRICS.group_version, "metadata": {}}
        return 200, {**head, "items": measured}

    def _measured(self, pods: list[dict]) -> list[dict]:
        pids = {
            (pod["metadata"]["uid"], container.name): container.pid
            for pod in pods
            if (worker := self._kubelet.workers.get(pod["metadata"]["uid"])) is not None
            for container in worker.containers
            if container.pid is not None
        }
        before, began = {key: usage.cpu_seconds(pid) for key, pid in pids.items()}, time.monotonic()
        time.sleep(WINDOW_SECONDS)
        seconds = time.monotonic() - began
        used = {
            key: {
                "cpu": f"{max(0, int((usage.cpu_seconds(pid) - before[key]) / seconds * 1e9))}n",
                "memory": f"{usage.resident_bytes(pid) // 1024}Ki",
            }
            for key, pid in pids.items()
        }
        return [
            {
                "metadata": {key: pod["metadata"][key] for key in ("name", "namespace")}
                | {"labels": pod["metadata"].get("labels", {}), "creationTimestamp": now()},
                "timestamp": now(),
                "window": f"{WINDOW_SECONDS:g}s",
                "containers": [
                    {"name": name, "usage": usage_of}
                    for (uid, name), usage_of in used.items()
                    if uid == pod["metadata"]["uid"]
                ],
            }
            for pod in pods
            if any(uid == pod["metadata"]["uid"] for uid, _name in used)
        ]
