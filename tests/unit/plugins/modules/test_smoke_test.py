# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole verb with answers that are scripted for each URL."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import performance, smoke, waiting, web
from ansible_collections.sre.runbooks.plugins.module_utils import verb as engine
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.modules import smoke_test
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

HEALTH = {"name": "database", "url": "http://api.regami.test/health?check=db"}
WRITE = {"name": "write", "url": "http://api.regami.test/v1/rows", "method": "POST", "json": {"id": 1}}


class Logs:
    """A log without errors that remembers since when it was asked."""

    region = "us-west-2"
    silent, missed = frozenset(), ()

    def __init__(self, connection: object) -> None:
        pass

    def read(self, service: str, operation: str, startTime: int = 0, **arguments: object) -> dict:
        return {"events": [{"message": f"ERROR since {startTime}"}]}


class Script:
    """Answers of each URL in turn; the last one stays. Knows what was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, list] = {}
        self.sent: list[dict] = []

    def request(self, check: dict, servers: tuple) -> web.Seen:
        self.sent.append(check)
        answers = self.answers.get(check["name"], [200])
        return web.Seen(answers.pop(0) if len(answers) > 1 else answers[0], "", 0.01)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    there = Script()
    monkeypatch.setattr(smoke, "request", there.request)
    return there


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(waiting, "wait_until", partial(waiting.wait_until, clock=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(smoke_test.time, "time", lambda: clock[0])

    def go(check: bool = False, **arguments: object) -> dict:
        return run_main(smoke_test.main, check, **arguments)

    return go


def test_all_checks_pass_without_any_credentials(
    script: Script, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    result = run(checks=[HEALTH, WRITE])
    assert not result.get("failed")
    assert [(entry["name"], entry["ok"]) for entry in result["verification"]] == [("database", True), ("write", True)]
    empty = [result[key] for key in ("changed", "before", "after", "steps", "undo", "diff")]
    assert empty == [False, {}, {}, [], [], {}]


def test_only_what_fails_is_asked_again(script: Script, run: Callable) -> None:
    script.answers["database"] = [503, None, 200]
    result = run(checks=[HEALTH, WRITE])
    assert [check["name"] for check in script.sent].count("write") == 1
    assert result["verification"][0]["seen"] == "answered 200 at try 3"


def test_a_failure_names_the_checks_and_what_was_seen(script: Script, run: Callable) -> None:
    script.answers["write"] = [503]
    result = run(checks=[HEALTH, WRITE], retry_for=3)
    assert result["failed"]
    assert result["msg"] == "1 of 2 checks failed: write answered 503"
    assert [entry["ok"] for entry in result["verification"]] == [True, False]
    assert len(script.sent) > 3


def test_it_is_asked_once_where_nothing_is_retried(script: Script, run: Callable) -> None:
    script.answers["write"] = [503]
    assert run(checks=[WRITE], retry_for=0)["failed"]
    assert len(script.sent) == 1


def test_it_gives_up_at_once_where_no_attempt_is_left(script: Script, run: Callable) -> None:
    script.answers["write"] = [503]
    assert run(checks=[dict(WRITE, attempts=2)], retry_for=1000)["failed"]
    assert len(script.sent) == 2


def test_the_plan_has_no_steps_and_stops_at_what_failed_but_not_at_what_was_left_out() -> None:
    verdicts = [
        {"name": "database", "ok": True, "seen": "answered 200"},
        {"name": "write", "ok": None, "seen": "not asked"},
    ]
    assert smoke_test.SmokeTest.plan({"verification": verdicts}, {}).steps == ()
    verdicts.append({"name": "login", "ok": False, "seen": "answered 401"})
    with pytest.raises(Stop, match="1 of 3 checks failed: login answered 401") as stop:
        smoke_test.SmokeTest.plan({"verification": verdicts}, {})
    assert stop.value.found == {"verification": verdicts}


def test_check_mode_sends_nothing_that_may_change_something(script: Script, run: Callable) -> None:
    result = run(checks=[WRITE, HEALTH], check=True)
    assert [check["name"] for check in script.sent] == ["database"]
    assert [(entry["name"], entry["ok"]) for entry in result["verification"]] == [("database", True), ("write", None)]


LOAD = {"name": "load", "url": "http://api.regami.test/", "headers": {"Authorization": "Bearer Head-Secret-3"}}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What was put under load; half of it fails."""
    tests: list[dict] = []

    def measure(test: dict, dns_servers: list, tick: Callable) -> performance.Tally:
        tests.append(test)
        return performance.Tally([0.1], ["answered 503"])

    monkeypatch.setattr(performance, "measure", measure)
    return tests


def test_the_service_is_put_under_load_once_it_serves(script: Script, run: Callable, measured: list[dict]) -> None:
    result = run(checks=[HEALTH], performance=[dict(LOAD, max_error_percent=50)])
    assert [(entry["name"], entry["ok"]) for entry in result["verification"]] == [("database", True), ("load", True)]
    assert (result["verification"][1]["p99"], result["verification"][1]["errors"]) == (0.1, 1)
    assert (measured[0]["concurrency"], measured[0]["duration"], measured[0]["method"]) == (5, 30, "GET")
    assert "-Secret-" not in json.dumps(result, default=str)
    assert measured[0]["headers"] == {"Authorization": "Bearer Head-Secret-3"}


def test_a_missed_limit_is_one_line(script: Script, run: Callable, measured: list[dict]) -> None:
    result = run(checks=[HEALTH], performance=[LOAD])
    assert result["failed"]
    assert result["msg"] == (
        "1 of 2 checks failed: load 50% errors, 0% allowed (answered 503) "
        "(2 requests in 30 s, 1 errors, p50 100 ms p95 100 ms p99 100 ms)"
    )


def test_no_load_on_what_does_not_serve_nor_in_check_mode(script: Script, run: Callable, measured: list[dict]) -> None:
    assert run(performance=[LOAD], check=True)["verification"][0]["seen"].startswith("not run: check mode")
    script.answers["database"] = [503]
    failed = run(checks=[HEALTH], performance=[LOAD], retry_for=0)
    assert [entry["ok"] for entry in failed["verification"]] == [False, None]
    assert not measured


def test_a_load_of_nobody_is_refused(script: Script, run: Callable, measured: list[dict]) -> None:
    result = run(checks=[HEALTH], performance=[dict(LOAD, concurrency=0)])
    assert result["msg"] == "performance test load: concurrency and duration begin at 1"
    assert not script.sent


@pytest.mark.parametrize(("since", "start"), [("2026-01-01T00:00:00Z", 1767225600000), (None, 100000)])
def test_errors_in_the_logs_fail_it(
    script: Script, run: Callable, monkeypatch: pytest.MonkeyPatch, since: str | None, start: int
) -> None:
    monkeypatch.setattr(engine, "Aws", Logs)
    result = run(checks=[HEALTH], log_groups=[{"name": "/ecs/regami-api", "region": "us-west-2"}], since=since)
    assert result["failed"]
    assert result["verification"][1]["seen"] == f"1 ERROR lines, 0 allowed: ERROR since {start}"
    assert not run(checks=[HEALTH], log_groups=[{"name": "/g", "region": "us-west-2"}], max_errors=1).get("failed")


def test_errors_before_the_service_was_there_do_not_count(
    script: Script, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Aws", Logs)
    script.answers["database"] = [503, 503, 200]
    (_check, log) = run(checks=[HEALTH], log_groups=[{"name": "/g", "region": "us-west-2"}], max_errors=1)[
        "verification"
    ]
    assert log["ok"]
    (_check, log) = run(checks=[HEALTH], log_groups=[{"name": "/g", "region": "us-west-2"}])["verification"]
    assert int(log["seen"].rpartition(" ")[2]) >= 100000


def test_no_secret_comes_out(script: Script, run: Callable) -> None:
    check = dict(
        WRITE,
        url="http://user:Url-Secret-1@api.regami.test/?token=Url-Secret-2",
        headers={"Authorization": "Bearer Head-Secret-3"},
        json={"password": "Json-Secret-4"},
        secret_json={"pin": "Pin-Secret-5"},
        expect_json={"token": "Want-Secret-6"},
    )
    result = run(checks=[check], retry_for=0)
    assert result["failed"]
    assert "-Secret-" not in json.dumps(result, default=str)
    assert script.sent[0]["json"] == {"password": "Json-Secret-4"}


@pytest.mark.parametrize("url", ["ftp://api.regami.test/", "api.regami.test/health", "http:///health"])
def test_a_url_that_is_none_is_refused_before_anything_is_sent(script: Script, run: Callable, url: str) -> None:
    result = run(checks=[HEALTH, dict(WRITE, url=url)])
    assert result["msg"] == f"check write: {url} is no URL with http or https"
    assert not script.sent
