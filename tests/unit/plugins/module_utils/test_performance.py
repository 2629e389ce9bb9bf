# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several users at once against a real HTTP server, and what is made of what they met."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import performance
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LeaseLost
from ansible_collections.sre.runbooks.plugins.module_utils.performance import Tally, figures, verdict


class Handler(BaseHTTPRequestHandler):
    """Takes 20 ms; every fourth request for /bad fails."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        time.sleep(0.02)
        with self.server.counting:
            self.server.requests += 1
            is_bad = self.path == "/bad" and self.server.requests % 4 == 0
        self.send_response(500 if is_bad else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = self.connections = 0
        self.counting = threading.Lock()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()


def performance_test(port: int, path: str = "/", **more: object) -> dict:
    nothing = dict.fromkeys(("headers", "json", "secret_json", "body", "expect_json", "expect_above", "expect_below"))
    limits = {"max_error_percent": 0.0, "max_p50": None, "max_p95": None, "max_p99": None}
    asked = {"name": "load", "url": f"http://127.0.0.1:{port}{path}", "method": "GET", "expect_status": [200]}
    return nothing | limits | asked | {"concurrency": 3, "duration": 0.5, "within": 1.0} | more


def test_users_ask_side_by_side_on_connections_that_they_keep(server: Server) -> None:
    tally = performance.measure(performance_test(server.server_port))
    assert not tally.problems
    assert len(tally.answered) == server.requests
    assert server.connections == 3
    # One user alone cannot get more than 25 answers of 20 ms in half a second.
    assert len(tally.answered) > 30
    assert figures(tally)["p50"] >= 0.02


def test_answers_that_are_wrong_are_errors(server: Server) -> None:
    found = verdict(
        performance_test(server.server_port, "/bad"), performance.measure(performance_test(server.server_port, "/bad"))
    )
    assert found["errors"] == server.requests // 4
    assert not found["ok"]
    assert "% errors, 0% allowed (answered 500)" in found["seen"]


def test_connections_that_fail_are_errors_and_are_not_counted_by_the_thousand() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        tally = performance.measure(performance_test(unused.getsockname()[1]))
    assert not tally.answered
    assert 3 <= len(tally.problems) <= 18
    assert figures(tally) == {
        "requests": len(tally.problems),
        "errors": len(tally.problems),
        "error_percent": 100.0,
        "p50": None,
        "p95": None,
        "p99": None,
    }


def test_a_lost_lease_ends_it(server: Server) -> None:
    def tick() -> None:
        raise LeaseLost("gone")

    started = time.monotonic()
    with pytest.raises(LeaseLost):
        performance.measure(performance_test(server.server_port, duration=20), tick=tick)
    assert time.monotonic() - started < 5


TALLY = Tally([0.01] * 94 + [0.2] * 4 + [0.9], ["answered 502"])


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        ({"max_error_percent": 1.0, "max_p50": 0.01, "max_p95": 0.2, "max_p99": 0.9}, ""),
        ({"max_error_percent": 0.5}, "1% errors, 0.5% allowed (answered 502)"),
        ({"max_error_percent": 1.0, "max_p95": 0.1}, "p95 200 ms, 100 ms allowed"),
        (
            {"max_error_percent": 0.0, "max_p99": 0.5},
            "1% errors, 0% allowed (answered 502); p99 900 ms, 500 ms allowed",
        ),
    ],
)
def test_a_verdict_names_each_limit_that_was_missed(limits: dict, missed: str) -> None:
    summary = "100 requests in 30 s, 1 errors, p50 10 ms p95 200 ms p99 900 ms"
    found = verdict(performance_test(80, duration=30, **limits), TALLY)
    assert (found["ok"], found["seen"]) == (not missed, f"{missed} ({summary})" if missed else summary)
    assert (found["requests"], found["errors"], found["p95"]) == (100, 1, 0.2)


def test_a_latency_that_nobody_knows_keeps_no_limit() -> None:
    found = verdict(performance_test(80, max_error_percent=100.0, max_p50=1.0), Tally([], ["no answer"]))
    assert not found["ok"]
    assert found["seen"].startswith("p50 unknown, 1000 ms allowed")


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([50, 95, 99]))
def test_a_percentile_is_one_that_was_measured_and_is_exceeded_by_few(seconds: list[float], percent: int) -> None:
    found = performance.percentile(seconds, percent)
    assert found in seconds
    assert sum(each <= found for each in seconds) >= percent / 100 * len(seconds)
    assert sum(each < found for each in seconds) < percent / 100 * len(seconds)
