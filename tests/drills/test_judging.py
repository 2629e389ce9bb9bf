# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is well, when a drill is over, what was a wrong turn, and what it is worth. No sandbox."""

from __future__ import annotations

import os
import random

import pytest
import yaml

from ansible_collections.sre.runbooks.plugins.module_utils import estimates, lease
from drills import result, scenario, score, steady, turns
from drills.collection import REPOSITORY, record

NOW = 1_000_000.0


def served(*ago: float, took: float = 0.02, write: bool = True) -> list[dict]:
    return [{"acked": NOW - each, "sent": NOW - each - took, "write": write} for each in ago]


def test_users_who_are_served_complain_of_nothing() -> None:
    assert steady.judge(served(1.5, 1, 0.5) + served(0.2, write=False), [{"failed": NOW - 60}], NOW) == []


def test_users_tell_of_failures_of_writes_and_of_slow_answers() -> None:
    assert steady.judge(served(1), [{"failed": NOW - 0.5}], NOW) == ["1 of 2 requests of the last 2 s failed"]
    assert steady.judge(served(2.5) + served(0.1, write=False), [], NOW) == ["no write was acknowledged for 2 s"]
    assert steady.judge(served(*[0.1] * 18, 0.2) + served(0.1, 0.1, took=3), [], NOW) == [
        "answers take 3.0 s (p95 of the last 2 s)"
    ]
    # One slow answer of twenty is none too many.
    assert steady.judge(served(*[0.1] * 19) + served(0.1, took=3), [], NOW) == []


def test_users_who_are_gone_end_the_drill() -> None:
    with pytest.raises(steady.MustEnd, match="users are gone"):
        steady.judge(served(20), [], NOW)


def run(
    playbook: str, *events: dict, outcome: str | None = "recovered", check: bool = False, at: float = 0
) -> list[dict]:
    """The timeline of a run of ten seconds."""
    begun = {"time": record.now(NOW + at), "event": "run_started", "playbook": playbook, "check_mode": check}
    between = [
        {"time": record.now(NOW + at + 5), "event": "step", "state": "ok", "step": "x", **each} for each in events
    ]
    ended = [{"time": record.now(NOW + at + 10), "event": "run_ended", "outcome": outcome}] if outcome else []
    return [begun, *between, *ended]


CHANGE = {"state": "changed", "step": "act : Promote", "steps": ["promote the replica"]}
LEASE = {"state": "changed", "step": "Take the lease", "steps": ["take it"], "lease": {"name": "api"}}


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        (run("triage", outcome="noop"), turns.LOOKED),
        (run("service_outage", LEASE, outcome="failed"), turns.NOTHING),
        (run("service_outage", CHANGE, check=True, outcome="planned"), turns.LOOKED),
        (run("service_outage", LEASE, CHANGE), turns.WRONG),
        (run("db_failover", LEASE, CHANGE), turns.RIGHT),
        (run("db_failover", CHANGE, outcome="failed"), turns.WRONG),
        (run("db_failover", CHANGE, outcome=None), turns.WRONG),
        (run("undo", CHANGE), turns.RIGHT),
    ],
)
def test_a_wrong_turn_changes_what_was_not_the_matter_or_stops_half_way(events: list[dict], verdict: str) -> None:
    (turn,) = turns.of_runs({"a": events}, ("db_failover",))
    assert turn.verdict == verdict


def test_turns_come_in_the_order_of_their_beginnings() -> None:
    found = turns.of_runs({"a": run("triage", at=30), "b": run("db_failover", CHANGE, at=5)}, ("db_failover",))
    assert [(turn.playbook, turn.began) for turn in found] == [("db_failover", NOW + 5), ("triage", NOW + 30)]


def call(at: float, mutation: bool = True, status: int = 200) -> dict:
    return {
        "time": NOW + at,
        "service": "ecs",
        "action": "UpdateService",
        "region": "r",
        "mutation": mutation,
        "status": status,
    }


def test_by_hand_is_what_was_changed_while_no_run_was_under_way() -> None:
    taken = turns.of_runs({"a": run("db_failover", CHANGE)}, ("db_failover",))
    calls = [
        call(55) | {"service": "s3", "action": "PutObject"},
        call(5),
        call(50, mutation=False),
        call(51, status=400),
    ]
    assert turns.by_hand(calls, taken, NOW + 60) == []
    assert turns.by_hand([*calls, call(52), call(53)], taken, NOW + 60) == ["ecs:UpdateService r (2 times)"]


def test_points_are_lost_for_time_for_writes_and_for_wrong_turns() -> None:
    assert score.score(40, 60, 0, 0).points == 100
    assert score.score(150, 60, 0, 0).as_dict() == {"time": 25.0, "data": 30, "turns": 20, "points": 75}
    assert score.score(60 * 10, 60, 3, 1).as_dict() == {"time": 0.0, "data": 27, "turns": 10, "points": 37}
    assert score.score(10, 60, None, 5).points == score.TIME
    assert score.score(None, 60, 0, 0).points == 0
    # Where nobody writes, the rest is all.
    assert score.score(40, 60, None, 0, measured=False).points == 100


def test_a_run_is_under_way_until_it_ends_or_its_process_is_gone() -> None:
    """So long the sandbox stays: the run that recovered is still verifying."""
    begun = {"event": "run_started", "run": lease.run_id(os.getpid())}
    assert result.is_under_way([begun, {"event": "step"}])
    assert not result.is_under_way([begun, {"event": "run_ended"}])
    gone = begun["run"].rpartition(":")[0] + ":1"
    assert not result.is_under_way([begun | {"run": gone}]) and not result.is_under_way([])


def test_every_kind_of_drill_is_there_and_what_helps_is_a_playbook() -> None:
    known = scenario.read()
    assert {each.kind for each in known.values()} == set(scenario.KINDS)
    playbooks = {path.stem for path in (REPOSITORY / "playbooks").glob("*.yml")}
    for each in known.values():
        for breakage in each.breakages:
            assert set(breakage.mended_by) <= playbooks, each.name
            assert {line.partition(".yml ")[0] for line in breakage.answer} <= set(breakage.mended_by), each.name


def test_a_word_means_a_scenario_a_kind_or_any() -> None:
    known = scenario.read()
    chosen = {scenario.choose("database", known, random.Random(seed))[0].kind for seed in range(20)}
    assert chosen == {"database"}
    assert len({scenario.choose("random", known, random.Random(seed))[0].name for seed in range(99)}) == len(known)
    assert scenario.choose("db_failover", known, random.Random(1))[1].fault == "primary-killed"
    with pytest.raises(scenario.DrillError, match="no scenario 'nonsense': one of bad_deployment, "):
        scenario.choose("nonsense", known, random.Random(1))


def test_a_file_that_is_no_scenario_is_told_in_one_line() -> None:
    with pytest.raises(scenario.DrillError, match=r"scenarios/x\.yml is no scenario: 'breakages'"):
        scenario.parse("x", {"title": "x"})


def test_each_kind_is_due_once_a_month() -> None:
    due = yaml.safe_load((REPOSITORY / "drills" / "schedule.yml").read_text())["schedule"]
    assert [each["kind"] for each in due] == list(scenario.KINDS)
    assert all("RRULE:FREQ=MONTHLY;INTERVAL=1;" in each["rrule"] for each in due)


def test_the_drills_that_readiness_names_are_there() -> None:
    there = scenario.read()
    for name, (drill, kind) in estimates.DRILLS.items():
        assert there[drill].kind == kind
        assert any(name in breakage.mended_by for breakage in there[drill].breakages)
