# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API server: each verb on each resource, and the subresources that all kinds share."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import defaults, discovery, errors, fields, patches, selectors, tables, validation
from .errors import ApiError
from .names import suffix
from .requests import Request, Target
from .resources import DAEMON_SETS, DEPLOYMENT_CONFIGS, NAMESPACES, PODS, REPLICATION_CONTROLLERS, Resource
from .store import Store, now

PATCHES = {
    "application/json-patch+json": patches.json_patch,
    "application/merge-patch+json": patches.merge_patch,
    "application/strategic-merge-patch+json": patches.strategic_merge_patch,
}
APPLY = "application/apply-patch+yaml"
# What a writer cannot say about an object.
SYSTEM_FIELDS = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields")
DEFAULT_WATCH_SECONDS = 1800.0

Document = dict[str, Any]
# A subresource of its own: (request, target) -> HTTP status and answer (text for a log).
Handler = Callable[[Request, Target], tuple[int, Any]]


class Api:
    """`handlers` are the subresources that other files add, by (resource, name); name "": creations of the resource."""

    def __init__(self, store: Store, address: str) -> None:
        self.store, self.address = store, address
        self.handlers: dict[tuple[Resource, str], Handler] = {}
        self.computed: dict[Resource, Handler] = {}  # of which no object is stored
        self.admissions: dict[Resource, Callable[[dict], None]] = {}  # webhooks; one raises ApiError where it refuses

    def handle(self, request: Request) -> tuple[int, Any]:
        """HTTP status and the document (a str is plain text, an iterator a watch). Raises ApiError."""
        if request.target is None:
            return self._about(request)
        target = request.target
        if target.resource in self.computed:
            return self.computed[target.resource](request, target)
        if target.subresource:
            return self._subresource(request, target)
        if request.verb == "create" and (handler := self.handlers.get((target.resource, ""))):
            return handler(request, target)
        nowhere = target.resource.namespaced and not target.namespace
        if request.verb not in target.resource.verbs or (request.verb == "create" and (target.name or nowhere)):
            raise errors.method_not_allowed()
        match request.verb:
            case "get":
                item = self.store.get(target.resource, target.namespace, target.name)
                return 200, tables.of(request, target.resource, [item]) or represent(target.resource, item)
            case "list":
                return 200, self._list(request, target)
            case "watch":
                return 200, self._watch(request, target)
            case "create":
                return 201, self._create(request, target)
            case "update":
                return 200, self._update(request, target)
            case "patch":
                return self._patch(request, target)
            case "delete":
                return 200, self._delete(request, target)
        return 200, self._delete_collection(request, target)

    # ---- about itself ----------------------------------------------------------------------------------------------

    def _about(self, request: Request) -> tuple[int, Any]:
        if request.method != "GET":
            raise errors.no_such_path()
        answer: Any = None
        match request.steps:
            case ["version"]:
                answer = discovery.VERSION
            case ["api"]:
                answer = discovery.versions(self.address)
            case ["apis"]:
                answer = discovery.group_list()
            case ["api", version]:
                answer = discovery.resource_list("", version)
            case ["apis", group]:
                answer = discovery.group(group)
            case ["apis", group, version]:
                answer = discovery.resource_list(group, version)
            case ["openapi", "v2"]:
                answer = discovery.openapi(request.headers.get("accept", ""))
            case ["healthz" | "livez" | "readyz", *_]:
                answer = "ok"
            case ["apis", group, version, *_] if discovery.resource_list(group, version):
                raise errors.no_such_path()
            case ["api", "v1", *_]:
                raise errors.no_such_path()
        return (404, "404 page not found\n") if answer is None else (200, answer)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _list(self, request: Request, target: Target) -> Document:
        with self.store.lock:
            found = self.store.list(target.resource, target.namespace, *_tests(request))
            version = str(self.store.version)
        metadata: dict[str, Any] = {"resourceVersion": version}
        if limit := int(request.query.get("limit") or 0):
            first = _page_start(request.query.get("continue"))
            rest = len(found) - first - limit
            found = found[first : first + limit]
            if rest > 0:
                metadata["continue"] = base64.urlsafe_b64encode(json.dumps(first + limit).encode()).decode()
                metadata["remainingItemCount"] = rest
        if table := tables.of(request, target.resource, found, metadata):
            return table
        resource = target.resource
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.group_version,
            "metadata": metadata,
            "items": found,
        }

    def _watch(self, request: Request, target: Target) -> Iterator[Document | None]:
        """The events, and None from time to time so that the server can see whether the client is still there."""
        labels, wanted = _tests(request)
        resource, query = target.resource, request.query

        def matches(item: dict | None) -> bool:
            return (
                item is not None
                and target.namespace in ("", item["metadata"].get("namespace", ""))
                and target.name in ("", item["metadata"]["name"])
                and (labels is None or labels(item["metadata"].get("labels") or {}))
                and (wanted is None or wanted(item))
            )

        def event(kind: str, item: dict) -> Document:
            return {"type": kind, "object": tables.of(request, resource, [item]) or represent(resource, item)}

        def bookmark(annotations: dict | None = None) -> Document:
            metadata = {"resourceVersion": str(version), "creationTimestamp": None}
            if annotations:
                metadata["annotations"] = annotations
            return {
                "type": "BOOKMARK",
                "object": {"kind": resource.kind, "apiVersion": resource.group_version, "metadata": metadata},
            }

        deadline = time.monotonic() + float(query.get("timeoutSeconds") or DEFAULT_WATCH_SECONDS)
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        begin_with_all = query.get("sendInitialEvents") == "true" or query.get("resourceVersion") in (None, "", "0")
        with self.store.lock:
            version = self.store.version if begin_with_all else _version(query["resourceVersion"])
            present = self.store.list(resource, target.namespace) if begin_with_all else []
        yield from (event("ADDED", item) for item in present if matches(item))
        if query.get("sendInitialEvents") == "true" and bookmarks:
            yield bookmark({"k8s.io/initial-events-end": "true"})
        while (left := deadline - time.monotonic()) > 0:
            try:
                changes, closed = self.store.since(version, min(left, 0.2))
            except ApiError as error:
                yield {"type": "ERROR", "object": error.status()}
                return
            for change in changes:
                version = change.version
                if change.resource != resource:
                    continue
                was, is_ = matches(change.before), change.type != "DELETED" and matches(change.object)
                if was or is_:
                    yield event("MODIFIED" if was and is_ else "ADDED" if is_ else "DELETED", change.object)
            if closed:
                return
            yield None
        if bookmarks:
            yield bookmark()

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _create(self, request: Request, target: Target) -> Document:
        resource, dry = target.resource, request.is_dry_run
        return represent(resource, self.create(resource, target.namespace, request.object, request.manager, dry))

    def create(self, resource: Resource, namespace: str, document: dict, manager: str, dry: bool = False) -> dict:
        item = _checked(resource, namespace, "", document)
        metadata = item["metadata"]
        for name in SYSTEM_FIELDS:
            metadata.pop(name, None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + suffix()
        if namespace:
            where = self.store.get(NAMESPACES, "", namespace)
            if "deletionTimestamp" in where["metadata"]:
                message = (
                    f'{resource.qualified} "{metadata.get("name")}" is forbidden: unable to create new content in '
                    f"namespace {namespace} because it is being terminated"
                )
                raise ApiError(403, "Forbidden", message)
            metadata["namespace"] = namespace
        if resource.status:
            item.pop("status", None)
            if (status := defaults.initial_status(resource)) is not None:
                item["status"] = status
        _complete(resource, item, None)
        self._admit(resource, item)
        prepared = fields.updated(resource, None, item, manager)
        if dry:
            return {**prepared, "metadata": {**prepared["metadata"], "creationTimestamp": now()}}
        return self.store.create(resource, prepared)

    def _update(self, request: Request, target: Target) -> Document:
        with self.store.lock:
            before = self.store.get(target.resource, target.namespace, target.name)
            item = _checked(target.resource, target.namespace, target.name, request.object)
            return represent(target.resource, self._replace(request, target, before, item))

    def _patch(self, request: Request, target: Target) -> tuple[int, Document]:
        resource = target.resource
        with self.store.lock:
            if request.content_type == APPLY:
                return self._apply(request, target)
            before = self.store.get(resource, target.namespace, target.name)
            whole = represent(resource, before)
            patched = patcher(request)(whole, request.document)
            item = _checked(resource, target.namespace, target.name, patched)
            return 200, represent(resource, self._replace(request, target, before, item))

    def _apply(self, request: Request, target: Target) -> tuple[int, Document]:
        """Server-side apply. https://kubernetes.io/docs/reference/using-api/server-side-apply/"""
        resource = target.resource
        if "fieldManager" not in request.query:
            raise errors.bad_request("PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        wanted = _checked(resource, target.namespace, target.name, request.object, system_fields=False)
        if resource.status:
            wanted.pop("status", None)
        before = self.store.find(resource, target.namespace, target.name)
        if before is None:
            item = self.create(resource, target.namespace, wanted, request.manager, request.is_dry_run)
            applied = fields.applied(resource, None, wanted, item, request.manager, force=True)
            return 201, represent(resource, item if request.is_dry_run else self.store.replace(resource, applied))
        merged = fields.merge_applied(before, wanted, request.manager)
        _complete(resource, merged, before)
        applied = fields.applied(
            resource, before, wanted, merged, request.manager, force=request.query.get("force") in ("true", "1")
        )
        return 200, represent(resource, applied if request.is_dry_run else self.store.replace(resource, applied))

    def _replace(self, request: Request, target: Target, before: dict, item: dict, subresource: str = "") -> dict:
        """Write what an update or a patch makes of `before`, as far as its subresource may."""
        resource = target.resource
        given = item["metadata"].get("resourceVersion")
        if given not in (None, "", before["metadata"]["resourceVersion"]):
            raise errors.conflict(resource, target.name)
        if item["metadata"].get("uid") not in (None, "", before["metadata"]["uid"]):
            uid = item["metadata"]["uid"]
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {before['metadata']['uid']}"
            raise errors.conflict(resource, target.name, why)
        for name in ("uid", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
            item["metadata"].pop(name, None)
            if name in before["metadata"]:
                item["metadata"][name] = before["metadata"][name]
        item["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        item["metadata"]["managedFields"] = before["metadata"].get("managedFields", [])
        if subresource == "status":
            item = {**before, "metadata": item["metadata"], "status": item.get("status")}
        elif resource.status:
            item.pop("status", None)
            if "status" in before:
                item["status"] = before["status"]
        _complete(resource, item, before)
        self._admit(resource, item)
        item = fields.updated(resource, before, item, request.manager, subresource)
        return item if request.is_dry_run else self.store.replace(resource, item)

    def _admit(self, resource: Resource, item: dict) -> None:
        if webhook := self.admissions.get(resource):
            webhook(item)

    # ---- deleting --------------------------------------------------------------------------------------------------

    def _delete(self, request: Request, target: Target) -> Document:
        with self.store.lock:
            item = self.store.get(target.resource, target.namespace, target.name)
            wanted = (request.options.get("preconditions") or {}).get("uid")
            if wanted not in (None, item["metadata"]["uid"]):
                why = (
                    f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {item['metadata']['uid']}"
                )
                raise errors.conflict(target.resource, target.name, why)
            if request.is_dry_run:
                return represent(target.resource, item)
            kept = self.delete(target.resource, item, request.options)
        if kept is not None:
            return represent(target.resource, kept)
        resource = target.resource
        group = {"group": resource.group} if resource.group else {}
        details = {"name": target.name, **group, "kind": resource.plural, "uid": item["metadata"]["uid"]}
        return errors.success(details=details)

    def delete(self, resource: Resource, item: dict, options: dict) -> dict | None:
        """Begin to delete; what is left of it until that is over, or None when it is gone.

        https://kubernetes.io/docs/concepts/architecture/garbage-collection/ (propagation),
        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
        """
        metadata = item["metadata"]
        finalizers = {"Foreground": ["foregroundDeletion"], "Orphan": ["orphan"]}
        waits_for = list(metadata.get("finalizers") or [])
        waits_for += [
            each for each in finalizers.get(options.get("propagationPolicy", ""), []) if each not in waits_for
        ]
        grace: int | None = None
        if resource == PODS and item.get("spec", {}).get("nodeName"):
            given = options.get("gracePeriodSeconds")
            grace = int(item["spec"]["terminationGracePeriodSeconds"] if given is None else given)
        elif resource == NAMESPACES:
            waits_for.append("kubernetes")
        if not waits_for and not grace:
            self.store.delete(resource, item)
            return None

        def mark(fresh: dict) -> None:
            fresh["metadata"].setdefault("deletionTimestamp", now())
            if grace is not None:
                known = fresh["metadata"].get("deletionGracePeriodSeconds", grace)
                fresh["metadata"]["deletionGracePeriodSeconds"] = min(known, grace)
            if resource == NAMESPACES:
                fresh["status"] = {"phase": "Terminating"}
            elif waits_for:
                fresh["metadata"]["finalizers"] = waits_for

        return self.store.change(resource, item, mark)

    def _delete_collection(self, request: Request, target: Target) -> Document:
        found = self.store.list(target.resource, target.namespace, *_tests(request))
        if not request.is_dry_run:
            for item in found:
                self.delete(target.resource, item, request.options)
        resource = target.resource
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.group_version,
            "metadata": {"resourceVersion": str(self.store.version)},
            "items": found,
        }

    # ---- subresources ----------------------------------------------------------------------------------------------

    def _subresource(self, request: Request, target: Target) -> tuple[int, Any]:
        resource, name = target.resource, target.subresource
        if handler := self.handlers.get((resource, name)):
            return handler(request, target)
        if name == "status" and resource.status:
            return 200, self._status(request, target)
        if name == "scale" and resource.scale:
            return 200, self._scale(request, target)
        raise errors.no_such_path()

    def _status(self, request: Request, target: Target) -> Document:
        with self.store.lock:
            before = self.store.get(target.resource, target.namespace, target.name)
            if request.verb == "get":
                return represent(target.resource, before)
            if request.verb == "patch":
                document = patcher(request)(represent(target.resource, before), request.document)
            elif request.verb == "update":
                document = request.object
            else:
                raise errors.method_not_allowed()
            item = _checked(target.resource, target.namespace, target.name, document)
            return represent(target.resource, self._replace(request, target, before, item, "status"))

    def _scale(self, request: Request, target: Target) -> Document:
        with self.store.lock:
            before = self.store.get(target.resource, target.namespace, target.name)
            scale = scale_of(target.resource, before)
            if request.verb == "get":
                return scale
            if request.verb == "patch":
                wanted = patcher(request)(scale, request.document)
            elif request.verb == "update":
                wanted = request.object
            else:
                raise errors.method_not_allowed()
            given = (wanted.get("metadata") or {}).get("resourceVersion")
            if given not in (None, "", before["metadata"]["resourceVersion"]):
                raise errors.conflict(target.resource, target.name)
            item = self.set_replicas(request, target, before, (wanted.get("spec") or {}).get("replicas", 0))
            return scale_of(target.resource, item)

    def set_replicas(self, request: Request, target: Target, before: dict, replicas: Any) -> dict:
        item = copy.deepcopy(before)
        item["spec"]["replicas"] = replicas
        validation.check(target.resource, item, before)
        item = fields.updated(target.resource, before, item, request.manager, "scale")
        return item if request.is_dry_run else self.store.replace(target.resource, item)


def _complete(resource: Resource, item: dict, before: dict | None) -> None:
    """Fill in what the request left out, in place. Raises Invalid."""
    defaults.fill(resource, item)
    validation.check(resource, item, before)
    if resource == DAEMON_SETS:
        defaults.count_templates(before, item)


def represent(resource: Resource, item: dict) -> Document:
    return {"kind": resource.kind, "apiVersion": resource.group_version, **item}


def scale_of(resource: Resource, item: dict) -> Document:
    metadata = {
        key: item["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in item["metadata"]
    }
    selector = item["spec"].get("selector")
    if resource == REPLICATION_CONTROLLERS:
        selector = {"matchLabels": selector or {}}
    # OpenShift's is of an older kind, whose selector is a map.
    is_old = resource == DEPLOYMENT_CONFIGS
    return {
        "kind": "Scale",
        "apiVersion": "extensions/v1beta1" if is_old else "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": item["spec"].get("replicas", 0)},
        "status": {
            "replicas": item.get("status", {}).get("replicas", 0),
            "selector": selector or {} if is_old else selectors.as_text(selector),
        },
    }


def patcher(request: Request) -> Callable[[dict, Any], dict]:
    """Raises UnsupportedMediaType."""
    if request.content_type not in PATCHES:
        raise errors.unsupported_media_type(", ".join([*PATCHES, APPLY]))
    return PATCHES[request.content_type]


def _checked(resource: Resource, namespace: str, name: str, document: dict, system_fields: bool = True) -> dict:
    """A copy without kind and version, for the place that the path names. Raises BadRequest."""
    item = copy.deepcopy(document)
    kind, version = item.pop("kind", resource.kind), item.pop("apiVersion", resource.group_version)
    if (kind, version) != (resource.kind, resource.group_version):
        wanted = f"{resource.kind} in {resource.group_version}"
        raise errors.bad_request(f"the object provided is unrecognized ({kind} in {version}, must be {wanted})")
    metadata = item.setdefault("metadata", {})
    if metadata.get("namespace") not in (None, "", namespace) and (namespace or resource.namespaced):
        raise errors.bad_request(
            f"the namespace of the provided object does not match the namespace sent on the request "
            f"({metadata['namespace']} != {namespace})"
        )
    if name and metadata.get("name") not in (None, "", name):
        message = f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        raise errors.bad_request(message)
    if name:
        metadata["name"] = name
    if namespace:
        metadata["namespace"] = namespace
    # null in metadata is what clients write for "none".
    item["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    if not system_fields:
        for each in SYSTEM_FIELDS:
            item["metadata"].pop(each, None)
    return item


def _tests(request: Request) -> tuple[selectors.Test | None, selectors.Test | None]:
    labels, wanted = request.query.get("labelSelector"), request.query.get("fieldSelector")
    return selectors.labels(labels) if labels else None, selectors.fields(wanted) if wanted else None


def _version(text: str) -> int:
    if not text.isdigit():
        raise errors.bad_request(
            f'invalid resource version "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


def _page_start(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(json.loads(base64.urlsafe_b64decode(token)))
    except ValueError as error:
        raise errors.bad_request("continue key is not valid") from error
