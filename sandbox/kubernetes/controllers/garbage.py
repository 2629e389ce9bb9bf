# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nobody owns any more goes, and what waits for that goes after it.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from typing import Any

from ..errors import ApiError
from ..resources import NAMESPACES, PODS, Resource
from ..store import Store


class Garbage:
    def __init__(self, store: Store, api: Any) -> None:
        self._store, self._api = store, api

    def sync(self) -> None:
        everything = self._store.everything()
        alive = {item["metadata"]["uid"]: item for _, item in everything}
        for resource, item in everything:
            try:
                self._collect(resource, item, alive)
            except ApiError:
                continue  # somebody else was quicker
        for namespace in self._store.list(NAMESPACES):
            if "deletionTimestamp" in namespace["metadata"]:
                self._empty(namespace)

    def _collect(self, resource: Resource, item: dict, alive: dict[str, dict]) -> None:
        metadata = item["metadata"]
        owners = metadata.get("ownerReferences") or []
        left = [alive[each["uid"]] for each in owners if each["uid"] in alive]
        waiting = [each for each in left if "foregroundDeletion" in (each["metadata"].get("finalizers") or [])]
        if owners and len(waiting) == len(left) and "deletionTimestamp" not in metadata:
            # Its owner is gone, or waits for it to go.
            options = {"propagationPolicy": "Foreground"} if waiting and resource != PODS else {}
            self._api.delete(resource, item, options)
        finalizers = metadata.get("finalizers") or []
        if "orphan" in finalizers:
            for other, dependent in self._dependents(metadata["uid"]):
                self._store.change(other, dependent, lambda it: _disown(it, metadata["uid"]))
            self._done(resource, item, "orphan")
        elif "foregroundDeletion" in finalizers and not self._dependents(metadata["uid"]):
            self._done(resource, item, "foregroundDeletion")

    def _dependents(self, uid: str) -> list[tuple[Resource, dict]]:
        return [
            (resource, item)
            for resource, item in self._store.everything()
            if any(each["uid"] == uid for each in item["metadata"].get("ownerReferences") or [])
        ]

    def _done(self, resource: Resource, item: dict, finalizer: str) -> None:
        left = [each for each in item["metadata"]["finalizers"] if each != finalizer]
        if left:
            self._store.change(resource, item, lambda it: it["metadata"].update(finalizers=left))
        else:
            self._store.delete(resource, item)

    def _empty(self, namespace: dict) -> None:
        name = namespace["metadata"]["name"]
        inside = [
            (resource, item) for resource, item in self._store.everything() if item["metadata"].get("namespace") == name
        ]
        for resource, item in inside:
            if "deletionTimestamp" not in item["metadata"]:
                self._api.delete(resource, item, {})
        if not inside:
            self._store.delete(NAMESPACES, namespace)


def _disown(item: dict, uid: str) -> None:
    left = [each for each in item["metadata"]["ownerReferences"] if each["uid"] != uid]
    if left:
        item["metadata"]["ownerReferences"] = left
    else:
        del item["metadata"]["ownerReferences"]
