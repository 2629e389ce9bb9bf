# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a look at all gates comes to: pure, from the events of a timeline."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import readiness, record
from ansible_collections.sre.runbooks.plugins.modules import readiness_report
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main


def looked_at(*scenarios, findings=()):
    told = {"scenarios": list(scenarios), "findings": list(findings)}
    return {
        "event": "preflight",
        "host": "api",
        "state": "ok",
        "step": "look",
        "verb": "sre.runbooks.readiness_assess",
        "readiness": told,
    }


def step(scenario, state="ok", **more):
    return {
        "event": "preflight",
        "host": "api",
        "scenario": scenario,
        "step": "Roll the service back",
        "verb": "sre.runbooks.ecs_rollback",
        "state": state,
        **more,
    }


def only(events):
    (verdict,) = readiness.verdicts(events)
    return verdict


def test_a_scenario_whose_gates_are_open_is_ready():
    assert only([step("a"), looked_at("a")]).level == readiness.READY


def test_what_two_scenarios_have_in_common_is_asked_once_and_told_of_both():
    refused = step(
        "move", "ignored", stopped="refused", resource="db", message="it is behind: wait; nothing was changed"
    )
    events = [refused, step("move"), looked_at("db_failover", "region_evacuation", "traffic"), step("traffic")]
    said = {each.scenario: each.level for each in readiness.verdicts(events)}
    not_ready = readiness.NOT_READY
    assert said == {"db_failover": not_ready, "region_evacuation": not_ready, "traffic": readiness.READY}
    assert only([refused, looked_at("region_evacuation")]).level == not_ready


def test_a_gate_that_has_learned_nothing_cannot_tell():
    note = "NOT CHECKED: the image app:v2: missing permission ecr:DescribeImages: add it to the role"
    verdict = only([step("a", notes=[note]), looked_at("a")])
    assert verdict.level == readiness.UNKNOWN
    (finding,) = verdict.findings
    assert (finding.check, finding.fix) == ("ecs_rollback", "add it to the role")
    assert finding.because == "the image app:v2: missing permission ecr:DescribeImages"


def test_a_gate_that_is_closed_says_where_why_and_what_to_do():
    message = "regami-api:2 was deregistered: give another task_definition; nothing was changed"
    stopped = step("a", "ignored", stopped="refused", resource="regami/api", message=message)
    verdict = only([stopped, looked_at("a")])
    assert verdict.level == readiness.NOT_READY
    (finding,) = verdict.findings
    assert (finding.check, finding.resource) == ("ecs_rollback", "regami/api")
    assert (finding.because, finding.fix) == ("regami-api:2 was deregistered", "give another task_definition")


@pytest.mark.parametrize(
    ("stopped", "level"),
    [("unanswered", readiness.UNKNOWN), ("refused", readiness.NOT_READY)],
)
def test_why_a_verb_stopped_is_what_can_be_said(stopped, level):
    assert only([step("a", "ignored", stopped=stopped, message="why"), looked_at("a")]).level == level


def test_a_verb_that_came_to_what_it_would_change_has_passed_and_what_lacks_its_answer_is_not_told():
    lacking = "Error while resolving value for 'items': 'dict object' has no attribute 'instances'"
    events = [step("a", "ok", stopped="asked"), step("a", "ignored", message=lacking), looked_at("a")]
    assert only(events).level == readiness.READY


def test_what_follows_from_the_first_stop_is_not_told():
    events = [
        step("a", "ignored", stopped="refused", message="no replica: make one"),
        step("a", "ignored", message="Error while resolving value for 'host': 'promotion' has no endpoint"),
        step("a", "ignored", stopped="refused", message="no such cluster: check ecs_cluster"),
        looked_at("a"),
    ]
    assert [each.because for each in only(events).findings] == ["no replica", "no such cluster"]


def test_a_variable_that_is_not_there_is_told():
    events = [
        step(
            "a", "ignored", message="Finalization failed: Error while resolving value for 'region': 'db' is undefined"
        ),
        looked_at("a"),
    ]
    verdict = only(events)
    assert (verdict.level, verdict.findings[0].because) == (readiness.NOT_READY, "'region': 'db' is undefined")


def test_a_condition_of_the_steps_that_does_not_hold_says_what_to_do():
    message = "only 0 of 2 serve outside of us-east-1a: scale first; nothing was changed"
    (finding,) = only([step("a", "ignored", message=message), looked_at("a")]).findings
    assert (finding.check, finding.because, finding.fix) == (
        "Roll the service back",
        "only 0 of 2 serve outside of us-east-1a",
        "scale first",
    )


def test_an_override_is_a_risk():
    assert only([step("a", notes=["override accept_moved_image: x"]), looked_at("a")]).level == readiness.RISK
    assert only([step("a", notes=["how it usually goes"]), looked_at("a")]).level == readiness.READY


def test_what_concerns_the_host_concerns_each_scenario_and_what_concerns_one_only_that():
    more = {
        "level": readiness.RISK,
        "check": "dns",
        "resource": "api.example.com",
        "because": "TTL 300 s",
        "fix": "lower it",
    }
    found = [{"scenario": "", **more}, {"scenario": "b", **more, "level": readiness.NOT_READY}]
    said = readiness.verdicts([step("a"), step("b"), looked_at("a", "b", findings=found)])
    assert [each.level for each in said] == [readiness.RISK, readiness.NOT_READY]


def test_a_scenario_of_which_no_verb_was_asked_cannot_be_told():
    assert only([looked_at("a")]).level == readiness.UNKNOWN


def test_a_host_that_the_guard_stopped_is_told_too():
    stop = {"event": "preflight", "host": "other", "step": "guard", "verb": "sre.runbooks.run_guard", "state": "failed"}
    events = [
        dict(stop, stopped="refused", message="wrong account: choose another AWS_PROFILE"),
        step("a"),
        looked_at("a"),
    ]
    said = {each.host: each for each in readiness.verdicts(events)}
    assert said["api"].level == readiness.READY
    assert (said["other"].level, said["other"].findings[0].because) == (readiness.NOT_READY, "wrong account")


def promising(*scenarios, **promised):
    told = looked_at(*scenarios)
    told["readiness"]["promised"] = promised
    return told


def test_it_leaves_verdicts_estimates_and_a_page(tmp_path, monkeypatch):
    """From the timeline of its run and the reports of those before it."""
    own = tmp_path / "incidents" / f"{record.now()[:10]}T060000Z-readiness-prod"
    for number in range(3):
        run = own.with_name(f"{record.now()[:10]}T0{number}0000Z-db_failover-prod")
        run.mkdir(parents=True)
        told = {"playbook": "db_failover", "env": "prod", "started": record.now(), "outcome": "recovered"}
        (run / "report.json").write_text(json.dumps(told | {"recovery_seconds": 3600 + number}))
    own.mkdir()
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(own))
    for event in (
        step("db_failover"),
        step("kill_queries"),
        promising("db_failover", "kill_queries", rto_seconds=1800),
    ):
        record.append(str(own), **event)
    outcome = run_main(readiness_report.main, environment_name="prod", region="us-west-2")
    assert not outcome["failed"], outcome
    assert (outcome["level"], outcome["counts"]) == ("risk", {"ready": 1, "risk": 1, "cannot_tell": 0, "not_ready": 0})
    slow, _ready = readiness.written(str(own))
    assert (slow.findings[0].check, slow.measured) == ("recovery_time", "takes 60 min, 60 min at most, 30 min promised")
    written = json.loads((own / "readiness.json").read_text())
    assert written["estimates"][0]["usual"] == 3601
    html = (own / "readiness.html").read_text()
    assert "takes 60 min (median of the last 3" in html and "Not measured: kill_queries of api" in html


@pytest.mark.parametrize(("events", "words"), [([looked_at()], "no service of prod has what"), ([], "readiness.yml")])
def test_a_look_at_nothing_is_none(tmp_path, monkeypatch, events, words):
    """-e scenario of what the service has nothing of, and the verb without its playbook."""
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(tmp_path))
    for event in events:
        record.append(str(tmp_path), **event)
    outcome = run_main(readiness_report.main, environment_name="prod", region="us-west-2")
    assert outcome["failed"] and words in outcome["msg"], outcome


def test_the_plan_tells_where_the_page_is_and_what_was_not_seen():
    seen = {
        "level": "ready",
        "counts": {},
        "report": "readiness.json",
        "page": "readiness.html",
        "notes": ["no bucket"],
    }
    plan = readiness_report.ReadinessReport.plan(seen, {})
    assert (plan.notes, plan.returned["level"]) == (("page: readiness.html", "no bucket"), "ready")


def test_one_reason_for_several_scenarios_is_told_once():
    message = "the replica is behind: wait"
    events = [*(step(name, "ignored", stopped="refused", message=message) for name in "ab"), looked_at("a", "b")]
    ((finding, scenarios),) = readiness.reasons(readiness.verdicts(events))
    assert (finding.because, scenarios) == ("the replica is behind", ["a", "b"])


def test_the_table_begins_with_the_worst_and_says_why():
    events = [
        step("a"),
        step("bbb", "ignored", stopped="refused", resource="regami/api", message="gone: make it"),
        step("c"),
        looked_at("a", "bbb", "c"),
    ]
    assert list(readiness.table(readiness.verdicts(events))) == [
        "api  not ready  bbb",
        "    ecs_rollback: regami/api: gone: make it",
        "api  ready      a, c",
    ]


def test_scenarios_and_hosts_of_which_the_same_is_said_have_one_line():
    ill = readiness.Finding("", "", readiness.NOT_READY, "verb", "db", "gone", "make it")
    said = [readiness.Verdict(f"h{number}", "a", readiness.READY) for number in (1, 2, 3, 5)]
    said += [
        readiness.Verdict(host, scenario, ill.level, (readiness.replace(ill, host=host, scenario=scenario),))
        for host in ("h4", "h6")
        for scenario in ("a", "b")
    ]
    assert list(readiness.table(said)) == [
        "h4, h6             not ready  a, b",
        "    verb: db: gone: make it",
        "h1, h2 and 2 more  ready      a",
    ]
