# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries of CloudWatch Logs Insights: fields, filter ... like, sort, limit and stats count(*). moto filters nothing.

A query runs for a moment before it is complete, gives 1,000 lines unless its limit says more, 10,000 at most, and tells how many
matched. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

RUNS_SECONDS = 0.2
DEFAULT_LIMIT, MOST = 1_000, 10_000
_LIKE = re.compile(r"(\S+) (not )?like (?:/((?:[^/\\]|\\.)*)/|\"([^\"]*)\"|'([^']*)')")
_SORT = re.compile(r"sort @timestamp(?: (asc|desc))?")


class Query:
    """A query of log groups: what moto keeps as LogQuery."""

    def __init__(self, query_id: str, start_time: int, end_time: int, query: str, log_groups: list) -> None:
        self.query_id, self.query, self.log_group_names = query_id, query, [each.name for each in log_groups]
        self.create_time = int(time.time() * 1000)
        self._complete_at = time.monotonic() + RUNS_SECONDS
        self._rows, self._statistics = run(query, log_groups, start_time, end_time)

    @property
    def status(self) -> str:
        return "Complete" if time.monotonic() >= self._complete_at else "Running"

    def to_json(self, log_group_name: str) -> dict:
        return {
            "queryId": self.query_id,
            "queryString": self.query,
            "status": self.status,
            "createTime": self.create_time,
            "logGroupName": log_group_name,
        }

    def to_result_json(self) -> dict:
        is_complete = self.status == "Complete"
        rows = [[{"field": key, "value": value} for key, value in row.items()] for row in self._rows]
        return {
            "results": rows if is_complete else [],
            "statistics": self._statistics if is_complete else {},
            "status": self.status,
        }


def run(query: str, log_groups: list, start_time: int, end_time: int) -> tuple[list[dict[str, str]], dict]:
    """The rows and the statistics. Both ends of the time range, in seconds, are part of it."""
    fields, tests, newest_first, limit, counted = _parsed(query)
    begin, end = start_time * 1000, end_time * 1000 + 999
    scanned = [
        (event, stream.log_stream_name, group.name)
        for group in log_groups
        for stream in group.streams.values()
        for event in stream.events
        if begin <= event.timestamp <= end
    ]
    rows = (_fields(*each) for each in scanned)
    matched = [row for row in rows if all(test(row) for test in tests)]
    matched.sort(key=lambda row: row["@timestamp"], reverse=newest_first)
    statistics = {
        "recordsMatched": float(len(matched)),
        "recordsScanned": float(len(scanned)),
        "bytesScanned": float(sum(len(event.message) for event, _stream, _group in scanned)),
    }
    if counted:
        return [{counted: str(len(matched))}], statistics
    wanted = [*fields, "@ptr"]
    return [{name: row[name] for name in wanted if name in row} for row in matched[:limit]], statistics


def _fields(event: Any, stream: str, group: str) -> dict[str, str]:
    moment = datetime.fromtimestamp(event.timestamp / 1000, UTC)
    return {
        "@timestamp": f"{moment:%Y-%m-%d %H:%M:%S}.{event.timestamp % 1000:03d}",
        "@message": event.message,
        "@logStream": stream,
        "@log": group,
        "@ptr": str(event.event_id),
    }


def _parsed(query: str) -> tuple[list[str], list[Callable[[dict], bool]], bool, int, str]:
    """Fields, tests of a row, newest first?, limit, and the name of a count. Refuses what it does not know, as AWS does."""
    fields, tests, newest_first, limit, counted = ["@timestamp", "@message"], [], True, DEFAULT_LIMIT, ""
    for command in _commands(query):
        word, _, rest = command.partition(" ")
        if word in ("fields", "display"):
            fields = [each.strip() for each in rest.split(",")]
        elif word == "filter" and (match := _LIKE.fullmatch(rest.strip())):
            tests.append(_test(*match.groups()))
        elif match := _SORT.fullmatch(command):
            newest_first = match[1] != "asc"
        elif word == "limit" and rest.isdigit() and 0 < int(rest) <= MOST:
            limit = int(rest)
        elif match := re.fullmatch(r"stats count\(\*\)(?: as (\w+))?", command):
            counted = match[1] or "count(*)"
        else:
            _refuse(f"the sandbox does not know the part {command!r} of the query")
    return fields, tests, newest_first, limit, counted


def _commands(query: str) -> list[str]:
    """Split at the bars that are in no pattern or text."""
    parts = re.findall(r"(?:/(?:[^/\\]|\\.)*/|\"[^\"]*\"|'[^']*'|[^|/\"'])+", query)
    return [" ".join(part.split()) for part in parts if part.strip()]


def _test(field: str, negated: str | None, pattern: str | None, *texts: str | None) -> Callable[[dict], bool]:
    text = next((each for each in texts if each is not None), "")
    search = re.compile(pattern if pattern is not None else re.escape(text)).search
    return lambda row: (search(row.get(field, "")) is None) == bool(negated)


def _refuse(message: str) -> None:
    from moto.logs.exceptions import LogsClientError

    raise LogsClientError("MalformedQueryException", message)
