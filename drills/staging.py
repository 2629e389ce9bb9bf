# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill on a real environment: playbooks/drill.yml breaks and watches, the records of the runs tell the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .collection import REPOSITORY, timeline
from .result import Held, runs, told
from .scenario import DrillError

PLAYBOOK = "drill"
# What a scenario of the inventory need not say.
TARGET_SECONDS = 600.0


def hold(
    scenario: str, env: str, consent: str, minutes: float, by: str, play: Callable[[list[str]], int] | None = None
) -> dict[str, Any]:
    """Returns what came of it. Raises DrillError where the playbook refused to hold it: it has said why."""
    incidents = Path(os.environ.get("SRE_RUNBOOKS_INCIDENTS") or REPOSITORY / "incidents")
    variables = {"env": env, "consent": consent, "drill_minutes": minutes}
    variables |= {} if scenario == "random" else {"drill": scenario}
    before = set(runs(incidents))
    code = (play or _play)(["ansible-playbook", f"playbooks/{PLAYBOOK}.yml", "--extra-vars", json.dumps(variables)])
    meanwhile = {name: events for name, events in runs(incidents).items() if name not in before}
    entry = next((each for events in meanwhile.values() for each in events if each["event"] == "drill"), None)
    if entry is None:
        raise DrillError(f"no drill was held on {env} (exit code {code}): the last lines of the playbook say why")
    return result(entry, meanwhile, env, by)


def _play(command: list[str]) -> int:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode


def result(entry: dict[str, Any], records: dict[str, list[dict]], env: str, by: str) -> dict[str, Any]:
    """Pure. `entry`: what drill_experiment wrote into the timeline. Whether writes were lost nobody measures there."""
    about = entry["scenario"]
    held = Held(
        scenario=about["name"],
        kind=about["kind"],
        title=about.get("title", about["name"]),
        what=f"experiment {entry['experiment']} of {about['template']}",
        by=by,
        where=env,
        target_seconds=float(about.get("target_seconds", TARGET_SECONDS)),
        mended_by=tuple(about.get("mended_by", ())),
        outcome=entry["outcome"],
        why="",
        broke=entry["broke"],
        paged=entry["paged"],
        recovered=entry["recovered"],
        ended=entry["ended"],
    )
    others = {
        name: events
        for name, events in records.items()
        if events and events[0].get("playbook") != PLAYBOOK and timeline.seconds_of(events[0]) <= held.ended
    }
    failed = [second for second, _passed, failures in entry["rounds"] if failures]
    users = {
        "requests": sum(good + bad for _second, good, bad in entry["rounds"]),
        "failed_requests": sum(bad for _second, _good, bad in entry["rounds"]),
        "error_seconds": len(failed),
    }
    return told(held, users, entry["rounds"], others, [])
