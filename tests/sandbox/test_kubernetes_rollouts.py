# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout's story, told by nothing but the API: against the sandbox, or against a real cluster.

SRE_RUNBOOKS_TEST_KUBECONFIG      the kubeconfig of the real cluster; its current context may make namespaces
SRE_RUNBOOKS_TEST_IMAGE_V1        an image that it can run, default registry.k8s.io/pause:3.9
SRE_RUNBOOKS_TEST_IMAGE_V2        another one, default registry.k8s.io/pause:3.10
SRE_RUNBOOKS_TEST_IMAGE_MISSING   one that cannot be pulled, default shop/web:bad
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from core_helpers import wait_until
from kube_helpers import Api, condition

REAL = os.environ.get("SRE_RUNBOOKS_TEST_KUBECONFIG")
GOOD = os.environ.get("SRE_RUNBOOKS_TEST_IMAGE_V1", "registry.k8s.io/pause:3.9")
NEXT = os.environ.get("SRE_RUNBOOKS_TEST_IMAGE_V2", "registry.k8s.io/pause:3.10")
MISSING = os.environ.get("SRE_RUNBOOKS_TEST_IMAGE_MISSING", "shop/web:bad")
REVISION, HISTORY = "deployment.kubernetes.io/revision", "deployment.kubernetes.io/revision-history"
SECONDS = 60.0  # a real cluster may be slow
DEADLINE = 10 if REAL else 2
INSTALLED = Path(__file__).parents[2] / ".cache" / "kubectl" / "usr" / "bin" / "kubectl"  # make kubectl


@dataclass
class Namespace:
    """One of our own, in either cluster."""

    api: Api
    name: str

    def path(self, plural: str, name: str = "", group: str = "apis/apps/v1") -> str:
        return f"/{group}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    def deployment(self, name: str = "web") -> dict:
        return self.api.get(self.path("deployments", name))

    def sets(self) -> dict[str, dict]:
        """ReplicaSets by their revision."""
        found = self.api.get(self.path("replicasets"))["items"]
        return {each["metadata"]["annotations"][REVISION]: each for each in found}

    def pods(self) -> list[dict]:
        return self.api.get(self.path("pods", group="api/v1"))["items"]

    def deploy(self, image: str = GOOD, replicas: int = 3, **spec: object) -> dict:
        container = {
            "name": "app",
            "image": image,
            "ports": [{"containerPort": 8080}],
            "env": [{"name": "DATABASE_URL", "value": "postgresql://example"}],
        }
        pod = {"containers": [container], "terminationGracePeriodSeconds": 2}
        whole = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
            **spec,
        }
        item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": whole}
        return self.api.create(self.path("deployments"), item)

    def set_image(self, image: str) -> dict:
        container = {"name": "app", "image": image}
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        return self.api.patch(self.path("deployments", "web"), patch)

    def rolled_out(self) -> dict:
        """Wait for the newest template's rollout, as `kubectl rollout status` does."""

        def done() -> dict | None:
            found = self.deployment()
            status, wanted = found["status"], found["spec"]["replicas"]
            counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            return found if seen and counts == [wanted] * 3 else None

        return wait_until(done, "the rollout is complete", SECONDS)


@pytest.fixture
def kubeconfig(request: pytest.FixtureRequest) -> str:
    return REAL or request.getfixturevalue("sandbox").state["kubernetes"]["kubeconfig"]


@pytest.fixture
def namespace(kubeconfig: str, tmp_path: Path):
    api, name = Api(kubeconfig, tmp_path), f"sre-runbooks-test-{secrets.token_hex(3)}"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Namespace(api, name)
    api.call("DELETE", f"/api/v1/namespaces/{name}")


def test_rollout_and_its_way_back(namespace):
    namespace.deploy(progressDeadlineSeconds=DEADLINE)
    first = namespace.rolled_out()
    assert condition(first, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert condition(first, "Available") == ("True", "MinimumReplicasAvailable")
    assert (first["metadata"]["annotations"][REVISION], first["metadata"]["generation"]) == ("1", 1)

    namespace.set_image(NEXT)
    second = namespace.rolled_out()
    assert (second["metadata"]["annotations"][REVISION], second["metadata"]["generation"]) == ("2", 2)
    assert {number: each["spec"]["replicas"] for number, each in namespace.sets().items()} == {"1": 0, "2": 3}

    namespace.set_image(MISSING)

    def given_up() -> bool:
        return condition(namespace.deployment(), "Progressing") == ("False", "ProgressDeadlineExceeded")

    wait_until(given_up, "the deadline is exceeded", SECONDS)
    stuck = namespace.deployment()["status"]
    # A quarter of three may be more, none fewer: the old pods all go on serving.
    assert (stuck["replicas"], stuck["updatedReplicas"], stuck["availableReplicas"]) == (4, 1, 3)
    waiting = [
        status["state"]["waiting"]["reason"]
        for pod in namespace.pods()
        for status in pod["status"].get("containerStatuses", [])
        if "waiting" in status["state"]
    ]
    assert waiting in (["ErrImagePull"], ["ImagePullBackOff"])

    good = namespace.sets()["2"]
    template = good["spec"]["template"]
    del template["metadata"]["labels"]["pod-template-hash"]
    back = [{"op": "replace", "path": "/spec/template", "value": template}]
    namespace.api.patch(namespace.path("deployments", "web"), back, "json-patch")
    restored = namespace.rolled_out()
    assert restored["metadata"]["annotations"][REVISION] == "4"
    again = namespace.sets()["4"]
    assert again["metadata"]["uid"] == good["metadata"]["uid"]
    assert again["metadata"]["annotations"][HISTORY] == "2"
    assert condition(restored, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_limits_of_a_rolling_update_are_kept(namespace):
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    namespace.deploy(replicas=2, strategy=update, minReadySeconds=1)
    namespace.rolled_out()
    with namespace.api.watch(namespace.path("deployments") + "?watch=true&timeoutSeconds=30") as events:
        namespace.set_image(NEXT)
        seen = []
        for event in events:
            status = event["object"]["status"]
            seen.append((status.get("replicas", 0), status.get("availableReplicas", 0)))
            done = status.get("observedGeneration") == 2 and status.get("updatedReplicas") == status["replicas"] == 2
            if done and status.get("availableReplicas") == 2:
                break
    assert max(replicas for replicas, _ in seen) == 3
    assert min(available for _, available in seen) == 2


def test_paused_rollout_waits_and_goes_on(namespace):
    namespace.deploy(replicas=1, paused=True)
    wait_until(lambda: condition(namespace.deployment(), "Progressing") == ("Unknown", "DeploymentPaused"), "a pause")
    assert namespace.pods() == []
    namespace.api.patch(namespace.path("deployments", "web"), {"spec": {"paused": False}}, "merge-patch")
    namespace.rolled_out()


def test_history_is_as_long_as_it_may_be(namespace):
    namespace.deploy(replicas=0, revisionHistoryLimit=1)
    wait_until(lambda: set(namespace.sets()) == {"1"}, "revision 1")
    for number in ("2", "3"):
        patch = {"spec": {"template": {"metadata": {"annotations": {"release": number}}}}}
        namespace.api.patch(namespace.path("deployments", "web"), patch)
        wait_until(lambda number=number: number in namespace.sets(), f"revision {number}", SECONDS)
    wait_until(lambda: set(namespace.sets()) == {"2", "3"}, "revision 1 is forgotten", SECONDS)


def test_two_writers_do_not_overwrite_each_other(namespace):
    path = namespace.path("configmaps", group="api/v1")
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}
    read = namespace.api.create(path, item)
    assert namespace.api.call("PUT", f"{path}/m", {**read, "data": {"a": "2"}})[0] == 200
    status, answer = namespace.api.call("PUT", f"{path}/m", {**read, "data": {"a": "3"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    conditional = {"metadata": {"resourceVersion": read["metadata"]["resourceVersion"]}, "data": {"a": "3"}}
    status, answer = namespace.api.call("PATCH", f"{path}/m", conditional, "application/merge-patch+json")
    assert (status, answer["reason"]) == (409, "Conflict")


def test_deletion_reaches_what_was_owned(namespace):
    namespace.deploy(replicas=1)
    namespace.rolled_out()
    path = namespace.path("deployments", "web")
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    status, kept = namespace.api.call("DELETE", path, options)
    assert (status, kept["metadata"]["finalizers"]) == (200, ["foregroundDeletion"])
    wait_until(lambda: namespace.api.call("GET", path)[0] == 404, "the Deployment is gone", SECONDS)
    assert (namespace.sets(), namespace.pods()) == ({}, [])


# ---- kubectl -------------------------------------------------------------------------------------------------------


@pytest.fixture
def kubectl(namespace, kubeconfig):
    program = shutil.which("kubectl") or (str(INSTALLED) if INSTALLED.exists() else None)
    if program is None:
        pytest.skip("no kubectl on PATH nor in .cache: `make kubectl` puts Debian's there")

    def run(*arguments: str, stdin: str | None = None) -> str:
        argv = [program, f"--kubeconfig={kubeconfig}", f"--namespace={namespace.name}", *arguments]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
        - name: app
          image: {image}
          ports: [{{containerPort: 8080}}]
          env: [{{name: DATABASE_URL, value: "postgresql://example"}}]
"""


def test_kubectl_is_content(namespace, kubectl):
    assert "created" in kubectl("apply", "-f", "-", stdin=MANIFEST.format(image=GOOD))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "configured" in kubectl("apply", "-f", "-", stdin=MANIFEST.format(image=NEXT))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    revisions = [line.split()[0] for line in kubectl("rollout", "history", "deployment/web").splitlines()[2:] if line]
    assert revisions == ["1", "2"]
    assert "rolled back" in kubectl("rollout", "undo", "deployment/web")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    restored = namespace.deployment()
    assert restored["spec"]["template"]["spec"]["containers"][0]["image"] == GOOD
    assert restored["metadata"]["annotations"][REVISION] == "3"
    assert "scaled" in kubectl("scale", "deployment/web", "--replicas=1")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert kubectl("get", "deployments", "--no-headers").split()[:2] == ["web", "1/1"]
    assert "NewReplicaSetAvailable" in kubectl("describe", "deployment", "web")
    assert kubectl("logs", "deployment/web", "--tail=1") or REAL  # an image that only waits says nothing
    assert "serverside-applied" in kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST.format(image=GOOD)
    )
    assert "restarted" in kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")


def test_kubectl_writes_what_the_runbook_has_it_write(namespace, kubectl):
    """Typed objects: newer ones send them in protocol buffers."""
    kubectl("create", "configmap", "maintenance-mode", "--from-literal=enabled=true")
    kubectl("create", "secret", "generic", "secrets-new", "--from-literal=jwt-secret=s3cret")
    found = namespace.api.get(namespace.path("configmaps", "maintenance-mode", "api/v1"))
    assert (found["data"], found["kind"]) == ({"enabled": "true"}, "ConfigMap")
    secret = namespace.api.get(namespace.path("secrets", "secrets-new", "api/v1"))
    assert (secret["data"], secret["type"]) == ({"jwt-secret": "czNjcmV0"}, "Opaque")
    assert kubectl("auth", "can-i", "patch", "deployments").strip() == "yes"
