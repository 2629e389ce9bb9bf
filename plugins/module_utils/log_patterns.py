# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Like messages of logs as one pattern: what was only different in numbers, ids, addresses and times is the same."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass

from .masking import logged

# What a pattern says of a message is at most so many characters long.
LENGTH = 160
# Fields of a JSON message that say what it is about, and how bad it is.
_TEXTS, _LEVELS = ("message", "msg", "error", "exception", "log"), ("level", "severity", "levelname")
# In this order: what comes later would take parts of what comes before.
_VARIABLES = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[a-f]*\d)[0-9a-f]{8,}\b"), "<id>"),
    (re.compile(r"\d+(?:\.\d+)?"), "<n>"),
)
# Events come more often since a moment where that explains them so much better than one steady rate (as the logarithm of the
# likelihoods), with so many since then, so many times as often.
_LIKELIER, _FEWEST, _TIMES_AS_OFTEN = 6.0, 3, 3.0
_FIRST_TIME = re.compile(r"^[\[(]?<time>[\])]?[:,]?\s*")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Event:
    """A line of a log. `at` is in milliseconds of the epoch."""

    at: int
    group: str
    stream: str
    message: str


@dataclass(frozen=True)
class Found:
    """Of one log group, or of pods: `total` lines match, of which `events` were read; `complete_before` says whether these are all
    of those before the deployment, and `unread` what could not be read of it."""

    events: tuple
    total: int
    complete_before: bool
    by: str
    unread: tuple = ()


def pattern_of(message):
    """Pure: what the message has in common with those like it, without its secrets."""
    text = logged(_text(message), 2 * LENGTH)
    for variable, name in _VARIABLES:
        text = variable.sub(name, text)
    return _FIRST_TIME.sub("", text)[:LENGTH]


def _text(message):
    """The first line; of a JSON message the field that says what happened, with its level."""
    if message.lstrip().startswith("{"):
        try:
            fields = json.loads(message)
        except ValueError:
            fields = {}
        said = next((str(fields[name]) for name in _TEXTS if fields.get(name)), None)
        if said:
            level = next((f"{fields[name]} ".upper() for name in _LEVELS if fields.get(name)), "")
            return level + said.partition("\n")[0]
    return message.strip().partition("\n")[0]


def surge(times, since, until):
    """Pure: the moment from which on events came much more often than before; None where they did not.

    Of trouble that grew by steps it is the first step.

    Args:
        times: of the events, in seconds of the epoch.
        since, until: the window that was looked at, likewise; nothing is known of before.
    """
    times, began = sorted(times), None
    while (at := _split(times, since, until)) is not None:
        began = until = at
        times = [each for each in times if each < at]
    return began


def _split(times, since, until):
    """The moment that splits them into two steady rates most likely, of two Poisson processes."""
    best, began, whole = _LIKELIER, None, until - since
    for earlier, at in enumerate(times):
        # A second on both sides: a rate needs a while, and a window that begins with events says nothing of before.
        before, after, later = at - since, max(until - at, 1.0), len(times) - earlier
        if before < 1 or later < _FEWEST or later / after < _TIMES_AS_OFTEN * earlier / before:
            continue
        likelier = later * math.log(later / after) + (earlier and earlier * math.log(earlier / before))
        likelier -= len(times) * math.log(len(times) / whole)
        if likelier > best:
            best, began = likelier, at
    return began


def grouped(events, deployed_at=None, known_before=True, window=None):
    """Pure: [{pattern, count, first, last, example, log_groups, streams, new, surge, busiest}], what is new and what is most first.

    Args:
        events: Event.
        deployed_at: when the last deployment began, in seconds of the epoch; None where nothing tells.
        known_before: whether all that was logged before it is among `events`, back to the begin of what was asked for.
        window: (since, until) that was looked at, in seconds of the epoch.

    `first`, `last` and `surge` (None, too, where no window is given) are seconds of the epoch. `new` is whether all of a pattern
    came after the deployment; None where the events do not tell. `streams` are those since the surge, where there was one;
    `busiest` {stream, count} is the one with most of the events.
    """
    shapes, found = {}, {}
    for event in events:
        shape = _DIGITS.sub("0", event.message)  # spares most of the work: few lines differ in more than numbers
        if shape not in shapes:
            shapes[shape] = pattern_of(event.message)
        found.setdefault(shapes[shape], []).append(event)
    patterns = [_told(pattern, same, deployed_at, known_before, window) for pattern, same in found.items()]
    return sorted(patterns, key=lambda each: (not each["new"], -each["count"], each["first"]))


def _told(pattern, events, deployed_at, known_before, window):
    first, last = min(events, key=lambda event: event.at), max(events, key=lambda event: event.at)
    new = None
    if deployed_at is not None:
        was_there = first.at < deployed_at * 1000
        new = False if was_there else True if known_before else None
    began = surge([event.at / 1000 for event in events], *window) if window else None
    streams = Counter(event.stream for event in events if began is None or event.at / 1000 >= began)
    return {
        "pattern": pattern,
        "count": len(events),
        "first": first.at / 1000,
        "last": last.at / 1000,
        "example": logged(last.message, 2 * LENGTH),
        "log_groups": sorted({event.group for event in events}),
        "streams": len(streams),
        "new": new,
        "surge": began,
        "busiest": dict(zip(("stream", "count"), streams.most_common(1)[0], strict=True)),
    }
