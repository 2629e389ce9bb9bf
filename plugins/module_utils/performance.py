# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a service answers while several users ask at once: latencies, errors, and what is allowed of them.

Each user asks again as soon as it was answered, on a connection that it keeps, as a browser or another service does.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from concurrent import futures
from dataclasses import dataclass, field

from . import waiting
from .smoke import fault
from .web import Line

# Seconds that a user waits after a failure: one that is refused at once would otherwise count thousands of times.
PAUSE_AFTER_FAILURE = 0.1
PERCENTILES = (50, 95, 99)


@dataclass
class Tally:
    """What all users of one test met; a list takes appends of several threads."""

    answered: list = field(default_factory=list)  # seconds of each good answer
    problems: list = field(default_factory=list)  # what was wrong with each other one

    def state(self):
        return f"{len(self.problems)} errors"


def measure(test, dns_servers=(), tick=None):
    """Ask for `test["duration"]` seconds with `test["concurrency"]` users; returns Tally.

    Args:
        test: a check as smoke.fault judges it, with concurrency and duration (seconds).
        dns_servers: who is asked for the host of the URL; empty for the resolver of this machine.
        tick: called while it lasts (renews the lease); what it raises ends the test.
    """
    tally, over = Tally(), threading.Event()
    ends = time.monotonic() + test["duration"]

    def user():
        with contextlib.closing(Line(dns_servers)) as line:
            while time.monotonic() < ends and not over.is_set():
                seen = line.request(test)
                if problem := fault(test, seen):
                    tally.problems.append(problem)
                    over.wait(PAUSE_AFTER_FAILURE)
                else:
                    tally.answered.append(seen.seconds)

    with futures.ThreadPoolExecutor(max_workers=test["concurrency"]) as pool:
        users = [pool.submit(user) for _number in range(test["concurrency"])]
        try:
            waiting.wait_until(
                lambda: tally,
                lambda _seen: all(each.done() for each in users),
                f"{test['name']}, {test['concurrency']} at once for {test['duration']} s",
                test["duration"] + 2 * test["within"],  # the last request of each may take its whole time
                usual=test["duration"],
                tick=tick,
                state=Tally.state,
                sleep=lambda seconds: futures.wait(users, seconds),
            )
        finally:
            over.set()
    for each in users:
        each.result()
    return tally


def percentile(seconds, percent):
    """The smallest of `seconds` that at least `percent` of them do not exceed (nearest rank); None of none."""
    return sorted(seconds)[max(math.ceil(percent / 100 * len(seconds)), 1) - 1] if seconds else None


def figures(tally):
    """Pure: {requests, errors, error_percent, p50, p95, p99}; latencies in seconds, of good answers only."""
    errors, requests = len(tally.problems), len(tally.answered) + len(tally.problems)
    return {
        "requests": requests,
        "errors": errors,
        "error_percent": round(100 * errors / requests, 2) if requests else 100.0,
        **{f"p{percent}": percentile(tally.answered, percent) for percent in PERCENTILES},
    }


def verdict(test, tally):
    """Pure: the entry of this test in `verification`, with its figures; `seen` names the limits that were missed."""
    found = figures(tally)
    missed = []
    if found["error_percent"] > test["max_error_percent"]:
        most = max(set(tally.problems), key=tally.problems.count) if tally.problems else "nobody was answered"
        missed.append(f"{found['error_percent']:g}% errors, {test['max_error_percent']:g}% allowed ({most})")
    for percent in PERCENTILES:
        allowed, seconds = test[f"max_p{percent}"], found[f"p{percent}"]
        if allowed is not None and (seconds is None or seconds > allowed):
            missed.append(f"p{percent} {_shown(seconds)}, {_shown(allowed)} allowed")
    latencies = " ".join(f"p{percent} {_shown(found[f'p{percent}'])}" for percent in PERCENTILES)
    summary = f"{found['requests']} requests in {test['duration']} s, {found['errors']} errors, {latencies}"
    return {
        "name": test["name"],
        "ok": not missed,
        "status": None,
        "seconds": float(test["duration"]),
        "seen": f"{'; '.join(missed)} ({summary})" if missed else summary,
        **found,
    }


def left_out(test, why):
    """The entry of a test that was not run."""
    return {"name": test["name"], "ok": None, "status": None, "seconds": 0.0, "seen": f"not run: {why}"}


def _shown(seconds):
    return "unknown" if seconds is None else f"{seconds * 1000:.0f} ms"
