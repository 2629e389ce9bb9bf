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
    return datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def draw(events, marks=()):
    """Lines of text, one for each step and each mark, in the order of their time.

    Args:
        events: the events of a timeline.jsonl, each a dict.
        marks: [(time in seconds since the epoch, text)], what others saw: the demo adds what the users noticed.
    """
    steps = [event for event in events if event["event"] == "step" and _worth_a_line(event)]
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


def _worth_a_line(event):
    return event["duration"] >= SHORT or event["state"] in ("changed", "failed", "unreachable")


def _text(event):
    name = event["step"].rpartition(" : ")[2]
    return name if event["state"] in ("ok", "changed") else f"{name}: {event['state'].upper()}"
