# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The draft in Markdown: all five parts of the runbook's report, and text of others that stays text."""

from __future__ import annotations

import re

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import review
from ansible_collections.sre.runbooks.plugins.module_utils.post_mortem import plain, post_mortem
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import TEN
from ansible_collections.sre.runbooks.tests.unit.story_of_an_incident import EVENTS, SAID, at, measured

EVIDENCE = [("triage-prod", [("investigation.html", "../incidents/a b/investigation.html")]), ("kept elsewhere", [])]


def drafted(*more):
    found = review.review([*EVENTS, *more], measured(), SAID, TEN + 7200)
    return post_mortem(found, "it.html", EVIDENCE)


def test_the_parts_of_the_runbooks_are_there_in_their_order():
    parts = re.findall(r"^## (.*)$", drafted(), re.MULTILINE)
    wanted = ["Timeline", "Root cause", "Impact", "Resolution", "Action items"]
    assert [each for each in parts if each in wanted] == wanted


def test_the_head_has_the_times_with_what_they_are_taken_from():
    text = drafted()
    assert "| **Detected** | 2025-11-21 10:04:30 UTC (after 6 min, as said by who opened it) |" in text
    assert "| **Error budget** | 99.9 % over 30 days allows 43 min; this incident used 41.7 % of it |" in text
    assert "- **10:05:00 UTC**: anna@bastion opened the incident: Checkout answers 503, P1" in text


def test_a_timeline_of_several_days_has_a_heading_for_each():
    text = drafted(at(86400, "noted", "x", by="ben", text="still well"))
    assert "### 2025-11-21\n" in text and "### 2025-11-22\n\n- **10:00:00 UTC**: ben: still well" in text


def test_a_link_may_have_spaces_and_what_has_no_link_is_named():
    text = drafted()
    assert "- triage-prod: [investigation.html](<../incidents/a b/investigation.html>)" in text
    assert "\n- kept elsewhere\n" in text


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a|b", r"a\|b"),
        ("<script>x</script>", "&lt;script>x&lt;/script>"),
        ("*now* and [this](http://x)", r"\*now\* and \[this\](http://x)"),
        ("regami_api of __init__", r"regami_api of \_\_init\_\_"),
        ("one\n\n# two", "one # two"),
        ("# two", r"\# two"),
        ("1. of it", r"1\. of it"),
        ("a &lt; b & c", "a &amp;lt; b & c"),
    ],
)
def test_text_of_others_is_text(text, markdown):
    assert plain(text) == markdown
