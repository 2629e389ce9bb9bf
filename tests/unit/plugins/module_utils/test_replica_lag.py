# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bound on what is lost holds whatever the primary did before it died."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import replica_lag
from ansible_collections.sre.runbooks.plugins.module_utils.replica_lag import (
    PERIOD,
    metric_lag,
    possible_loss,
    replication_lag,
)

NOW = 1_800_000_000.0


def standby(**changes):
    return {"in_recovery": True, "lsn": 100, "replayed_at": NOW - 5, "streaming": True, "now": NOW, **changes}


PRIMARY = {"in_recovery": False, "lsn": 100}


def test_an_idle_primary_is_no_lag():
    idle = standby(replayed_at=NOW - 3600)
    assert replication_lag(idle, PRIMARY, [], NOW).seconds == 0.0


def test_bytes_to_replay_count_in_seconds_of_the_primary():
    assert replication_lag(standby(lsn=50), PRIMARY, [], NOW).seconds == 5.0


@pytest.mark.parametrize("replica", [standby(lsn=50, streaming=False), standby(lsn=50, replayed_at=None)])
def test_unknown_is_not_zero(replica):
    assert replication_lag(replica, PRIMARY, [(NOW, 0.0)], NOW).seconds is None


def test_metric_is_used_where_neither_can_be_asked():
    assert replication_lag(None, None, [(NOW - 60, 4.0)], NOW).seconds == 4.0


def test_metric_of_a_replica_that_is_known_not_to_receive_is_not_used():
    assert replication_lag(standby(streaming=False), None, [(NOW - 60, 0.0)], NOW).seconds is None


def test_stale_metric_says_nothing():
    assert metric_lag([(NOW - replica_lag.STALE_AFTER - 1, 0.0)], NOW).seconds is None


@given(
    died=st.floats(0, 7200),
    behind=st.floats(0, 600),
    idle=st.floats(0, 600),
    published=st.floats(0, PERIOD - 1),
)
def test_never_less_than_what_was_really_lost(died, behind, idle, published):
    """Seconds before now: the primary died `died` ago, its last commit was `idle` earlier, the replica had `behind` less.

    Its newest datapoint starts at most one period before its death.
    """
    last_commit = NOW - died - idle
    replayed = last_commit - behind
    really_lost = last_commit - replayed
    for seen in (None, NOW - died - published):
        bound = possible_loss(standby(replayed_at=replayed), [], seen, NOW).seconds
        assert bound >= really_lost - 1e-6


def test_bound_by_the_metric_where_the_replica_cannot_be_asked():
    assert possible_loss(None, [(NOW - 100, 7.0), (NOW - 40, -1.0)], NOW - 90, NOW).seconds == pytest.approx(
        NOW - 30 - (NOW - 107)
    )
    assert possible_loss(None, [(NOW - 40, -1.0)], None, NOW).seconds is None
