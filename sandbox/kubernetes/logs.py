# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresource log of a pod.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from . import errors
from .containers import Container, Log
from .kubelet import Kubelet, PodWorker
from .requests import Request, Target
from .resources import PODS
from .store import Store, timestamp

PULLING = ("ErrImagePull", "ImagePullBackOff")


class Logs:
    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self._store, self._kubelet = store, kubelet

    def read(self, request: Request, target: Target) -> tuple[int, Any]:
        """Text, or an iterator of it when it is to be followed. Raises BadRequest as the kubelet words it."""
        if request.verb != "get":
            raise errors.method_not_allowed()
        pod = self._store.get(PODS, target.namespace, target.name)
        worker = self._kubelet.workers.get(pod["metadata"]["uid"])
        if worker is None:
            raise errors.bad_request(f"pod {target.name} does not have a host assigned")
        container = _container(worker, target.name, request.query.get("container"))
        log = _run(container, target.name, request.query.get("previous") in ("true", "1"))
        lines = list(_chosen(log.lines(), request.query))
        stamped = request.query.get("timestamps") in ("true", "1")
        text = b"".join(_line(moment, line, stamped) for _, moment, line in lines)
        if limit := request.query.get("limitBytes"):
            text = text[: int(limit)]
        if request.query.get("follow") not in ("true", "1"):
            return 200, text
        return 200, self._follow(worker, container, log, text, stamped)

    def _follow(
        self, worker: PodWorker, container: Container, log: Log, text: bytes, stamped: bool
    ) -> Iterator[bytes | None]:
        end = max((end for end, _, _ in log.lines()), default=0)
        yield text or None
        while not worker.is_over and container.logs[-1] is log:
            time.sleep(0.1)
            fresh = log.lines(end)
            if fresh:
                end = fresh[-1][0]
            yield b"".join(_line(moment, line, stamped) for _, moment, line in fresh) or None


def _container(worker: PodWorker, pod: str, name: str | None) -> Container:
    if name is None and len(worker.containers) == 1:
        return worker.containers[0]
    if name is None:
        names = " ".join(each.name for each in worker.containers)
        raise errors.bad_request(f"a container name must be specified for pod {pod}, choose one of: [{names}]")
    found = next((each for each in worker.containers if each.name == name), None)
    if found is None:
        raise errors.bad_request(f"container {name} is not valid for pod {pod}")
    return found


def _run(container: Container, pod: str, previous: bool) -> Log:
    # A container that waits to be started again shows the run that failed.
    runs = container.logs[:-1] if container.is_running or container.has_ended else container.logs
    if previous:
        if not runs:
            message = f'previous terminated container "{container.name}" in pod "{pod}" not found'
            raise errors.bad_request(message)
        return runs[-1]
    if not container.logs:
        reason = container.state.get("waiting", {}).get("reason", "ContainerCreating")
        why = "trying and failing to pull image" if reason in PULLING else reason
        raise errors.bad_request(f'container "{container.name}" in pod "{pod}" is waiting to start: {why}')
    return container.logs[-1]


def _chosen(lines: list[tuple[int, float, bytes]], query: dict[str, str]) -> list[tuple[int, float, bytes]]:
    since = 0.0
    if seconds := query.get("sinceSeconds"):
        since = time.time() - float(seconds)
    elif moment := query.get("sinceTime"):
        since = timestamp(moment)
    chosen = [each for each in lines if each[1] >= since]
    tail = query.get("tailLines")
    return chosen if tail is None else chosen[len(chosen) - min(int(tail), len(chosen)) :]


def _line(moment: float, line: bytes, stamped: bool) -> bytes:
    if not stamped:
        return line
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode() + line
