# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, numbered.

https://kubernetes.io/docs/tasks/manage-daemon/rollback-daemon-set/
"""

from __future__ import annotations

import copy
from typing import Any

from ..names import template_hash
from ..resources import CONTROLLER_REVISIONS, Resource
from ..store import Store, owner_reference

# The label of a revision that holds its hash.
HASH_LABELS = {"StatefulSet": "controller.kubernetes.io/hash", "DaemonSet": "controller-revision-hash"}


def of_owner(store: Store, owner: dict) -> list[dict]:
    """Oldest first."""
    return sorted(store.owned(CONTROLLER_REVISIONS, owner), key=lambda each: each["revision"])


def newest(store: Store, resource: Resource, owner: dict) -> dict:
    """The revision of the owner's template, made, or moved to the top when the template is an earlier one."""
    known = of_owner(store, owner)
    data = _data(owner["spec"]["template"])
    number = known[-1]["revision"] + 1 if known else 1
    same = next((each for each in known if each["data"] == data), None)
    if same is not None:
        if same is known[-1]:
            return same
        return store.change(CONTROLLER_REVISIONS, same, lambda it: it.update(revision=number))
    hashed = template_hash(owner["spec"]["template"])
    metadata: dict[str, Any] = {
        "name": f"{owner['metadata']['name']}-{hashed}",
        "namespace": owner["metadata"]["namespace"],
        "labels": {
            **(owner["spec"]["template"]["metadata"].get("labels") or {}),
            HASH_LABELS[resource.kind]: hashed,
        },
        "ownerReferences": [owner_reference(resource.group_version, resource.kind, owner)],
    }
    if annotations := owner["metadata"].get("annotations"):
        metadata["annotations"] = annotations
    return store.create(CONTROLLER_REVISIONS, {"metadata": metadata, "data": data, "revision": number})


def hash_of(revision: dict, kind: str) -> str:
    return revision["metadata"]["labels"][HASH_LABELS[kind]]


def forget(store: Store, owner: dict, live: set[str]) -> None:
    """Keep as many as the history may have, besides those that pods still have (names in `live`)."""
    unused = [each for each in of_owner(store, owner) if each["metadata"]["name"] not in live]
    surplus = len(unused) - owner["spec"].get("revisionHistoryLimit", 10)
    for each in unused[: max(0, surplus)]:
        store.delete(CONTROLLER_REVISIONS, each)


def _data(template: dict) -> dict:
    """As a strategic merge patch that puts the template back."""
    return {"spec": {"template": {"$patch": "replace", **copy.deepcopy(template)}}}
