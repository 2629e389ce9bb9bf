# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events: what controllers say about objects, the same thing counted and not repeated.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import secrets

from .resources import EVENTS, Resource
from .store import Store, now


def record(
    store: Store,
    resource: Resource,
    about: dict,
    reason: str,
    message: str,
    component: str,
    kind: str = "Normal",
    host: str | None = None,
) -> None:
    """`kind` is Normal or Warning; `host` the node, where a kubelet speaks."""
    metadata = about["metadata"]
    namespace = metadata.get("namespace") or "default"
    subject = {
        "kind": resource.kind,
        **({"namespace": metadata["namespace"]} if "namespace" in metadata else {}),
        "name": metadata["name"],
        "uid": metadata["uid"],
        "apiVersion": resource.group_version,
        "resourceVersion": metadata["resourceVersion"],
    }
    with store.lock:
        for known in store.list(EVENTS, namespace):
            same = known["involvedObject"]["uid"] == subject["uid"]
            if same and (known["reason"], known["message"]) == (reason, message):
                store.change(EVENTS, known, _again)
                return
        moment = now()
        item = {
            "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": subject,
            "reason": reason,
            "message": message,
            "source": {"component": component, **({"host": host} if host else {})},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": component,
            "reportingInstance": host or "",
        }
        store.create(EVENTS, item)


def _again(event: dict) -> None:
    event["count"] += 1
    event["lastTimestamp"] = now()
