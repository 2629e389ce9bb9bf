# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The resources that the API serves, as discovery names them."""

from __future__ import annotations

from dataclasses import dataclass

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One resource in one version of its group; `group` is "" for the core."""

    group: str
    version: str
    plural: str
    kind: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    in_all: bool = False  # part of the category "all"
    status: bool = False  # it has the subresource status
    scale: bool = False  # ... and scale
    # Whether metadata.generation counts changes: of the spec, or (Deployments) of the annotations too.
    generation: bool = False
    verbs: tuple[str, ...] = ALL_VERBS
    singular_name: str | None = None

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As errors name it: deployments.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        return self.kind.lower() if self.singular_name is None else self.singular_name

    def __hash__(self) -> int:
        return hash((self.group, self.plural))


NAMESPACES = Resource(
    "",
    "v1",
    "namespaces",
    "Namespace",
    ("ns",),
    namespaced=False,
    status=True,
    verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
)
NODES = Resource("", "v1", "nodes", "Node", ("no",), namespaced=False, status=True)
PODS = Resource("", "v1", "pods", "Pod", ("po",), in_all=True, status=True, generation=True)
SERVICES = Resource("", "v1", "services", "Service", ("svc",), in_all=True, status=True)
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", ("ep",))
EVENTS = Resource("", "v1", "events", "Event", ("ev",))
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", ("cm",))
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", ("sa",))
REPLICATION_CONTROLLERS = Resource(
    "",
    "v1",
    "replicationcontrollers",
    "ReplicationController",
    ("rc",),
    in_all=True,
    status=True,
    scale=True,
    generation=True,
)
DEPLOYMENTS = Resource(
    "apps", "v1", "deployments", "Deployment", ("deploy",), in_all=True, status=True, scale=True, generation=True
)
REPLICA_SETS = Resource(
    "apps", "v1", "replicasets", "ReplicaSet", ("rs",), in_all=True, status=True, scale=True, generation=True
)
STATEFUL_SETS = Resource(
    "apps", "v1", "statefulsets", "StatefulSet", ("sts",), in_all=True, status=True, scale=True, generation=True
)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", ("ds",), in_all=True, status=True, generation=True)
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
AUTOSCALERS = Resource(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", ("hpa",), in_all=True, status=True
)
DISRUPTION_BUDGETS = Resource(
    "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", ("pdb",), status=True, generation=True
)
INGRESS_CLASSES = Resource(
    "networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False, generation=True
)
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress", ("ing",), status=True, generation=True)
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", ("netpol",), generation=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
# Questions: nothing is kept.
SELF_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    namespaced=False,
    verbs=("create",),
)
SELF_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False, verbs=("create",)
)
DEPLOYMENT_CONFIGS = Resource(
    "apps.openshift.io",
    "v1",
    "deploymentconfigs",
    "DeploymentConfig",
    ("dc",),
    in_all=True,
    status=True,
    scale=True,
    generation=True,
)

# Nothing of it is stored: metrics_server.py measures what is asked for.
POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", verbs=("get", "list"), singular_name="")

ALL = (
    CONFIG_MAPS,
    ENDPOINTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICATION_CONTROLLERS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    AUTOSCALERS,
    INGRESS_CLASSES,
    INGRESSES,
    NETWORK_POLICIES,
    DISRUPTION_BUDGETS,
    LEASES,
    ENDPOINT_SLICES,
    SELF_ACCESS_REVIEWS,
    SELF_REVIEWS,
    DEPLOYMENT_CONFIGS,
    POD_METRICS,
)
BY_PATH = {(each.group, each.version, each.plural): each for each in ALL}
BY_KIND = {(each.group_version, each.kind): each for each in ALL}
