# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to change a part of an object.

https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply
"""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import jsonpointer

from .errors import ApiError, bad_request

# Lists that strategic merge patch merges by a key of their items (the x-kubernetes-patch-merge-key of the API's
# description); by the name of the field, which is enough to tell them apart. Of two keys the first that is there counts.
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "secrets": ("name",),
    "addresses": ("type",),
    "podIPs": ("ip",),
    # A container's ports are told apart by containerPort, a Service's by port.
    "ports": ("containerPort", "port"),
}
# Lists of plain values that are merged as sets.
MERGED_SETS = {"finalizers"}


def json_patch(item: dict, operations: Any) -> dict:
    """RFC 6902. Raises BadRequest for what is no patch, Invalid for one that does not fit the object."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    try:
        return jsonpatch.JsonPatch(operations).apply(copy.deepcopy(item))
    except jsonpatch.JsonPatchTestFailed as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    except (jsonpatch.JsonPatchConflict, jsonpointer.JsonPointerException) as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    except (jsonpatch.InvalidJsonPatch, TypeError, KeyError) as error:
        raise bad_request(f"the request is no JSON patch: {error}") from error


def merge_patch(item: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(item) if isinstance(item, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def strategic_merge_patch(item: Any, patch: Any) -> Any:
    """As a merge patch, but lists that have a merge key are merged by it, and directives are obeyed.

    https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(item) if isinstance(item, dict) else {}
    for name, value in patch.items():
        if name in ("$retainKeys", "$patch") or name.startswith("$setElementOrder/"):
            continue
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            merged[field] = [each for each in merged.get(field) or [] if each not in value]
        elif value is None:
            merged.pop(name, None)
        elif isinstance(value, list):
            merged[name] = _merge_lists(name, merged.get(name) or [], value, patch.get(f"$setElementOrder/{name}"))
        else:
            merged[name] = strategic_merge_patch(merged.get(name), value)
    if "$retainKeys" in patch:
        merged = {name: value for name, value in merged.items() if name in patch["$retainKeys"]}
    return merged


def _merge_lists(name: str, items: list, patch: list, order: list | None) -> list:
    if name in MERGED_SETS:
        return items + [each for each in patch if each not in items]
    if any(isinstance(each, dict) and each.get("$patch") == "replace" for each in patch):
        return [copy.deepcopy(each) for each in patch if each.get("$patch") != "replace"]
    key = _merge_key(name, [*items, *patch])
    if key is None:
        return copy.deepcopy(patch)
    merged = list(items)
    for each in patch:
        if key not in each:
            raise bad_request(f"map: {each} does not contain declared merge key: {key}")
        at = next((n for n, has in enumerate(merged) if has.get(key) == each[key]), None)
        if each.get("$patch") == "delete":
            merged = [has for has in merged if has.get(key) != each[key]]
        elif at is None:
            merged.append(strategic_merge_patch({}, each))
        else:
            merged[at] = strategic_merge_patch(merged[at], each)
    return _ordered(merged, key, order)


def _merge_key(name: str, items: list) -> str | None:
    if not all(isinstance(each, dict) for each in items):
        return None
    return next((key for key in MERGE_KEYS.get(name, ()) if any(key in each for each in items)), None)


def _ordered(items: list, key: str, order: list | None) -> list:
    """As $setElementOrder asks; what it does not name keeps its place at the end."""
    if not order:
        return items
    places = {each[key]: n for n, each in enumerate(order)}
    return sorted(items, key=lambda item: places.get(item.get(key), len(places)))
