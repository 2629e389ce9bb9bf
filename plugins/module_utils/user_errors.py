# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long users saw errors, from what their load balancers have counted minute by minute."""

from __future__ import annotations

import time
from collections import Counter

from .elbv2 import METRIC_PERIOD
from .timeline import spoken

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
    """Pure: the last of `episodes`, or None."""
    found = episodes(minutes, now, error_percent)
    return found[-1] if found else None


def episodes(minutes, now, error_percent):
    """Pure: every episode of errors, the earliest first.

    Args:
        minutes: {minute (epoch seconds): (requests, errors)}.
        now: epoch seconds. CloudWatch is late, so an episode that the last minute it knows is part of ended at `now` at the latest.
        error_percent: more errors of a hundred requests than these make a minute a bad one.

    Returns:
        [{since, until: epoch seconds; seconds, requests, errors}], until and seconds being upper bounds.
    """
    bad = sorted(minute for minute, (requests, errors) in minutes.items() if errors * 100 > error_percent * requests)
    spans = []
    for minute in bad:
        if spans and minute - spans[-1][1] <= QUIET:
            spans[-1][1] = minute
        else:
            spans.append([minute, minute])
    return [_counted(minutes, since, now if last == max(minutes) else last + METRIC_PERIOD) for since, last in spans]


def _counted(minutes, since, until):
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
    return f"users saw errors for at most {spoken(found['seconds'])}, {since} to {until} UTC: {found['errors']} of {found['requests']} requests"
