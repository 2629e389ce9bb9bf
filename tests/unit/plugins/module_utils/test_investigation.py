# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of an investigation: what it tells, and what it must never do with what it is told."""

from __future__ import annotations

import re

from ansible_collections.sre.runbooks.plugins.module_utils.charts import chart, ticks, unbroken
from ansible_collections.sre.runbooks.plugins.module_utils.investigation import investigation, numbered
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import FOUND, METRIC, TEN, story


def test_the_verdict_comes_before_what_it_is_from():
    html = investigation(FOUND, TEN).partition("<main>")[2]
    places = [
        html.index(text)
        for text in ("P1", ">Why<", "bad deployment", "Run next", ">Metrics<", ">Errors in the logs<", ">Not seen<")
    ]
    assert places == sorted(places)
    assert "ansible-playbook playbooks/rollback_deployment.yml -e env=prod" in html


def test_nothing_is_fetched_and_nothing_runs():
    html = investigation(FOUND, TEN)
    assert not re.search(r"<script|<link|<img|<iframe|@import|\bsrc=|\bon\w+=", html)
    # What is left are names of XML, which are no addresses that anybody asks.
    assert "http" not in re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", html)


def test_lines_of_logs_are_text_whatever_they_contain():
    nasty = "<script>alert('x')</script> & \"quoted\""
    patterns = [dict(FOUND["patterns"][0], pattern=nasty, example=nasty)]
    html = investigation(story(patterns=patterns, evidence=[nasty], title=nasty), TEN)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(") == 5


def test_what_was_not_read_leaves_no_heading():
    empty = {key: type(value)() for key, value in FOUND.items()}
    html = investigation(dict(empty, title="Nothing"), TEN)
    assert "<h2>" not in html and "<svg" not in html


def test_deployments_and_alarms_are_numbered_as_time_goes_and_found_again_in_the_list():
    marks = numbered(FOUND["changes"], FOUND["alarms"])
    assert [(kind, number) for (_at, kind, _what), number in marks.items()] == [("deployment", 1), ("alarm", 2)]
    html = investigation(FOUND, TEN)
    assert re.search(r'<strong class="mark">1</strong></td><td>deployment of regami-api:7', html)
    drawn = re.search(r"<svg.*?</svg>", html, re.DOTALL).group()
    assert re.findall(r"<text[^>]*>\s*([12])</text>", drawn)[-2:] == ["1", "2"]


def test_only_the_newest_are_numbered():
    changes = [{"at": TEN + n, "kind": "deployment", "what": f"deployment {n}", "who": ""} for n in range(20)]
    marks = numbered(changes, [])
    assert list(marks.values()) == list(range(1, 10))
    assert min(marks)[2] == "deployment 11"


def test_a_chart_of_one_point_and_one_of_zeros_have_axes():
    for series in ([[TEN, 4.0]], [[TEN, 0.0], [TEN + 60, 0.0]]):
        drawn = chart(dict(METRIC, series=series, since=None, usual=[None, None]), [], TEN, TEN + 60)
        assert drawn.startswith("<svg") and drawn.rstrip().endswith("</svg>")


def test_the_line_stops_where_nothing_is_known():
    series = [[0, 1], [60, 1], [600, 2], [660, 2]]
    assert unbroken(series, 150) == [series[:2], series[2:]]


def test_ticks_are_round_times_and_few():
    places, labels = ticks(TEN - 17, TEN + 30 * 60)
    assert labels == ["10:00", "10:10", "10:20", "10:30"]
    assert places[0] == TEN
    for minutes in (5, 30, 60, 180, 720, 1440):
        assert len(ticks(TEN, TEN + 60 * minutes)[0]) <= 6
