# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster: its API server, its controllers in one thread, its kubelets."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import reviews
from .api import Api
from .controllers.autoscalers import Autoscalers
from .controllers.balancers import Balancers
from .controllers.budgets import Budgets
from .controllers.daemonsets import DaemonSets
from .controllers.deploymentconfigs import DeploymentConfigs
from .controllers.deployments import Deployments
from .controllers.endpoints import Endpoints
from .controllers.garbage import Garbage
from .controllers.ingresses import Ingresses
from .controllers.replicasets import ReplicaSets
from .controllers.scheduler import Scheduler
from .controllers.statefulsets import StatefulSets
from .errors import ApiError
from .evictions import Evictions
from .kubelet import Kubelet
from .logs import Logs
from .metrics_server import MetricsServer
from .openshift import Subresources
from .resources import DEPLOYMENT_CONFIGS, DEPLOYMENTS, INGRESSES, POD_METRICS, PODS, SELF_ACCESS_REVIEWS, SELF_REVIEWS
from .store import Store

if TYPE_CHECKING:
    from ..world import World

# Time itself moves some things: deadlines, minReadySeconds.
LONGEST_PAUSE = 0.25
SHORTEST_PAUSE = 0.02
WAKE_SECONDS = 20.0


class Cluster:
    """One for the process's life; `begin` gives it an empty store."""

    def __init__(self, world: World, region: str) -> None:
        self.world, self.region = world, region
        self.token = world.secret("kubernetes_token")
        self.address = ""
        self.begin()

    def begin(self) -> None:
        self.store = Store()
        self.api = Api(self.store, self.address)
        self.kubelet = Kubelet(self.world, self.store, self.region)
        self.balancers = Balancers(self.world, self.store, self.region)
        self.ingresses = Ingresses(self.world, self.store, self.region)
        self.api.admissions[INGRESSES] = self.ingresses.admit
        self.api.handlers[PODS, "log"] = Logs(self.store, self.kubelet).read
        self.api.handlers[PODS, "eviction"] = Evictions(self.store, self.api).evict
        self.api.handlers[SELF_ACCESS_REVIEWS, ""] = self.api.handlers[SELF_REVIEWS, ""] = reviews.answer
        self.api.computed[POD_METRICS] = MetricsServer(self.store, self.kubelet).read
        openshift = Subresources(self.store)
        self.api.handlers[DEPLOYMENT_CONFIGS, "instantiate"] = openshift.instantiate
        self.api.handlers[DEPLOYMENT_CONFIGS, "rollback"] = openshift.rollback
        self._controllers = [
            Autoscalers(self.store),
            Deployments(self.store),
            DeploymentConfigs(self.store),
            ReplicaSets(self.store, self.api),
            StatefulSets(self.store, self.api),
            DaemonSets(self.store, self.api),
            Budgets(self.store),
            Scheduler(self.store),
            Garbage(self.store, self.api),
            Endpoints(self.store),
        ]
        self._awake = threading.Event()
        self._wake_lock = threading.Lock()
        self._may_wake = False

    @property
    def is_awake(self) -> bool:
        return self._awake.is_set()

    def sleep(self) -> None:
        """Ready to run, but start no process before somebody asks for the cluster."""
        self._may_wake = True

    def wake(self) -> None:
        """Start it on first use, and wait until what it began with is available: nobody sees it get up."""
        if self._awake.is_set() or not self._may_wake:
            return
        with self._wake_lock:
            if self._awake.is_set():
                return
            self.world.background(self._run)
            deadline = time.monotonic() + WAKE_SECONDS
            while not self._is_settled() and time.monotonic() < deadline and self._may_wake:
                time.sleep(0.02)
            self._awake.set()

    def end(self) -> None:
        self._may_wake = False
        self.store.close()
        self.ingresses.close()
        self.kubelet.kill_all()

    def _is_settled(self) -> bool:
        return all(
            each["status"].get("availableReplicas", 0) == each["spec"]["replicas"]
            for each in self.store.list(DEPLOYMENTS)
        )

    def _run(self) -> None:
        while True:
            self.world.pause(SHORTEST_PAUSE)
            if self.region in self.world.cut_regions:
                continue
            version = self.store.version
            self.sync()
            if self.store.version == version:
                self.store.since(version, LONGEST_PAUSE)

    def sync(self) -> None:
        self.control()
        self._guard(self.balancers.sync)
        self._guard(self.ingresses.sync)
        self.kubelet.take_up()

    def control(self) -> None:
        """One look of every controller. They write in one thread; clients and kubelets write beside them."""
        for controller in self._controllers:
            with self.store.lock:
                self._guard(controller.sync)

    def _guard(self, sync: Callable[[], None]) -> None:
        """A controller that stumbles over one object must not stop all others, and tries again at the next look."""
        name = type(sync.__self__).__name__
        try:
            sync()
        except ApiError as error:
            self.world.log(f"{name}: {error}")
        except Exception as error:
            self.world.log(f"{name}: " + "".join(traceback.format_exception(error)))
