# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback_deployment.yml, strategy kubernetes: a bad build is shipped under load, and the rollout is undone.

What needs no application of ours runs against a real cluster too, where one is named (kube.py); AWS is simulated in any case.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kube import Namespace, only_simulated, team_namespace
from runbook import Result, Running, name_of
from world import World, wait_until

PLAYBOOK = "rollback_deployment"
ENV = {"env": "sandbox_kubernetes"}
PATCH = "kubernetes:patch deployments us-east-1"
NAME = "api"
Reached = Callable[[Running], bool]


@pytest.fixture(scope="module")
def shop(any_world: World) -> Namespace:
    """The team's namespace, with the API behind a balancer and a public name."""
    return anew(any_world)


def anew(world: World) -> Namespace:
    world.begin()
    known = world.sandbox.state["kubernetes"]
    space = Namespace(known["kubeconfig"], known["context"], known["namespace"])
    wait_until(lambda: runs(space, "v2"), "v2 serves")
    return space


@pytest.fixture
def bad(any_world: World, shop: Namespace) -> Iterator[World]:
    """A pipeline has shipped a build that fails half of its requests and passes its health check."""
    ship(shop, "v3-erroring")
    yield any_world
    any_world.sandbox.heal()
    if not runs(shop, "v2"):  # shipped again, the history would be another one for the next test
        anew(any_world)


@pytest.fixture
def cluster(any_world: World) -> Iterator[Namespace]:
    """A namespace of the test's own; there is nothing in it."""
    with team_namespace(lambda: any_world.sandbox) as namespace:
        yield namespace


def image(space: Namespace) -> str:
    return space.get(NAME)["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]


def runs(space: Namespace, tag: str) -> bool:
    """Does the API serve with this image, and nothing else?"""
    found = space.get(NAME)
    status, count = found["status"], found["spec"]["replicas"]
    counts = [status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return (
        image(space) == tag
        and status["observedGeneration"] == found["metadata"]["generation"]
        and counts == [count] * 3
    )


def ship(space: Namespace, tag: str) -> None:
    known = space.get(NAME)["spec"]["template"]["spec"]["containers"][0]
    containers = [{"name": known["name"], "image": f"{known['image'].rpartition(':')[0]}:{tag}"}]
    space.patch(NAME, {"spec": {"template": {"spec": {"containers": containers}}}})
    wait_until(lambda: runs(space, tag), f"{tag} is rolled out")


def patches(result: Result) -> list[str]:
    """Changes that the cluster has applied."""
    return [
        name_of(call)
        for call in result.calls
        if (call["service"], call["status"]) == ("kubernetes", 200) and call["mutation"]
    ]


def roll_back(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run(PLAYBOOK, *flags, **ENV, **variables)


def workload(world: World, space: Namespace, name: str) -> dict[str, Any]:
    """What the inventory says of it, in whichever cluster it is; nobody can reach it, so its checks ask another service."""
    return ENV | {
        "smoke_tests": [{"name": "health", "url": f"{world.sandbox.state['public_url']}/health"}],
        "kubernetes_kubeconfig": space.kubeconfig,
        "kubernetes_context": space.context,
        "kubernetes_namespace": space.name,
        "kubernetes_workload": name,
    }


@only_simulated
def test_errors_end_for_users_and_a_plan_changes_nothing(bad: World, shop: Namespace) -> None:
    known = bad.sandbox.state["kubernetes"]
    bad.sandbox.control("load", action="start", name=known["public_name"])
    bad.await_users(10)
    before = shop.get(NAME)["spec"]
    planned = roll_back(bad, "--check", "--diff")
    assert (planned.returncode, planned.mutations) == (0, []), planned.output
    assert shop.get(NAME)["spec"] == before
    assert re.search(r"1\. send api back to revision 2 \(\S+/regami-api:v2\)", planned.output)

    run = roll_back(bad)
    assert run.returncode == 0, run.output
    assert patches(run) == [PATCH] and runs(shop, "v2")
    assert run.report["outcome"] == "recovered" and all(each["ok"] for each in run.report["verification"])
    (undo,) = run.report["undo"]
    assert (undo["verb"], undo["arguments"]["to_revision"]) == ("sre.runbooks.k8s_rollout", 3)
    ended = time.time()
    users = bad.stop_users(more=40)
    assert users["failed_requests"] > 0 and users["last_error"] < ended
    assert users["last_version"] == "v2"
    assert not any(secret in run.output + str(run.report) for secret in bad.secrets())

    again = roll_back(bad)
    assert (again.returncode, patches(again), again.report["outcome"]) == (0, [], "noop"), again.output
    assert any("already went back from revision 3" in note for note in again.report["notes"])


def said(text: str) -> Reached:
    return lambda run: any(text in event.get("line", "") for event in run.timeline)


@only_simulated
@pytest.mark.soak
def test_killed_before_anything_is_sent(bad: World, shop: Namespace) -> None:
    """kill -9 of the whole run; the same command again ends as if nothing had happened."""
    for kind in ("latency", "reset"):
        bad.sandbox.fault("api", service="kubernetes", action="patch deployments", kind=kind, count=1, seconds=3)
    running = bad.runbook.start(PLAYBOOK, **ENV)
    running.until(said("send api back"))
    killed = running.kill()
    bad.sandbox.heal()
    again = roll_back(bad)
    assert again.returncode == 0, again.output
    assert runs(shop, "v2") and again.report["resumes"] == killed.folder.name
    assert patches(again) == [PATCH]
    assert again.report["outcome"] in ("recovered", "noop") and again.report["verification"]


@pytest.mark.soak
def test_killed_half_rolled_out(any_world: World, cluster: Namespace) -> None:
    web = cluster.deploy_one_by_one("killed", "v1", "v2", replicas=2)
    cluster.until_serving(web, "v2")
    given = workload(any_world, cluster, web) | {"to_revision": 1}
    running = any_world.runbook.start(PLAYBOOK, **given)
    running.until(said("1 of 2 updated"))
    killed = running.kill()
    before = cluster.get(web)["spec"]
    again = any_world.runbook.run(PLAYBOOK, **given)
    assert again.returncode == 0, again.output
    assert cluster.serves(web, "v1") and again.report["resumes"] == killed.folder.name
    assert cluster.get(web)["spec"] == before
    assert again.report["outcome"] in ("recovered", "noop") and again.report["verification"]


@pytest.mark.soak
def test_two_responders(any_world: World, cluster: Namespace) -> None:
    # Long enough that both are there while it goes on.
    web = cluster.deploy_one_by_one("twice", "v1", "v2", replicas=2, minReadySeconds=3)
    cluster.until_serving(web, "v2")
    given = workload(any_world, cluster, web)
    planned = any_world.runbook.run(PLAYBOOK, "--check", "--diff", **given)
    assert planned.returncode == 0 and f"1. send {web} back to revision 1 (" in planned.output, planned.output
    assert cluster.serves(web, "v2")
    both = [any_world.runbook.start(PLAYBOOK, **given) for _ in range(2)]
    told, acted = sorted((run.wait() for run in both), key=lambda result: len(result.timeline))
    assert (acted.returncode, told.returncode) == (0, 2), acted.output + told.output
    assert "has held the lease shop-api since 20" in told.complaints[0]
    (undo,) = acted.report["undo"]
    assert undo["arguments"]["to_revision"] == 2 and cluster.serves(web, "v1")


@only_simulated
def test_the_pipeline_is_noticed_and_a_token_that_expired(bad: World, shop: Namespace) -> None:
    """What refuses, refuses in the preflight: the lease is free again and nothing was changed."""
    before = shop.get(NAME)["spec"]
    label = {"metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}}
    shop.patch(NAME, label)
    run = roll_back(bad)
    label["metadata"]["labels"]["argocd.argoproj.io/instance"] = None
    shop.patch(NAME, label)
    assert "api is managed by Argo CD (shop; argocd app set shop --sync-policy none)" in run.complaints[0]
    bad.sandbox.fault("api", service="kubernetes", action="get deployments", kind="expired-token")
    expired = roll_back(bad)
    bad.sandbox.heal()
    assert (
        "does not accept these credentials (get deployments.apps api in namespace shop: 401)" in expired.complaints[0]
    )
    assert {run.returncode, expired.returncode} == {2} and patches(expired) == []
    assert shop.get(NAME)["spec"] == before
    assert (
        bad.aws("dynamodb").get_item(
            TableName=bad.sandbox.state["lock_table"], Key={"name": {"S": "shop-api"}}, ConsistentRead=True
        )["Item"]["run"]["S"]
        == "released"
    )
