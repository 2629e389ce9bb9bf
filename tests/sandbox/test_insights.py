# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs Insights finds what a query says, tells how much that is, and gives no more than its limit."""

from __future__ import annotations

import types

import pytest
from moto.logs.exceptions import LogsClientError

from sandbox import insights

LINES = ["INFO all is well", "ERROR one", "WARN Exception two", "ERROR three"]


def run(query, lines=LINES, begin=0, end=100):
    events = [types.SimpleNamespace(timestamp=1000 * at, message=line, event_id=at) for at, line in enumerate(lines)]
    stream = types.SimpleNamespace(log_stream_name="app/1", events=events)
    group = types.SimpleNamespace(name="/ecs/app", streams={"app/1": stream})
    return insights.run(query, [group], begin, end)


def messages(query, **more):
    return [row["@message"] for row in run(query, **more)[0]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            "fields @message | filter @message like /ERROR|Exception/",
            ["ERROR three", "WARN Exception two", "ERROR one"],
        ),
        ("fields @message | filter @message like /ERROR/ | sort @timestamp asc", ["ERROR one", "ERROR three"]),
        ("fields @message | filter @message like 'two'", ["WARN Exception two"]),
        ("fields @message | filter @message not like /ERROR/ | limit 1", ["WARN Exception two"]),
    ],
)
def test_query(query, expected):
    assert messages(query) == expected


def test_both_ends_of_the_range_count():
    assert messages("fields @message", begin=1, end=2) == ["WARN Exception two", "ERROR one"]


def test_it_tells_how_many_match_and_gives_a_thousand_unless_asked_for_more():
    rows, statistics = run("filter @message like /E/", ["E"] * 1500, end=2000)
    assert (len(rows), statistics["recordsMatched"], statistics["recordsScanned"]) == (1000, 1500, 1500)
    assert len(run("limit 1200", ["E"] * 1500, end=2000)[0]) == 1200
    assert run("stats count(*) as n", ["E"] * 1500, end=2000)[0] == [{"n": "1500"}]


def test_times_are_written_as_insights_does():
    assert run("fields @timestamp | limit 1")[0][0]["@timestamp"] == "1970-01-01 00:00:03.000"


@pytest.mark.parametrize("query", ["limit 10001", "pattern @message", "filter @message = 'x'"])
def test_what_it_does_not_know_is_refused(query):
    with pytest.raises(LogsClientError):
        run(query)
