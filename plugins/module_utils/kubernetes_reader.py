# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One workload of a cluster as it is now, with its revisions and its pods."""

from __future__ import annotations

from . import kubernetes_api as api
from . import kubernetes_history as history
from . import kubernetes_workload as workloads
from .aws import attempt, together
from .errors import Refusal, Stop, near
from .kubernetes_options import CLUSTER_ARGUMENTS

# Which workload, and how to reach its cluster; doc_fragments/kubernetes_workload.py says the same for people.
WORKLOAD_ARGUMENT = dict(
    type="dict",
    options=dict(
        CLUSTER_ARGUMENTS,
        name=dict(type="str", required=True),
        namespace=dict(type="str", required=True),
        kind=dict(type="str", choices=list(workloads.KINDS), default="Deployment"),
    ),
)


class Reader:
    """Reads a workload again at each look.

    Args:
        cluster: kubernetes_api.Cluster.
        kind: name of a kind, one of kubernetes_workload.KINDS.
        namespace, name: of the workload.

    Attributes:
        kind: kubernetes_workload.Kind.
        path: of the workload in the API.
    """

    def __init__(self, cluster, kind, namespace, name):
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self.kind = workloads.KINDS[kind]
        if kind == "DeploymentConfig":
            self.path = api.openshift_path(cluster, kind, name, namespace)
        else:
            self.path = api.objects(namespace, self.kind.resource, name)

    def look(self):
        """{workload, revisions, pods}; Refusal where there is no such workload."""
        try:
            workload = self.cluster.read(self.path)
        except api.NotFound as error:
            raise self._not_found() from error
        kept, pods = api.objects(self.namespace, self.kind.revisions_in, api=self.kind.revisions_api), self.pods()
        found = together(
            revisions=lambda: self.cluster.read(kept, labelSelector=workloads.revision_selector(workload)),
            pods=lambda: self.cluster.read(pods, labelSelector=workloads.selector(workload)),
        )
        revisions = self.kind.revisions(workload, found["revisions"]["items"])
        # A pod is of its ReplicaSet, of its ReplicationController, or of the workload itself.
        owners = {workload["metadata"]["uid"], *(each.uid for each in revisions)}
        pods = [
            pod
            for pod in found["pods"]["items"]
            if owners & {owner["uid"] for owner in pod["metadata"].get("ownerReferences", [])}
        ]
        return {"workload": workload, "revisions": history.counted(revisions, pods), "pods": pods}

    def pods(self, name=None):
        """Path of the pods of its namespace, or of one of them."""
        return api.objects(self.namespace, "pods", name, api="/api/v1")

    def _not_found(self):
        """Which of namespace and workload is missing, and what there is."""
        check = "check name, namespace and context of this host in the inventory"
        space = attempt(lambda: self.cluster.read(f"/api/v1/namespaces/{self.namespace}"), Stop)
        if isinstance(space, api.NotFound):
            spaces = attempt(lambda: self.cluster.read("/api/v1/namespaces"), Stop)
            return Refusal(
                f"there is no namespace {self.namespace} in {self.cluster.host}{_near(self.namespace, spaces)}: {check}"
            )
        there = attempt(lambda: self.cluster.read(self.path.rpartition("/")[0]), Stop)
        what = f"there is no {self.kind.name} {self.name} in namespace {self.namespace}"
        return Refusal(f"{what}{_near(self.name, there)}: {check}")


def _near(name, found):
    if isinstance(found, Stop):
        return ""
    return f" ({near(name, [each['metadata']['name'] for each in found['items']])})"
