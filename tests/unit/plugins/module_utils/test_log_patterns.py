# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which messages are alike, and which patterns are new since a deployment."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import log_patterns
from ansible_collections.sre.runbooks.plugins.module_utils.log_patterns import Event, grouped, pattern_of


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("2026-01-31T03:15:00.123Z ERROR took 31.5 ms", "ERROR took <n> ms"),
        ("[2026-01-31 03:15:00,123] ERROR x", "ERROR x"),
        ("ERROR user 3fa85f64-5717-4562-b3fc-2c963f66afa6 gone", "ERROR user <id> gone"),
        ("ERROR task 9f86d081884c7d65 at 0x7f3a", "ERROR task <id> at <id>"),
        ("ERROR cannot reach 10.0.3.7:5432", "ERROR cannot reach <address>"),
        ("ERROR no such user a.b@example.com", "ERROR no such user ********"),
        ("ERROR KeyError: 'tenant'\n  File x, line 3", "ERROR KeyError: 'tenant'"),
        ('{"level": "error", "message": "order 12 failed", "trace": "abc"}', "ERROR order <n> failed"),
        ('{"broken', '{"broken'),
        # A word of letters only is a word, however much it looks like hexadecimal.
        ("ERROR deadbeef defaced facade", "ERROR deadbeef defaced facade"),
    ],
)
def test_pattern(message, pattern):
    assert pattern_of(message) == pattern


def test_no_secret_is_in_a_pattern_nor_in_its_example():
    (found,) = grouped([Event(1, "g", "s", "ERROR login failed password=hunter2 token: abcdef99")])
    assert "hunter2" not in str(found) and "abcdef99" not in str(found)


def lines(*messages, first=1000, stream="s"):
    return [Event(1000 * (first + number), "/ecs/app", stream, message) for number, message in enumerate(messages)]


def test_like_messages_are_counted_together_with_their_first_and_last():
    found = grouped(lines("ERROR a 1", "ERROR b", "ERROR a 22") + lines("ERROR a 3", first=1500, stream="other"))
    assert [(each["pattern"], each["count"], each["first"], each["last"], each["streams"]) for each in found] == [
        ("ERROR a <n>", 3, 1000.0, 1500.0, 2),
        ("ERROR b", 1, 1001.0, 1001.0, 1),
    ]
    assert found[0]["example"] == "ERROR a 3"
    assert found[0]["new"] is None


def test_what_came_only_after_the_deployment_is_new_and_comes_first():
    found = grouped(lines("ERROR old", "ERROR old", "ERROR old", "ERROR new"), deployed_at=1003)
    assert [(each["pattern"], each["new"]) for each in found] == [("ERROR new", True), ("ERROR old", False)]


def test_it_is_not_called_new_where_not_all_of_earlier_was_read():
    found = grouped(lines("ERROR old", "ERROR new"), deployed_at=1001, known_before=False)
    assert {each["pattern"]: each["new"] for each in found} == {"ERROR old": False, "ERROR new": None}


STEADY = [float(at) for at in range(15, 1800, 30)]


@pytest.mark.parametrize(
    ("times", "began"),
    [
        (STEADY, None),
        ([*STEADY, *range(1700, 1800)], 1700),
        ([1790, 1791, 1792], 1790),
        ([1790, 1791], None),
        ([*range(900, 1500, 20), *range(1500, 1800)], 900),
        # What was there from the beginning of the window on may have been there before.
        ([0.5 + at / 100 for at in range(100)], None),
        ([], None),
    ],
    ids=[
        "steady",
        "more than before",
        "out of nothing",
        "too few to tell",
        "in two steps",
        "nothing known of before",
        "none",
    ],
)
def test_when_events_came_much_more_often(times, began):
    assert log_patterns.surge(times, 0, 1800) == began


def test_a_surge_has_the_streams_that_are_in_it():
    ill = [Event(1000 * at, "/ecs/app", "ill", "ERROR a") for at in range(1700, 1760)]
    well = [Event(1000 * at, "/ecs/app", f"s{at % 3}", "ERROR a") for at in range(100, 1700, 400)]
    (found,) = grouped(well + ill, window=(0, 1800))
    assert (found["surge"], found["streams"], found["busiest"]) == (1700, 1, {"stream": "ill", "count": 60})
    (found,) = grouped(well + ill)
    assert (found["surge"], found["streams"]) == (None, 4)


def test_a_hundred_thousand_lines_take_seconds_and_few_patterns():
    many = [
        Event(number, "g", f"s{number % 50}", f"ERROR order {number} of 10.0.0.{number % 99}")
        for number in range(100_000)
    ]
    (found,) = grouped(many)
    assert (found["count"], found["streams"]) == (100_000, 50)
    assert found["pattern"] == "ERROR order <n> of <address>"
    assert len(found["pattern"]) <= log_patterns.LENGTH
