# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pace of a run that looks at many services: a bucket at once, then the quota's rate, and what was not used comes back."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import pace


def waits(times, size=2, refill=10):
    """How long each of the calls at `times` (seconds) has to wait."""
    bucket, found = None, []
    for now in times:
        bucket, wait = pace.taken(bucket, size, refill, now)
        found.append(round(wait, 3))
    return found


def test_a_full_bucket_is_there_at_once_and_then_one_waits_for_the_other():
    assert waits([0, 0, 0, 0, 0]) == [0, 0, 0.1, 0.2, 0.3]


def test_who_asks_slower_than_the_quota_never_waits():
    assert waits([each / 10 for each in range(20)]) == [0] * 20


def test_a_pause_fills_the_bucket_and_no_more():
    assert waits([0, 0, 0, 60, 60, 60]) == [0, 0, 0.1, 0, 0, 0.1]


@pytest.mark.parametrize("service", ["rds", "ecs"])
def test_nobody_waits_where_there_is_no_quota_or_no_run_that_keeps_pace(monkeypatch, service):
    monkeypatch.setattr(pace, "_shared", None)
    monkeypatch.setattr(pace.time, "sleep", lambda _seconds: pytest.fail("waited"))
    if service == "rds":
        pace.begin()
    for _turn in range(100):
        pace.keep(service, "us-east-1")
