# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes a record into its bucket as it happens, in a process of its own: a bucket that is slow or gone delays no recovery, and a
run that is killed is told of as far as it came.

What was not delivered stays in the folder, and the next run of this controller delivers it first.
"""

from __future__ import annotations

import json
import os
import time

from . import background, read_only, record
from .lease import is_dead, run_id
from .record_bucket import FILES, last_of_all, objects_of, run_key

# How far a record was delivered, and by which process: {lines, whole, by}.
MARK = "delivered.json"
# Seconds between two looks at the timeline, and after which a bucket that takes nothing is given up once the run has ended.
LOOK_EVERY, PATIENCE = 0.2, 20


def begin(make_bucket, folder):
    """Start the process that delivers the record `folder`, and what earlier runs of this controller could not.

    Args:
        make_bucket: () -> Bucket; called in the new process, since connections are not shared between two.
    """
    try:
        # Of several hosts in one run the first begins it.
        os.close(os.open(os.path.join(folder, MARK), os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    _note(folder, 0, False)
    background.detach(lambda: _deliver_own(make_bucket, folder))


def _deliver_own(make_bucket, folder):
    """A run that may only read keeps its record all the same."""
    os.environ.pop(read_only.VARIABLE, None)
    deliver(make_bucket(), folder)


def deliver(bucket, folder, sleep=time.sleep):
    """Deliver what is left of earlier records, then this one until its run has ended."""
    for earlier in undelivered(os.path.dirname(folder)):
        if earlier != folder:
            _deliver(bucket, earlier, sleep)
    _deliver(bucket, folder, sleep)


def undelivered(parent):
    """Folders of the records that the bucket does not have whole, and whose run is gone, with the process that delivered them."""
    for name in sorted(os.listdir(parent)):
        folder = os.path.join(parent, name)
        mark = _mark(folder)
        left = mark and not mark["whole"] and is_dead(mark["by"])
        if left and is_dead(_started(record.events(folder))):
            yield folder


def is_whole(folder):
    """Whether all of a record is in the bucket; None where it is not to be there."""
    mark = _mark(folder)
    return mark and mark["whole"]


def _deliver(bucket, folder, sleep):
    given_up, done, size = None, _mark(folder)["lines"], None
    timeline, report = (os.path.join(folder, name) for name in (record.TIMELINE, record.REPORT))
    events = record.events(folder)
    run = _started(events)
    while True:
        # Asked before the timeline is read: what a run wrote with its last breath is not missed.
        over = is_dead(run)
        if size != (size := os.stat(timeline).st_size):
            events = record.events(folder)
        ended = bool(events) and events[-1]["event"] == "run_ended"
        try:
            for number, event in enumerate(events[done:], done):
                for key, body in objects_of(run_key(os.path.basename(folder), run), number, event).items():
                    bucket.put(key, body)
                done = number + 1
            if over or (ended and os.path.exists(report)):
                _deliver_files(bucket, folder, run_key(os.path.basename(folder), run))
                _note(folder, done, True)
                return
            given_up = None
        except Exception:  # whatever it is, the run goes on without, and the next one tries again
            given_up = given_up or time.monotonic() + PATIENCE
            if (ended or over) and time.monotonic() > given_up:
                return
        _note(folder, done, False)
        sleep(LOOK_EVERY)


def _deliver_files(bucket, folder, key):
    for name in sorted(os.listdir(folder), key=last_of_all):
        if name.endswith(FILES) and name != MARK:
            with open(os.path.join(folder, name), "rb") as file:
                bucket.put(f"runs/{key}/{name}", file.read())


def _started(events):
    """Identity of the run whose events these are."""
    return next((event["run"] for event in events if event["event"] == "run_started"), "")


def _mark(folder):
    try:
        with open(os.path.join(folder, MARK), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):  # none, or one that was claimed a moment ago
        return None


def _note(folder, lines, whole):
    mark = {"lines": lines, "whole": whole, "by": run_id(os.getpid())}
    record.write(os.path.join(folder, MARK), json.dumps(mark))
