# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace of a cluster, the sandbox's or a real one, seen through the Kubernetes client; and verbs against it.

SRE_RUNBOOKS_TEST_KUBECONFIG names the kubeconfig of a real cluster, whose current context may make namespaces. One is made
for the tests and removed. The images are SRE_RUNBOOKS_TEST_IMAGE_V1, _V2, _MISSING and _CRASHING; the defaults are public
ones, and one that nobody can pull. What needs the sandbox's own application, or an API that fails to order, is skipped.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from kubernetes import config
from world import wait_until

from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from sandbox.client import Sandbox

REAL = "SRE_RUNBOOKS_TEST_KUBECONFIG"
PUBLIC_IMAGES = {
    "v1": "registry.k8s.io/pause:3.9",
    "v2": "registry.k8s.io/pause:3.10",
    "missing": "shop/web:bad",
    "crashing": "docker.io/library/busybox:1.36",  # its shell ends at once, for want of a terminal
}
SANDBOX_IMAGES = {
    "v1": "registry.regami.test/web:v1",
    "v2": "registry.regami.test/web:v2",
    "missing": "registry.regami.test/web:missing",
    "crashing": "registry.regami.test/web:v3-crashing",
}
# A real cluster pulls images, and may be slow.
PATIENCE = 120
only_simulated = pytest.mark.skipif(
    REAL in os.environ,
    reason=f"needs the sandbox's cluster: its application, or failures to order; {REAL} names another",
)
# No application needs it here; that its value is never shown is what counts.
SECRET = "postgresql://regami:hunter2hunter2@127.0.0.1:9/regami"


@contextmanager
def team_namespace(sandbox: Callable[[], Sandbox]) -> Iterator[Namespace]:
    """A namespace of our own, in the real cluster if there is one; `sandbox` is asked only where there is none."""
    if REAL in os.environ:
        kubeconfig = os.path.abspath(os.environ[REAL])  # playbooks run elsewhere
        _contexts, current = config.list_kube_config_contexts(kubeconfig)
        namespace = Namespace(kubeconfig, current["name"])
    else:
        known = sandbox().state["kubernetes"]
        namespace = Namespace(known["kubeconfig"], known["context"])
    namespace.begin()
    try:
        yield namespace
    finally:
        namespace.end()


def images() -> dict[str, str]:
    if REAL not in os.environ:
        return SANDBOX_IMAGES
    return {
        name: os.environ.get(f"SRE_RUNBOOKS_TEST_IMAGE_{name.upper()}", PUBLIC_IMAGES[name]) for name in PUBLIC_IMAGES
    }


@dataclass(frozen=True)
class Namespace:
    """Where the tests' workloads live. Objects are the API's JSON."""

    kubeconfig: str
    context: str
    name: str = field(default_factory=lambda: f"sre-runbooks-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        object.__setattr__(self, "_api", config.new_client_from_config(self.kubeconfig, self.context))

    @property
    def knows_us_by_certificate(self) -> bool:
        """Then the API looks at no token."""
        return bool(self._api.configuration.cert_file)

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> dict:
        """One request to the API, by the pool that the client set up."""
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        for each in self._api.configuration.auth_settings().values():
            headers[each["key"]] = each["value"]
        answer = self._api.rest_client.pool_manager.request(
            method,
            self._api.configuration.host + path,
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=20,
        )
        assert answer.status < 300, (method, path, answer.status, answer.data)
        return json.loads(answer.data)

    def path(self, resource: str, name: str = "", api: str = "/apis/apps/v1") -> str:
        if resource == "deploymentconfigs":
            api = "/apis/apps.openshift.io/v1"
        return f"{api}/namespaces/{self.name}/{resource}" + (f"/{name}" if name else "")

    def begin(self) -> None:
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.name}})

    def end(self) -> None:
        self.call("DELETE", f"/api/v1/namespaces/{self.name}")

    def get(self, name: str, resource: str = "deployments") -> dict:
        return self.call("GET", self.path(resource, name))

    def pods(self, name: str) -> list[dict]:
        """Of one workload, by its label; those on their way out are left out."""
        found = self.call("GET", self.path("pods", api="/api/v1") + f"?labelSelector=app={name}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def deploy(self, name: str, image: str, kind: str = "Deployment", replicas: int = 1, **spec: Any) -> str:
        """Make a workload of one of `images`; returns its name once it serves (or does not, for one that never will)."""
        more = {"replicas": replicas} if kind != "DaemonSet" else {}
        if kind == "StatefulSet":
            more["serviceName"] = name
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "app", "image": images()[image], "env": [{"name": "DATABASE_URL", "value": SECRET}]}
                ],
            },
        }
        openshift = kind == "DeploymentConfig"
        selector = {"app": name} if openshift else {"matchLabels": {"app": name}}
        body = {
            "kind": kind,
            "apiVersion": "apps.openshift.io/v1" if openshift else "apps/v1",
            "metadata": {"name": name, "annotations": {"team": "shop"}},
            "spec": {"selector": selector, "template": template, "minReadySeconds": 1, **more, **spec},
        }
        self.call("POST", self.path(f"{kind.lower()}s"), body)
        return name

    def ship(self, name: str, image: str, resource: str = "deployments") -> None:
        """What a pipeline does: another image."""
        containers = [{"name": "app", "image": images()[image]}]
        self.patch(name, {"spec": {"template": {"spec": {"containers": containers}}}}, resource)

    def deploy_one_by_one(self, name: str, *images: str, **given: Any) -> str:
        """A workload with this history; each of its images but the last one has served."""
        resource = f"{given.get('kind', 'Deployment').lower()}s"
        self.deploy(name, images[0], **given)
        for before, image in itertools.pairwise(images):
            self.until_serving(name, before)
            self.ship(name, image, resource)
        return name

    def patch(self, name: str, body: dict, resource: str = "deployments") -> dict:
        return self.call("PATCH", self.path(resource, name), body, "application/strategic-merge-patch+json")

    def image(self, name: str, resource: str = "deployments") -> str:
        """Which of `images` it is to run."""
        running = self.get(name, resource)["spec"]["template"]["spec"]["containers"][0]["image"]
        return next(key for key, value in images().items() if value == running)

    def serves(self, name: str, image: str) -> bool:
        """Do its pods all run this image, and does each of them serve?"""
        pods = self.pods(name)
        return bool(pods) and all(
            pod["spec"]["containers"][0]["image"] == images()[image]
            and any(
                each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", [])
            )
            for pod in pods
        )

    def until_serving(self, name: str, image: str) -> None:
        wait_until(lambda: self.serves(name, image), f"{name} serves {image}", PATIENCE)

    def until_waiting(self, name: str, *reasons: str) -> None:
        """Until a container of it waits for one of `reasons`."""
        wait_until(lambda: self.reasons(name) & set(reasons), f"{name}: {reasons}", PATIENCE)

    def until_crashing(self, name: str) -> None:
        """Until a container is in the loop; a cluster in which nothing really runs is no place for that."""
        try:
            self.until_waiting(name, "CrashLoopBackOff")
        except AssertionError:
            if REAL in os.environ and self.serves(name, "crashing"):
                pytest.skip(
                    f"{images()['crashing']} does not crash here: SRE_RUNBOOKS_TEST_IMAGE_CRASHING names one that does"
                )
            raise

    def reasons(self, name: str) -> set[str]:
        return {
            (each["state"].get("waiting") or {}).get("reason", "")
            for pod in self.pods(name)
            for each in pod["status"].get("containerStatuses", [])
        }

    def verb(self, name: str, action: str, check: bool = False, **given: Any) -> dict:
        """What k8s_rollout exits with, run in this process."""
        where = {"kubeconfig": self.kubeconfig, "context": self.context, "namespace": self.name}
        return run_module(
            "k8s_rollout", check, **(where | {"name": name, "action": action, "wait_timeout": 3 * PATIENCE} | given)
        )


def run_module(verb: str, check: bool = False, /, **arguments: Any) -> dict:
    """What this verb exits with, run in this process."""
    module = importlib.import_module(f"ansible_collections.sre.runbooks.plugins.modules.{verb}")
    return run_main(module.main, check, **{key: value for key, value in arguments.items() if value is not None})
