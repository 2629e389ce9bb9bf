# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""recovery_validation.yml: what is measured is what users would feel, and nothing of the target is changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from runbook import Result
from world import World


@pytest.fixture(scope="module")
def validate(first_day: tuple[World, dict]) -> Callable[..., Result]:
    world, _before = first_day

    def run(*flags: str, **limits: object) -> Result:
        url = world.sandbox.state["public_url"]
        load = {"name": "response times", "url": f"{url}/health?check=db", "duration": 1} | limits
        return world.runbook.run(
            "recovery_validation", *flags, performance_tests=[load], verify_retry_seconds=0, log_groups=[]
        )

    return run


def test_a_service_that_serves_is_green_and_the_report_has_the_figures(untouched: World, validate: Callable) -> None:
    result = validate(max_p99=5)
    assert (result.returncode, result.mutations, result.lease_calls) == (0, [], [])
    assert [check["ok"] for check in result.report["verification"]] == [True] * 9
    load = result.report["verification"][-1]
    assert load["requests"] > 20
    assert load["errors"] == 0
    assert 0 < load["p50"] <= load["p95"] <= load["p99"] < 5
    assert f"passed: response times: {load['requests']} requests in 1 s" in result.output


def test_a_missed_limit_is_red_and_one_line(untouched: World, validate: Callable) -> None:
    result = validate(max_p50=0.000001)
    assert result.returncode != 0
    assert result.report["outcome"] == "failed"
    assert "1 of 9 checks failed: response times p50 " in result.output
    assert "0 ms allowed" in result.output


def test_check_mode_asks_only_what_changes_nothing(untouched: World, validate: Callable) -> None:
    result = validate("--check")
    assert result.returncode == 0
    assert result.report["outcome"] == "planned"
    verdicts = {check["name"]: check["ok"] for check in result.report["verification"]}
    assert {name for name, ok in verdicts.items() if ok} == {
        "health with the database",
        "health score",
        "comprehensive health",
        "error rate",
    }
    assert {ok for ok in verdicts.values() if not ok} == {None}
    assert "not asked: write" in result.output
