# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill on a real environment is told by the records of the runs. No AWS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drills import report, staging
from drills.collection import record
from drills.scenario import DrillError

BROKE = 1_780_000_000.0
DRILL = {
    "event": "drill",
    "experiment": "EXP1",
    "scenario": {
        "name": "db_failover",
        "kind": "database",
        "template": "EXT1",
        "mended_by": ["db_failover"],
        "target_seconds": 90,
    },
    "outcome": "recovered",
    "broke": BROKE,
    "paged": BROKE + 4,
    "recovered": BROKE + 99,
    "ended": BROKE + 160,
    "rounds": [[0, 1, 0], [4, 0, 1], [5, 0, 1], [99, 1, 0]],
}


def line(at: float, **event: object) -> dict:
    return {"time": record.now(BROKE + at), **event}


def timeline(playbook: str, at: float, *events: dict) -> list[dict]:
    start = line(at, event="run_started", playbook=playbook, check_mode=False)
    return [start, *events, line(at + 20, event="run_ended", outcome="recovered")]


CHANGE = {"event": "step", "state": "changed", "step": "Act", "steps": ["act"]}
RUNS = {
    "b-drill": timeline("drill", -5, line(170, **DRILL)),
    "c-service_outage": timeline("service_outage", 30, line(31, **CHANGE)),
    "d-db_failover": timeline("db_failover", 60, line(61, **CHANGE)),
    "e-triage": timeline("triage", 300),
}


def test_it_is_scored_by_what_the_verb_measured_and_the_runs_meanwhile() -> None:
    result = staging.result(DRILL, RUNS, "staging", "jane")
    assert (result["recovery_seconds"], result["target_seconds"], result["where"]) == (95.0, 90.0, "staging")
    assert [(turn["playbook"], turn["verdict"]) for turn in result["turns"]] == [
        ("service_outage", "wrong"),
        ("db_failover", "right"),
    ]
    assert result["users"]["failed_requests"] == 2 and result["users"]["lost_writes"] is None
    # What nobody measures there costs no points, and is not told either.
    assert result["score"] == {"time": 49.1, "data": None, "turns": 10, "points": 84}
    assert "writes" not in report.markdown(report.story(result))


def test_the_playbook_is_told_what_was_typed_and_its_record_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRE_RUNBOOKS_INCIDENTS", str(tmp_path))
    typed = []

    def play(command: list[str]) -> int:
        typed.append(json.loads(command[-1]))
        for name, events in RUNS.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "timeline.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events))
        return 0

    result = staging.hold("database", "staging", "123456789012", 30, "jane", play)
    assert result["scenario"] == "db_failover"
    assert typed == [{"env": "staging", "consent": "123456789012", "drill_minutes": 30, "drill": "database"}]


def test_what_was_refused_is_no_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRE_RUNBOOKS_INCIDENTS", str(tmp_path))
    with pytest.raises(DrillError, match=r"no drill was held on prod \(exit code 2\)"):
        staging.hold("random", "prod", "", 30, "jane", lambda command: 2)
