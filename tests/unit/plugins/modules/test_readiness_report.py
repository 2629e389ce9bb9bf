# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a look at all gates comes to: pure, from the events of a timeline."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import readiness
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules import readiness_report


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


@pytest.mark.parametrize("level", readiness.LEVELS)
def test_the_plan_ends_the_run_by_its_level(level):
    seen = {"level": level, "report": "readiness.json", "bad": ["db_failover"]}
    if level == readiness.NOT_READY:
        with pytest.raises(Refusal, match="prod is not ready for db_failover"):
            readiness_report.ReadinessReport.plan(seen, {"environment_name": "prod"})
        return
    returned = readiness_report.ReadinessReport.plan(seen, {"environment_name": "prod"}).returned
    assert returned.get("unreachable", False) == (level == readiness.UNKNOWN)


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
