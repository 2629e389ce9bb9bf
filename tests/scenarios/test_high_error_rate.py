# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""high_error_rate.yml: the cause of real errors is named with its evidence, whatever cannot be seen; it is mended where that is
asked for and the cause is sure enough, and nothing is changed else."""

from __future__ import annotations

import pytest
from killing import Point, killed_at, said
from runbook import Result
from world import EAST, World, wait_until

MENDED = {"remediate": True}
GONE = {"name": "/ecs/gone", "region": EAST}


def investigate(world: World, *flags: str, **variables: object) -> Result:
    return world.runbook.run("high_error_rate", *flags, **variables)


def suffer(world: World, *fault: str, failures: int = 40, **options: object) -> None:
    """Something fails, and users have noticed."""
    world.start_users()
    world.sandbox.fault(*fault, **options)
    wait_until(lambda: world.sandbox.control("load", action="report")["failed_requests"] > failures, "users see errors")


def memory(world: World) -> tuple[str, str]:
    """Of a task, and the newest revision of its family."""
    ecs = world.aws("ecs")
    running = ecs.describe_task_definition(taskDefinition=world.service(EAST)["taskDefinition"])["taskDefinition"]
    newest = ecs.describe_task_definition(taskDefinition=running["family"])["taskDefinition"]["taskDefinitionArn"]
    return running["memory"], newest.rpartition(":")[2]


@pytest.mark.soak
def test_nothing_is_wrong_and_nothing_is_done(untouched: World) -> None:
    for flags, variables in (((), {}), ((), MENDED)):
        run = investigate(untouched, *flags, **variables)
        assert (run.returncode, run.mutations, run.report["outcome"]) == (0, [], "noop"), run.output
        assert run.report["notes"][0] == "cannot tell: nothing of the service is abnormal"
    refused = investigate(untouched, cause="bad_luck", **MENDED)
    assert (refused.returncode, refused.calls) == (2, [])
    assert (
        "say -e cause=NAME with one of bad_deployment, bad_host, memory_leak, pool_exhausted, slow_query"
        in (refused.complaints[0])
    )


@pytest.mark.soak
def test_a_bad_deployment_is_named_and_taken_back(world: World) -> None:
    suffer(world, "bad-build", build="erroring")
    looked = investigate(world)
    assert (looked.returncode, looked.mutations, looked.lease_calls) == (0, [], []), looked.output
    notes = "\n".join(looked.report["notes"])
    assert looked.report["notes"][0].startswith("likely cause: a bad deployment (bad_deployment, 0.")
    assert "x new since the deployment: ERROR POST /v<n>/rows KeyError: 'tenant'" in notes
    assert "app: image " in notes and "v3-erroring" in notes
    assert "next: ansible-playbook playbooks/rollback_deployment.yml -e env=sandbox" in looked.output
    page = (looked.folder / "investigation.html").read_text()
    assert "bad deployment" in page and "rollback_deployment.yml" in page
    # No metric, and one log group of two that is there: it is still told, and what is missing too.
    world.sandbox.fault("api", service="cloudwatch", action="*", kind="denied")
    logs = [{"name": world.names(EAST)["log_group"], "region": EAST}, GONE]
    blind = investigate(world, "--check", "--diff", **MENDED, log_groups=logs)
    world.sandbox.heal("api")
    assert (blind.returncode, blind.mutations) == (2, []), blind.output
    notes = blind.report["notes"]
    assert notes[0].startswith("likely cause: a bad deployment")
    assert any(each.startswith("cannot see metrics in us-east-1: missing permission") for each in notes)
    assert any("there is no log group /ecs/gone" in each for each in notes)
    assert "0.7 is wanted" in blind.complaints[0] and "Say -e cause=bad_deployment" in blind.complaints[0]
    planned = investigate(world, "--check", "--diff", **MENDED)
    assert (planned.returncode, planned.mutations, planned.report["outcome"]) == (0, [], "planned"), planned.output
    mended = investigate(world, **MENDED)
    assert (mended.returncode, mended.report["outcome"]) == (0, "recovered"), mended.output
    assert mended.mutations == [f"ecs:UpdateService {EAST}"] and world.version(EAST) == "v2"
    assert all(check["ok"] for check in mended.report["verification"])
    wait_until(lambda: world.is_settled(EAST), "the rollback is over")
    world.stop_users(more=60)
    again = investigate(world, **MENDED)
    assert (again.returncode, again.mutations) == (0, []), again.output
    assert again.report["verification"]


def test_what_has_no_playbook_with_gates_is_only_named(world: World) -> None:
    suffer(world, "primary-killed", failures=10)
    run = investigate(world, **MENDED)
    assert (run.returncode, run.mutations, run.lease_calls) == (2, [], [])
    assert run.report["notes"][0].startswith("likely cause: a dependency that is down (dependency_down, 0.")
    assert "dependency_down is the likely cause" in run.complaints[0]
    assert "A person has to look; nothing was changed" in run.complaints[0]


def test_a_region_that_answers_nothing_is_unseen_and_no_evidence(world: World) -> None:
    world.sandbox.fault("region-cut", region=EAST)
    check = {"name": "health", "url": "{{ public_url }}/health", "within": 1}
    run = investigate(world, smoke_tests=[check], dependencies=[])
    assert (run.returncode, run.mutations) == (0, []), run.output
    told = "\n".join(run.report["notes"])
    assert run.report["notes"][0].startswith("cannot tell: ")
    for unseen in ("metrics", "the log /ecs/regami-api", "tasks", "database", "CloudTrail"):
        assert f"cannot see {unseen}" in told, told


def test_sessions_that_hold_up_all_others_are_ended(world: World) -> None:
    world.sandbox.fault("blocking-chain")
    # What those who waited have logged is no matter of this.
    run = investigate(world, **MENDED, cause="slow_query", slow_query_seconds=0, log_groups=[])
    assert run.returncode == 0, run.output
    assert any("sessions wait for a lock, up to" in note for note in run.report["notes"])
    with world.session(EAST) as query:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        # Those who waited come through one after the other.
        wait_until(lambda: query(waiting) == [(0,)], "nobody waits for a lock")


@pytest.mark.soak
def test_killed_while_tasks_get_more_memory(world: World) -> None:
    deploy = Point("registered, not deployed", said("roll regami-service out"), ("ecs", "UpdateService", EAST))
    assert memory(world)[0] == "1024"
    more = {**MENDED, "cause": "memory_leak"}
    killed = killed_at(world, deploy, "high_error_rate", **more)
    registered = memory(world)[1]
    again = investigate(world, **more)
    assert (again.returncode, again.report["outcome"]) == (0, "recovered"), again.output
    assert memory(world) == ("2048", registered)
    assert again.report["resumes"] == killed.folder.name
    once_more = investigate(world, **more)
    assert (once_more.returncode, once_more.mutations, memory(world)) == (0, [], ("2048", registered))
