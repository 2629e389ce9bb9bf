# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's cluster: pods that are processes, users that reach them, what breaks it, and clients that know nothing."""

from __future__ import annotations

import base64
import os
import secrets

import pytest
from core_helpers import connect, row_numbers, wait_until
from kube_helpers import Api, condition

APPS = "/apis/apps/v1/namespaces"


@pytest.fixture
def api(sandbox, tmp_path):
    return Api(sandbox.state["kubernetes"]["kubeconfig"], tmp_path)


@pytest.fixture
def namespace(api):
    """One that the test fills; cheaper than a new world."""
    name = f"test-{secrets.token_hex(3)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    api.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def shop(fresh_sandbox, api):
    return fresh_sandbox, api, fresh_sandbox.state["kubernetes"]


def pod_spec(image: str = "shop/web:v1", **container: object) -> dict:
    env = [{"name": "DATABASE_URL", "value": "postgresql://example"}]
    whole = {"name": "app", "image": image, "ports": [{"containerPort": 8080}], "env": env, **container}
    return {"containers": [whole], "terminationGracePeriodSeconds": 2}


def deploy(api: Api, namespace: str, name: str = "web", spec: dict | None = None, **more: object) -> str:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec or pod_spec()}
    whole = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template, **more}
    api.create(f"{APPS}/{namespace}/deployments", {"metadata": {"name": name}, "spec": whole})
    return f"{APPS}/{namespace}/deployments/{name}"


def pods(api: Api, namespace: str) -> list[dict]:
    return api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]


def container(api: Api, namespace: str) -> dict:
    """The status of the one container of the one pod."""

    def found() -> dict | None:
        statuses = [each for pod in pods(api, namespace) for each in pod["status"].get("containerStatuses", [])]
        return statuses[0] if len(statuses) == 1 else None

    return wait_until(found, "one container")


def available(api: Api, path: str, number: int) -> None:
    wait_until(lambda: api.get(path)["status"].get("availableReplicas") == number, f"{number} available at {path}")


# ---- pods ----------------------------------------------------------------------------------------------------------


def test_crashing_build_backs_off_and_keeps_its_last_words(api, namespace):
    deploy(api, namespace, spec=pod_spec("shop/web:v3-crashing"))

    def backed_off() -> dict | None:
        status = container(api, namespace)
        return status if status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff" else None

    status = wait_until(backed_off, "CrashLoopBackOff")
    assert status["restartCount"] == 2
    assert (status["lastState"]["terminated"]["exitCode"], status["lastState"]["terminated"]["reason"]) == (1, "Error")
    pod = pods(api, namespace)[0]["metadata"]["name"]
    for query in ("", "&previous=true"):
        code, text = api.call("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log?container=app&tailLines=3{query}")
        assert (code, bool(text.strip())) == (200, True)
    reasons = {each["reason"] for each in api.get(f"/api/v1/namespaces/{namespace}/events")["items"]}
    assert {"Scheduled", "Started", "BackOff"} <= reasons


def test_missing_secret_is_named_and_waited_for(api, namespace):
    key = {"secretKeyRef": {"name": "database", "key": "url"}}
    path = deploy(api, namespace, spec=pod_spec(env=[{"name": "DATABASE_URL", "valueFrom": key}]))
    reason = {"reason": "CreateContainerConfigError", "message": 'secret "database" not found'}
    wait_until(lambda: container(api, namespace)["state"] == {"waiting": reason}, "the missing secret")
    secret = {"metadata": {"name": "database"}, "stringData": {"url": "postgresql://example"}}
    made = api.create(f"/api/v1/namespaces/{namespace}/secrets", secret)
    assert base64.b64decode(made["data"]["url"]) == b"postgresql://example"
    available(api, path, 1)


def test_unhealthy_build_is_never_ready(api, namespace):
    probe = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    path = deploy(api, namespace, spec=pod_spec("shop/web:v3-unhealthy", readinessProbe=probe))

    def warned() -> bool:
        events = api.get(f"/api/v1/namespaces/{namespace}/events")["items"]
        return any("statuscode: 500" in each["message"] for each in events)

    wait_until(warned, "a failed probe")
    status = container(api, namespace)
    assert (list(status["state"]), status["ready"], status["started"]) == (["running"], False, True)
    assert condition(api.get(path), "Available") == ("False", "MinimumReplicasUnavailable")


def test_eviction_asks_the_budget(api, namespace):
    path = deploy(api, namespace)
    available(api, path, 1)
    budgets = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    api.create(budgets, {"metadata": {"name": "web"}, "spec": spec})
    wait_until(lambda: api.get(f"{budgets}/web").get("status", {}).get("currentHealthy") == 1, "a counted pod")
    pod = pods(api, namespace)[0]["metadata"]["name"]
    evict = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    code, answer = api.call("POST", evict, body)
    assert (code, answer["reason"]) == (429, "TooManyRequests")
    api.patch(f"{budgets}/web", {"spec": {"minAvailable": 0}}, "merge-patch")
    wait_until(lambda: api.call("POST", evict, body)[0] == 201, "an eviction")
    wait_until(lambda: pod not in [each["metadata"]["name"] for each in pods(api, namespace)], "the pod is gone")


def test_autoscaler_keeps_its_bounds(api, namespace):
    path = deploy(api, namespace, replicas=1)
    scaler = {"metadata": {"name": "web"}, "spec": {"minReplicas": 2, "maxReplicas": 3}}
    scaler["spec"]["scaleTargetRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    api.create(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers", scaler)
    wait_until(lambda: api.get(path)["spec"]["replicas"] == 2, "the minimum")
    api.patch(f"{path}/scale", {"spec": {"replicas": 7}}, "merge-patch")
    wait_until(lambda: api.get(path)["spec"]["replicas"] == 3, "the maximum")
    # Who scaled last is known: an apply that sets the number is told so.
    manifest = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: {namespace}}}\nspec: {{replicas: 1}}\n"
    code, answer = api.call("PATCH", f"{path}?fieldManager=gitops", manifest, "application/apply-patch+yaml")
    assert (code, answer["reason"]) == (409, "Conflict")
    assert 'conflict with "kube-controller-manager"' in answer["message"]


# ---- watches, errors, failures in front ----------------------------------------------------------------------------


def test_watch_begins_where_it_is_told(api, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    api.create(path, {"metadata": {"name": "a", "labels": {"kept": "yes"}}})
    version = api.get(path)["metadata"]["resourceVersion"]
    api.patch(f"{path}/a", {"metadata": {"labels": {"kept": None}}}, "merge-patch")
    api.call("DELETE", f"{path}/a")
    query = "watch=true&timeoutSeconds=1&allowWatchBookmarks=true"
    with api.watch(f"{path}?{query}&resourceVersion={version}") as events:
        assert [event["type"] for event in events] == ["MODIFIED", "DELETED", "BOOKMARK"]
    # For who watches a label, losing it is going.
    with api.watch(f"{path}?{query}&resourceVersion={version}&labelSelector=kept%3Dyes") as events:
        assert [event["type"] for event in events] == ["DELETED", "BOOKMARK"]
    with api.watch(f"{path}?{query}&resourceVersion=1") as events:
        error = next(iter(events))
    assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_strangers_are_not_answered(sandbox, api):
    code, answer = api.call("GET", "/api/v1/namespaces", Authorization="Bearer guessed")
    assert (code, answer["reason"]) == (401, "Unauthorized")
    assert os.stat(sandbox.state["kubernetes"]["kubeconfig"]).st_mode & 0o777 == 0o600


def test_failures_are_injected_and_calls_are_noted(sandbox, api, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    api.create(path, {"metadata": {"name": "a"}})
    before = len(sandbox.calls())
    sandbox.fault("api", service="kubernetes", action="patch configmaps", kind="lost-answer", count=1)
    with pytest.raises(OSError):
        api.patch(f"{path}/a", {"data": {"x": "1"}}, "merge-patch")
    assert api.get(f"{path}/a")["data"] == {"x": "1"}
    sandbox.fault("api", service="kubernetes", action="* configmaps", kind="throttle", count=1)
    code, answer = api.call("GET", path)
    assert (code, answer["reason"]) == (429, "TooManyRequests")
    sandbox.fault("api", service="kubernetes", action="patch configmaps", kind="denied", count=1)
    assert api.call("PATCH", f"{path}/a", {}, "application/merge-patch+json")[0] == 403
    api.call("PATCH", f"{path}/a?dryRun=All", {"data": {"x": "2"}}, "application/merge-patch+json")
    assert api.get(f"{path}/a")["data"] == {"x": "1"}
    mine = [call for call in sandbox.calls(before) if "configmaps" in call["action"]]
    assert [(call["action"], call["status"], call["mutation"]) for call in mine] == [
        ("patch configmaps", 200, True),
        ("get configmaps", 200, False),
        ("list configmaps", 429, False),
        ("patch configmaps", 403, True),
        ("patch configmaps", 200, False),
        ("get configmaps", 200, False),
    ]
    sandbox.heal()


# ---- OpenShift -----------------------------------------------------------------------------------------------------


def test_deployment_config_rolls_back(api, namespace):
    path = f"/apis/apps.openshift.io/v1/namespaces/{namespace}/deploymentconfigs"
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}
    spec = {"replicas": 1, "selector": {"app": "web"}, "template": template}
    api.create(path, {"metadata": {"name": "web"}, "spec": spec})

    def rolled_out(version: int) -> dict | None:
        """The version's own ReplicationController says so."""
        code, found = api.call("GET", f"/api/v1/namespaces/{namespace}/replicationcontrollers/web-{version}")
        done = code == 200 and found["metadata"]["annotations"]["openshift.io/deployment.phase"] == "Complete"
        return api.get(f"{path}/web") if done else None

    def image(config: dict) -> str:
        return config["spec"]["template"]["spec"]["containers"][0]["image"]

    wait_until(lambda: rolled_out(1), "version 1")
    change = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "shop/web:v2"}]
    api.patch(f"{path}/web", change, "json-patch")
    wait_until(lambda: rolled_out(2), "version 2")
    wanted = {"name": "web", "spec": {"from": {}, "revision": 1, "includeTemplate": True}}
    kind = {"kind": "DeploymentConfigRollback", "apiVersion": "apps.openshift.io/v1"}
    code, earlier = api.call("POST", f"{path}/web/rollback", {**kind, **wanted})
    assert (code, image(earlier), image(api.get(f"{path}/web"))) == (201, "shop/web:v1", "shop/web:v2")
    assert api.call("PUT", f"{path}/web", earlier)[0] == 200
    assert image(wait_until(lambda: rolled_out(3), "version 3")) == "shop/web:v1"
    again = {
        "kind": "DeploymentRequest",
        "apiVersion": "apps.openshift.io/v1",
        "name": "web",
        "latest": True,
        "force": True,
    }
    assert api.call("POST", f"{path}/web/instantiate", again)[0] == 201
    wait_until(lambda: rolled_out(4), "version 4")
    controllers = api.get(f"/api/v1/namespaces/{namespace}/replicationcontrollers")["items"]
    assert {each["metadata"]["name"]: each["spec"]["replicas"] for each in controllers} == {
        "web-1": 0,
        "web-2": 0,
        "web-3": 0,
        "web-4": 1,
    }
    code, answer = api.call("POST", f"{path}/web/rollback", {**kind, "spec": {"revision": 9, "includeTemplate": True}})
    assert (code, answer["reason"]) == (422, "Invalid")


# ---- users ---------------------------------------------------------------------------------------------------------


def test_users_do_not_notice_a_rollout(shop):
    sandbox, api, facts = shop
    path = f"{APPS}/{facts['namespace']}/deployments/{facts['deployment']}"
    sandbox.control("load", action="start", name=facts["public_name"])

    def roll(image: str) -> None:
        containers = [{"name": facts["container"], "image": image}]
        api.patch(path, {"spec": {"template": {"spec": {"containers": containers}}}})
        generation = api.get(path)["metadata"]["generation"]

        def done() -> bool:
            status = api.get(path)["status"]
            counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
            return status["observedGeneration"] == generation and counts == [2, 2, 2]

        wait_until(done, f"{image} is rolled out")

    roll(f"{facts['image']}:v1")
    seen = sandbox.control("load", action="stop")
    assert (seen["errors"], seen["lost_writes"]) == ({}, 0)
    assert seen["acknowledged_writes"] > 20
    written = row_numbers(connect(sandbox, "us-east-1", "regami-db-primary"))
    assert len(written) >= seen["acknowledged_writes"]


def test_shipped_build_hurts_users_and_the_deployment_shows_it(shop):
    sandbox, api, facts = shop
    path = f"{APPS}/{facts['namespace']}/deployments/{facts['deployment']}"
    image = api.get(path)["spec"]["template"]["spec"]["containers"][0]["image"]
    sandbox.fault("kubernetes-bad-build", build="missing")
    wait_until(lambda: api.get(path)["status"].get("updatedReplicas") == 1, "the rollout begins")
    assert api.get(path)["status"]["availableReplicas"] == 2  # nothing may be missing
    sandbox.heal()
    wait_until(lambda: api.get(path)["status"].get("updatedReplicas") == 2, "the rollout is undone")
    assert api.get(path)["spec"]["template"]["spec"]["containers"][0]["image"] == image
    sandbox.fault("node-silent")
    nodes = api.get("/api/v1/nodes")["items"]
    assert [condition(node, "Ready")[0] for node in nodes] == ["Unknown", "True"]
    wait_until(lambda: api.get(path)["status"].get("availableReplicas") == 1, "one pod is out of reach")
    sandbox.heal()
    available(api, path, 2)
    sandbox.fault("region-cut", region="us-east-1")
    with pytest.raises(OSError):
        api.call("GET", path)
    sandbox.heal()
    available(api, path, 2)


# ---- what pods use -------------------------------------------------------------------------------------------------


def test_what_pods_use_is_measured_when_somebody_asks(api, namespace):
    available(api, deploy(api, namespace), 1)
    (pod,) = pods(api, namespace)
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"
    (measured,) = api.get(f"{path}?labelSelector=app%3Dweb")["items"]
    assert measured["metadata"]["name"] == pod["metadata"]["name"]
    (used,) = measured["containers"]
    assert used["name"] == "app" and used["usage"]["cpu"].endswith("n") and int(used["usage"]["memory"][:-2]) > 1000
    assert api.get(f"{path}/{pod['metadata']['name']}")["kind"] == "PodMetrics"
    assert api.get(f"{path}?labelSelector=app%3Dother")["items"] == []
    assert api.call("GET", f"{path}/nobody")[0] == 404
    assert api.call("DELETE", f"{path}/{pod['metadata']['name']}")[0] == 405
