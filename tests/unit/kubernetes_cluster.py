# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace of a cluster, in memory: it takes the place of `Cluster` and writes down each change.

Its objects are those that a real API server answered in one story (kubernetes_story.json): web v2 rolls out, a bad image
follows, its progress deadline passes, `kubectl rollout undo`, a restart.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer
from ansible_collections.sre.runbooks.plugins.modules import k8s_rollout
from ansible_collections.sre.runbooks.tests.unit.ecs_region import carry_out

_STORY = json.loads((Path(__file__).parent / "kubernetes_story.json").read_text())
V1, V2, BAD = "web-994447b58", "web-bf5cd9b85", "web-f945d6bb4"
REVISIONS = ("replicasets", "controllerrevisions", "replicationcontrollers")


def story(chapter: str) -> Any:
    return copy.deepcopy(_STORY[chapter])


class Namespace:
    """One workload and what belongs to it.

    `later` holds what to do to it before each further look at the workload; `on_change` is done after each change;
    `faults` are what becomes of the next changes: lost (applied, no answer), dropped (no answer) or None.
    """

    host = "https://cluster.test"

    def __init__(self, chapter: str = "bad", kind: str = "Deployment") -> None:
        self.kind = kind
        self.enter(chapter)
        self.events = story("events")
        self.autoscalers: list[dict] = []
        self.log = "starting\nconnect postgresql://regami:hunter2@db/regami\npanic: no such table\n"
        self.asked: list[str] = []
        self.changes: list[tuple[str, str, Any]] = []
        self.later: list[Callable[[Namespace], None]] = []
        self.on_change: Callable[[Namespace], None] = lambda _namespace: None
        self.faults: list[str | None] = []
        self.denied: set[str] = set()
        self.gone: set[str] = set()

    def enter(self, chapter: str) -> None:
        self.__dict__.update(story(chapter))

    def read(self, path: str, **query: Any) -> Any:
        self.asked.append(path)
        parts = path.partition("/namespaces/")[2].split("/")
        what = parts[1] if len(parts) > 1 else "namespaces"
        if what in self.denied:
            raise api.Denied(f"missing permission to {api.words('GET', path)}")
        if what in self.gone:
            raise api.NotFound(f"{path} not found")
        if what == "pods" and path.endswith("/log"):
            return self.log
        if what == "namespaces":
            return {"items": [{"metadata": {"name": "shop"}}]}
        lists = {"pods": self.pods, "events": self.events, "horizontalpodautoscalers": self.autoscalers}
        if what in (*REVISIONS, *lists):
            return copy.deepcopy({"items": lists.get(what, self.revisions)})
        if self.later:
            self.later.pop(0)(self)
        if len(parts) == 2:
            return {"items": [copy.deepcopy(self.workload)]}
        return copy.deepcopy(self.workload)

    def change(self, method: str, path: str, body: Any = None, _type: str = "") -> Any:
        fault = self.faults.pop(0) if self.faults else None
        if fault == "dropped":
            raise LostAnswer("the cluster does not answer")
        changed = self.workload
        if "/horizontalpodautoscalers/" in path:
            (scaler,) = self.autoscalers
            changed = self.autoscalers[0] = patched(scaler, body)
        elif method == "PATCH":
            changed = self.workload = patched(self.workload, body)
        self.changes.append((method, path, body))
        answer = copy.deepcopy(changed)
        self.on_change(self)
        if fault == "lost":
            raise LostAnswer("the cluster does not answer")
        return answer

    def operations(self, number: int = 0) -> list[tuple]:
        """(op, path, value) of a patch that was sent."""
        return [(each["op"], each["path"], each.get("value")) for each in self.changes[number][2]]


def patched(found: dict, operations: list[dict]) -> dict:
    """RFC 6902, as far as it is used. A change of the spec raises the generation."""
    result = copy.deepcopy(found)
    for each in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]]
        place = result
        for part in way:
            place = place[part]
        if each["op"] == "test":
            if place.get(last) != each["value"]:
                raise api.Invalid("the server rejected our request due to an error in our request")
        elif each["op"] == "remove" or (each["op"] == "replace" and last not in place):
            del place[last]
        else:
            place[last] = copy.deepcopy(each["value"])
    if result["spec"] != found["spec"] and "generation" in found["metadata"]:
        result["metadata"]["generation"] += 1
    return result


def run(monkeypatch: pytest.MonkeyPatch, namespace: Namespace, action: str, **given: Any) -> dict:
    """What the verb exits with."""
    monkeypatch.setattr(api, "Cluster", lambda _params: namespace)
    monkeypatch.setattr(
        api, "openshift_path", lambda _cluster, _kind, name, space: api.objects(space, "deploymentconfigs", name, "/x")
    )
    options = {"name": namespace.workload["metadata"]["name"], "namespace": "shop", "kind": namespace.kind}
    return carry_out(
        monkeypatch,
        k8s_rollout,
        k8s_rollout.K8sRollout,
        SimpleNamespace(silent=set(), missed=[]),
        action=action,
        **(options | given),
    )
