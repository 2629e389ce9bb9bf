# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When an incident began, was noticed, taken, mitigated and over: as people said it, or as the record shows where nobody did.

Everything here is pure. A moment is {at: epoch seconds or None, how: what it is taken from, for people}.
"""

from __future__ import annotations

from . import approvals
from .timeline import epoch, seconds_of

# Seconds.
SAME = 5
NAMES = ("began", "detected", "acknowledged", "mitigated", "resolved")


def times(events, runs, episodes=()):
    """{name of NAMES: moment}.

    Args:
        events: all of the incident's, by time.
        runs: of `story.runs`.
        episodes: of `user_errors.episodes`, those of this incident.
    """
    return {
        "began": _moment(episodes[0]["since"], "users saw errors") if episodes else _moment(None, "nothing tells"),
        "detected": detected(events, runs),
        "acknowledged": _acknowledged(events, runs),
        "mitigated": _mitigated(events, runs, episodes),
        "resolved": resolved(events, runs),
    }


def lengths(moments, now):
    """{duration, to_detect, to_acknowledge, to_mitigate, to_resolve} in seconds; None where one of the two moments is not known.

    All but the first two count from detection; what was done before it took no time. While it lasts, its duration is until `now`.
    """
    at = {name: moment["at"] for name, moment in moments.items()}
    first = min(filter(None, (at["began"], at["detected"])))
    return {
        "duration": _between(first, at["resolved"] or now),
        "to_detect": _between(at["began"], at["detected"]),
        "to_acknowledge": _between(at["detected"], at["acknowledged"]),
        "to_mitigate": _between(at["detected"], at["mitigated"]),
        "to_resolve": _between(at["detected"], at["resolved"]),
    }


def first(events, kind):
    """The first event of a kind, None where there is none."""
    return next((event for event in events if event["event"] == kind), None)


def last(events, kind):
    return first(reversed(events), kind)


def detected(events, runs):
    """What the opener said, or when the first of us did something."""
    opened = first(events, "opened")
    said = _said(opened.get("detected")) if opened else None
    # Where nobody said it, it is the time of opening, but for the moment that this took.
    if said and seconds_of(opened) - said > SAME:
        return _moment(said, "as said by who opened it")
    if opened and not (runs and runs[0].began < seconds_of(opened)):
        return _moment(seconds_of(opened), "when it was opened")
    return _moment(seconds_of(events[0]), "when the first run began")


def resolved(events, runs):
    """When it was closed. A run without an incident is over when it has ended."""
    if closed := last(events, "closed"):
        return _moment(seconds_of(closed), "when it was closed")
    if not first(events, "opened") and runs and runs[-1].ended:
        return _moment(runs[-1].ended, "when the run ended")
    return _moment(None, "it is still open")


def _acknowledged(events, runs):
    if said := first(events, "acknowledged"):
        return _moment(seconds_of(said), f"by {said.get('by') or 'somebody'}")
    if decided := approvals.first_decision(events):
        return _moment(seconds_of(decided), f"by {decided['by']}, who {decided['event']} {decided['proposal']}")
    if runs:
        return _moment(runs[0].began, "nobody acknowledged it; the first run began")
    return _moment(None, "nobody acknowledged it")


def _mitigated(events, runs, episodes):
    if said := last(events, "mitigated"):
        return _moment(seconds_of(said), "as recorded")
    recovered = [run for run in runs if run.outcome == "recovered"]
    if recovered:
        return _moment(recovered[-1].ended, f"{recovered[-1].name} had recovered and verified it")
    if episodes:
        return _moment(episodes[-1]["until"], "users saw no errors any more")
    return _moment(None, "nothing tells")


def _moment(at, how):
    return {"at": at, "how": how}


def _said(moment):
    """What a person wrote, in epoch seconds; None where it is no time."""
    try:
        return epoch(moment) if moment else None
    except (ValueError, TypeError, AttributeError):
        return None


def _between(begin, end):
    return None if begin is None or end is None else round(max(0, end - begin), 1)
