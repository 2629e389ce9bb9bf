# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_outage.yml for a service that runs in Kubernetes: the same decisions, by its pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kube import Namespace, run_module, team_namespace
from runbook import Result, name_of
from world import World, wait_until

NAME = "api"
# The sandbox deployed it a moment ago; as if that were long past.
LONG_AGO = {"recent_minutes": 0}


@pytest.fixture
def shop(world: World) -> Iterator[Namespace]:
    """The team's namespace on its first day."""
    known = world.sandbox.state["kubernetes"]
    space = Namespace(known["kubeconfig"], known["context"], known["namespace"])
    wait_until(lambda: serving(space) == 2, "v2 serves")
    yield space


def serving(space: Namespace) -> int:
    """How many of its pods are ready."""
    conditions = [each for pod in space.pods(NAME) for each in pod["status"].get("conditions", [])]
    return sum((each["type"], each["status"]) == ("Ready", "True") for each in conditions)


def image(space: Namespace) -> str:
    return space.get(NAME)["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]


def assessed(space: Namespace, name: str) -> dict:
    """What outage_assess exits with, run in this process; nobody asks for the service, and it has no database."""
    where = {"kubeconfig": space.kubeconfig, "context": space.context, "namespace": space.name, "name": name}
    return run_module("outage_assess", kubernetes=where, desired_count=1, checks=[], region="us-east-1")


def test_what_is_down_is_told_in_any_cluster(request: pytest.FixtureRequest) -> None:
    """The sandbox's, or a real one where one is named."""
    with team_namespace(lambda: request.getfixturevalue("sandbox")) as space:
        web = space.deploy("down", "v1")
        space.until_serving(web, "v1")
        well = assessed(space, web)
        assert (well["decision"], well["before"]["serving"]) == ("none", 1), well
        space.ship(web, "missing")
        space.until_waiting(web, "ErrImagePull", "ImagePullBackOff")
        bad = assessed(space, web)
        assert bad["decision"] == "rollback" and "container app: " in bad["because"] and "ImagePull" in bad["because"]
        assert bad["before"]["serving"] == 1
        space.patch(web, {"spec": {"replicas": 0}})
        assert assessed(space, web)["decision"] == "scale"


def bring_back(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run("service_outage", *flags, env="sandbox_kubernetes", **variables)


def decision(run: Result) -> str:
    return next(note for note in run.report["notes"] if ": " in note)


def changes(run: Result) -> list[str]:
    """Changes that the cluster has applied."""
    return [
        name_of(call).partition(" us-")[0]
        for call in run.calls
        if (call["service"], call["status"]) == ("kubernetes", 200) and call["mutation"]
    ]


PATCH = "kubernetes:patch deployments"


@pytest.mark.soak
def test_errors_after_a_deployment_are_rolled_back_and_users_see_no_more(world: World, shop: Namespace) -> None:
    """Its pods are ready and its checks pass: only the load balancer has counted what users see."""
    world.sandbox.control("load", action="start", name=world.sandbox.state["kubernetes"]["public_name"])
    world.await_users(10)
    world.sandbox.fault("kubernetes-bad-build", build="erroring")
    wait_until(lambda: world.sandbox.control("load", action="report")["failed_requests"] > 60, "users see errors")
    planned = bring_back(world, "--check", "--diff")
    assert (planned.returncode, planned.report["outcome"], planned.mutations) == (0, "planned", [])
    assert "1. send api back to revision 2 (" in planned.output

    run = bring_back(world)
    assert run.returncode == 0, run.output
    assert (run.report["outcome"], changes(run), image(shop)) == ("recovered", [PATCH], "v2")
    assert decision(run).startswith("rollback: revision 3 (") and "of the requests end in an error" in decision(run)
    failed = world.sandbox.control("load", action="report")["failed_requests"]
    assert world.stop_users(more=20)["failed_requests"] == failed
    assert not any(secret in run.output + str(run.report) for secret in world.secrets())


def test_an_image_that_is_not_there_is_rolled_back_before_users_notice(world: World, shop: Namespace) -> None:
    world.sandbox.fault("kubernetes-bad-build", build="missing")
    wait_until(lambda: "ImagePullBackOff" in shop.reasons(NAME), "it cannot be pulled")
    run = bring_back(world)
    assert run.returncode == 0, run.output
    assert "container api: ImagePullBackOff" in decision(run) and decision(run).startswith("rollback: ")
    assert (changes(run), image(shop), serving(shop)) == ([PATCH], "v2", 2)


def test_pods_that_crash_without_a_deployment_are_replaced(world: World, shop: Namespace) -> None:
    world.sandbox.fault("pods-crash")
    wait_until(lambda: shop.reasons(NAME) == {"CrashLoopBackOff"}, "they crash")
    before = {pod["metadata"]["uid"] for pod in shop.pods(NAME)}
    run = bring_back(world, **LONG_AGO)
    assert run.returncode == 0, run.output
    assert decision(run).startswith("restart: nothing was deployed within 0 min, but pod api-")
    assert "CrashLoopBackOff: exit code 137" in decision(run) and changes(run) == [PATCH]
    assert not before & {pod["metadata"]["uid"] for pod in shop.pods(NAME)} and serving(shop) == 2
    again = bring_back(world, **LONG_AGO)
    assert (again.returncode, again.report["outcome"], changes(again)) == (0, "noop", [])
    assert decision(again).startswith("none: every check passes and 2 of 2 of api serve")


def test_scaled_to_nothing_gets_its_pods_also_when_it_is_killed_there(world: World, shop: Namespace) -> None:
    shop.patch(NAME, {"spec": {"replicas": 0}})
    wait_until(lambda: not shop.pods(NAME), "nothing is left")
    running = world.runbook.start("service_outage", env="sandbox_kubernetes", **LONG_AGO)
    running.until(lambda run: any("scale api to 2" in event.get("line", "") for event in run.timeline))
    wait_until(lambda: shop.get(NAME)["spec"]["replicas"] == 2, "it is told")
    killed = running.kill()
    again = bring_back(world, **LONG_AGO)
    assert again.returncode == 0, again.output
    assert changes(again) == [] and again.report["resumes"] == killed.folder.name
    assert serving(shop) == 2


def test_a_dead_database_is_named_with_the_playbook_for_it(world: World, shop: Namespace) -> None:
    world.sandbox.fault("primary-killed")
    run = bring_back(world)
    assert (run.returncode, run.mutations) == (2, [])
    (complaint,) = run.complaints
    assert "the database regami-db-primary" in complaint
    assert "ansible-playbook playbooks/db_failover.yml -e env=sandbox," in complaint
    assert complaint.endswith("It repoints ECS services: give api the new primary after that")


def test_what_is_wrong_with_the_command_or_the_inventory_is_said_in_a_line(world: World, shop: Namespace) -> None:
    run = bring_back(world, kubernetes_workload="apo")
    assert run.returncode == 2 and "there is no Deployment apo in namespace shop (there are: api)" in run.complaints[0]
    shop.patch(NAME, {"spec": {"replicas": 0}, "metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}})
    managed = bring_back(world)
    assert (managed.returncode, changes(managed)) == (2, [])
    assert "api is managed by Argo CD (shop; argocd app set shop --sync-policy none)" in managed.complaints[0]
    assert "when_managed=note" in managed.complaints[0]
