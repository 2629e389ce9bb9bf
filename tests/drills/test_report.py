# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill leaves for people: lines, a page, and the history of all."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from story_of_a_drill import BROKE, DAY, RESULT

from drills import history, report


class Closed(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.links = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.links += [value for name, value in attributes if name == "href"]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_course_is_told_in_the_order_of_time_and_the_lessons_by_what_went_wrong() -> None:
    told = report.story(RESULT)
    assert [text.partition(":")[0] for _at, text in told.course] == [
        "primary-killed", "page", "service_outage.yml", "db_failover.yml", "all is well from here on", "end",
    ]  # fmt: skip
    assert [line.split()[0] for line in told.lessons] == ["It", "The", "Wrong", "2", "Changed"]
    assert "64 points, recovered in 148 s" in report.markdown(told)


def test_a_drill_that_went_well_teaches_nothing() -> None:
    well = RESULT | {
        "recovery_seconds": 40.0,
        "turns": [],
        "by_hand": [],
        "users": RESULT["users"] | {"lost_writes": 0},
    }
    well["times"] = RESULT["times"] | {"acted": BROKE + 10}
    assert report.story(well).lessons == ()


def test_what_was_given_up_is_told_without_times_that_never_came() -> None:
    times = dict.fromkeys(RESULT["times"]) | {"broke": BROKE, "ended": BROKE + 5}
    users = dict.fromkeys(RESULT["users"])
    ended = RESULT | {"times": times, "users": users, "recovery_seconds": None, "outcome": "given up", "turns": []}
    text = report.markdown(report.story(ended | {"requests": [[0, 0, 0]]}))
    assert "given up" in text and "None" not in text
    Closed(report.html(report.story(ended), ended | {"requests": [[0, 0, 0]]}))


def test_the_page_says_it_with_a_bar_for_each_second(tmp_path: Path) -> None:
    report.write(tmp_path, RESULT | {"why": "password=hunter2"})
    page = (tmp_path / report.HTML).read_text()
    Closed(page)
    assert page.count("<rect") == len(RESULT["requests"])
    assert "changed &lt;it&gt;" in page
    assert [oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == ["0o600"] * 3
    assert not [path for path in tmp_path.iterdir() if "hunter2" in path.read_text()]


def held(days: int, **values: object) -> dict:
    return RESULT | {"times": {"broke": BROKE + days * DAY}, "folder": f"drill{days}", **values}


def test_what_nobody_has_practised_for_a_month_is_overdue() -> None:
    results = [held(0), held(40, kind="outage"), held(40, kind="security", by="auto")]
    assert history.overdue(results, BROKE + 41 * DAY) == [
        "performance: never practised by a person",
        "database: last practised 41 days ago",
        "security: never practised by a person",
    ]


def test_the_history_draws_each_scenario_and_links_each_drill(tmp_path: Path) -> None:
    for result in (held(0), held(1, recovery_seconds=None), held(2, scenario="intruder")):
        folder = tmp_path / result["folder"]
        folder.mkdir()
        (folder / report.RESULT).write_text(json.dumps(result))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / report.RESULT).write_text("{")
    page = history.write(tmp_path, BROKE + 3 * DAY).read_text()
    assert Closed(page).links == [f"drill{number}/report.html" for number in (2, 1, 0)]
    assert page.count("<svg") == 2 and page.count("<circle") == 2


def test_nothing_held_yet_is_a_page_too(tmp_path: Path) -> None:
    Closed(history.write(tmp_path, BROKE).read_text())
