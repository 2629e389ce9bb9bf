# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback_deployment.yml, strategy api: a bad build is shipped under load and the service's own recovery API takes it back."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest
from runbook import Result, Running
from world import EAST, World, wait_until

WAY = {"playbook": "rollback_deployment", "strategy": "api"}


def roll_back(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run("rollback_deployment", *flags, strategy="api", **variables)


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def bad(first_world: World) -> Iterator[World]:
    """A world whose pipeline has rolled a build out that fails half of its requests and passes its health check."""
    world, names = first_world, first_world.names(EAST)
    take = f"/api/v1/disaster-recovery/snapshot/{names['cluster']}/{names['service']}"
    wait_until(lambda: ask(world, "GET", "/health") == 200, "the recovery API serves")
    assert ask(world, "POST", take) == 200
    world.sandbox.fault("bad-build", build="erroring")
    wait_until(lambda: world.is_settled(EAST), "the bad build is rolled out")
    yield world
    world.sandbox.heal()


def ask(world: World, method: str, path: str) -> int | None:
    """The status of the API's answer, None without one."""
    connection = http.client.HTTPConnection("127.0.3.10", world.sandbox.state["http_port"], timeout=10)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {world.secret('recovery_api')}"})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def test_users_are_served_again_and_a_plan_changes_nothing(bad: World) -> None:
    before = bad.service(EAST)["taskDefinition"]
    bad.start_users()
    planned = roll_back(bad, "--check", "--diff")
    assert (planned.returncode, planned.mutations) == (0, [])
    assert "roll regami-service back to snapshot" in planned.output
    assert bad.service(EAST)["taskDefinition"] == before
    run = roll_back(bad)
    assert run.returncode == 0, run.output
    assert run.mutations == [f"ecs:UpdateService {EAST}"]
    assert (bad.version(EAST), bad.is_settled(EAST)) == ("v2", True)
    assert [entry["verb"] for entry in run.report["undo"]] == ["sre.runbooks.recovery_api_rollback"]
    assert bad.stop_users()["lost_writes"] == 0
    assert not any(secret in run.output + str(run.report) for secret in bad.secrets())
    again = roll_back(bad)
    assert (again.returncode, again.mutations, again.report["outcome"]) == (0, [], "noop")
    assert bad.version(EAST) == "v2"


def test_a_rollback_whose_answer_was_lost_is_not_sent_twice(bad: World) -> None:
    bad.sandbox.fault("recovery-api", kind="lost-answer")
    run = roll_back(bad)
    assert run.returncode == 0, run.output
    assert run.mutations == [f"ecs:UpdateService {EAST}"]
    assert bad.version(EAST) == "v2"
    # Nobody knows the snapshot that the API took: the way forward again is AWS's own.
    assert [entry["verb"] for entry in run.report["undo"]] == ["sre.runbooks.ecs_rollback"]


@pytest.mark.soak
def test_a_run_that_was_killed_while_it_rolled_back_goes_on(bad: World) -> None:
    def was_taken(run: Running) -> bool:
        return any(call["action"] == "UpdateService" for call in run.calls)

    running = bad.runbook.start(**WAY)
    running.until(was_taken)
    running.kill()
    again = roll_back(bad)
    assert again.returncode == 0, again.output
    assert again.mutations == []
    assert (bad.version(EAST), bad.is_settled(EAST)) == ("v2", True)
    assert again.report["outcome"] in ("noop", "recovered")


def test_a_rollback_that_the_api_refuses_is_red_and_can_be_repeated(bad: World) -> None:
    before = bad.service(EAST)["taskDefinition"]
    bad.sandbox.fault("recovery-api", kind="refused")
    run = roll_back(bad)
    assert run.returncode != 0
    assert "could not roll back to snapshot" in run.complaints[0]
    assert "no credentials for UpdateService" in run.complaints[0]
    assert bad.service(EAST)["taskDefinition"] == before
    bad.sandbox.heal()
    assert roll_back(bad).returncode == 0
    assert bad.version(EAST) == "v2"


@pytest.mark.parametrize("kind", ["down", "error"])
def test_where_the_api_does_not_answer_aws_is_asked_and_the_record_says_so(bad: World, kind: str) -> None:
    bad.sandbox.fault("recovery-api", kind=kind)
    run = roll_back(bad)
    assert run.returncode == 0, run.output
    assert (bad.version(EAST), bad.is_settled(EAST)) == ("v2", True)
    assert any(note.startswith("UNREACHABLE: the recovery API does not answer") for note in run.report["notes"])
    assert run.report["outcome"] == "recovered"
