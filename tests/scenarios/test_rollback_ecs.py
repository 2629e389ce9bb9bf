# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback_deployment.yml, strategy ecs: a bad build is shipped, and the revision that was good comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from ill_api import applied, spoil
from killing import Point, answered, killed_at, said
from runbook import Result
from world import EAST, WEST, World, wait_until

UPDATE, STOP = f"ecs:UpdateService {EAST}", f"ecs:StopServiceDeployment {EAST}"
PLAYBOOK = "rollback_deployment"
# A build whose deployment lasts: it runs, and the grace period of its health checks is 30 s.
IN_PROGRESS = "unhealthy"


def revision(world: World) -> str:
    return world.service(EAST)["taskDefinition"].rpartition("/")[2]


def last_deployment(world: World) -> str:
    """How the newest service deployment stands."""
    names = world.names(EAST)
    found = world.aws("ecs").list_service_deployments(cluster=names["cluster"], service=names["service"])
    return found["serviceDeployments"][0]["status"]


def ship(world: World, build: str, until: str = "SUCCESSFUL") -> str:
    """A pipeline deploys `build`; returns its revision once the service deployment has come so far."""
    world.sandbox.fault("bad-build", build=build)
    shipped = revision(world)
    wait_until(lambda: last_deployment(world) == until, f"{build} is {until}")
    return shipped


def roll_back(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run(PLAYBOOK, *flags, **variables)


def refusal(world: World, **variables: Any) -> str:
    """What a run that must not begin says."""
    run = roll_back(world, **variables)
    assert run.returncode == 2 and run.mutations == [], run.output
    (complaint,) = run.complaints
    return complaint


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def steady(first_world: World) -> Iterator[World]:
    """The service runs its good release, as on the first day or after a rollback; what was shipped before stays in the past."""
    world, good = first_world, "regami-api:3"
    if revision(world) != good:
        names = world.names(EAST)
        world.aws("ecs").update_service(cluster=names["cluster"], service=names["service"], taskDefinition=good)
    wait_until(lambda: world.is_settled(EAST), "the good release runs")
    yield world
    world.sandbox.heal()


@dataclass(frozen=True)
class Undisturbed:
    """A bad build that was complete, from the plan to a second run; `before` and `after` are the service."""

    bad: str
    before: dict
    planned: Result
    planned_revision: str
    run: Result
    users: dict
    after: dict
    again: Result


@pytest.fixture(scope="module")
def undisturbed(first_world: World) -> Undisturbed:
    world = first_world
    bad, before = ship(world, "erroring"), world.service(EAST)
    world.start_users()
    planned = roll_back(world, "--check", "--diff")
    planned_revision = revision(world)
    run = roll_back(world)
    users, after = world.stop_users(more=20), world.service(EAST)
    return Undisturbed(bad, before, planned, planned_revision, run, users, after, roll_back(world))


def assert_good(world: World, run: Result) -> None:
    assert run.returncode == 0, run.output
    assert (revision(world), world.is_settled(EAST), world.healthy_targets(EAST)) == ("regami-api:3", True, 2)
    assert all(check["ok"] for check in run.report["verification"]) and run.report["verification"]


def test_a_plan_changes_nothing(undisturbed: Undisturbed) -> None:
    """Of the revisions before the bad one, one is a draft that never ran, and one was taken back."""
    planned = undisturbed.planned
    assert (planned.returncode, planned.mutations, undisturbed.planned_revision) == (0, [], undisturbed.bad)
    for line in (
        "roll regami-service back to regami-api:3",
        f"-  task_definition: {undisturbed.bad}",
        "regami-api:v2@sha256:",
    ):
        assert line in planned.output


def test_errors_end(undisturbed: Undisturbed) -> None:
    run, users = undisturbed.run, undisturbed.users
    assert run.returncode == 0, run.output
    assert run.mutations == [UPDATE]
    assert all(check["ok"] for check in run.report["verification"]) and run.report["verification"]
    # Users met errors until the last bad task was gone, and then no more; the record has the time of that.
    (step,) = [each for each in run.timeline if each["event"] == "step" and each["step"] == "Roll the service back"]
    ended = datetime.fromisoformat(step["time"]).timestamp()
    assert users["errors"].keys() == {"500"} and users["lost_writes"] == 0
    assert users["last_version"] == "v2" and ended - step["duration"] < users["last_error"] < ended
    # In whole minutes: what the load balancer counted covers all that a user saw, and some of it was counted by then.
    seen = run.report["user_errors"]
    assert seen["since"] <= users["first_error"] and users["last_error"] <= seen["until"]
    assert 0 < seen["errors"] <= users["errors"]["500"] and seen["errors"] < seen["requests"]
    assert any(note.startswith("users saw errors for at most") for note in run.report["notes"])


def test_nothing_else_has_changed(undisturbed: Undisturbed) -> None:
    moves = ("taskDefinition", "deployments", "events", "currentServiceDeployment", "currentServiceRevisions")
    before, after = (
        {key: value for key, value in service.items() if key not in moves}
        for service in (undisturbed.before, undisturbed.after)
    )
    assert before == after and undisturbed.after["taskDefinition"].endswith("/regami-api:3")


def test_the_second_run_finds_it_done(undisturbed: Undisturbed) -> None:
    again = undisturbed.again
    assert (again.returncode, again.mutations, again.report["outcome"]) == (0, [], "noop")


def test_the_record_says_how_to_undo_it(steady: World, undisturbed: Undisturbed) -> None:
    names = {"cluster": steady.names(EAST)["cluster"], "service": steady.names(EAST)["service"], "region": EAST}
    arguments = names | {"task_definition": undisturbed.bad}
    assert undisturbed.run.report["undo"] == [{"verb": "sre.runbooks.ecs_rollback", "arguments": arguments}]


def test_a_deployment_in_progress_is_stopped(steady: World) -> None:
    bad = ship(steady, IN_PROGRESS, until="IN_PROGRESS")
    run = roll_back(steady)
    assert_good(steady, run)
    assert run.mutations == [STOP] and last_deployment(steady) == "ROLLBACK_SUCCESSFUL"
    assert [entry["arguments"]["task_definition"] for entry in run.report["undo"]] == [bad]


def test_a_circuit_breaker_was_quicker(steady: World) -> None:
    bad = ship(steady, "crashing", until="ROLLBACK_SUCCESSFUL")
    run = roll_back(steady)
    assert_good(steady, run)
    assert (run.mutations, run.report["outcome"]) == ([], "noop")
    assert any(
        f"the deployment of {bad}" in note and "ECS went back to regami-api:3" in note for note in run.report["notes"]
    )


def test_a_way_back_that_is_bad_itself_fails_early(steady: World) -> None:
    crashing = ship(steady, "crashing", until="ROLLBACK_SUCCESSFUL")
    bad = ship(steady, "erroring")
    run = roll_back(steady, task_definition=crashing, rollback_timeout=600)
    assert run.returncode == 2 and run.seconds < 60
    (complaint,) = run.complaints
    for part in (crashing, "stopped tasks: ", "exit code 1", "last events: ", "Done so far"):
        assert part in complaint
    # ECS has given it up too, and went back to what was to be left: now a person must say which one is good.
    wait_until(lambda: last_deployment(steady) == "ROLLBACK_SUCCESSFUL", "the circuit breaker")
    said_so = refusal(steady)
    assert f"was the way back from {bad}, and it failed" in said_so and "completed before: regami-api:3" in said_so


def test_a_good_revision_that_cannot_run_any_more(steady: World) -> None:
    ship(steady, "erroring")
    steady.sandbox.fault("image-gone", tag="v2")
    said_so = refusal(steady)
    assert "regami-api:v2 of container app in regami-api:3 cannot be pulled" in said_so and "push it again" in said_so


def test_a_revision_that_was_deregistered(first_world: World) -> None:
    """On the first day the release before ran for an hour only, and its revision is INACTIVE: no guess, a choice."""
    said_so = refusal(first_world, task_definition="regami-api:2")
    assert "regami-api:2 was deregistered (INACTIVE)" in said_so and "regami-api:1" in said_so


POINTS = (
    Point("planned, nothing sent", said("roll regami-service back"), ("ecs", "UpdateService", EAST)),
    Point("the service is updated", answered("UpdateService", EAST)),
    Point(
        "verified, lease not given back",
        said("give the lease regami-api back"),
        ("dynamodb", "UpdateItem", WEST),
        answered("FilterLogEvents", EAST),
    ),
)


@pytest.mark.soak
def test_killed_again_and_again(steady: World) -> None:
    ship(steady, "erroring")
    steady.start_users()
    before = steady.sandbox.status()["calls"]
    for point in POINTS:
        killed = killed_at(steady, point, PLAYBOOK)
    again = roll_back(steady)
    assert_good(steady, again)
    assert again.report["resumes"] == killed.folder.name
    updates = [call["status"] for call in steady.sandbox.calls(before) if call["action"] == "UpdateService"]
    assert updates.count(200) == 1
    assert steady.stop_users(more=20)["last_version"] == "v2"


@pytest.mark.soak
def test_exactly_one_of_two_acts(steady: World) -> None:
    ship(steady, "erroring")
    runs = [steady.runbook.start(PLAYBOOK) for _ in range(2)]
    told, acted = sorted((run.wait() for run in runs), key=lambda result: len(result.timeline))
    assert (acted.returncode, told.returncode) == (0, 2), acted.output + told.output
    (complaint,) = told.complaints
    assert "has held the lease regami-api since 20" in complaint
    assert acted.mutations == [UPDATE]  # the calls of both
    assert_good(steady, acted)


def test_every_change_fails_twice(steady: World, undisturbed: Undisturbed) -> None:
    """First it is not applied, then it is, and nobody hears of it."""
    ship(steady, "erroring")
    kinds = ("reset", "lost-answer")
    for kind in kinds:
        spoil(steady, undisturbed.run, kind, mutations=True)
    run = roll_back(steady)
    for kind in kinds:
        assert {call["action"] for call in run.calls if call["fault"] == kind} >= {"UpdateService", "PutItem"}
    assert applied(run) == applied(undisturbed.run) == [f"UpdateService {EAST}"]
    assert_good(steady, run)


def test_a_stop_whose_answer_is_lost(steady: World) -> None:
    ship(steady, IN_PROGRESS, until="IN_PROGRESS")
    for kind in ("reset", "lost-answer"):  # first not applied, then applied
        steady.sandbox.fault("api", service="ecs", action="StopServiceDeployment", kind=kind, region=EAST, count=1)
    run = roll_back(steady)
    assert applied(run) == [f"StopServiceDeployment {EAST}"] and run.mutations == [STOP] * 2
    assert_good(steady, run)


def test_without_the_api_of_service_deployments(steady: World) -> None:
    """As in a region, or for a role, that has none: the service's own list and events tell."""
    ship(steady, IN_PROGRESS, until="IN_PROGRESS")
    steady.sandbox.fault("service-deployments-unknown")
    run = roll_back(steady)
    steady.sandbox.heal()
    assert_good(steady, run)
    assert run.mutations == [UPDATE]
