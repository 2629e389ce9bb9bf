# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill from the break to the report, in the sandbox that the other scenarios have."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from world import World

from drills import report, scenario
from drills.exercise import Exercise


def test_the_primary_is_lost_and_the_playbook_recovers_by_itself(world: World, tmp_path: Path) -> None:
    said: list[str] = []
    chosen, breakage = scenario.choose("db_failover", scenario.read(), random.Random(1))
    drill = Exercise(world.sandbox, chosen, breakage, tmp_path / "drill", "auto", said.append, 60, steady_seconds=2)
    drill.begin()
    known: list[dict] = []

    def note(line: str) -> None:
        known.extend(world.sandbox.status()["faults"])
        said.append(line)

    drill.tell = note
    result = drill.run(auto=True)
    assert result["outcome"] == "recovered", result
    assert said[0].startswith("PAGE: regami-api: writes fail") and "failed" in " ".join(said)
    # Whoever asks the sandbox learns that something is wrong, and not what.
    assert {fault["name"] for fault in known} == {"undisclosed"}
    assert [(turn["playbook"], turn["verdict"]) for turn in result["turns"]] == [("db_failover", "right")]
    assert result["by_hand"] == []
    times = result["times"]
    assert times["broke"] <= times["paged"] <= times["acted"] < times["recovered"] < times["ended"]
    # The drill's clock and the users' own agree, up to the window in which a failure is seen.
    assert abs(result["users"]["rto_seconds"] - (times["recovered"] - times["broke"])) < 4
    assert result["users"]["lost_writes"] is not None and result["score"]["points"] > 0
    report.write(drill.folder, result)
    assert "primary-killed" in (drill.folder / report.HTML).read_text()


ACCOUNT, ALARM = "123456789012", "orders-lost"
ASKED = {"consent": ACCOUNT, "drill": "database", "drill_steady_seconds": 3}


def experiments(world: World) -> list[str]:
    return [each["state"]["status"] for each in world.aws("fis").list_experiments()["experiments"]]


@pytest.mark.soak
def test_on_a_real_environment_aws_breaks_it_and_a_person_recovers(world: World) -> None:
    drill = world.runbook.start("drill", **ASKED)
    drill.until(lambda _run: experiments(world) == ["running"])
    # The lease of the service is free for whoever recovers it.
    recovery = world.runbook.run("db_failover")
    assert recovery.returncode == 0, recovery.output
    run = drill.wait()
    assert (run.returncode, run.report["outcome"]) == (0, "recovered"), run.output
    (entry,) = [event for event in run.timeline if event["event"] == "drill"]
    assert entry["outcome"] == "recovered" and entry["scenario"]["name"] == "db_failover"
    assert 0 < entry["recovered"] - entry["paged"] < run.seconds
    assert experiments(world) == ["stopped"]


@pytest.mark.soak
def test_an_alarm_ends_the_experiment_and_the_drill(world: World) -> None:
    drill = world.runbook.start("drill", **ASKED)
    drill.until(lambda _run: experiments(world) == ["running"])
    world.aws("cloudwatch").set_alarm_state(AlarmName=ALARM, StateValue="ALARM", StateReason="orders are lost")
    run = drill.wait()
    # The experiment's end brings the database back by itself, before or after the drill notices that it was stopped.
    assert experiments(world) == ["stopped"] and "drill" in {event["event"] for event in run.timeline}
    again = world.runbook.run("drill", "--check", **ASKED)
    assert "is in alarm already" in again.complaints[0]
