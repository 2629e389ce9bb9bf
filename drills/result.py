# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of a drill, wherever it was held, as report and history read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import turns
from .collection import is_dead, record
from .score import score

FELT = ("requests", "failed_requests", "error_seconds", "rto_seconds", "acknowledged_writes", "lost_writes")


@dataclass(frozen=True)
class Held:
    """A drill that is over. `what` broke, `mended_by` names the playbooks that help; times in epoch seconds, None for never."""

    scenario: str
    kind: str
    title: str
    what: str
    by: str
    where: str
    target_seconds: float
    mended_by: tuple[str, ...]
    outcome: str
    why: str
    broke: float
    paged: float | None
    recovered: float | None
    ended: float


def told(
    held: Held, users: dict, requests: list[list[int]], records: dict[str, list[dict]], calls: list[dict]
) -> dict[str, Any]:
    """Pure.

    `users`: what they felt, by the names of FELT, what nobody measures left out. `requests`: [second since it broke, answered, failed].
    `records`: {name: events} of the runs meanwhile. `calls`: those that AWS got meanwhile, where they are known.
    """
    taken = turns.of_runs(records, held.mended_by)
    wrong = sum(turn.verdict == turns.WRONG for turn in taken)
    seconds = None if held.recovered is None or held.paged is None else round(held.recovered - held.paged, 1)
    measured = "lost_writes" in users
    felt = {key: users.get(key) for key in FELT}
    acted = [turn.began for turn in taken if held.paged is None or turn.began >= held.paged - 1]
    return {
        "scenario": held.scenario,
        "kind": held.kind,
        "title": held.title,
        "what": held.what,
        "by": held.by,
        "where": held.where,
        "helps": list(held.mended_by),
        "outcome": held.outcome,
        "why": held.why,
        "times": {
            "broke": held.broke,
            "paged": held.paged,
            "acted": min(acted, default=None),
            "recovered": held.recovered,
            "ended": held.ended,
        },
        "recovery_seconds": seconds,
        "target_seconds": held.target_seconds,
        "users": felt,
        "requests": requests,
        "turns": [turn.as_dict() for turn in taken],
        "wrong_turns": wrong,
        "services": services(records),
        "by_hand": turns.by_hand(calls, taken, held.ended),
        "score": score(seconds, held.target_seconds, felt["lost_writes"], wrong, measured).as_dict(),
    }


def runs(incidents: Path) -> dict[str, list[dict]]:
    """{name of its record: its events} of every run in a folder of records."""
    return {path.parent.name: record.events(path.parent) for path in sorted(incidents.glob("*/timeline.jsonl"))}


def services(records: dict[str, list[dict]]) -> list[str]:
    """Pure: the services that runs held the lease of."""
    return sorted({event["lease"]["name"] for events in records.values() for event in events if event.get("lease")})


def is_under_way(events: list[dict]) -> bool:
    """Whether the run of this timeline goes on, on this machine."""
    ended = any(each["event"] == "run_ended" for each in events)
    return bool(events) and not ended and not is_dead(events[0]["run"])
