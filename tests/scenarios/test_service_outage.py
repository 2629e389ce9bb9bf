# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_outage.yml: each way in which a service goes down is told from the others, and the service comes back."""

from __future__ import annotations

from runbook import Result
from world import EAST, World, wait_until

UPDATE = f"ecs:UpdateService {EAST}"


def bring_back(world: World, *flags: str, **variables: object) -> Result:
    return world.runbook.run("service_outage", *flags, **variables)


def decision(run: Result) -> str:
    """The word of the note that says what was decided, with the sentence after it."""
    return next(note for note in run.report["notes"] if ": " in note)


def test_nothing_is_down_and_nothing_is_done(untouched: World) -> None:
    run = bring_back(untouched)
    assert (run.returncode, run.report["outcome"], run.mutations) == (0, "noop", [])
    assert decision(run).startswith("none: every check passes and 2 of 2")


def test_errors_after_a_deployment_are_rolled_back_and_users_see_no_more(world: World) -> None:
    world.start_users()
    world.sandbox.fault("bad-build", build="erroring")
    group = world.aws("cloudwatch")
    wait_until(lambda: world.sandbox.control("load", action="report")["failed_requests"] > 40, "users see errors")
    wait_until(
        lambda: group.list_metrics(Namespace="AWS/ApplicationELB", MetricName="HTTPCode_Target_5XX_Count")["Metrics"],
        "the balancer counts errors",
    )
    planned = bring_back(world, "--check")
    assert (planned.returncode, planned.report["outcome"], planned.mutations) == (0, "planned", [])
    assert decision(planned).startswith("rollback: regami-api:")

    run = bring_back(world)
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    assert decision(run).startswith("rollback: ") and "of the requests end in an error" in decision(run)
    failed = world.sandbox.control("load", action="report")["failed_requests"]
    assert world.stop_users(more=20)["failed_requests"] == failed


def test_a_service_that_was_told_to_have_no_task_gets_its_tasks(world: World) -> None:
    names = world.names(EAST)
    world.aws("ecs").update_service(cluster=names["cluster"], service=names["service"], desiredCount=0)
    wait_until(lambda: world.healthy_targets(EAST) == 0, "it is drained")
    run = bring_back(world)
    assert run.returncode == 0, run.output
    assert decision(run) == "scale: regami-service is told to have 0, the inventory says 2"
    assert world.healthy_targets(EAST) == 2


def test_tasks_that_went_bad_without_a_deployment_are_replaced(world: World) -> None:
    world.start_users()
    world.sandbox.fault("bad-build", build="leaking")
    wait_until(lambda: world.sandbox.control("load", action="report")["failed_requests"] > 20, "they have leaked")
    world.stop_users(more=0)
    # As if it had been deployed long ago.
    run = bring_back(world, recent_minutes=0)
    assert decision(run).startswith("restart: nothing was deployed within 0 min"), run.output
    assert run.mutations == [UPDATE]
    assert run.returncode == 0, run.output


def test_a_dead_database_is_named_with_the_playbook_for_it(world: World) -> None:
    world.sandbox.fault("primary-killed")
    run = bring_back(world)
    assert (run.returncode, run.mutations) == (2, [])
    (complaint,) = run.complaints
    assert "the database regami-db-primary" in complaint
    assert "ansible-playbook playbooks/db_failover.yml -e env=sandbox" in complaint
    assert run.report["outcome"] == "failed"
