# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated Kubernetes API answers as a real one did: the recorded requests of a rollout's story, sent again.

data/kubernetes-exchanges.jsonl.gz holds what an API server of version 1.33 was asked and answered. Its pods ran on a
stand-in for the kubelet, so that of containers only the outline counts.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from core_helpers import wait_until
from kube_helpers import Api

RECORDED, OURS = "shop", "recorded"
DEADLINE = {"recorded": 10, "ours": 2}  # progressDeadlineSeconds
VOLATILE = {
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "lastUpdateTime",
    "lastTransitionTime",
    "startTime",
    "startedAt",
    "podIP",
    "podIPs",
    "hostIP",
    "containerID",
    "imageID",
    "nodeName",
    "storageVersionHash",
    "serverAddress",
    "clusterIP",
}
HASHES = {"pod-template-hash", "controller-revision-hash", "controller.kubernetes.io/hash"}
NAMES = re.compile(r"\b(web|statefulset|daemonset)-[a-z0-9]{7,10}(-[a-z0-9]{5})?\b")


def exchanges() -> list[dict]:
    path = Path(__file__).parent / "data" / "kubernetes-exchanges.jsonl.gz"
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def shape(found: Any, key: str = "") -> Any:
    """What must be alike: all but times, addresses and names that are made up."""
    if isinstance(found, dict):
        return {name: shape(value, name) for name, value in found.items() if name not in VOLATILE}
    if isinstance(found, list):
        return [shape(value, key) for value in found]
    if key in HASHES or key == "progressDeadlineSeconds" or found in (RECORDED, OURS):
        return "#"
    return NAMES.sub(r"\1-#", found) if isinstance(found, str) else found


def object_shape(item: dict) -> dict:
    shaped = shape(item)
    # How many steps a ReplicaSet was scaled in depends on which pods were ready in time.
    if item.get("kind") == "ReplicaSet":
        shaped["metadata"].pop("generation", None)
        shaped["status"].pop("observedGeneration", None)
    return shaped


def list_shape(found: dict) -> dict:
    kind = found["kind"].removesuffix("List")
    outline = {"Pod": pod_shape}.get(kind, object_shape)
    items = [outline({**item, "kind": kind}) for item in found["items"]]
    return {**shape({**found, "items": []}), "items": sorted(items, key=lambda item: json.dumps(item, sort_keys=True))}


def pod_shape(pod: dict) -> dict:
    """The stand-in wrote conditions without a node's words; the cluster has no such admission as tolerations need."""
    shaped = shape(pod)
    containers = [
        {
            "name": each["name"],
            "state": {kind: each["state"][kind].get("reason") for kind in each["state"]},
            **{name: each[name] for name in ("ready", "restartCount", "image", "started")},
        }
        for each in shaped["status"]["containerStatuses"]
    ]
    conditions = {each["type"]: (each["status"], each.get("reason")) for each in shaped["status"]["conditions"]}
    for name in ("tolerations", "priority", "preemptionPolicy"):
        shaped["spec"].pop(name, None)
    status = {"phase": shaped["status"]["phase"], "conditions": conditions, "containers": containers}
    return {**shaped, "status": status}


def managers(item: dict) -> dict[tuple, dict]:
    """Those that are clients: what controllers write is the controllers' affair."""
    return {
        (each["manager"], each["operation"], each.get("subresource")): each["fieldsV1"]
        for each in item["metadata"].get("managedFields", [])
        if each["manager"] in ("python-requests", "kubectl", "a")
    }


class Story:
    """Sends each request where it belongs now, and compares the answers."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.answers: dict[str, Any] = {}
        self.version_before_delete = ""

    def path(self, recorded: str) -> str:
        path = recorded.replace(f"/namespaces/{RECORDED}/", f"/namespaces/{OURS}/")
        if "/pods/web-" in path:
            pods = self.api.get(f"/api/v1/namespaces/{OURS}/pods?labelSelector=app%3Dweb")["items"]
            running = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            path = re.sub(r"/pods/web-[a-z0-9-]+", f"/pods/{running[0]}", path)
        return path.replace("resourceVersion=N", f"resourceVersion={self.version_before_delete}")

    def body(self, exchange: dict) -> Any:
        body = exchange["request"].get("body")
        if exchange["note"] == "stale put: conflict":
            return self.answers["get for stale put"]
        if not isinstance(body, dict):
            return body
        body = json.loads(json.dumps(body).replace(f'"namespace": "{RECORDED}"', f'"namespace": "{OURS}"'))
        if body.get("kind") == "Namespace":
            body["metadata"]["name"] = OURS
        if body.get("kind") == "Eviction":
            del body["metadata"]["name"]
        if "progressDeadlineSeconds" in body.get("spec", {}):
            body["spec"]["progressDeadlineSeconds"] = DEADLINE["ours"]
        return body

    def send(self, exchange: dict) -> tuple[int, Any]:
        request = exchange["request"]
        status, answer = self.api.call(
            request["method"],
            self.path(request["path"]),
            self.body(exchange),
            request.get("content_type") or "application/json",
        )
        self.answers[exchange["note"]] = answer
        return status, answer

    def undo(self) -> None:
        """What kubectl's `rollout undo` sends: the template and annotations of the ReplicaSet before."""
        sets = self.api.get(f"/apis/apps/v1/namespaces/{OURS}/replicasets?labelSelector=app%3Dweb")["items"]
        revision = "deployment.kubernetes.io/revision"
        target = next(each for each in sets if each["metadata"]["annotations"][revision] == "2")
        template = target["spec"]["template"]
        del template["metadata"]["labels"]["pod-template-hash"]
        operations = [
            {"op": "replace", "path": "/spec/template", "value": template},
            {"op": "replace", "path": "/metadata/annotations", "value": {revision: "3"}},
        ]
        self.api.patch(
            f"/apis/apps/v1/namespaces/{OURS}/deployments/web", operations, "json-patch", User_Agent="kubectl/v1.33"
        )


def decided(exchange: dict, body: dict) -> dict:
    """Without what is a matter of time: whether a controller has seen the change before, when the next is answered."""
    if exchange["request"]["method"] == "GET" or "status" not in body or isinstance(body["status"], str):
        return body
    return {**body, "status": {key: value for key, value in body["status"].items() if key != "observedGeneration"}}


def compare(exchange: dict, status: int, answer: Any) -> None:
    recorded, note = exchange["response"], exchange["note"]
    assert status == exchange["status"], (note, answer)
    if isinstance(recorded, str):
        assert isinstance(answer, str), note
    elif recorded.get("kind", "").endswith("List") and "items" in recorded:
        assert list_shape(answer) == list_shape(recorded), note
    elif note == "right after create":
        assert object_shape({**answer, "status": {}})["spec"] == object_shape(recorded)["spec"], note
    else:
        assert object_shape(decided(exchange, answer)) == object_shape(decided(exchange, recorded)), note
        if "metadata" in recorded:
            assert managers(answer) == managers(recorded), note


def discovered(exchange: dict, answer: Any) -> None:
    """What is served is described as the real server describes it; what nobody needs is not served."""
    recorded = exchange["response"]
    if "resources" in recorded:
        known = {each["name"]: shape(each) for each in recorded["resources"]}
        assert answer["groupVersion"] == recorded["groupVersion"]
        assert [each for each in answer["resources"] if known.get(each["name"]) != shape(each)] == []
    elif "groups" in recorded:
        known = {each["name"]: each for each in recorded["groups"]}
        # OpenShift's group is not of every cluster.
        assert [each for each in answer["groups"] if known.get(each["name"], each)["name"] != each["name"]] == []
        assert {"apps", "policy", "networking.k8s.io"} <= {each["name"] for each in answer["groups"]} & known.keys()
    else:
        assert answer.keys() == recorded.keys()


@pytest.fixture
def api(sandbox, tmp_path):
    api = Api(sandbox.state["kubernetes"]["kubeconfig"], tmp_path)
    yield api
    api.call("DELETE", f"/api/v1/namespaces/{OURS}")


def test_recorded_story_is_answered_alike(api):
    story = Story(api)
    for exchange in exchanges():
        note, request = exchange["note"], exchange["request"]
        if note == "discovery":
            discovered(exchange, api.get(request["path"]))
        elif note == "watch stream":
            with api.watch(story.path(request["path"])) as events:
                found = next(iter(events))
            recorded = json.loads(exchange["response"][0])
            assert shape(found) == shape(recorded)
        elif note == "events":
            compare_events(exchange["response"], story.send(exchange)[1])
        elif request["method"] == "GET":
            if note.startswith("after kubectl rollout undo: deployment"):
                story.undo()
            eventually(story, exchange)
        else:
            if note == "delete":
                story.version_before_delete = api.get(f"/apis/apps/v1/namespaces/{OURS}/deployments")["metadata"][
                    "resourceVersion"
                ]
            if note.endswith("Set image"):
                settled(story, exchange)
            compare(exchange, *story.send(exchange))


def settled(story: Story, exchange: dict) -> None:
    """The pods of before the change are all there, as they were when it was recorded."""
    wanted = shape(exchange["response"]["status"])
    path = story.path(exchange["request"]["path"])
    wait_until(lambda: shape(story.api.get(path)["status"]) == wanted, f"{path} as before the {exchange['note']}")


def eventually(story: Story, exchange: dict) -> None:
    """A state that the cluster comes to."""
    problem = []

    def alike() -> bool:
        try:
            compare(exchange, *story.send(exchange))
            return True
        except AssertionError as error:
            problem[:] = [error]
            return False

    try:
        wait_until(alike, exchange["note"])
    except AssertionError:
        raise problem[0] from None


def compare_events(recorded: dict, answer: dict) -> None:
    """All that controllers said is said; a kubelet says more than the stand-in did."""

    def said(found: dict) -> set[tuple]:
        return {
            (each["involvedObject"]["kind"], each["reason"], NAMES.sub(r"\1-#", each["message"]))
            for each in found["items"]
            if each["source"].get("component") != "kubelet" and each["reason"] != "Scheduled"
        }

    def reasons(found: dict) -> set[str]:
        return {each["reason"] for each in found["items"]}

    assert said(recorded) == said(answer)
    assert reasons(recorded) <= reasons(answer)
