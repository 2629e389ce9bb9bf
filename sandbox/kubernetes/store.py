# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects, their versions and what happened to them.

Objects are kept without kind and apiVersion, and never changed in place: a write puts a new one. Whoever reads one
copies it before changing it.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import errors, selectors
from .resources import ALL, DEPLOYMENTS, NAMESPACES, Resource

KEPT_EVENTS = 2000  # of the history that a watch can begin in

Place = tuple[str, str]  # namespace ("" for none) and name


@dataclass(frozen=True)
class Change:
    """One write. `before` is the object as it was, None when it is new; `type` is ADDED, MODIFIED or DELETED."""

    version: int
    type: str
    resource: Resource
    object: dict
    before: dict | None


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def place_of(item: dict) -> Place:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


class Store:
    """All methods may be called from any thread; `changed` is notified after each write."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 240  # a real cluster's first objects come after those that it makes for itself
        self._objects: dict[Resource, dict[Place, dict]] = {resource: {} for resource in ALL}
        self._history: deque[Change] = deque(maxlen=KEPT_EVENTS)
        self._closed = False

    # ---- reading ---------------------------------------------------------------------------------------------------

    def find(self, resource: Resource, namespace: str, name: str) -> dict | None:
        with self.lock:
            return self._objects[resource].get((namespace, name))

    def get(self, resource: Resource, namespace: str, name: str) -> dict:
        """Raises NotFound."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise errors.not_found(resource, name)
        return found

    def list(
        self,
        resource: Resource,
        namespace: str = "",
        labels: selectors.Test | None = None,
        fields: selectors.Test | None = None,
    ) -> list[dict]:
        """In the order of namespace and name; namespace "": of all."""
        with self.lock:
            found = [item for (where, _), item in self._objects[resource].items() if namespace in ("", where)]
        found = [
            item
            for item in found
            if (labels is None or labels(item["metadata"].get("labels") or {})) and (fields is None or fields(item))
        ]
        return sorted(found, key=place_of)

    def owned(self, resource: Resource, owner: dict) -> list[dict]:
        """Those whose controller `owner` is."""
        uid = owner["metadata"]["uid"]
        found = self.list(resource, owner["metadata"].get("namespace", ""))
        return [item for item in found if (controller_of(item) or {}).get("uid") == uid]

    def everything(self) -> list[tuple[Resource, dict]]:
        with self.lock:
            return [(resource, item) for resource, found in self._objects.items() for item in found.values()]

    # ---- writing ---------------------------------------------------------------------------------------------------

    def create(self, resource: Resource, item: dict) -> dict:
        """Gives it its uid, version and time. Raises AlreadyExists."""
        item = copy.deepcopy(item)
        item.pop("kind", None), item.pop("apiVersion", None)
        with self.lock:
            if place_of(item) in self._objects[resource]:
                raise errors.already_exists(resource, item["metadata"]["name"])
            facts = {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if resource.generation:
                facts["generation"] = 1
            item["metadata"] |= facts
            return self._put("ADDED", resource, item, None)

    def replace(self, resource: Resource, item: dict) -> dict:
        """The object as it is to be. Nothing happens when nothing differs. Raises NotFound."""
        with self.lock:
            before = self.get(resource, *place_of(item))
            item = copy.deepcopy(item)
            item.pop("kind", None), item.pop("apiVersion", None)
            if resource.generation and _generation_moves(resource, before, item):
                item["metadata"]["generation"] = before["metadata"]["generation"] + 1
            if item == before:
                return before
            if "deletionTimestamp" in item["metadata"] and _is_done(resource, item):
                return self._remove(resource, item)
            return self._put("MODIFIED", resource, item, before)

    def change(self, resource: Resource, item: dict, change: Callable[[dict], Any]) -> dict:
        """Read, change, write at once: `change` gets a copy of the newest version. Raises NotFound."""
        with self.lock:
            fresh = copy.deepcopy(self.get(resource, *place_of(item)))
            change(fresh)
            return self.replace(resource, fresh)

    def delete(self, resource: Resource, item: dict) -> dict:
        """At once, whatever its finalizers say. Raises NotFound."""
        with self.lock:
            return self._remove(resource, self.get(resource, *place_of(item)))

    def close(self) -> None:
        """Ends every watch."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def _put(self, type_: str, resource: Resource, item: dict, before: dict | None) -> dict:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self._objects[resource][place_of(item)] = item
        self._note(Change(self.version, type_, resource, item, before))
        return item

    def _remove(self, resource: Resource, item: dict) -> dict:
        before = self._objects[resource].pop(place_of(item))
        self.version += 1
        last = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        self._note(Change(self.version, "DELETED", resource, last, before))
        return last

    def _note(self, change: Change) -> None:
        self._history.append(change)
        self.changed.notify_all()

    # ---- watching --------------------------------------------------------------------------------------------------

    def since(self, version: int, seconds: float) -> tuple[list[Change], bool]:
        """The writes after `version`, waiting up to `seconds` for the first; and whether the store was closed.

        Raises Expired when they are no longer all known.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.version > version or self._closed, seconds)
            if self._history and version + 1 < self._history[0].version:
                raise errors.expired(version, self._history[0].version)
            return [change for change in self._history if change.version > version], self._closed


def _generation_moves(resource: Resource, before: dict, item: dict) -> bool:
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/ (generation)

    A Deployment's counts annotations too, since they go on to its ReplicaSets. Its own revision annotation is written
    with the status, which does not count.
    """
    if _wanted(before) != _wanted(item):
        return True
    return resource == DEPLOYMENTS and _annotations(before) != _annotations(item)


def _wanted(item: dict) -> dict:
    """The spec; that a pod was assigned to a node is no change of what is wanted."""
    return {key: value for key, value in (item.get("spec") or {}).items() if key != "nodeName"}


def _annotations(item: dict) -> dict:
    found = item["metadata"].get("annotations") or {}
    return {key: value for key, value in found.items() if key != "deployment.kubernetes.io/revision"}


def _is_done(resource: Resource, item: dict) -> bool:
    """Nobody's last word is missing: no finalizer, no namespace's content, no container that still ends."""
    waits = item["metadata"].get("finalizers") or item["metadata"].get("deletionGracePeriodSeconds")
    return not waits and resource != NAMESPACES


def controller_of(item: dict) -> dict | None:
    """The owner reference to its controller."""
    return next((each for each in item["metadata"].get("ownerReferences") or [] if each.get("controller")), None)


def owner_reference(api_version: str, kind: str, owner: dict) -> dict:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
