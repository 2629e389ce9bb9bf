# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who manages which field of an object, and server-side apply, which asks before it takes one from another.

https://kubernetes.io/docs/reference/using-api/server-side-apply/

A path is a tuple of steps as FieldsV1 writes them: f:NAME for a field, k:{...} for an item of a list that is told apart
by keys, v:VALUE for a value of a set.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import errors
from .resources import Resource
from .store import now

Path = tuple[str, ...]

# What the API server keeps itself, of metadata.
_SYSTEM = {
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
}
# The keys of lists whose items are fields of their own (x-kubernetes-list-map-keys of the API's description), by the
# list's name; where two sorts of list share a name, the first whose key the items have.
_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "env": (("name",),),
    "volumes": (("name",),),
    "volumeMounts": (("mountPath",),),
    "imagePullSecrets": (("name",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "conditions": (("type",),),
    "ownerReferences": (("uid",),),
    "podIPs": (("ip",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
}
_SETS = {"finalizers"}
# Owned as a whole.
_ATOMIC = {
    "selector",
    "podSelector",
    "secretKeyRef",
    "configMapKeyRef",
    "fieldRef",
    "nodeSelector",
    "k:ownerReferences",
}
# Always there, so that nobody owns their being there.
_FIXED = {
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "updateStrategy",
    "scaleTargetRef",
    "containers",
    "source",
}
_THERE = object()  # the value of a path that stands for a map or list itself


def flatten(item: Any, path: Path = (), name: str = "") -> dict[Path, Any]:
    """Every field of an object and its value, without what the API server keeps itself."""
    found: dict[Path, Any] = {}
    if isinstance(item, dict) and item and name not in _ATOMIC:
        if path and name not in _FIXED:
            found[path] = _THERE
        for key, value in item.items():
            if value is not None and not (path == ("f:metadata",) and key in _SYSTEM):
                found |= flatten(value, (*path, f"f:{key}"), key)
        return found
    if isinstance(item, list) and item and (steps := _steps(name, item)) is not None:
        if name not in _FIXED:
            found[path] = _THERE
        for step, each in zip(steps, item, strict=True):
            inner = f"k:{name}" if f"k:{name}" in _ATOMIC else "k:"
            found |= flatten(each, (*path, step), inner) if isinstance(each, dict) else {(*path, step): each}
        return found
    return {path: item}


def _steps(name: str, items: list) -> list[str] | None:
    """How the items of a list are told apart; None when it is owned as a whole."""
    if name in _SETS:
        return [f"v:{json.dumps(each)}" for each in items]
    keys = _keys(name, items)
    if keys is None:
        return None
    compact = (",", ":")
    return [f"k:{json.dumps({key: _key(each, key) for key in keys}, separators=compact)}" for each in items]


def _key(item: dict, name: str) -> Any:
    """What is left out is what the API server will fill in."""
    return item.get(name, "TCP" if name == "protocol" else None)


def _keys(name: str, items: list) -> tuple[str, ...] | None:
    if not all(isinstance(each, dict) for each in items):
        return None
    return next((keys for keys in _KEYS.get(name, ()) if all(keys[0] in each for each in items)), None)


@dataclass
class Entry:
    """One of metadata.managedFields."""

    manager: str
    operation: str  # Update or Apply
    version: str
    subresource: str
    time: str
    paths: set[Path]

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource

    @classmethod
    def read(cls, entry: dict) -> Entry:
        paths = set(_paths(entry.get("fieldsV1") or {}))
        names = ("manager", "operation", "apiVersion", "subresource", "time")
        return cls(*(entry.get(name, "") for name in names), paths)

    def write(self) -> dict:
        entry = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(self.paths),
        }
        return entry | ({"subresource": self.subresource} if self.subresource else {})


def _paths(tree: dict, path: Path = ()) -> Iterator[Path]:
    for step, below in tree.items():
        if step == ".":
            yield path
        elif below:
            yield from _paths(below, (*path, step))
        else:
            yield (*path, step)


def _tree(paths: set[Path]) -> dict:
    tree: dict = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node["."] = {}
    return _without_needless_dots(tree)


def _without_needless_dots(tree: dict) -> dict:
    return {
        step: {} if set(below) == {"."} else _without_needless_dots(below) if step != "." else {}
        for step, below in tree.items()
    }


def entries_of(item: dict | None) -> list[Entry]:
    return [Entry.read(each) for each in ((item or {}).get("metadata") or {}).get("managedFields") or []]


def _with_entries(item: dict, entries: list[Entry]) -> dict:
    kept = sorted((each for each in entries if each.paths), key=lambda each: (each.operation, each.time, each.manager))
    return {**item, "metadata": {**item["metadata"], "managedFields": [each.write() for each in kept]}}


def _own(entries: list[Entry], resource: Resource, manager: str, operation: str, subresource: str) -> Entry:
    identity = (manager, operation, subresource)
    found = next((each for each in entries if each.identity == identity), None)
    if found is None:
        found = Entry(manager, operation, resource.group_version, subresource, now(), set())
        entries.append(found)
    return found


def updated(resource: Resource, before: dict | None, item: dict, manager: str, subresource: str = "") -> dict:
    """The object with its fields' managers after a create, an update or a patch: who changes a field takes it."""
    old, new = flatten(before) if before else {}, flatten(item)
    if subresource != "status":
        old, new = _without_status(old), _without_status(new)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    removed = old.keys() - new.keys()
    entries = entries_of(before)
    if not changed and not removed:
        return item
    own = _own(entries, resource, manager, "Update", subresource)
    for each in entries:
        each.paths -= removed | (changed if each is not own else set())
    if changed:
        own.paths |= changed
        own.time = now()
    return _with_entries(item, entries)


def _without_status(found: dict[Path, Any]) -> dict[Path, Any]:
    """Nor a namespace's finalizer, which the API server itself puts there."""
    ours = ("f:spec", "f:finalizers")
    return {path: value for path, value in found.items() if path[:1] != ("f:status",) and path[:2] != ours}


# ---- server-side apply ---------------------------------------------------------------------------------------------


def merge_applied(before: dict, wanted: dict, manager: str) -> dict:
    """The object with what is applied laid over it, without what this manager applied earlier and now leaves out."""
    entries = entries_of(before)
    mine = {path for each in entries if each.identity == (manager, "Apply", "") for path in each.paths}
    others = {path for each in entries if each.identity != (manager, "Apply", "") for path in each.paths}
    dropped = mine - flatten(wanted).keys() - others
    kept = copy.deepcopy(before)
    for path in sorted(dropped, key=len, reverse=True):
        _remove(kept, path)
    return _lay_over(kept, wanted, "")


def _lay_over(below: Any, above: Any, name: str) -> Any:
    if isinstance(above, dict) and isinstance(below, dict) and name not in _ATOMIC:
        return {**below, **{key: _lay_over(below.get(key), value, key) for key, value in above.items()}}
    if isinstance(above, list) and isinstance(below, list) and name in _SETS:
        return below + [each for each in above if each not in below]
    if isinstance(above, list) and isinstance(below, list) and (keys := _keys(name, above + below)):
        merged = list(below)
        for each in above:
            same = [n for n, has in enumerate(merged) if all(_key(has, key) == _key(each, key) for key in keys)]
            if same:
                merged[same[0]] = _lay_over(merged[same[0]], each, "")
            else:
                merged.append(each)
        return merged
    return copy.deepcopy(above)


def _remove(item: Any, path: Path) -> None:
    *way, last = path
    for step in way:
        item = _child(item, step)
        if item is None:
            return
    if last.startswith("f:") and isinstance(item, dict):
        name, value = last[2:], item.get(last[2:])
        of_many = isinstance(value, dict) or (isinstance(value, list) and _steps(name, value) is not None)
        if not (value and of_many) or name in _ATOMIC:
            item.pop(name, None)
    elif isinstance(item, list) and (child := _child(item, last)) is not None:
        item.remove(child)


def _child(item: Any, step: str) -> Any:
    if step.startswith("f:"):
        return item.get(step[2:]) if isinstance(item, dict) else None
    if not isinstance(item, list):
        return None
    value = json.loads(step[2:])
    if step.startswith("v:"):
        return value if value in item else None
    return next((each for each in item if all(each.get(key) == has for key, has in value.items())), None)


def applied(resource: Resource, before: dict | None, wanted: dict, merged: dict, manager: str, force: bool) -> dict:
    """`merged` with its managers after an apply. Raises Conflict where another manager has another value.

    A field that both give the same value belongs to both.
    """
    asked = {path: value for path, value in flatten(wanted).items() if value is not _THERE}
    now_has, had = flatten(merged), flatten(before) if before else {}
    entries = entries_of(before)
    own = _own(entries, resource, manager, "Apply", "")
    changed = {path for path in asked if before is not None and had.get(path) != now_has.get(path)}
    conflicts = sorted(
        {(each.manager, each.version, path) for each in entries if each is not own for path in each.paths & changed}
    )
    if conflicts and not force:
        raise errors.field_conflicts([(name, version, as_text(path)) for name, version, path in conflicts])
    paths = flatten(wanted).keys() & now_has.keys()
    for each in entries:
        if each is not own:
            each.paths -= changed | (had.keys() - now_has.keys())
    if own.paths != paths or merged != before:
        own.time = now()
    own.paths = set(paths)
    return _with_entries(merged, entries)


def as_text(path: Path) -> str:
    """As a conflict names it: .spec.template.spec.containers[name="app"].image."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            pairs = (f"{key}={json.dumps(value)}" for key, value in json.loads(step[2:]).items())
            text += f"[{','.join(pairs)}]"
        else:
            text += f"[={step[2:]}]"
    return text
