# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a run waits, all its tasks together, for a region that does not answer.

A playbook says how many seconds by the environment of its tasks; the incident callback tells each task what those before it
spent. What counts is time without an answer: calls side by side count once, and a pause between two of them that got none
counts too. Nothing may wait longer, however many tasks ask (HAZARDS: static stability).
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

# "us-east-1=20": what a playbook allows.
ALLOWED_VARIABLE = "SRE_RUNBOOKS_PATIENCE"
# "us-east-1=4.1": the regions that earlier verbs of the run found silent, and what was waited for them.
SILENT_VARIABLE = "SRE_RUNBOOKS_SILENT_REGIONS"
# Two calls without an answer that follow each other within so many seconds are one wait: the longest pause between two looks
# is two.
PAUSE = 3.0
# Less than this is not worth a call.
LEAST = 0.2


def parse(text):
    """{region: seconds} of "us-east-1=20 us-west-2=5"; what is no number is 0."""
    pairs = [word.partition("=") for word in (text or "").split()]
    return {region: float(number) if number.replace(".", "", 1).isdigit() else 0.0 for region, _is, number in pairs}


def text(seconds):
    """The reverse of `parse`."""
    return " ".join(f"{region}={spent:.2f}" for region, spent in sorted(seconds.items()))


@dataclass
class _Wait:
    """Calls to one region that go on: how many, since when, and up to when they are counted (monotonic)."""

    calls: int = 0
    since: float = 0.0
    counted: float = float("-inf")


class Patience:
    """What one process knows of it.

    Args:
        allowed: {region: seconds}; a region that is not named may be waited for as long as its calls take.
        spent: {region: seconds} of the tasks before.
    """

    def __init__(self, allowed=None, spent=None, clock=time.monotonic):
        self.allowed, self.spent = dict(allowed or {}), dict(spent or {})
        self._clock, self._lock, self._waits = clock, threading.Lock(), {}

    @classmethod
    def of_run(cls):
        """As the environment has it."""
        return cls(parse(os.environ.get(ALLOWED_VARIABLE)), parse(os.environ.get(SILENT_VARIABLE)))

    def left(self, region):
        """Seconds that may still be waited for a region; None for one without a limit, 0 where it is asked no more."""
        if region not in self.allowed:
            return None
        left = self.allowed[region] - self.spent.get(region, 0.0)
        return left if left >= LEAST else 0.0

    def of(self, region):
        """{waited, allowed} of a region, in seconds."""
        return {"waited": self.spent.get(region, 0.0), "allowed": self.allowed.get(region)}

    def ask(self, region, call, is_silence):
        """`call()`; its time is spent where it raises what `is_silence(error)` says is none."""
        if region not in self.allowed:
            return call()
        self._begin(region)
        silent = False
        try:
            return call()
        except Exception as error:
            silent = is_silence(error)
            raise
        finally:
            self._end(region, silent)

    def _begin(self, region):
        with self._lock:
            wait = self._waits.setdefault(region, _Wait())
            if not wait.calls:
                now = self._clock()
                wait.since = wait.counted if now - wait.counted <= PAUSE else now
            wait.calls += 1

    def _end(self, region, silent):
        with self._lock:
            wait, now = self._waits[region], self._clock()
            wait.calls -= 1
            if silent:
                began = max(wait.since, wait.counted)
                self.spent[region] = round(self.spent.get(region, 0.0) + now - began, 3)
                wait.counted = now

    def notes(self):
        """What a person must know: that a region is asked no more."""
        return [
            f"{region} has not answered for {self.spent.get(region, 0.0):.0f} s in all, as long as this run waits for it: it was asked no more"
            for region in sorted(self.allowed)
            if self.left(region) == 0
        ]
