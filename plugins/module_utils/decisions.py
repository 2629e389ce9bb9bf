# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What controllers that share nothing but the bucket of records decide one after the other: which incident is open, whether it is over,
and what becomes of a proposal.

    decided/<environment>/<number>.json      the events that were decided at once, and by which run

Whoever decides has read all that was decided before, and writes the next number, which S3 takes from one of them only
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). The other one looks again. So nobody holds a lock
that a lost controller would keep, and nobody decides by what is no longer so. The events are those that the timelines of the runs get
a moment later.
"""

from __future__ import annotations

import json
import time
import uuid

from . import masking, record
from .timeline import seconds_of

# Seconds between two events, of which records keep the millisecond.
STEP = 0.001


class Decisions:
    """Those of one environment.

    Args:
        bucket: the Bucket.
    """

    def __init__(self, bucket, env):
        self._bucket, self._prefix = bucket, f"decided/{env}/"
        self._bodies, self._next, self._latest = {}, 0, 0.0

    def read(self, since):
        """The events decided since `since` (epoch seconds), in their order, each with its run's key as `record`.

        Raises what S3 answers.
        """
        there = self._bucket.listed(self._prefix)
        self._next = 1 + max((_number(key) for key, _at in there), default=-1)
        wanted = [key for key, at in there if at >= since]
        self._bodies |= self._bucket.get_all(key for key in wanted if key not in self._bodies)
        made = [json.loads(self._bodies[key]) for key in sorted(wanted, key=_number)]
        found = [dict(event, record=each["record"]) for each in made for event in each["events"]]
        self._latest = max(map(seconds_of, found), default=0.0)
        return found

    def stamped(self, entries):
        """`entries` as they stand in the timeline, too: to be known again, and each later than whatever was decided before it, however clocks
        differ."""
        first, decision = max(time.time(), self._latest + STEP), uuid.uuid4().hex[:12]
        return [
            {**masking.kept(entry), "time": record.now(round(first + number * STEP, 3)), "decision": decision}
            for number, entry in enumerate(entries)
        ]

    def add(self, entries, run):
        """Have `entries` (of `stamped`) follow what was read last; `run` is the key of the run that decides.

        Raises:
            Overtaken: something was decided since.
            LostAnswer: nobody knows whether they were added.
            ClientError of botocore: S3 said no.
        """
        body = json.dumps({"record": run, "events": entries}, default=str).encode()
        self._bucket.put_first(f"{self._prefix}{self._next:06}.json", body)


def completed(runs, decided):
    """Pure: {run: its events}, those that were decided and that its timeline does not have (yet) among them.

    Args:
        decided: of `Decisions.read`.
    """
    there = {(event["decision"], event["event"]) for events in runs.values() for event in events if "decision" in event}
    found = {name: list(events) for name, events in runs.items()}
    for event in decided:
        if (event["decision"], event["event"]) not in there:
            found.setdefault(event["record"], []).append(event)
    return found


def _number(key):
    return int(key.rpartition("/")[2].removesuffix(".json"))
