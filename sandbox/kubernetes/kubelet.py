# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubelets: every pod that is assigned to a node gets a thread, and its containers become processes.

Each pod has a loopback address of its own, so that it listens on the very ports that its containers name.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..addresses import Addresses
from . import events, network
from .containers import Container
from .errors import ApiError
from .resources import PODS
from .store import Store, now, place_of

if TYPE_CHECKING:
    from ..processes import Process
    from ..world import World

TICK_SECONDS = 0.05
DEFAULT_PORT = 8080

_addresses = Addresses(64)


class Kubelet:
    """All nodes' kubelets. `silent` names nodes that no longer answer."""

    def __init__(self, world: World, store: Store, region: str) -> None:
        self.world, self.store, self.region = world, store, region
        self.silent: set[str] = set()
        self.workers: dict[str, PodWorker] = {}  # by the pod's uid

    def take_up(self) -> None:
        """Start what is newly assigned, forget what is gone."""
        for uid in [uid for uid, worker in self.workers.items() if worker.is_over]:
            del self.workers[uid]
        for pod in self.store.list(PODS):
            uid = pod["metadata"]["uid"]
            if pod["spec"].get("nodeName") and uid not in self.workers:
                self.workers[uid] = PodWorker(self, pod)
                self.world.background(self.workers[uid].run)

    def kill_all(self) -> None:
        for worker in list(self.workers.values()):
            for container in worker.containers:
                container.kill()
        self.workers.clear()


class PodWorker:
    """One pod, from its node's point of view."""

    def __init__(self, kubelet: Kubelet, pod: dict) -> None:
        self._kubelet, self.pod = kubelet, pod
        self.world, self.store = kubelet.world, kubelet.store
        self.uid = pod["metadata"]["uid"]
        self.node = pod["spec"]["nodeName"]
        self.address = _addresses.free([each["containerPort"] for each in _ports(pod)])
        self.folder: Path = self.world.home / "pods" / self.uid
        self.longest_probe_period = self.world.settings.probe_seconds
        self.containers = [Container(self, spec) for spec in pod["spec"]["containers"]]
        self._guard = network.Guard(self.store, self.address)
        self.is_ending = self.is_over = False
        self._started = now()
        self._reported: dict[str, Any] | None = None

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            while (pod := self._newest()) is not None:
                if self._is_cut_off:
                    self.pause(TICK_SECONDS)
                    continue
                self.pod = pod
                if "deletionTimestamp" in pod["metadata"]:
                    self._end()
                    return
                for container in self.containers:
                    container.advance()
                self._guard.enforce(pod, [each.pid for each in self.containers if each.pid is not None])
                self._report()
                self.pause(TICK_SECONDS)
        finally:
            for container in self.containers:
                container.kill()
            self.is_over = True

    def freeze(self, frozen: bool) -> None:
        """Stop or continue its processes; what is reported next is what is true then."""
        self._reported = None
        for container in self.containers:
            container.freeze(frozen)

    @property
    def _is_cut_off(self) -> bool:
        return self._kubelet.region in self.world.cut_regions or self.node in self._kubelet.silent

    def _newest(self) -> dict | None:
        """None when this very pod is gone."""
        pod = self.store.find(PODS, *place_of(self.pod))
        return pod if pod is not None and pod["metadata"]["uid"] == self.uid else None

    def _end(self) -> None:
        """preStop, SIGTERM, and SIGKILL when the grace period is over; it counts from the deletion."""
        self.is_ending = True
        grace = float(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        deadline = time.monotonic() + grace
        for container in self.containers:
            if container.is_running:
                self.say("Killing", f"Stopping container {container.name}")
            container.before_stop(max(0.0, deadline - time.monotonic()))
        for container in self.containers:
            container.terminate(max(0.0, deadline - time.monotonic()))
        while any(container.is_running for container in self.containers):
            if self._newest() is None:
                return
            for container in self.containers:
                container.advance()
            self.pause(0.02)
        if (pod := self._newest()) is not None:
            try:
                self.store.delete(PODS, pod)
            except ApiError:
                pass  # somebody else was quicker

    def _report(self) -> None:
        """https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase"""
        statuses = [container.status() for container in self.containers]
        ready = all(container.is_ready for container in self.containers)
        status = {"phase": self._phase(), "statuses": statuses, "ready": ready}
        if status == self._reported:
            return

        def change(pod: dict) -> None:
            known = pod.setdefault("status", {})
            known["phase"] = status["phase"]
            unready = [each["name"] for each in statuses if not each["ready"]]
            reason = {
                "reason": "ContainersNotReady",
                "message": f"containers with unready status: [{' '.join(unready)}]",
            }
            set_condition(known, "Initialized", True)
            set_condition(known, "Ready", ready, **({} if ready else reason))
            set_condition(known, "ContainersReady", ready, **({} if ready else reason))
            known["hostIP"] = "127.0.0.1"
            known["podIP"], known["podIPs"] = self.address, [{"ip": self.address}]
            known["startTime"] = self._started
            known["containerStatuses"] = statuses

        try:
            self.store.change(PODS, self.pod, change)
            self._reported = status
        except ApiError:
            pass  # deleted meanwhile

    def _phase(self) -> str:
        if self.containers and all(container.has_ended for container in self.containers):
            codes = [container.state["terminated"]["exitCode"] for container in self.containers]
            return "Failed" if any(codes) else "Succeeded"
        began = all(container.logs for container in self.containers)
        return "Running" if began else "Pending"

    # ---- what its containers need ----------------------------------------------------------------------------------

    def port_of(self, container: dict) -> int:
        """Where the application in it listens; a container that names no port listens where it disturbs nobody."""
        ports = container.get("ports")
        return ports[0]["containerPort"] if ports else self.world.free_port(self.address)

    def spawn(self, name: str, argv: list[str], environment: dict[str, str], log: Path | None) -> Process:
        return self.world.spawn(name, argv, env=environment, log=log, region=self._kubelet.region)

    def say(self, reason: str, message: str, kind: str = "Normal") -> None:
        events.record(self.store, PODS, self.pod, reason, message, "kubelet", kind, self.node)

    def pause(self, seconds: float) -> None:
        self.world.pause(seconds)


def set_condition(status: dict, kind: str, true: bool, **more: str) -> None:
    """A pod's condition; its time changes with its status only."""
    conditions = status.setdefault("conditions", [])
    value = "True" if true else "False"
    known = next((each for each in conditions if each["type"] == kind), None)
    same = known is not None and known["status"] == value
    moment = known["lastTransitionTime"] if same else now()
    new = {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": moment, **more}
    if known is None:
        conditions.append(new)
    else:
        conditions[conditions.index(known)] = new


def _ports(pod: dict) -> list[dict]:
    return [port for container in pod["spec"]["containers"] for port in container.get("ports") or []]
