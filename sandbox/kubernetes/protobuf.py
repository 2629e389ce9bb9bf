# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes' protocol buffers, as far as `kubectl create` sends them: newer ones write typed objects so.

https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding, and the generated.proto of each group in
https://github.com/kubernetes/api for the numbers. A field that has no name here is refused, not left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from .errors import ApiError, unsupported_media_type

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

# Message -> field number -> (name, what it holds). In brackets: a list of that; "map" and "bytes map" have text as keys.
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Unknown": {1: ("typeMeta", "TypeMeta"), 2: ("raw", "bytes"), 3: ("encoding", "text"), 4: ("type", "text")},
    "TypeMeta": {1: ("apiVersion", "text"), 2: ("kind", "text")},
    "ObjectMeta": {
        1: ("name", "text"),
        2: ("generateName", "text"),
        3: ("namespace", "text"),
        11: ("labels", "map"),
        12: ("annotations", "map"),
        14: ("finalizers", "[text]"),
    },
    "Namespace": {1: ("metadata", "ObjectMeta")},
    "ServiceAccount": {1: ("metadata", "ObjectMeta")},
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "map"), 3: ("binaryData", "bytes map")},
    "Secret": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "bytes map"),
        3: ("type", "text"),
        4: ("stringData", "map"),
    },
    "Deployment": {1: ("metadata", "ObjectMeta"), 2: ("spec", "DeploymentSpec")},
    "DeploymentSpec": {
        1: ("replicas", "number"),
        2: ("selector", "LabelSelector"),
        3: ("template", "PodTemplateSpec"),
    },
    "LabelSelector": {1: ("matchLabels", "map")},
    "PodTemplateSpec": {1: ("metadata", "ObjectMeta"), 2: ("spec", "PodSpec")},
    "PodSpec": {2: ("containers", "[Container]"), 3: ("restartPolicy", "text")},
    "Container": {
        1: ("name", "text"),
        2: ("image", "text"),
        3: ("command", "[text]"),
        4: ("args", "[text]"),
        6: ("ports", "[ContainerPort]"),
    },
    "ContainerPort": {1: ("name", "text"), 3: ("containerPort", "number"), 4: ("protocol", "text")},
    "PodDisruptionBudget": {1: ("metadata", "ObjectMeta"), 2: ("spec", "PodDisruptionBudgetSpec")},
    "PodDisruptionBudgetSpec": {
        1: ("minAvailable", "IntOrString"),
        2: ("selector", "LabelSelector"),
        3: ("maxUnavailable", "IntOrString"),
    },
    "IntOrString": {1: ("type", "number"), 2: ("intVal", "number"), 3: ("strVal", "text")},
    "SelfSubjectAccessReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "SelfSubjectAccessReviewSpec")},
    "SelfSubjectAccessReviewSpec": {
        1: ("resourceAttributes", "ResourceAttributes"),
        2: ("nonResourceAttributes", "NonResourceAttributes"),
    },
    "ResourceAttributes": {
        1: ("namespace", "text"),
        2: ("verb", "text"),
        3: ("group", "text"),
        4: ("version", "text"),
        5: ("resource", "text"),
        6: ("subresource", "text"),
        7: ("name", "text"),
    },
    "NonResourceAttributes": {1: ("path", "text"), 2: ("verb", "text")},
    "SelfSubjectReview": {1: ("metadata", "ObjectMeta")},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "number"),
        4: ("propagationPolicy", "text"),
        5: ("dryRun", "[text]"),
    },
}


def decode(body: bytes) -> dict[str, Any]:
    """The object as JSON would have it. Raises UnsupportedMediaType."""
    try:
        if not body.startswith(_MAGIC):
            raise ValueError("no magic number")
        whole = _message("Unknown", body[len(_MAGIC) :])
        kind = whole["typeMeta"]["kind"]
        if kind not in _MESSAGES:
            raise ValueError(f"the sandbox reads a {kind} as JSON only")
        return {**whole["typeMeta"], **_message(kind, base64.b64decode(whole["raw"]))}
    except (ValueError, KeyError, IndexError) as error:
        refused = unsupported_media_type("application/json, application/yaml")
        raise ApiError(refused.code, refused.reason, f"{refused.message} ({error})") from error


def _message(name: str, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(data):
        if number not in _MESSAGES[name]:
            if not _is_empty(value):
                raise ValueError(f"field {number} of a {name} is read as JSON only")
            continue
        field, kind = _MESSAGES[name][number]
        if kind.startswith("["):
            found.setdefault(field, []).append(_value(kind[1:-1], value))
        elif kind.endswith("map"):
            entry = dict(_fields(value))
            has = entry.get(2, b"")
            text = base64.b64encode(has).decode() if kind == "bytes map" else has.decode()
            found.setdefault(field, {})[entry.get(1, b"").decode()] = text
        elif (read := _value(kind, value)) not in ("", {}):
            found[field] = read
    return found


def _is_empty(value: Any) -> bool:
    """Zero, no text, or a message of nothing else: Go writes those too."""
    if not value or isinstance(value, int):
        return not value
    try:
        return all(_is_empty(inner) for _, inner in _fields(value))
    except (ValueError, IndexError):
        return False


def _value(kind: str, value: Any) -> Any:
    if kind == "number":
        return value
    if kind == "text":
        return value.decode()
    if kind == "bytes":
        return base64.b64encode(value).decode()
    if kind == "IntOrString":
        either = _message(kind, value)
        return either.get("strVal", "") if either.get("type") else either.get("intVal", 0)
    return _message(kind, value)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value): a number, or bytes. https://protobuf.dev/programming-guides/encoding/"""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
