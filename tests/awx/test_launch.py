# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Launches as AWX makes them: what its surveys take comes to the playbook as what may be said to it, and nothing runs undecided."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.extra_vars import Arguments, arguments, refusal, unanswered
from tests.awx.controller import Controller
from tests.awx.jobs import Job
from tests.awx.placed import ROOT, TEMPLATES, WORKFLOWS, job_template, workflow
from tests.awx.rules import BadRequest, from_the_page

# What AWX adds by itself (`awx_meta_vars` of awx/main/models/unified_jobs.py, and the artifacts of the job before).
ADDED = {"awx_job_id": 7, "tower_job_id": 7, "awx_user_name": "jane", "sre_runbooks": {"record": "x"}}
WRONG = {"integer": ["many", 1.5, True], "float": ["many", True], "multiplechoice": ["none of them", True]}
WRONG |= {"multiselect": ["none of them", ["none of them"]], "text": [5, ["x"]]}


@functools.cache
def options_of(playbook: str) -> Arguments:
    return arguments(str(ROOT / playbook))


def needed(spec: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer to each question that wants one."""
    return {each["variable"]: good(each) for each in spec if each["required"]}


def good(question: dict[str, Any]) -> Any:
    first = question.get("choices", ["x"])[0]
    return {"integer": 3, "float": 1.5, "multiselect": [first]}.get(question["type"], first)


def refused(playbook: str, extra_vars: dict[str, Any]) -> str | None:
    """What the guard says of a job's extra variables."""
    there = options_of(playbook)
    said = extra_vars | ADDED
    for name in unanswered(said, there):
        del said[name]
    return refusal(said, there, list)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_survey_takes_the_playbook_takes(name: str) -> None:
    there, spec = Controller(), TEMPLATES[name]["survey"]["spec"]
    template = job_template(there, TEMPLATES[name])["id"]
    plain = there.launch("job_templates", template, {"extra_vars": needed(spec)})
    page = there.launch("job_templates", template, {"extra_vars": from_the_page(spec, needed(spec))})
    assert plain.extra_vars == page.extra_vars
    assert refused(plain.playbook, plain.extra_vars) is None

    # What is a list of numbers, or a number of its own kind, is a text to AWX: only the guard can judge that.
    of_its_own = options_of(plain.playbook).options
    for question in spec:
        if question["type"] == "text" and of_its_own[question["variable"]].get("elements", "str") != "str":
            continue
        for answer in question.get("choices", [good(question)]):
            answer = [answer] if question["type"] == "multiselect" else answer
            answers = needed(spec) | {question["variable"]: answer}
            job = there.launch("job_templates", template, {"extra_vars": answers})
            assert job.extra_vars[question["variable"]] == answer
            assert refused(job.playbook, job.extra_vars) is None


@pytest.mark.parametrize("name", TEMPLATES)
def test_bad_answers_start_nothing(name: str) -> None:
    there, spec = Controller(), TEMPLATES[name]["survey"]["spec"]
    template = job_template(there, TEMPLATES[name])["id"]
    for question in spec:
        for answer in WRONG[question["type"]]:
            with pytest.raises(BadRequest, match=f"'{question['variable']}' expected to be"):
                there.launch("job_templates", template, {"extra_vars": needed(spec) | {question["variable"]: answer}})
    for missing in needed(spec):
        with pytest.raises(BadRequest, match=f"'{missing}' value missing"):
            there.launch("job_templates", template, {"extra_vars": {}})
    assert not there.jobs


@pytest.fixture(params=WORKFLOWS)
def launched(request: pytest.FixtureRequest):
    """A workflow whose plan has been made: (controller, workflow, its approval, jobs that ran in their order)."""
    ran: list[Job] = []

    def run(job: Job) -> tuple[bool, dict[str, Any]]:
        ran.append(job)
        return True, {"sre_runbooks": {"record": f"record of {job.job_type}"}}

    there, of = Controller(run), WORKFLOWS[request.param]
    sent = {"extra_vars": needed(of["survey"]["spec"]), "limit": "api-prod"}
    running = there.launch("workflow_job_templates", workflow(there, of)["id"], sent)
    (approval,) = (job for job in there.jobs.values() if job.type == "workflow_approval")
    return there, running, approval, ran


def test_nothing_but_the_plan_runs_before_a_person_decides(launched) -> None:
    _there, running, approval, ran = launched
    assert [(job.job_type, job.limit, job.extra_vars["confirm"]) for job in ran] == [("check", "api-prod", "false")]
    assert (approval.status, running.status) == ("pending", "running")
    assert refused(ran[0].playbook, ran[0].extra_vars) is None


def test_granted_the_run_knows_what_the_plan_was_told(launched) -> None:
    there, running, approval, ran = launched
    there.decide(approval.number, approved=True)
    plan, run = ran
    assert running.status == "successful"
    assert (run.job_type, run.limit, run.playbook) == ("run", "api-prod", plan.playbook)
    left = {"confirm": "true", "sre_runbooks": {"record": "record of check"}}
    assert run.extra_vars == plan.extra_vars | left
    assert refused(run.playbook, run.extra_vars) is None
    with pytest.raises(BadRequest, match="already been approved or denied"):
        there.decide(approval.number, approved=False)


def test_denied_nothing_runs(launched) -> None:
    there, running, approval, ran = launched
    there.decide(approval.number, approved=False)
    assert (running.status, len(ran)) == ("failed", 1)


def test_after_a_plan_that_failed_nobody_is_asked() -> None:
    there = Controller(lambda _job: (False, {}))
    of = WORKFLOWS["db_failover after approval"]
    sent = {"extra_vars": needed(of["survey"]["spec"])}
    running = there.launch("workflow_job_templates", workflow(there, of)["id"], sent)
    assert (running.status, [job.type for job in there.jobs.values()]) == ("failed", ["job"])
