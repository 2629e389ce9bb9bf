# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API says about itself: versions, groups and the resources in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .resources import ALL, PODS, Resource

VERSION = {
    "major": "1",
    "minor": "33",
    "emulationMajor": "1",
    "emulationMinor": "33",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "32",
    "gitVersion": "v1.33.0-sandbox",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}


@dataclass(frozen=True)
class Raw:
    """An answer that is no JSON document."""

    content_type: str
    body: bytes


def openapi(accept: str) -> dict[str, Any] | Raw:
    """A description (version 2) of an API without schemas: clients then check nothing before they send.

    kubectl wants it in the protocol buffers of https://github.com/google/gnostic (openapiv2/OpenAPIv2.proto).
    """
    title, version = "Kubernetes", str(VERSION["gitVersion"])
    # Asked for with an @, which is no media type's sign: answered without.
    if "application/com.github.proto-openapi.spec.v2" not in accept:
        return {"swagger": "2.0", "info": {"title": title, "version": version}, "paths": {}}

    def field(number: int, value: bytes) -> bytes:
        # Of wire type 2 (a length and that many bytes); all are shorter than 128.
        return bytes([number << 3 | 2, len(value)]) + value

    info = field(1, title.encode()) + field(2, version.encode())
    protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    return Raw(protobuf, field(1, b"2.0") + field(2, info) + field(8, b""))


def versions(address: str) -> dict[str, Any]:
    cidrs = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": cidrs}


def _groups() -> dict[str, list[str]]:
    """Group -> its versions, the preferred one first."""
    found: dict[str, list[str]] = {}
    for each in ALL:
        if each.group and each.version not in found.setdefault(each.group, []):
            found[each.group].append(each.version)
    return found


def _group(name: str, versions_: list[str]) -> dict[str, Any]:
    described = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions_]
    return {"name": name, "versions": described, "preferredVersion": described[0]}


def group_list() -> dict[str, Any]:
    groups = [_group(name, found) for name, found in _groups().items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(name: str) -> dict[str, Any] | None:
    found = _groups().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, found)} if found else None


def resource_list(group_name: str, version: str) -> dict[str, Any] | None:
    entries = [entry for each in ALL if (each.group, each.version) == (group_name, version) for entry in _entries(each)]
    if not entries:
        return None
    group_version = f"{group_name}/{version}" if group_name else version
    head = {"kind": "APIResourceList"} | ({"apiVersion": "v1"} if group_name else {})
    return {**head, "groupVersion": group_version, "resources": sorted(entries, key=lambda entry: entry["name"])}


def _entries(resource: Resource) -> list[dict[str, Any]]:
    def sub(name: str, kind: str, verbs: list[str], **of: str) -> dict[str, Any]:
        head = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
        return {**head, **of, "kind": kind, "verbs": verbs}

    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource.in_all:
        entry["categories"] = ["all"]
    entries = [entry]
    changes = ["get", "patch", "update"]
    if resource.status:
        entries.append(sub("status", resource.kind, changes))
    if resource.scale and resource.group == "apps.openshift.io":
        entries.append(sub("scale", "Scale", changes, group="extensions", version="v1beta1"))
        entries.append(sub("instantiate", "DeploymentRequest", ["create"]))
        entries.append(sub("rollback", "DeploymentConfigRollback", ["create"]))
    elif resource.scale:
        entries.append(sub("scale", "Scale", changes, group="autoscaling", version="v1"))
    if resource == PODS:
        entries.append(sub("eviction", "Eviction", ["create"], group="policy", version="v1"))
        entries.append(sub("log", "Pod", ["get"]))
    return entries
