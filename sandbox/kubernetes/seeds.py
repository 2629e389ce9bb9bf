# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cluster begins with: a team's namespace `shop`, whose API stands behind a balancer and a public name."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

from .. import builds, ecr, elbv2, route53
from .controllers import ingresses
from .controllers.balancers import HEALTH_PATH
from .resources import (
    AUTOSCALERS,
    DAEMON_SETS,
    DEPLOYMENTS,
    INGRESSES,
    NAMESPACES,
    NODES,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)
from .store import now

if TYPE_CHECKING:
    from ..world import World
    from .cluster import Cluster

REGION = "us-east-1"
CONTEXT = "sandbox"
NAMESPACE = "shop"
NAME, SESSIONS, AGENT = "api", "sessions", "agent"  # a Deployment, a StatefulSet, a DaemonSet
INGRESS, INGRESS_HOST = "front", f"front.{route53.ZONE}"
INGRESS_TTL = 60
REPLICAS = 2
MANAGER = "kubectl-create"
NODE_NAMES = ("ip-10-0-1-10.ec2.internal", "ip-10-0-2-20.ec2.internal")


def write_kubeconfig(world: World, cluster: Cluster, authority: str) -> None:
    encoded = base64.b64encode(authority.encode()).decode()
    server = f"https://{cluster.address}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": encoded}}],
        "users": [{"name": CONTEXT, "user": {"token": cluster.token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": NAMESPACE}}],
        "current-context": CONTEXT,
    }
    # JSON is YAML: no client minds.
    with open(os.open(path(world), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(config, file, indent=1)


def path(world: World) -> str:
    return str(world.home / "kubeconfig")


def fill(world: World, cluster: Cluster) -> None:
    for name in NODE_NAMES:
        cluster.store.create(NODES, _node(name))

    def create(resource: Resource, document: dict, namespace: str = NAMESPACE) -> dict:
        return cluster.api.create(resource, namespace if resource.namespaced else "", document, MANAGER)

    for name in ("default", "kube-system", ingresses.NAMESPACE, NAMESPACE):
        create(NAMESPACES, {"metadata": {"name": name}})
    for resource, namespace, document in ingresses.seeds():
        create(resource, document, namespace)
    create(SECRETS, _secret(world))
    service = create(SERVICES, _service())
    create(SERVICES, _headless(SESSIONS))
    create(INGRESSES, _ingress())
    made = {
        DEPLOYMENTS: create(DEPLOYMENTS, _deployment("v1")),
        STATEFUL_SETS: create(STATEFUL_SETS, _stateful_set("v1")),
        DAEMON_SETS: create(DAEMON_SETS, _daemon_set("v1")),
    }
    cluster.control()
    # The history: version 1 was rolled out, then version 2 took its place. They grow last, so that no pod has to start.
    for resource, item in made.items():
        cluster.store.change(resource, item, lambda it: release(it, ecr.uri(REGION, "v2")))
    cluster.control()
    for resource, replicas in ((DEPLOYMENTS, REPLICAS), (STATEFUL_SETS, 1)):
        cluster.store.change(resource, made[resource], lambda it, size=replicas: it["spec"].update(replicas=size))
    create(AUTOSCALERS, _autoscaler())
    cluster.control()
    balancer = cluster.balancers.provide(service)
    facts = {"alb_dns_name": balancer.dns_name, "alb_zone_id": balancer.zone_id}
    public = f"{NAMESPACE}.{route53.ZONE}"
    through_ingress = {"Name": INGRESS_HOST, "Type": "A", "TTL": INGRESS_TTL}
    through_ingress["ResourceRecords"] = [{"Value": cluster.ingresses.address}]
    route53.create(world, [{"Name": public, "Type": "A", **route53.alias_of(facts)}, through_ingress])
    world.state["kubernetes"] = {
        "region": cluster.region,
        "kubeconfig": path(world),
        "context": CONTEXT,
        "api_url": f"https://{cluster.address}",
        "namespace": NAMESPACE,
        "deployment": NAME,
        "stateful_set": SESSIONS,
        "daemon_set": AGENT,
        "autoscaler": NAME,
        "service": NAME,
        "container": NAME,
        "image": ecr.uri(REGION, "").rstrip(":"),
        "load_balancer_arn": balancer.arn,
        "target_group_arn": balancer.group_arn,
        "alb_dns_name": balancer.dns_name,
        "public_name": public,
        "public_url": f"http://{public}:{elbv2.http_port()}",
        "ingress": INGRESS,
        "ingress_name": INGRESS_HOST,
        "ingress_url": f"http://{INGRESS_HOST}:{elbv2.http_port()}",
        "ingress_address": cluster.ingresses.address,
    }


def _node(name: str) -> dict:
    moment = now()
    kinds = {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
    }
    conditions = [
        {
            "type": kind,
            "status": value,
            "lastHeartbeatTime": moment,
            "lastTransitionTime": moment,
            "reason": reason,
            "message": message,
        }
        for kind, (value, reason, message) in kinds.items()
    ]
    capacity = {"cpu": "2", "memory": "4Gi", "pods": "110"}
    zone = "us-east-1a" if name == NODE_NAMES[0] else "us-east-1b"
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": zone}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": f"aws:///{zone}/i-{name.encode().hex()[:17]}"},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "sandbox", "containerRuntimeVersion": "sandbox://1"},
        },
    }


def _secret(world: World) -> dict:
    region = world.regions[0]
    with world.lock:
        instance = world.state["regions"][region]["db_instance"]
        endpoint = world.backend("rds", region).describe_db_instances(instance)[0].endpoint
    return {
        "metadata": {"name": "database"},
        "stringData": {
            "url": f"postgresql://regami@{endpoint['Address']}:{endpoint['Port']}/regami",
            "password": world.secret("db_app"),
        },
    }


def _service() -> dict:
    return {
        "metadata": {"name": NAME, "labels": {"app": NAME}, "annotations": {HEALTH_PATH: "/health"}},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": NAME},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _ingress() -> dict:
    backend = {"service": {"name": NAME, "port": {"name": "http"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    spec = {"ingressClassName": ingresses.CLASS, "rules": [{"host": INGRESS_HOST, "http": {"paths": [path]}}]}
    return {"metadata": {"name": INGRESS, "labels": {"app": NAME}}, "spec": spec}


def _deployment(version: str) -> dict:
    return {
        "metadata": {
            "name": NAME,
            "labels": {"app": NAME},
            "annotations": {"kubernetes.io/change-cause": f"release {version}"},
        },
        "spec": {
            "replicas": 0,
            # A pod counts once the balancer has had the time to see it.
            "minReadySeconds": 1,
            "progressDeadlineSeconds": 30,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            **_selecting(NAME, version),
        },
    }


def release(workload: dict, image: str) -> None:
    """Ship an image, in place, as a pipeline does: with a word about it."""
    annotations = workload["metadata"].setdefault("annotations", {})
    annotations["kubernetes.io/change-cause"] = f"release {builds.tag_of(image)}"
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = image


def _headless(name: str) -> dict:
    ports = [{"name": "http", "port": elbv2.APP_PORT}]
    return {"metadata": {"name": name}, "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": ports}}


def _stateful_set(version: str) -> dict:
    spec = {"serviceName": SESSIONS, "replicas": 0}
    return {"metadata": {"name": SESSIONS}, "spec": {**_selecting(SESSIONS, version), **spec}}


def _daemon_set(version: str) -> dict:
    return {"metadata": {"name": AGENT}, "spec": _selecting(AGENT, version)}


def _selecting(name: str, version: str) -> dict:
    pod = {"containers": [_container(name, version)], "terminationGracePeriodSeconds": 10}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    return {"selector": {"matchLabels": {"app": name}}, "template": template}


def _autoscaler() -> dict:
    target = {"apiVersion": DEPLOYMENTS.group_version, "kind": DEPLOYMENTS.kind, "name": NAME}
    return {"metadata": {"name": NAME}, "spec": {"scaleTargetRef": target, "minReplicas": REPLICAS, "maxReplicas": 10}}


def _container(name: str, version: str) -> dict[str, Any]:
    def secret(key: str) -> dict:
        return {"secretKeyRef": {"name": "database", "key": key}}

    health = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "name": name,
        "image": ecr.uri(REGION, version),
        "ports": [{"name": "http", "containerPort": elbv2.APP_PORT}],
        "env": [
            {"name": "DATABASE_URL", "valueFrom": secret("url")},
            {"name": "DATABASE_PASSWORD", "valueFrom": secret("password")},
            {"name": "LOG_LEVEL", "value": "INFO"},
        ],
        "readinessProbe": {**health, "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 6},
        # Requests come until the balancer has taken the address out.
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
