# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long users saw errors, from what their load balancers have counted minute by minute."""

from __future__ import annotations

import time
from collections import Counter

from .elbv2 import METRIC_PERIOD

# Seconds without errors that end an episode: a build that fails now and then is one incident, not five.
QUIET = 300


def merged(balancers):
    """{minute: (requests, errors)} of several load balancers together."""
    requests, errors = Counter(), Counter()
    for minutes in balancers:
        for minute, (asked, failed) in minutes.items():
            requests[minute] += asked
            errors[minute] += failed
    return {minute: (requests[minute], errors[minute]) for minute in sorted(requests)}


def episode(minutes, now, error_percent):
    """Pure: the last episode of errors, or None.

    Args:
        minutes: {minute (epoch seconds): (requests, errors)}.
        now: epoch seconds. CloudWatch is late, so an episode that the last minute it knows is part of ended at `now` at the latest.
        error_percent: more errors of a hundred requests than these make a minute a bad one.

    Returns:
        {since, until: epoch seconds; seconds, requests, errors}, until and seconds being upper bounds.
    """
    bad = [minute for minute, (requests, errors) in minutes.items() if errors * 100 > error_percent * requests]
    if not bad:
        return None
    since = last = max(bad)
    for minute in sorted(bad, reverse=True):
        if since - minute > QUIET:
            break
        since = minute
    until = now if last == max(minutes) else last + METRIC_PERIOD
    within = [counts for minute, counts in minutes.items() if since <= minute < until]
    return {
        "since": since,
        "until": round(until),
        "seconds": round(until - since),
        "requests": int(sum(requests for requests, errors in within)),
        "errors": int(sum(errors for requests, errors in within)),
    }


def told(found):
    """The episode as a sentence for people."""
    since, until = (time.strftime("%H:%M", time.gmtime(found[key])) for key in ("since", "until"))
    length = f"{found['seconds']} s" if found["seconds"] < 120 else f"{round(found['seconds'] / 60)} min"
    return f"users saw errors for at most {length}, {since} to {until} UTC: {found['errors']} of {found['requests']} requests"
