# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A request to the Kubernetes API: what it asks for, read from its method, path and query.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from . import errors, protobuf
from .resources import BY_PATH, Resource

READS = ("get", "list", "watch")


@dataclass(frozen=True)
class Target:
    """What a path names. `name` is "" for a collection, `subresource` "" for the object itself."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


@dataclass
class Request:
    method: str
    path: str  # with the query
    headers: dict[str, str]  # names in lower case
    body: bytes = b""
    query: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.steps = [unquote(step) for step in url.path.strip("/").split("/")]

    @cached_property
    def target(self) -> Target | None:
        """None when the path names no resource that is served."""
        steps = self.steps
        if steps[0] == "api" and len(steps) > 2:
            group, (version, *rest) = "", steps[1:]
        elif steps[0] == "apis" and len(steps) > 3:
            group, version, *rest = steps[1:]
        else:
            return None
        namespace = ""
        # /namespaces/NAME is a namespace itself; with a resource behind it, the place of that resource.
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource = BY_PATH.get((group, version, rest[0]))
        if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
            return None
        return Target(resource, namespace, *(*rest[1:], "", "")[:2])

    @property
    def verb(self) -> str:
        """As an audit log names it: get, list, watch, create, update, patch, delete, deletecollection."""
        named = self.target is not None and bool(self.target.name)
        match self.method:
            case "GET" if self.query.get("watch") in ("true", "1"):
                return "watch"
            case "GET":
                return "get" if named or self.target is None else "list"
            case "DELETE":
                return "delete" if named else "deletecollection"
        return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(self.method, self.method.lower())

    @property
    def action(self) -> str:
        """For the call log and the rules of faults: `patch deployments`, `create pods/eviction`."""
        if self.target is None:
            return f"{self.verb} {self.path.partition('?')[0]}"
        name, subresource = self.target.resource.plural, self.target.subresource
        return f"{self.verb} {name}/{subresource}" if subresource else f"{self.verb} {name}"

    @property
    def is_change(self) -> bool:
        return self.verb not in READS and not self.is_dry_run

    @property
    def is_dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "application/json").partition(";")[0].strip()

    @property
    def manager(self) -> str:
        """Who changes fields: what the request says, else the program's name."""
        return self.query.get("fieldManager") or self.headers.get("user-agent", "unknown").partition("/")[0]

    @cached_property
    def document(self) -> Any:
        """The body: JSON, YAML, or what protocol buffers say. Raises BadRequest, UnsupportedMediaType."""
        if self.content_type == protobuf.MEDIA_TYPE:
            return protobuf.decode(self.body)
        try:
            if "yaml" in self.content_type:
                return yaml.safe_load(self.body)
            return json.loads(self.body or b"{}")
        except (ValueError, yaml.YAMLError) as error:
            raise errors.bad_request(f"couldn't get version/kind; json parse error: {error}") from error

    @property
    def object(self) -> dict:
        """The body where it must be an object. Raises BadRequest."""
        if not isinstance(self.document, dict):
            raise errors.bad_request("the body of the request is no object")
        return self.document

    @property
    def options(self) -> dict:
        """DeleteOptions: the body's, or the query's."""
        given = self.document if self.body and isinstance(self.document, dict) else {}
        options = {name: self.query[name] for name in ("propagationPolicy", "gracePeriodSeconds") if name in self.query}
        return {**given, **options}
