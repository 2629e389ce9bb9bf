# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the responder did: from the records of the runs, and from the calls that AWS got besides."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from .collection import timeline

# A run that undoes another one mends, whatever it takes back.
ALWAYS_RIGHT = ("undo",)
# What the application itself does as it serves its users.
OF_THE_APPLICATION = ("s3:PutObject",)
RIGHT, WRONG, LOOKED, NOTHING = "right", "wrong", "looked", "came to nothing"


@dataclass(frozen=True)
class Turn:
    """One run. `began`, `ended`: epoch seconds, `ended` None where the run was killed."""

    playbook: str
    began: float
    ended: float | None
    verdict: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def of_runs(runs: dict[str, list[dict]], mended_by: tuple[str, ...]) -> list[Turn]:
    """Pure: a turn for each run of {name of its record: its events}, in the order of their beginnings.

    A wrong turn is a run that changed something which was not the matter, or that stopped half way. One that was refused, or
    found nothing to do, cost time, which the clock counts.
    """
    turns = [_turn(events, mended_by) for events in runs.values() if events and events[0]["event"] == "run_started"]
    return sorted(turns, key=lambda turn: turn.began)


def _turn(events: list[dict], mended_by: tuple[str, ...]) -> Turn:
    start = events[0]
    end = next((each for each in events if each["event"] == "run_ended"), None)
    failed = end is None or end["outcome"] == "failed"
    changed = [each for each in events if _is_change(each)]
    words = [each["message"] for each in events if each.get("state") == "failed" and each.get("message")]
    said = words[-1] if words else "" if end else "it was killed"
    name = start["playbook"]
    if start["check_mode"]:
        verdict, why = LOOKED, "a plan"
    elif not changed:
        verdict, why = (NOTHING, said) if failed else (LOOKED, "changed nothing")
    elif name not in (*mended_by, *ALWAYS_RIGHT):
        verdict, why = WRONG, f"changed what was not the matter: {changed[0]['step'].rpartition(' : ')[2]}"
    elif failed:
        verdict, why = WRONG, f"stopped half way: {said}"
    else:
        verdict, why = RIGHT, ""
    ended = timeline.seconds_of(end) if end else None
    return Turn(name, timeline.seconds_of(start), ended, verdict, why)


def _is_change(event: dict) -> bool:
    """The lease of a run and a line in its record are no change of the target."""
    done = event["event"] == "step" and event["state"] in ("changed", "failed") and bool(event.get("steps"))
    return done and "lease" not in event and not event.get("verb", "").endswith(".incident_log")


def by_hand(calls: list[dict], turns: list[Turn], now: float) -> list[str]:
    """Pure: the changes that AWS was asked for while no run was under way: done by hand, so without plan, gate and record.

    `calls`: the sandbox's, since the drill began. One line for each kind of change.
    """
    spans = [(turn.began - 1, turn.ended or now) for turn in turns]
    made = [
        f"{call['service']}:{call['action']} {call['region']}"
        for call in calls
        if f"{call['service']}:{call['action']}" not in OF_THE_APPLICATION
        and call["mutation"]
        and (call["status"] or 0) < 300
        and not any(a <= call["time"] <= b for a, b in spans)
    ]
    return [name if count == 1 else f"{name} ({count} times)" for name, count in Counter(made).items()]
