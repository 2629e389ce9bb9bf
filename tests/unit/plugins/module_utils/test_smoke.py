# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers judged, checks repeated, log lines counted."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import smoke
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.web import Seen


def check(url: str, **more: object) -> dict:
    return {
        "name": "check",
        "url": url,
        "method": "GET",
        "headers": None,
        "json": None,
        "secret_json": None,
        "body": None,
        "expect_status": [200],
        "expect_json": None,
        "expect_above": None,
        "expect_below": None,
        "within": 0.4,
        "attempts": None,
        **more,
    }


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (Seen(200, '{"database": "connected", "writable": true, "more": [1]}'), None),
        (Seen(None, "no answer (Connection refused)"), "no answer (Connection refused)"),
        (Seen(503, '{"token": "hush"} down'), 'answered 503: {"token": ********} down'),
        (Seen(503, ""), "answered 503"),
        (Seen(200, "<html>"), "answered 200 without JSON: <html>"),
        (Seen(200, '{"database": "connected"}'), "answered 200, but writable is missing"),
        (
            Seen(200, '{"database": "connected", "writable": false}'),
            "answered 200, but writable is false instead of true",
        ),
        (
            Seen(200, '{"database": "connected", "writable": 1}'),
            "answered 200, but writable is 1 instead of true",
        ),
        (Seen(200, "[]"), "answered 200, but the answer is [] instead of"),
    ],
)
def test_an_answer_is_judged_by_status_and_content(seen: Seen, problem: str | None) -> None:
    found = smoke.fault(check("http://x/", expect_json={"database": "connected", "writable": True}), seen)
    assert found == problem if problem is None else found.startswith(problem)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ('{"score": 80.5, "metrics": {"error_rate": 4.9}}', None),
        ('{"score": 80, "metrics": {"error_rate": 1}}', "score is 80, more than 80 wanted"),
        ('{"score": 81, "metrics": {"error_rate": 5}}', "metrics.error_rate is 5, less than 5 wanted"),
        ('{"score": "95", "metrics": {"error_rate": 1}}', 'score is "95", no number'),
        ('{"score": true, "metrics": {"error_rate": 1}}', "score is true, no number"),
        ('{"score": 81, "metrics": 7}', "metrics.error_rate is missing"),
        ('{"metrics": {"error_rate": 1}}', "score is missing"),
        ("[]", "score is missing"),
    ],
)
def test_a_number_must_keep_its_limits(answer: str, problem: str | None) -> None:
    asked = check("http://x/", expect_above={"score": 80}, expect_below={"metrics": {"error_rate": 5}})
    assert smoke.fault(asked, Seen(200, answer)) == (problem and f"answered 200, but {problem}")


def test_a_secret_that_differs_is_not_shown() -> None:
    found = smoke.fault(
        check("http://x/", expect_json={"a": {"token": "right"}}), Seen(200, '{"a": {"token": "hush"}}')
    )
    assert found == 'answered 200, but a.token is "********" instead of "********"'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON, st.dictionaries(st.text(), JSON))
def test_a_dict_with_more_than_expected_passes(value: object, more: dict) -> None:
    assert smoke._missing({"value": value}, {**more, "value": value}) is None


def trial(monkeypatch: pytest.MonkeyPatch, *statuses: int, **more: object) -> smoke.Trial:
    left = list(statuses)
    monkeypatch.setattr(smoke, "request", lambda check, servers: Seen(left.pop(0), "", 0.01))
    return smoke.Trial(check("http://x/", **more))


def test_passes_are_counted_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    there = trial(monkeypatch, 200, 503, 200, 200)
    over = []
    for _look in range(4):
        there.look()
        over.append(there.is_over(passes=2))
    assert over == [False, False, False, True]
    assert there.verdict(2) == {
        "name": "check",
        "ok": True,
        "status": 200,
        "seconds": 0.01,
        "seen": "answered 200 at try 4",
    }


def test_a_check_is_tried_no_more_often_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = trial(monkeypatch, 503, attempts=1)
    there.look()
    assert there.is_over(passes=1)
    assert there.verdict(1)["ok"] is False


def test_too_few_passes_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    there = trial(monkeypatch, 200)
    there.look()
    assert there.verdict(3) == {
        "name": "check",
        "ok": False,
        "status": 200,
        "seconds": 0.01,
        "seen": "passed 1 times in a row, 3 needed",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767225600", 1767225600.0),
        ("1767225600.5", 1767225600.5),
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00+01:00", 1767225600.0),
        ("2026-01-01 00:00:00", 1767225600.0),
    ],
)
def test_a_time_is_a_number_or_iso_8601(text: str, seconds: float) -> None:
    assert smoke.parse_time(text) == seconds


def test_anything_else_is_no_time() -> None:
    with pytest.raises(Stop, match="since: yesterday is no time"):
        smoke.parse_time("yesterday")


class Logs:
    """Pages of events."""

    def __init__(self, *pages: object) -> None:
        self.pages, self.calls = list(pages), []

    def read(self, service: str, operation: str, region: str, **arguments: object) -> dict:
        assert (service, operation, region) == ("logs", "filter_log_events", "us-west-2")
        self.calls.append(arguments)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


GROUP = {"name": "/ecs/regami-api", "region": "us-west-2"}
BAD = {"events": [{"message": "ERROR one"}, {"message": "ERROR two"}], "nextToken": "more"}


def count(logs: Logs, allowed: int) -> tuple[int, list[str]]:
    return smoke.count_errors(logs, GROUP, 1767225600.5, allowed)


def test_error_lines_are_counted_over_empty_pages() -> None:
    logs = Logs({"events": [], "nextToken": "more"}, {"events": [{"message": "ERROR one"}]})
    assert count(logs, 5) == (1, ["ERROR one"])
    first, second = logs.calls
    assert first == {
        "logGroupName": "/ecs/regami-api",
        "startTime": 1767225600500,
        "filterPattern": "?ERROR ?Exception",
    }
    assert second == dict(first, nextToken="more")


def test_counting_ends_where_it_is_clear_that_there_are_too_many() -> None:
    logs = Logs(BAD)
    assert count(logs, 1)[0] == 2
    assert not logs.pages


def test_a_log_group_that_is_not_there_is_named() -> None:
    error = ClientError({"Error": {"Code": "ResourceNotFoundException"}, "ResponseMetadata": {}}, "FilterLogEvents")
    with pytest.raises(Stop, match="there is no log group /ecs/regami-api in us-west-2"):
        count(Logs(error), 0)


def test_a_log_that_may_not_be_read_is_told_in_words() -> None:
    error = ClientError({"Error": {"Code": "AccessDeniedException"}, "ResponseMetadata": {}}, "FilterLogEvents")
    error.sre_call = ("logs", "filter_log_events", "us-west-2")
    with pytest.raises(Stop, match="missing permission logs:FilterLogEvents in us-west-2"):
        count(Logs(error), 0)


def test_a_log_is_judged_by_what_is_allowed() -> None:
    assert smoke.judge_log(GROUP, 1, ["x"], 1) == (True, "1 ERROR lines, 1 allowed")
    hidden = smoke.judge_log(GROUP, 2, ["ERROR password=hush"], 1)
    assert hidden == (False, "2 ERROR lines, 1 allowed: ERROR password=********")
