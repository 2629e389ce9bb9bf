# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A recorded timeline as a picture of characters: what ran when, for how long, and how it ended."""

from __future__ import annotations

import datetime

WIDTH = 32
# Of what is shorter than this (seconds) only the changes and failures are worth a line.
SHORT = 0.5


def seconds_of(event):
    """When an event was written, in seconds since the epoch."""
    return epoch(event["time"])


def epoch(moment):
    """Seconds since the epoch of a time in ISO 8601, in UTC where it names no zone. Raises ValueError."""
    at = datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()


def spoken(seconds):
    """How long something lasted, for people: `33 s`, `4 min`, `2 h 5 min`, `3 d 1 h`."""
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def draw(events, marks=()):
    """Lines of text, one for each step and each mark, in the order of their time.

    Args:
        events: the events of a timeline.jsonl, each a dict.
        marks: [(time in seconds since the epoch, text)], what others saw: the demo adds what the users noticed.
    """
    steps = [event for event in events if event["event"] == "step" and worth_a_line(event)]
    rows = [(seconds_of(event) - event["duration"], event["duration"], _text(event)) for event in steps]
    rows += [(time, 0.0, text) for time, text in marks]
    if not rows:
        return []
    rows.sort(key=lambda row: row[0])
    start = rows[0][0]
    total = max(max(begin + length for begin, length, _text in rows) - start, 0.1)
    lines = []
    for begin, length, text in rows:
        left = min(WIDTH - 1, int((begin - start) / total * WIDTH))
        drawn = "=" * max(1, round(length / total * WIDTH)) if length else "|"
        drawn = (" " * left + drawn)[:WIDTH].ljust(WIDTH)
        spent = f"{length:6.1f} s" if length else "        "
        lines.append(f"{begin - start:7.1f} s  [{drawn}] {spent}  {text}")
    return lines


def worth_a_line(event):
    """Whether a step is told to people: it took a while, changed something or failed."""
    return event["duration"] >= SHORT or event["state"] in ("changed", "failed", "unreachable")


def _text(event):
    name = event["step"].rpartition(" : ")[2]
    return name if event["state"] in ("ok", "changed") else f"{name}: {event['state'].upper()}"
