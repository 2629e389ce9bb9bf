# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server fills in where a request says nothing.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/ (the defaults that each field names)
"""

from __future__ import annotations

import base64
import random
from typing import Any

from .resources import (
    AUTOSCALERS,
    DAEMON_SETS,
    DEPLOYMENT_CONFIGS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INGRESSES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
TEMPLATED = (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, REPLICATION_CONTROLLERS, DEPLOYMENT_CONFIGS)


def fill(resource: Resource, item: dict) -> None:
    """In place; an update needs it as a creation does. What validation will refuse is left as it is."""
    spec = item.get("spec")
    if resource in TEMPLATED and isinstance(spec, dict):
        _fill_template(spec)
    match resource:
        case _ if resource == DEPLOYMENTS and isinstance(spec, dict):
            _fill_deployment(spec)
        case _ if resource == STATEFUL_SETS and isinstance(spec, dict):
            _fill_stateful_set(spec)
        case _ if resource == DAEMON_SETS and isinstance(spec, dict):
            _fill_daemon_set(item, spec)
        case _ if resource in (REPLICA_SETS, REPLICATION_CONTROLLERS) and isinstance(spec, dict):
            spec.setdefault("replicas", 1)
        case _ if resource == DEPLOYMENT_CONFIGS and isinstance(spec, dict):
            _fill_deployment_config(spec)
        case _ if resource == PODS and isinstance(spec, dict):
            _fill_pod(spec)
            spec.setdefault("enableServiceLinks", True)
        case _ if resource == SECRETS:
            _fill_secret(item)
        case _ if resource == NAMESPACES:
            item["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = item["metadata"]["name"]
            item["spec"] = {"finalizers": ["kubernetes"]}
            item["status"] = item.get("status") or {"phase": "Active"}
        case _ if resource == SERVICES and isinstance(spec, dict):
            _fill_service(spec)
            item.setdefault("status", {"loadBalancer": {}})
        case _ if resource == INGRESSES:
            item.setdefault("status", {"loadBalancer": {}})
        case _ if resource == NETWORK_POLICIES and isinstance(spec, dict):
            spec.setdefault("policyTypes", ["Ingress", *(["Egress"] if "egress" in spec else [])])
        case _ if resource == AUTOSCALERS and isinstance(spec, dict):
            _fill_autoscaler(item, spec)


def _fill_deployment(spec: dict) -> None:
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _fill_stateful_set(spec: dict) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})


def _fill_daemon_set(item: dict, spec: dict) -> None:
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def _fill_deployment_config(spec: dict) -> None:
    """https://docs.redhat.com/en/documentation/openshift_container_platform/4.16/html/workloads_apis/deploymentconfig-apps-openshift-io-v1"""
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("activeDeadlineSeconds", 21600)
    if strategy.setdefault("type", "Rolling") == "Rolling":
        rolling = strategy.setdefault("rollingParams", {})
        for name, value in {"updatePeriodSeconds": 1, "intervalSeconds": 1, "timeoutSeconds": 600}.items():
            rolling.setdefault(name, value)
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("triggers", [{"type": "ConfigChange"}])
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("test", False)


def _fill_template(spec: dict) -> None:
    template = spec.get("template")
    if isinstance(template, dict):
        template["metadata"] = {"creationTimestamp": None, **(template.get("metadata") or {})}
        if isinstance(template.get("spec"), dict):
            _fill_pod(template["spec"])


def _fill_pod(spec: dict) -> None:
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        if isinstance(container, dict):
            _fill_container(container)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")


def _fill_container(container: dict) -> None:
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    container.setdefault("resources", {})
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe := container.get(name):
            _fill_probe(probe)
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    image = str(container.get("image", ""))
    latest = image.endswith(":latest") or ":" not in image.rpartition("/")[2]
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")


def _fill_probe(probe: dict) -> None:
    if http := probe.get("httpGet"):
        http.setdefault("path", "/")
        http.setdefault("scheme", "HTTP")
    for name, value in {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}.items():
        probe.setdefault(name, value)


def _fill_service(spec: dict) -> None:
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("clusterIP", f"10.96.{random.randrange(256)}.{random.randrange(1, 255)}")
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        spec.setdefault("externalTrafficPolicy", "Cluster")


def _fill_autoscaler(item: dict, spec: dict) -> None:
    spec.setdefault("minReplicas", 1)
    target: dict[str, Any] = {"type": "Utilization", "averageUtilization": 80}
    spec.setdefault("metrics", [{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
    item.setdefault("status", {"desiredReplicas": 0, "currentMetrics": None})


def _fill_secret(item: dict) -> None:
    """`stringData` is for writing only: it comes back as `data`."""
    for name, value in (item.pop("stringData", None) or {}).items():
        item.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
    item.setdefault("type", "Opaque")


def count_templates(before: dict | None, item: dict) -> None:
    """A DaemonSet counts its templates in an annotation, from 1 on."""
    count = int(((before or {}).get("metadata", {}).get("annotations") or {}).get(TEMPLATE_GENERATION, "0"))
    if before is None or item["spec"]["template"] != before["spec"]["template"]:
        count += 1
    item["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(count)


def initial_status(resource: Resource) -> dict | None:
    """The status of a new object, which its creator cannot give."""
    if resource == STATEFUL_SETS:
        return {"replicas": 0, "availableReplicas": 0}
    if resource == DAEMON_SETS:
        return dict.fromkeys(
            ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"), 0
        )
    if resource in (REPLICA_SETS, REPLICATION_CONTROLLERS):
        return {"replicas": 0}
    if resource == PODS:
        return {"phase": "Pending", "qosClass": "BestEffort"}
    if resource == DEPLOYMENTS:
        return {}
    if resource == DEPLOYMENT_CONFIGS:
        names = ("latestVersion", "observedGeneration", "replicas", "updatedReplicas", "availableReplicas")
        return dict.fromkeys((*names, "unavailableReplicas"), 0)
    if resource == DISRUPTION_BUDGETS:
        return dict.fromkeys(("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"), 0)
    return None
