# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated Kubernetes cluster in the first region, as a part of the world.

Its API is the real one's as far as it goes (checked against recorded answers of a real API server); its pods are
processes of the sandbox's application, one loopback address each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faults import Fault
from . import apiserver, certificates, seeds
from .cluster import Cluster
from .faults import Faults
from .resources import DEPLOYMENTS

if TYPE_CHECKING:
    from ..world import World

HOST = "127.0.0.1"

_cluster: Cluster
_authority: str
_faults: Faults


def install(world: World) -> None:
    global _cluster, _authority
    context, _authority = certificates.make(world.home / "kubernetes", HOST)
    _cluster = Cluster(world, seeds.REGION)
    _cluster.address = f"{HOST}:{apiserver.listen(_cluster, context, HOST)}"


def seed(world: World) -> None:
    global _faults
    _cluster.begin()
    _faults = Faults(_cluster)
    seeds.write_kubeconfig(world, _cluster, _authority)
    seeds.fill(world, _cluster)


def start(world: World) -> None:
    _cluster.sleep()


def wake(world: World, name: str) -> None:
    known = world.state["kubernetes"]
    if name in (known["public_name"], known["ingress_name"]):
        _cluster.wake()


def stop(world: World) -> None:
    if "_cluster" in globals():
        _cluster.end()


def status(world: World) -> list[dict]:
    rows = []
    for each in _cluster.store.list(DEPLOYMENTS):
        found = {condition["type"]: condition for condition in each["status"].get("conditions") or []}
        available = each["status"].get("availableReplicas", 0)
        rows.append(
            {
                "region": _cluster.region,
                "kind": "deployment",
                "name": f"{each['metadata']['namespace']}/{each['metadata']['name']}",
                "state": found.get("Progressing", {}).get("reason", "") if _cluster.is_awake else "asleep",
                "detail": f"available {available} of {each['spec']['replicas']}  "
                f"{each['spec']['template']['spec']['containers'][0]['image']}",
            }
        )
    return rows


faults = {
    "kubernetes-bad-build": Fault(
        "the Deployment of the cluster gets an image of BUILD (or `missing`: one that cannot be pulled)",
        lambda world, build: _faults.ship(build),
        lambda world: _faults.unship(),
        ("build",),
    ),
    "pods-crash": Fault(
        "the containers of the Deployment's pods crash again and again; new pods are well",
        lambda world: _faults.crash(),
        lambda world: _faults.mend(),
    ),
    "node-silent": Fault(
        "a node of the cluster (or --node) and its pods no longer answer",
        lambda world, node=None: _faults.silence(node),
        lambda world: _faults.hear(),
        options=("node",),
    ),
}
