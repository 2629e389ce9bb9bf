# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of a review: what it tells, what it draws, and what it must never do with what it is told."""

from __future__ import annotations

import re

from ansible_collections.sre.runbooks.plugins.module_utils import review
from ansible_collections.sre.runbooks.plugins.module_utils.review_page import axis, numbered, review_page
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import TEN
from ansible_collections.sre.runbooks.tests.unit.story_of_an_incident import (
    EPISODES,
    EVENTS,
    SAID,
    at,
    measured,
    started,
)


def found(events=EVENTS, **other):
    return review.review(events, measured(**other), SAID, TEN + 7200)


def drawn(*more, **other):
    return review_page(found([*EVENTS, *more], **other), "it.md", [("a record", [("report.json", "../x")])])


def test_nothing_is_fetched_and_nothing_runs():
    html = drawn()
    assert not re.search(r"<script|<link|<img|<iframe|@import|\bsrc=|\bon\w+=", html)
    assert "http" not in re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", html)


def test_what_people_wrote_is_text_whatever_it_contains():
    nasty = "<script>alert('x')</script> \"quoted\""
    html = drawn(at(500, "noted", "x", by=nasty, text=nasty), started(510, "y", nasty))
    assert "<script" not in html and 'aria-label="&lt;script' in html


def test_the_errors_of_users_are_shaded_in_each_row_and_in_each_chart():
    html = drawn()
    rows = html.count('<svg class="track"')
    assert rows > 8 and html.count('class="bad shade"') == rows
    plain = drawn(episodes=[], counted_by="")
    assert "bad shade" not in plain and "Users saw errors" not in plain


def test_what_is_numbered_in_the_charts_has_its_number_in_the_list():
    story = found()["story"]
    numbers = numbered(story, 60)
    assert list(numbers.values()) == list(range(1, len(numbers) + 1)) and len(numbers) <= 9
    html = drawn()
    assert re.search(r'<strong class="mark">4</strong></td><td><span class="good">set the desired count', html)


def test_the_axis_has_room_for_minutes_and_leaves_out_a_closing_long_after():
    begin, end = axis(found())
    assert begin < TEN - 120 and end > TEN + 1800
    late = [event for event in EVENTS if event["event"] != "closed"] + [at(86400, "closed", "x", cause="it")]
    begin, end = axis(review.review(late, measured(), SAID, TEN + 2 * 86400))
    assert end < TEN + 1200
    short = [at(0, "opened", "x", title="it"), at(10, "closed", "x", cause="it")]
    begin, end = axis(review.review(short, measured(episodes=[]), SAID, TEN + 20))
    assert end - begin >= 240


def test_an_incident_of_which_nothing_is_known_has_a_page():
    bare = [at(0, "opened", "x", title="It is slow")]
    html = review_page(
        review.review(bare, measured(episodes=[], counted_by="", metrics=[]), SAID, TEN + 60), "it.md", []
    )
    assert "It is slow" in html and "open</span>" in html and ">Metrics<" not in html


def test_errors_that_go_on_after_the_end_are_asked_about():
    longer = [dict(EPISODES[0], until=TEN + 3000)]
    assert "Why was it closed while users still saw errors?" in drawn(episodes=longer)
