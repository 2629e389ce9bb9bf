# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""FilterLogEvents of CloudWatch Logs as documented; moto matches every event where a pattern starts with ? or -, and looks
at all events for each page.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html (unstructured log events)
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
"""

from __future__ import annotations

import heapq
import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import insights

if TYPE_CHECKING:
    from .world import World

# A page ends after so many events that match, or so many that were looked at: then it may be empty, and others follow.
MOST_MATCHED, MOST_LOOKED_AT = 10_000, 100_000
_TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))')


class FilterPattern:
    """Terms that must all be there, ?terms of which one must be, -terms that must not. Case counts."""

    def __init__(self, pattern: str | None) -> None:
        self.terms: dict[str, list[str]] = {"": [], "?": [], "-": []}
        for sign, quoted, plain in _TERM.findall(pattern or ""):
            self.terms[sign].append(quoted or plain)
        # AWS ignores optional terms beside required ones.
        if self.terms[""] or self.terms["-"]:
            self.terms["?"] = []

    def matches(self, message: str) -> bool:
        return (
            all(term in message for term in self.terms[""])
            and not any(term in message for term in self.terms["-"])
            and (not self.terms["?"] or any(term in message for term in self.terms["?"]))
        )


def filter_log_events(
    group: Any,
    log_group_name: str,
    log_stream_names: list[str],
    start_time: int,
    end_time: int,
    limit: int | None,
    next_token: str | None,
    filter_pattern: str,
    _interleaved: bool,
) -> tuple[list[dict[str, Any]], str | None, list[dict[str, Any]]]:
    """What moto's log groups do by that name: (events of the page, token of the next one, streams)."""
    streams = [each for name, each in group.streams.items() if not log_stream_names or name in log_stream_names]
    pattern, after = pattern_of(filter_pattern), _position(next_token)
    events = heapq.merge(*(_events(each, start_time, end_time, after) for each in streams), key=_key)
    found, last = [], None
    for event, stream in islice(events, MOST_LOOKED_AT):
        last = _key((event, stream))
        if pattern.matches(event.message):
            found.append(dict(event.to_filter_dict(), logStreamName=stream))
            if len(found) >= (limit or MOST_MATCHED):
                break
    more = last is not None and next(events, None) is not None
    return found, f"{last[0]}@{last[1]}" if more else None, []


def _key(found: tuple[Any, str]) -> tuple[int, int]:
    return found[0].timestamp, found[0].event_id


def _position(token: str | None) -> tuple[int, int] | None:
    """Where the page before ended."""
    from moto.logs.exceptions import InvalidParameterException

    if not token:
        return None
    timestamp, _, event_id = token.partition("@")
    if not (timestamp.isdigit() and event_id.isdigit()):
        raise InvalidParameterException(msg="The specified nextToken is invalid.")
    return int(timestamp), int(event_id)


def _events(stream: Any, start: int, end: int, after: tuple[int, int] | None) -> Iterator[tuple[Any, str]]:
    """Those of one stream in their order, from `start` to `end` (milliseconds, both included) and behind `after`."""
    events = sorted(stream.events, key=lambda event: event.timestamp)
    first = bisect_left(events, start or 0, key=lambda event: event.timestamp)
    if after:
        first = max(first, bisect_right(events, after, key=lambda event: (event.timestamp, event.event_id)))
    for event in islice(events, first, None):
        if end and event.timestamp > end:
            return
        yield event, stream.log_stream_name


def pattern_of(pattern: str | None) -> FilterPattern:
    from moto.logs.exceptions import InvalidParameterException

    if pattern and pattern.lstrip()[:1] in "{[%":
        raise InvalidParameterException(msg=f"the sandbox knows filter patterns of terms only, not {pattern}")
    return FilterPattern(pattern)


def install(world: World) -> None:
    from moto.logs import models

    models.LogGroup.filter_log_events = filter_log_events
    models.LogQuery = insights.Query


def _crowd(world: World, arguments: dict[str, Any]) -> dict[str, Any]:
    """`count` events of the last `minutes` in a log group of its own, in turn in each of `streams` streams. Of every `each`
    lines one is of `errors`, in turn; the others say that all is well."""
    from moto.logs.models import LogEvent, LogStream, logs_backends

    region, name, count, streams = (arguments[key] for key in ("region", "name", "count", "streams"))
    errors, each = arguments["errors"], arguments["each"]
    with world.lock:
        backend = logs_backends[world.account_id][region]
        backend.create_log_group(name, {})
        group, now = backend.groups[name], int(time.time() * 1000)
        made = [LogStream(group, f"app/app/{number:032x}") for number in range(streams)]
        group.streams.update({stream.log_stream_name: stream for stream in made})
        step = arguments["minutes"] * 60_000 / count
        for number in range(count):
            line = errors[number // each % len(errors)] if number % each == 0 else "INFO GET /v1/rows/%d 200"
            at = now - int((count - number) * step)
            made[number % streams].events.append(LogEvent(now, {"timestamp": at, "message": line % number}))
    return {"log_group": name}


control = {"log-crowd": _crowd}


def seed(world: World) -> None: ...


def start(world: World) -> None: ...


def stop(world: World) -> None: ...
