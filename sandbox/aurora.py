# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Aurora global clusters: who is the writer moves, after a while. There is no real database behind them.

https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_FailoverGlobalCluster.html and _SwitchoverGlobalCluster.
Nothing is seeded: create_db_cluster and create_global_cluster make one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moto.rds.models import DBCluster, GlobalCluster
    from moto.rds.responses import RDSResponse

    from .world import World


def install(world: World) -> None:
    from moto.core.responses import ActionResult
    from moto.rds.exceptions import RDSClientError
    from moto.rds.models import RDSBackend
    from moto.rds.responses import RDSResponse

    def find(response: RDSResponse, identifier: str) -> GlobalCluster:
        clusters = response.global_backend.global_clusters
        if identifier not in clusters:
            raise RDSClientError("GlobalClusterNotFoundFault", f"Global cluster {identifier} not found")
        return clusters[identifier]

    def describe_global_clusters(self: RDSResponse) -> ActionResult:
        name = self.params.get("GlobalClusterIdentifier")
        found = [find(self, name)] if name else self.global_backend.describe_global_clusters()
        return ActionResult({"GlobalClusters": found})

    def switchover_global_cluster(self: RDSResponse) -> ActionResult:
        cluster, target = _members(self, find, RDSClientError)
        writer = _writer(cluster)
        if writer is not None and writer.region in world.cut_regions:
            raise RDSClientError(
                "InvalidGlobalClusterStateFault", "The primary cluster of the global cluster is unreachable"
            )
        return ActionResult({"GlobalCluster": _move(world, cluster, target, "switching-over", data_loss=False)})

    def failover_global_cluster(self: RDSResponse) -> ActionResult:
        loss, switchover = self.params.get("AllowDataLoss"), self.params.get("Switchover")
        if loss and switchover:
            raise RDSClientError("InvalidParameterCombination", "AllowDataLoss and Switchover exclude each other")
        if switchover or not loss:
            return switchover_global_cluster(self)
        cluster, target = _members(self, find, RDSClientError)
        return ActionResult({"GlobalCluster": _move(world, cluster, target, "failing-over", data_loss=True)})

    original = RDSBackend.create_global_cluster

    def create_global_cluster(self: RDSBackend, **request: Any) -> GlobalCluster:
        """moto forgets that the source cluster is the writer."""
        cluster = original(self, **request)
        for member in cluster.members:
            member.is_writer = True
        return cluster

    RDSBackend.create_global_cluster = create_global_cluster
    for function in (describe_global_clusters, switchover_global_cluster, failover_global_cluster):
        setattr(RDSResponse, function.__name__, function)


def _writer(cluster: GlobalCluster) -> DBCluster | None:
    return next((member for member in cluster.members if member.is_writer), None)


def _members(response: RDSResponse, find: Any, refused: type[Exception]) -> tuple[GlobalCluster, DBCluster]:
    cluster = find(response, response.params["GlobalClusterIdentifier"])
    wanted = response.params["TargetDbClusterIdentifier"]
    target = next((member for member in cluster.members if member.db_cluster_arn == wanted), None)
    if target is None:
        raise refused("DBClusterNotFoundFault", f"DBCluster {wanted} is no member of the global cluster")
    if cluster.status != "available" or target.is_writer:
        state = "the target is the primary already" if target.is_writer else f"it is {cluster.status}"
        raise refused("InvalidGlobalClusterStateFault", f"Global cluster {cluster.global_cluster_identifier}: {state}")
    return cluster, target


def _move(world: World, cluster: GlobalCluster, target: DBCluster, status: str, data_loss: bool) -> GlobalCluster:
    writer = _writer(cluster)
    cluster.status = status
    cluster.failover_state = {
        "Status": status,
        "FromDbClusterArn": writer.db_cluster_arn if writer else "",
        "ToDbClusterArn": target.db_cluster_arn,
        "IsDataLossAllowed": data_loss,
    }

    def finish() -> None:
        world.pause(world.settings.promotion_seconds)
        with world.lock:
            for member in cluster.members:
                member.is_writer = member is target
            cluster.failover_state, cluster.status = None, "available"

    world.background(finish)
    return cluster
