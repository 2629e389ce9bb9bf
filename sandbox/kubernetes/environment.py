# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of a container: plain values, and those from Secrets, ConfigMaps and the pod itself.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables
"""

from __future__ import annotations

import base64
from typing import Any

from .resources import CONFIG_MAPS, SECRETS, Resource
from .store import Store


class Missing(Exception):
    """What a container needs is not there; the message is the kubelet's."""


def of_container(store: Store, pod: dict, container: dict, pod_ip: str) -> dict[str, str]:
    """Raises Missing. A later entry wins over an earlier one, `env` over `envFrom`."""
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for resource, reference in ((SECRETS, source.get("secretRef")), (CONFIG_MAPS, source.get("configMapRef"))):
            if reference:
                prefix = source.get("prefix", "")
                values = _data(store, pod, resource, reference) or {}
                found |= {prefix + key: _text(resource, value) for key, value in values.items()}
    for each in container.get("env") or []:
        value = _value(store, pod, each, pod_ip)
        if value is not None:
            found[each["name"]] = value
    return found


def _value(store: Store, pod: dict, entry: dict, pod_ip: str) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return str(entry.get("value", ""))
    if reference := source.get("fieldRef"):
        return _field(pod, reference["fieldPath"], pod_ip)
    for resource, name in ((SECRETS, "secretKeyRef"), (CONFIG_MAPS, "configMapKeyRef")):
        if reference := source.get(name):
            data = _data(store, pod, resource, reference)
            if data is None:
                return None
            if reference["key"] not in data:
                if reference.get("optional"):
                    return None
                where = f"{pod['metadata']['namespace']}/{reference['name']}"
                raise Missing(f"couldn't find key {reference['key']} in {resource.kind} {where}")
            return _text(resource, data[reference["key"]])
    return None


def _data(store: Store, pod: dict, resource: Resource, reference: dict) -> dict | None:
    found = store.find(resource, pod["metadata"]["namespace"], reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        raise Missing(f'{resource.kind.lower()} "{reference["name"]}" not found')
    return found.get("data") or {}


def _text(resource: Resource, value: str) -> str:
    return base64.b64decode(value).decode() if resource == SECRETS else value


def _field(pod: dict, path: str, pod_ip: str) -> str:
    if path == "status.podIP":
        return pod_ip
    found: Any = pod
    for step in path.split("."):
        found = found.get(step, "") if isinstance(found, dict) else ""
    return str(found)
