# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter patterns select what AWS documents that they select, page by page."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from sandbox import logs
from sandbox.ecs.output import Output
from sandbox.logs import FilterPattern


@pytest.mark.parametrize(
    ("pattern", "message", "selected"),
    [
        ("?ERROR ?Exception", "an ERROR here", True),
        ("?ERROR ?Exception", "INFO all is well", False),
        ('"500" "POST"', "POST /v1/rows 500", True),
        ('"500" "POST"', "GET /v1/rows 500", False),
        ("ERROR -retry", "ERROR for good", True),
        ("ERROR -retry", "ERROR then retry", False),
        ("ERROR ?Exception", "ERROR alone", True),
        ('"two words"', "words two", False),
        ("", "anything", True),
        (None, "anything", True),
    ],
)
def test_pattern(pattern, message, selected):
    assert FilterPattern(pattern).matches(message) is selected


def _group(**streams: list[tuple[int, str]]) -> SimpleNamespace:
    """A log group as moto keeps it, of {stream: [(timestamp, message)]}."""

    def event(at: int, message: str) -> SimpleNamespace:
        return SimpleNamespace(
            timestamp=at, message=message, event_id=at, to_filter_dict=lambda: {"timestamp": at, "message": message}
        )

    made = {
        name: SimpleNamespace(log_stream_name=name, events=[event(*each) for each in events])
        for name, events in streams.items()
    }
    return SimpleNamespace(streams=made)


def _pages(group: SimpleNamespace, pattern: str, start: int, end: int, limit: int | None = None) -> list[list[int]]:
    pages, token = [], None
    while True:
        found, token, _streams = logs.filter_log_events(group, "g", [], start, end, limit, token, pattern, False)
        pages.append([each["timestamp"] for each in found])
        if not token:
            return pages


def test_a_page_may_be_empty_while_others_follow(monkeypatch):
    """As the reference of FilterLogEvents says: whoever stops at the first empty page misses what comes after."""
    monkeypatch.setattr(logs, "MOST_LOOKED_AT", 3)
    group = _group(
        one=[(at, "INFO") for at in range(1, 9, 2)], two=[(2, "INFO"), (4, "INFO"), (6, "ERROR"), (8, "ERROR")]
    )
    assert _pages(group, "ERROR", 0, 99) == [[], [6], [8]]


def test_pages_are_in_the_order_of_time_whatever_the_stream_and_end_where_they_are_told_to():
    group = _group(late=[(5, "ERROR"), (3, "ERROR")], early=[(1, "ERROR"), (4, "ERROR"), (9, "ERROR")])
    assert _pages(group, "ERROR", 1, 5, limit=2) == [[1, 3], [4, 5]]
    assert _pages(group, "nothing", 1, 5) == [[]]


def test_a_line_of_a_task_has_the_time_when_it_came_however_late_it_is_fetched():
    read, write = os.pipe()
    output = Output(os.fdopen(read, "rb"))
    with os.fdopen(write, "wb", buffering=0) as process:
        process.write(b"first\n")
        time.sleep(0.5)
        process.write(b"second\nthird")
    first, second, third = output.take(ended=True)
    assert [each["message"] for each in (first, second, third)] == ["first", "second", "third"]
    assert second["timestamp"] - first["timestamp"] >= 250
    assert output.take(ended=True) == []
