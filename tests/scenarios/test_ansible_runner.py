# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As AWX runs jobs: ansible-runner, a copy of the project, extra vars from a survey, nobody at a keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from world import EAST, World

from tests.awx import runner
from tests.awx.controller import Controller
from tests.awx.jobs import Job
from tests.awx.placed import WORKFLOWS, workflow

# What the page of AWX may send of a question that nobody answered.
OPEN = {"incident": ""}


def job_of(world: World, folder: Path, job: Job) -> runner.Done:
    environment = world.runbook.environment
    return runner.run(job, folder, runner.inventory("inventories/sandbox", environment), environment)


def test_job_recovers_and_shows_progress(switchover, world: World, tmp_path: Path) -> None:
    told = OPEN | {"env": "sandbox", "confirm_required": True, "confirm": "true"}
    done = job_of(world, tmp_path, Job(7, "db_failover", "job", "pending", told, playbook="playbooks/db_failover.yml"))
    assert done.succeeded, done.shown
    for line in (
        "regami-service drains: ",
        "regami-db-replica is promoted: modifying, still a replica, 0 s, usually 420 s",
        "Route 53 tells its name servers of api.regami.test: PENDING",
        "RECOVERED in ",
        "passed: write",
    ):
        assert line in done.shown
    assert world.snapshot() == switchover.state
    assert done.artifacts["sre_runbooks"]["record"].endswith("-db_failover-sandbox")


def test_a_workflow_ends_queries_once_a_person_has_approved_the_plan(untouched: World, tmp_path: Path) -> None:
    """From the answers to its survey to the sessions that are gone, the artifacts of the plan with the run."""
    world = untouched
    world.sandbox.fault("long-queries", count=3)
    shown: dict[str, runner.Done] = {}

    def run(job: Job) -> tuple[bool, dict[str, Any]]:
        # Production asks for a confirmation, which whoever approves gives.
        job.extra_vars["confirm_required"] = True
        done = shown[job.job_type] = job_of(world, tmp_path, job)
        return done.succeeded, done.artifacts

    there, of = Controller(run), WORKFLOWS["kill_queries after approval"]
    made = workflow(there, of)
    for survey in there.surveys.values():
        survey["spec"][0] |= {"choices": ["sandbox"]}
    answers = OPEN | {"env": "sandbox", "kill": "queries", "older_than": 0.0}
    running = there.launch("workflow_job_templates", made["id"], {"extra_vars": answers, "limit": "api-sandbox"})
    assert (running.status, list(shown)) == ("running", ["check"]), shown
    assert "cancel what 3 sessions run" in shown["check"].shown
    assert searching(world) == 3

    (approval,) = (job for job in there.jobs.values() if job.type == "workflow_approval")
    there.decide(approval.number, approved=True)
    assert running.status == "successful", shown["run"].shown
    assert searching(world) == 0
    records = [done.artifacts["sre_runbooks"]["record"] for done in shown.values()]
    assert there.jobs[max(there.jobs)].extra_vars["sre_runbooks"]["record"] == records[0] != records[1]
    # The record has the person, and not the user that every container of AWX has.
    started = (world.runbook.incidents / records[1] / "timeline.jsonl").read_text().splitlines()[0]
    assert '"by": "jane@' in started


def searching(world: World) -> int:
    with world.session(EAST) as query:
        ((count,),) = query(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'regami-search' AND state = 'active'"
        )
    return count


def test_job_that_nobody_confirmed_ends(untouched: World, tmp_path: Path) -> None:
    """A job has a terminal of sorts, at which nobody sits: it must not wait there for an answer."""
    told = OPEN | {"env": "sandbox", "confirm_required": True}
    done = job_of(
        untouched, tmp_path, Job(7, "db_failover", "job", "pending", told, playbook="playbooks/db_failover.yml")
    )
    assert not done.succeeded
    assert "sandbox was not confirmed" in done.shown and "-e confirm=true" in done.shown
