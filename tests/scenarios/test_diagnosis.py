# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One incident of each known cause: users feel it, and cause_assess names it. How often it does is `make bench-diagnosis`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.diagnosis.incidents import diagnose, felt_between, play, users
from sandbox.client import Sandbox
from sandbox.incidents.causes import CAUSES

# What users suffer, in seconds, once it shows: less than in the benchmark.
SECONDS = 2.0
DAYS = (1, 2, 3)
# They are served in some 40 ms where nothing is wrong.
SLOW_MS = 120
NOBODY: dict[str, list[dict]] = {"acks": [], "reads": [], "errors": []}
# Of these it takes longer until there is anything to see.
LONGER = {"network_rule": 7.0, "slow_query": 5.0, "pool_exhausted": 4.0, "traffic_spike": 5.0, "bad_host": 9.0}


@pytest.fixture(scope="module")
def service(sandbox: Sandbox) -> Iterator[Sandbox]:
    """With all that it depends on, and users."""
    sandbox.reset()
    sandbox.control("incidents", action="ready")
    yield sandbox
    sandbox.reset()


def test_where_nothing_is_wrong_no_cause_is_named(service: Sandbox) -> None:
    """Something is wrong while users wait, if only that this machine is busy: then it is looked at again."""
    for _ in DAYS:
        answer, felt = diagnose(service), felt_between(NOBODY, users(service))
        if answer["cause"] == "unknown" or not (felt["failed"] or felt["p95_ms"] > SLOW_MS):
            break
        service.reset()
        service.control("incidents", action="ready")
    assert answer["cause"] == "unknown", answer["notes"]


@pytest.mark.parametrize(
    "cause", [pytest.param(cause, marks=pytest.mark.soak if cause in LONGER else ()) for cause in CAUSES]
)
def test_the_cause_is_named_and_users_feel_it(service: Sandbox, cause: str) -> None:
    """On a day that shows too little it may say that it cannot tell, and another day comes; it may never name another cause."""
    for day in DAYS:
        outcome = play(service, cause, seed=day, seconds=LONGER.get(cause, SECONDS))
        if not outcome.cannot_tell:
            break
    assert outcome.named == cause, outcome.answer["notes"]
    assert outcome.felt["failed"] or outcome.felt["p95_ms"] > SLOW_MS, outcome.felt
