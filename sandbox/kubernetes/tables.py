# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `kubectl get` prints: the server chooses the columns.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import resources
from .requests import Request
from .resources import Resource
from .store import timestamp

Cell = Callable[[dict], Any]
# (column, cell, priority): only `-o wide` shows what has a priority above 0.
Columns = tuple[tuple[str, Cell, int], ...]


def of(request: Request, resource: Resource, items: list[dict], metadata: dict | None = None) -> dict | None:
    """The items as a table where the client prefers one, else None."""
    if "as=Table" not in request.headers.get("accept", "").partition(",")[0]:
        return None
    name: tuple[str, Cell, int] = ("Name", lambda it: it["metadata"]["name"], int(resource == resources.EVENTS))
    own = COLUMNS.get(resource, (("Age", _age, 0),))
    columns = (*own, name) if resource == resources.EVENTS else (name, *own)
    include = request.query.get("includeObject", "Metadata")
    version = items[0]["metadata"]["resourceVersion"] if items else ""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata or {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": priority,
            }
            for name, _, priority in columns
        ],
        "rows": [
            {"cells": [cell(item) for _, cell, _ in columns], **_object(resource, item, include)} for item in items
        ],
    }


def _object(resource: Resource, item: dict, include: str) -> dict:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": {"kind": resource.kind, "apiVersion": resource.group_version, **item}}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
    return {"object": partial}


# ---- cells ---------------------------------------------------------------------------------------------------------


def _since(moment: str | None) -> str:
    """An age as people read it: 12s, 3m4s, 5h, 2d."""
    if not moment:
        return "<unknown>"
    seconds = max(0, int(time.time() - timestamp(moment)))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    return f"{hours}h" if days < 2 else f"{days}d"


def _age(item: dict) -> str:
    return _since(item["metadata"].get("creationTimestamp"))


def _spec(name: str, default: Any = 0) -> Cell:
    return lambda item: (item.get("spec") or {}).get(name, default)


def _status(name: str, default: Any = 0) -> Cell:
    return lambda item: (item.get("status") or {}).get(name, default)


def _ready_of_wanted(item: dict) -> str:
    return f"{_status('readyReplicas')(item)}/{_spec('replicas')(item)}"


def _containers(field: str) -> Cell:
    return lambda item: ",".join(each.get(field, "") for each in item["spec"]["template"]["spec"]["containers"])


def _labels(labels: dict | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _selector(item: dict) -> str:
    return _labels((item["spec"].get("selector") or {}).get("matchLabels"))


def _containers_of(pod: dict) -> list[dict]:
    return pod["status"].get("containerStatuses") or []


def pod_state(pod: dict) -> str:
    """In one word: what its containers wait for or ended with, Terminating, else its phase."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for each in _containers_of(pod):
        for kind in ("waiting", "terminated"):
            if reason := each["state"].get(kind, {}).get("reason"):
                return reason
    return pod["status"].get("phase", "Pending")


def _pod_ready(pod: dict) -> str:
    return f"{sum(each['ready'] for each in _containers_of(pod))}/{len(pod['spec']['containers'])}"


def _pod_restarts(pod: dict) -> str:
    return str(sum(each["restartCount"] for each in _containers_of(pod)))


def _ports(service: dict) -> str:
    ports = service["spec"].get("ports") or []
    return ",".join(f"{each['port']}/{each['protocol']}" for each in ports) or "<none>"


def _external(service: dict) -> str:
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    names = ",".join(each.get("hostname") or each.get("ip", "") for each in given)
    return names or ("<pending>" if service["spec"]["type"] == "LoadBalancer" else "<none>")


def _addresses(endpoints: dict) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in endpoints.get("subsets") or []
        for address in subset.get("addresses") or []
        for port in subset["ports"]
    ]
    return ",".join(found) or "<none>"


def _node_state(node: dict) -> str:
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
    state = "Ready" if ready else "NotReady"
    return f"{state},SchedulingDisabled" if node["spec"].get("unschedulable") else state


def _target(scaler: dict) -> str:
    reference = scaler["spec"]["scaleTargetRef"]
    return f"{reference['kind']}/{reference['name']}"


def _event_object(event: dict) -> str:
    return f"{event['involvedObject']['kind'].lower()}/{event['involvedObject']['name']}"


COLUMNS: dict[Resource, Columns] = {
    resources.DEPLOYMENTS: (
        ("Ready", _ready_of_wanted, 0),
        ("Up-to-date", _status("updatedReplicas"), 0),
        ("Available", _status("availableReplicas"), 0),
        ("Age", _age, 0),
        ("Containers", _containers("name"), 1),
        ("Images", _containers("image"), 1),
        ("Selector", _selector, 1),
    ),
    resources.REPLICA_SETS: (
        ("Desired", _spec("replicas"), 0),
        ("Current", _status("replicas"), 0),
        ("Ready", _status("readyReplicas"), 0),
        ("Age", _age, 0),
        ("Containers", _containers("name"), 1),
        ("Images", _containers("image"), 1),
        ("Selector", _selector, 1),
    ),
    resources.REPLICATION_CONTROLLERS: (
        ("Desired", _spec("replicas"), 0),
        ("Current", _status("replicas"), 0),
        ("Ready", _status("readyReplicas"), 0),
        ("Age", _age, 0),
    ),
    resources.STATEFUL_SETS: (
        ("Ready", _ready_of_wanted, 0),
        ("Age", _age, 0),
        ("Containers", _containers("name"), 1),
        ("Images", _containers("image"), 1),
    ),
    resources.DAEMON_SETS: (
        ("Desired", _status("desiredNumberScheduled"), 0),
        ("Current", _status("currentNumberScheduled"), 0),
        ("Ready", _status("numberReady"), 0),
        ("Up-to-date", _status("updatedNumberScheduled"), 0),
        ("Available", _status("numberAvailable"), 0),
        ("Age", _age, 0),
    ),
    resources.DEPLOYMENT_CONFIGS: (
        ("Revision", _status("latestVersion"), 0),
        ("Desired", _spec("replicas"), 0),
        ("Current", _status("updatedReplicas"), 0),
    ),
    resources.PODS: (
        ("Ready", _pod_ready, 0),
        ("Status", pod_state, 0),
        ("Restarts", _pod_restarts, 0),
        ("Age", _age, 0),
        ("IP", _status("podIP", "<none>"), 1),
        ("Node", _spec("nodeName", "<none>"), 1),
    ),
    resources.SERVICES: (
        ("Type", _spec("type", ""), 0),
        ("Cluster-IP", _spec("clusterIP", "<none>"), 0),
        ("External-IP", _external, 0),
        ("Port(s)", _ports, 0),
        ("Age", _age, 0),
        ("Selector", lambda it: _labels(it["spec"].get("selector")), 1),
    ),
    resources.ENDPOINTS: (("Endpoints", _addresses, 0), ("Age", _age, 0)),
    resources.NODES: (("Status", _node_state, 0), ("Age", _age, 0), ("Version", lambda _: "v1.33.0", 0)),
    resources.NAMESPACES: (("Status", _status("phase", ""), 0), ("Age", _age, 0)),
    resources.SECRETS: (
        ("Type", lambda it: it.get("type", ""), 0),
        ("Data", lambda it: len(it.get("data") or {}), 0),
        ("Age", _age, 0),
    ),
    resources.CONFIG_MAPS: (("Data", lambda it: len(it.get("data") or {}), 0), ("Age", _age, 0)),
    resources.AUTOSCALERS: (
        ("Reference", _target, 0),
        ("Targets", lambda _: "cpu: <unknown>", 0),
        ("MinPods", _spec("minReplicas"), 0),
        ("MaxPods", _spec("maxReplicas"), 0),
        ("Replicas", _status("currentReplicas"), 0),
        ("Age", _age, 0),
    ),
    resources.EVENTS: (
        ("Last Seen", lambda it: _since(it.get("lastTimestamp") or it["metadata"]["creationTimestamp"]), 0),
        ("Type", lambda it: it["type"], 0),
        ("Reason", lambda it: it["reason"], 0),
        ("Object", _event_object, 0),
        ("Message", lambda it: it["message"], 0),
    ),
}
