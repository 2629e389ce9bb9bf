# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a run: a timeline that is on disk before the next thing happens, and a report at the end."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import time

from . import masking

TIMELINE = "timeline.jsonl"
REPORT = "report.json"
# Seconds between two looks whether another run has ended its turn.
TURN_PAUSE = 0.02
# The running record's folder, for the processes that ansible forks for its tasks.
FOLDER_VARIABLE = "SRE_RUNBOOKS_RECORD"


def now(at=None):
    """UTC, to the millisecond, as it stands in every record; of `at` in seconds of the epoch, by default of this moment."""
    moment = datetime.datetime.now(datetime.UTC) if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def append(folder, **event):
    """Add one line to the timeline. One write to a file opened for appending, so that processes do not mix their lines."""
    line = json.dumps(masking.kept({"time": now(), **event}), default=str) + "\n"
    descriptor = os.open(os.path.join(folder, TIMELINE), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def events(folder, kinds=()):
    """The timeline of a record, as far as it was written; [] where there is none, as of a run that has just begun.

    Args:
        kinds: only events of these kinds; all of them by default. Timelines are many and long.
    """
    try:
        with open(os.path.join(folder, TIMELINE), "rb") as lines:
            written = lines.read()
    except OSError:
        return []
    marks = [b'"event": "%s"' % kind.encode() for kind in kinds]
    lines = written.splitlines(keepends=True)
    # The last line of a run that was killed may be half a line.
    whole = [line for line in lines if line.endswith(b"\n") and (not marks or any(mark in line for mark in marks))]
    return [event for event in map(json.loads, whole) if not kinds or event["event"] in kinds]


def write_report(folder, report):
    write(os.path.join(folder, REPORT), json.dumps(masking.kept(report), indent=2, default=str) + "\n")


def write(path, text):
    """Write a file of mode 0600 whole or not at all. Raises OSError."""
    # Of several hosts in one run each may write it.
    part = f"{path}.{os.getpid()}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, path)


def shown(path):
    """A path for people: relative to here where that is shorter."""
    return min(os.path.relpath(path), path, key=len)


def take_turn(parent, seconds):
    """Have no other run of this controller read and write what is logged of incidents, until `end_turn` of what this returns or
    the end of this process and of those forked from it; after `seconds` of waiting it goes on all the same, since bookkeeping stops
    no recovery.
    """
    held, deadline = os.open(parent, os.O_RDONLY), time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(TURN_PAUSE)
    return held


def end_turn(held):
    # Closing alone would leave it to whatever was forked meanwhile.
    fcntl.flock(held, fcntl.LOCK_UN)
    os.close(held)


def unfinished(parent, suffix):
    """Name of the newest record of the same playbook and environment, plans aside, where that run never came to its report."""
    try:
        names = sorted((name for name in os.listdir(parent) if name.endswith(suffix)), reverse=True)
    except OSError:
        return None
    newest = next((name for name in names if not is_plan(events(os.path.join(parent, name), ("run_started",)))), None)
    return newest if newest and not os.path.exists(os.path.join(parent, newest, REPORT)) else None


def is_plan(events):
    """Whether the events of a run are those of one in check mode, which changed nothing."""
    return any(event.get("check_mode") for event in events if event["event"] == "run_started")


def so_far(events):
    """{outcome, why, seconds, by} of a run that has not ended: recovered, failed, or noop where it changed nothing.

    A step that failed and was overcome is no failure: its state is `ignored`, or `rescued`.
    """
    steps = [event for event in events if event["event"] == "step"]
    failures = [event.get("message", "") for event in steps if event["state"] in ("failed", "unreachable")]
    is_changed = any(event["state"] == "changed" for event in steps if not event.get("lease"))
    times = [datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00")) for event in events]
    return {
        "outcome": "failed" if failures else "recovered" if is_changed else "noop",
        "why": failures[-1] if failures else "",
        "seconds": round((times[-1] - times[0]).total_seconds()) if times else 0,
        "by": next((event["by"] for event in events if event["event"] == "run_started"), ""),
    }


def outcome(failed, check_mode, changed, verification, logged=False):
    """recovered, failed, planned, noted or noop. A run that changed something and did not verify it is failed.

    Args:
        logged: whether a person wrote into the log of an incident.
    """
    if failed:
        return "failed"
    if check_mode:
        return "planned"
    if any(check["ok"] is False for check in verification):
        return "failed"
    if changed:
        return "recovered" if verification else "failed"
    return "noted" if logged else "noop"
