# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill from the break to the report, in the sandbox that the other scenarios have."""

from __future__ import annotations

import random
from pathlib import Path

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
