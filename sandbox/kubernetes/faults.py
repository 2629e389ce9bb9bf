# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong in the cluster, for a person to cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import builds, ecr
from . import seeds
from .controllers.workloads import is_active
from .kubelet import set_condition
from .resources import DEPLOYMENTS, NODES, PODS
from .store import now

if TYPE_CHECKING:
    from .cluster import Cluster
    from .kubelet import PodWorker

MISSING = "missing"  # a tag that was never pushed


class Faults:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._shipped: tuple[str, str] | None = None  # (image before, image shipped)

    def ship(self, build: str) -> None:
        """Roll out an image of that build, or one that the registry does not have. Raises ValueError."""
        tags = {builds.build_of(f"{ecr.REPOSITORY}:{tag}"): tag for tag in ecr.TAGS} | {MISSING: MISSING}
        if build not in tags:
            raise ValueError(f"unknown build {build!r}: one of {', '.join([*builds.BUILDS, MISSING])}")
        self._cluster.wake()
        image = ecr.uri(self._cluster.region, tags[build])
        self._shipped = (self._set_image(image), image)

    def unship(self) -> None:
        """The image of before, unless somebody was quicker."""
        if self._shipped:
            before, shipped = self._shipped
            self._shipped = None
            self._set_image(before, only_if=shipped)

    def _set_image(self, image: str, only_if: str | None = None) -> str:
        """Returns the image of before."""
        store = self._cluster.store
        deployment = store.get(DEPLOYMENTS, seeds.NAMESPACE, seeds.NAME)
        before = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        if only_if in (None, before):
            store.change(DEPLOYMENTS, deployment, lambda it: seeds.release(it, image))
        return before

    def crash(self) -> None:
        """What the Deployment's pods have goes bad, a volume for example: their containers crash. New pods are well."""
        self._cluster.wake()
        for worker in list(self._cluster.kubelet.workers.values()):
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["labels"].get("app")) == (seeds.NAMESPACE, seeds.NAME):
                self._crash(worker, True)

    def mend(self) -> None:
        for worker in list(self._cluster.kubelet.workers.values()):
            self._crash(worker, False)

    @staticmethod
    def _crash(worker: PodWorker, crashes: bool) -> None:
        for container in worker.containers:
            container.crashes = crashes

    def silence(self, node: str | None = None) -> None:
        """A node's kubelet and pods no longer answer. Raises ValueError."""
        node = node or seeds.NODE_NAMES[0]
        if node not in seeds.NODE_NAMES:
            raise ValueError(f"unknown node {node!r}: one of {', '.join(seeds.NODE_NAMES)}")
        self._cluster.wake()
        self._cluster.kubelet.silent.add(node)
        self._freeze(node, True)
        self._mark(node, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        # The node's pods count as not ready from now on, as the node's controller marks them.
        store = self._cluster.store
        for pod in store.list(PODS):
            if pod["spec"].get("nodeName") == node and is_active(pod):
                store.change(PODS, pod, lambda it: set_condition(it["status"], "Ready", False))

    def hear(self) -> None:
        for node in list(self._cluster.kubelet.silent):
            self._freeze(node, False)
            self._mark(node, "True", "KubeletReady", "kubelet is posting ready status")
            self._cluster.kubelet.silent.discard(node)

    def _freeze(self, node: str, frozen: bool) -> None:
        for worker in list(self._cluster.kubelet.workers.values()):
            if worker.node == node:
                worker.freeze(frozen)

    def _mark(self, node: str, value: str, reason: str, message: str) -> None:
        def change(fresh: dict) -> None:
            for each in fresh["status"]["conditions"]:
                if each["type"] == "Ready":
                    each.update(status=value, reason=reason, message=message, lastTransitionTime=now())

        store = self._cluster.store
        store.change(NODES, store.get(NODES, "", node), change)
