# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bad build by blue/green deployment: taken back half way and after its end, whatever happens to the run."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from blue_green import Web
from runbook import Result
from world import EAST, World, wait_until

GOOD = "regami-web:2"


@pytest.fixture(scope="module")
def first_web(any_world: World) -> Web:
    any_world.begin()
    return Web(any_world)


@pytest.fixture
def web(first_web: Web) -> Iterator[Web]:
    """It serves the revision of the first day, and no deployment goes on."""
    first_web.world.sandbox.heal()
    first_web.idle()
    if first_web.serves() != GOOD:
        first_web.redeploy(first_web.deployments("Succeeded")[-2]["deploymentId"])
    yield first_web
    first_web.world.sandbox.control("load", action="stop")


@pytest.fixture(scope="module")
def bad(first_web: Web) -> tuple[str, str]:
    """(a deployment of a good build, a later one of a bad build) that have succeeded: what tests deploy again."""
    first_web.idle()
    good = first_web.deployments("Succeeded")[0]["deploymentId"]
    bad = first_web.ship("erroring", "shifting")
    first_web.codedeploy.stop_deployment(deploymentId=bad, autoRollbackEnabled=True)
    first_web.idle()
    return good, bad


def complained(result: Result) -> str:
    (line,) = result.complaints
    return line


def felt_after(world: World, moment: float) -> dict:
    """What users felt; and that nothing failed that was sent later than a second after `moment`."""
    seen = world.stop_users(more=20)
    assert seen["last_error"] is None or seen["last_error"] < moment + 1
    return seen


@pytest.mark.parametrize("stage", ["shifting", "shifted"])
def test_taken_back_under_load_while_it_goes_on(web: Web, bad: tuple[str, str], stage: str) -> None:
    before = web.serves()
    web.world.start_users(name=web.facts["public_name"])
    if stage == "shifting":
        deployment = web.ship("erroring", stage)
    else:
        deployment = web.redeploy(bad[1], wait=False)
        web.traffic_moved(deployment)
    run = web.run()
    ended = time.time()
    assert run.returncode == 0, run.output
    assert web.creations(run) == ["StopDeployment"]
    assert (web.serves(), web.traffic()) == (before, {before: 100})
    rollback = web.deployments()[0]
    assert rollback["rollbackInfo"]["rollbackTriggeringDeploymentId"] == deployment
    users = felt_after(web.world, ended)
    assert users["lost_writes"] == 0 and users["error_rate"] < 0.5
    (step,) = [each for each in run.report["steps"] if each["do"] == "stop"]
    assert deployment in step["what"] and before in step["what"]
    assert run.report["outcome"] == "recovered"
    assert all(check["ok"] for check in run.report["verification"]) and run.report["verification"]
    assert [each["arguments"]["deployment"] for each in run.report["undo"]] == [deployment]


def test_taken_back_under_load_after_its_end(web: Web, bad: tuple[str, str]) -> None:
    good = web.serves()
    ended_badly = web.redeploy(bad[1])
    assert web.serves() != good
    web.world.start_users(1, name=web.facts["public_name"])
    plan = web.run("--check", "--diff")
    assert (plan.returncode, plan.mutations, plan.lease_calls) == (0, [], [])
    assert f"1. deploy {good} to regami-web again" in plan.output and "traffic: " in plan.output
    assert web.deployments()[0]["deploymentId"] == ended_badly
    run = web.run()
    ended = time.time()
    assert run.returncode == 0, run.output
    assert web.creations(run) == ["CreateDeployment"]
    assert web.traffic() == {good: 100}
    felt_after(web.world, ended)
    rollback = web.deployments()[0]
    assert rollback["description"].startswith(f"sre.runbooks rolls back {ended_badly} to ")
    # It goes on, to terminate what it replaced: the same command again has nothing to do.
    assert rollback["status"] == "InProgress"
    again = web.run()
    assert (again.returncode, web.creations(again), again.report["outcome"]) == (0, [], "noop"), again.output


@pytest.mark.soak
def test_once_it_is_over_it_is_undone_by_a_deployment_and_done_once_more(web: Web, bad: tuple[str, str]) -> None:
    good = web.serves()
    web.redeploy(bad[1])
    left = web.serves()
    assert web.run().returncode == 0
    web.idle()
    back = web.world.runbook.run("undo", env=web.ENV)
    # Whether what it brings back passes its checks is chance.
    assert (web.creations(back), web.traffic()) == (["CreateDeployment"], {left: 100}), back.output
    again = web.run()
    assert (again.returncode, web.creations(again), web.traffic()) == (0, ["StopDeployment"], {good: 100}), again.output


def test_a_build_that_never_turns_healthy_is_stopped(web: Web) -> None:
    before = web.traffic()
    deployment = web.ship("crashing", "begun")
    wait_until(lambda: len(web.service()["taskSets"]) == 2, "the bad tasks start")
    run = web.run()
    assert run.returncode == 0, run.output
    assert web.codedeploy.get_deployment(deploymentId=deployment)["deploymentInfo"]["status"] == "Stopped"
    assert web.traffic() == before


@pytest.mark.soak
def test_a_good_revision_that_does_not_start_fails_early_and_says_why(web: Web, bad: tuple[str, str]) -> None:
    """CodeDeploy would go on for an hour."""
    good = web.serves()
    crashing = web.ship("crashing", "begun")
    web.codedeploy.stop_deployment(deploymentId=crashing, autoRollbackEnabled=True)
    web.idle()
    run = web.run(deployment=crashing)
    assert run.returncode != 0
    assert "of its tasks failed one after the other" in complained(run)
    assert "stopped tasks: Essential container in task exited (app: exit code 1" in complained(run)
    assert web.traffic() == {good: 100}


def test_refused_before_any_change(web: Web, bad: tuple[str, str]) -> None:
    good, first = web.serves(), web.deployments()[-1]["deploymentId"]
    web.world.aws("ecs").deregister_task_definition(taskDefinition="regami-web:1")
    ended_badly = web.redeploy(bad[1])
    web.world.sandbox.fault("image-gone", tag="v2")
    for variables, why in (
        ({"deployment": first}, f"regami-web:1, which {first} deployed, was deregistered (INACTIVE)"),
        ({"leaving": first}, f"{ended_badly} would be taken back, and not {first}: somebody has deployed meanwhile"),
        ({}, f"regami-api:v2 of container app in {good} cannot be pulled"),
    ):
        run = web.run(**variables)
        assert why in complained(run)
        assert run.mutations == []
    web.world.sandbox.heal()
    assert web.run().returncode == 0


def answered(action: str) -> Any:
    return lambda run: any(call["action"] == action and call["status"] == 200 for call in run.calls)


@pytest.mark.parametrize("action", [pytest.param("StopDeployment", marks=pytest.mark.soak), "CreateDeployment"])
def test_killed_when_aws_has_just_agreed(web: Web, bad: tuple[str, str], action: str) -> None:
    good = web.serves()
    if action == "StopDeployment":
        web.ship("erroring", "shifting")
    else:
        web.redeploy(bad[1])
    run = web.start()
    run.until(answered(action))
    killed = run.kill()
    assert killed.returncode == -signal.SIGKILL
    again = web.run()
    assert again.returncode == 0, again.output
    assert web.creations(again) == []
    assert web.traffic() == {good: 100}
    assert again.report["resumes"] == killed.folder.name


@pytest.mark.parametrize(
    ("action", "kinds"), [("StopDeployment", ["lost-answer"]), ("CreateDeployment", ["reset", "lost-answer"])]
)
def test_its_change_fails(web: Web, bad: tuple[str, str], action: str, kinds: list[str]) -> None:
    """lost-answer: applied, and nobody hears of it; reset: not applied."""
    good = web.serves()
    if action == "StopDeployment":
        web.ship("erroring", "shifting")
    else:
        web.redeploy(bad[1])
    for kind in kinds:
        web.world.sandbox.fault("api", service="codedeploy", action=action, kind=kind, region=EAST, count=1)
    run = web.run()
    assert run.returncode == 0, run.output
    assert [call["fault"] for call in run.calls if call["fault"]] == kinds
    # A second stop does no harm; a second deployment would.
    assert set(web.creations(run)) == {action} and web.creations(run).count("CreateDeployment") <= 1
    assert web.traffic() == {good: 100}


def test_of_two_at_once_one_acts(web: Web, bad: tuple[str, str]) -> None:
    good = web.serves()
    web.redeploy(bad[1])
    runs = [run.wait() for run in [web.start(), web.start()]]
    told, acted = sorted(runs, key=lambda result: -result.returncode)
    assert (acted.returncode, told.returncode) == (0, 2), acted.output + told.output
    assert "has held the lease regami-web since 20" in complained(told)
    assert web.creations(acted) == ["CreateDeployment"]
    assert web.traffic() == {good: 100}
