# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and images of a workload, changed by verbs whose answers get lost and that are killed: each change is made once."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from dying import dies_after_a_change
from kube import Namespace, images, only_simulated, run_module, team_namespace

from ansible_collections.sre.runbooks.plugins.module_utils.new_values import next_name
from sandbox.client import Sandbox

pytestmark = only_simulated
NAME = "web"
# What changes, as the sandbox's journal and its faults name it.
CREATE, MOVE, DELETE = "create secrets", "patch deployments", "delete secrets"


class Shop:
    """A workload that reads its Secret."""

    def __init__(self, sandbox: Sandbox, space: Namespace) -> None:
        self.sandbox, self.space = sandbox, space
        data = {"password": base64.b64encode(b"former").decode(), "url": base64.b64encode(b"postgresql://a").decode()}
        space.call("POST", space.path("secrets", api="/api/v1"), {"metadata": {"name": "database"}, "data": data})
        password = {"secretKeyRef": {"name": "database", "key": "password"}}
        container = {"name": "app", "image": images()["v1"], "env": [{"name": "PASSWORD", "valueFrom": password}]}
        pods = {"terminationGracePeriodSeconds": 1, "containers": [container]}
        # Without a pod, whose start is no part of this and takes long.
        space.deploy(NAME, "v1", replicas=0, template={"metadata": {"labels": {"app": NAME}}, "spec": pods})

    def verb(self, name: str, **arguments: Any) -> dict:
        where = {"kubeconfig": self.space.kubeconfig, "context": self.space.context, "namespace": self.space.name}
        aws = {"endpoint_url": self.sandbox.state["endpoint_url"], "region": "us-east-1"}
        keys = {"access_key": "sandbox", "secret_key": "sandbox-secret"}
        return run_module(name, kubernetes={**where, "name": NAME}, **aws, **keys, **arguments)

    def rotate(self, secret: str, state: str) -> dict:
        return self.verb("k8s_secret_rotate", secret=secret, state=state, values=[{"key": "password", "length": 40}])

    def deploy(self, image: str) -> dict:
        return self.verb("k8s_image", image=image, accept_unknown_image=True)

    def lose(self, *actions: str) -> None:
        """Each of them twice: before the cluster has it, and when it was applied."""
        for action in actions:
            for kind in ("reset", "lost-answer"):
                self.sandbox.fault("api", service="kubernetes", action=action, kind=kind, count=1)

    def changes(self, first: int) -> list[str]:
        """What the cluster has applied since."""
        calls = [call for call in self.sandbox.calls(first) if call["service"] == "kubernetes" and call["mutation"]]
        return [call["action"] for call in calls if call["status"] in (200, 201)]

    def secrets(self) -> dict[str, str]:
        """The passwords that there are, by the name of their Secret."""
        found = self.space.call("GET", self.space.path("secrets", api="/api/v1"))["items"]
        return {each["metadata"]["name"]: base64.b64decode(each["data"]["password"]).decode() for each in found}

    def container(self) -> dict:
        return self.space.get(NAME)["spec"]["template"]["spec"]["containers"][0]

    def used(self) -> str:
        return self.container()["env"][0]["valueFrom"]["secretKeyRef"]["name"]

    @property
    def now(self) -> int:
        return self.sandbox.status()["calls"]


@pytest.fixture(scope="module")
def shop(sandbox: Sandbox) -> Iterator[Shop]:
    with team_namespace(lambda: sandbox) as space:
        yield Shop(sandbox, space)
    sandbox.heal()


def test_a_secret_whose_every_answer_is_lost_is_made_and_moved_to_once(shop: Shop) -> None:
    first, old = shop.now, shop.used()
    shop.lose(CREATE, MOVE, DELETE)
    moved = shop.rotate(old, "moved")
    assert not moved["failed"], moved["msg"]
    assert [step["do"] for step in moved["steps"]][:2] == ["create", "move"] and moved["undo"]
    retired = shop.rotate(old, "retired")
    assert not retired["failed"] and [step["do"] for step in retired["steps"]] == ["delete"], retired
    assert shop.changes(first) == [CREATE, MOVE, DELETE]
    ((name, password),) = shop.secrets().items()
    assert (name, len(password), shop.used()) == (next_name(old), 40, name)
    assert password not in str([moved, retired])


def test_a_rotation_killed_between_each_two_changes_keeps_its_password(shop: Shop) -> None:
    first, old, passwords = shop.now, shop.used(), set()
    for state in ("created", "moved", "retired"):
        assert dies_after_a_change(lambda state=state: shop.rotate(old, state))
        again = shop.rotate(old, state)
        assert not again["failed"] and not again["changed"], again
        passwords.add(shop.secrets()[next_name(old)])
        assert shop.used() in shop.secrets()
    assert shop.changes(first) == [CREATE, MOVE, DELETE] and len(passwords) == 1
    assert shop.used() == next_name(old)


@pytest.mark.soak
def test_a_good_image_is_deployed_once_and_taken_back(shop: Shop) -> None:
    first, former = shop.now, shop.container()["image"]
    one, two = (f"registry.regami.test/web@sha256:{digit * 64}" for digit in "12")
    shop.lose(MOVE)
    deployed = shop.deploy(one)
    assert not deployed["failed"] and deployed["steps"][0]["do"] == "deploy", deployed
    assert dies_after_a_change(lambda: shop.deploy(two))
    again = shop.deploy(two)
    assert not again["failed"] and not again["changed"], again
    assert shop.changes(first) == [MOVE] * 2 and shop.container()["image"] == two
    (back,) = deployed["undo"]
    undone = run_module("k8s_rollout", **back["arguments"], kubeconfig=shop.space.kubeconfig)
    assert not undone["failed"] and shop.container()["image"] == former, undone
