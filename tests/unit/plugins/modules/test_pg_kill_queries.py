# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_kill_queries: its plan. What the server does with it is shown on real servers, in tests/scenarios."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.sessions import Seen, Session, Sessions, diagnosis
from ansible_collections.sre.runbooks.plugins.modules import pg_kill_queries

NOW = datetime.datetime(2024, 1, 12, 14, 30, tzinfo=datetime.UTC)
WANTED = {
    "signal": "cancel_then_terminate",
    "max_per_round": 50,
    "login_user": "regami_admin",
}


def session(pid, **given):
    return Session(
        **{
            "pid": pid,
            "started": NOW - datetime.timedelta(hours=1),
            "kind": "client backend",
            "user": "regami",
            "database": "regami",
            "application": "regami-api",
            "client": "10.0.3.7",
            "state": "active",
            "wait": None,
            "blocked_by": (),
            "query_seconds": 10.0,
            "transaction_seconds": 10.0,
            "idle_seconds": None,
            "query": "SELECT 'planted'",
            "protection": None,
            "matches": True,
            **given,
        }
    )


def seen(*sessions, prepared=()):
    return Seen(NOW, 100, 3, 2, sessions, prepared)


def plan(*sessions, prepared=(), since=NOW, **wanted):
    observed = {"seen": seen(*sessions, prepared=prepared), "since": since}
    return pg_kill_queries.PgKillQueries.plan(observed, {**WANTED, **wanted})


def steps(*args, **kwargs):
    return [(step.do, [pid for pid, _start in step.arguments.get("ids", ())]) for step in plan(*args, **kwargs).steps]


IDLE = {"state": "idle in transaction", "query_seconds": None, "idle_seconds": 9.0}


def test_what_runs_is_cancelled_first_and_all_that_is_still_meant_is_ended():
    assert steps(session(1), session(2, **IDLE)) == [("cancel", [1]), ("terminate", [1, 2])]


def test_what_runs_nothing_is_not_cancelled():
    assert steps(session(2, **IDLE)) == [("terminate", [2])]


def test_at_once():
    assert steps(session(1), signal="terminate") == [("terminate", [1])]


def test_only_cancelled():
    planned = plan(session(1), session(2, **IDLE), signal="cancel")
    assert [step.do for step in planned.steps] == ["cancel"]
    assert planned.after == {"meant": 1, "connections": 2}
    assert planned.notes == ("1 of the sessions run nothing that could be cancelled: signal=terminate ends them",)


def test_in_rounds_the_head_of_a_chain_first_then_the_oldest():
    crowd = [
        session(1, transaction_seconds=5),
        session(2, transaction_seconds=99),
        session(3, transaction_seconds=1),
        session(4, matches=False, blocked_by=(3,)),
    ]
    assert steps(*crowd, signal="terminate", max_per_round=2) == [
        ("terminate", [3, 2]),
        ("pause", []),
        ("terminate", [1]),
    ]


def test_who_came_after_the_first_look_is_left_alone():
    assert steps(session(1, started=NOW + datetime.timedelta(seconds=1))) == []


def test_who_is_protected_is_left_alone_and_told():
    planned = plan(session(1, protection="superuser"), session(2, protection="own", matches=False))
    assert planned.steps == ()
    assert planned.notes == ("left alone although the filters mean it: 1 (superuser)",)


def test_it_is_told_who_holds_what_others_wait_for_where_that_cannot_be_ended():
    worker = session(812, kind="autovacuum worker", user=None, protection="autovacuum worker", matches=False)
    waiting = session(1, blocked_by=(812,), matches=False), session(2, blocked_by=(0,), matches=False)
    prepared = {"gid": "payment-7", "owner": "regami", "database": "regami", "seconds": 5.0}
    assert plan(worker, *waiting, prepared=(prepared,)).notes == (
        "behind autovacuum worker 812, which is left alone: 1 session",
        "behind a prepared transaction, which is left alone: 1 session",
        "1 prepared transactions hold their locks until COMMIT PREPARED or ROLLBACK PREPARED",
    )


def test_who_may_end_nobody_is_told_what_to_grant():
    with pytest.raises(Refusal, match=r"regami_admin may not end the 1 sessions .* GRANT pg_signal_backend"):
        plan(session(1, protection="not permitted"))


def test_a_round_of_nobody():
    with pytest.raises(Refusal, match="max_per_round is 0"):
        plan(max_per_round=0)


def test_a_filter_that_is_no_address():
    with pytest.raises(Refusal, match=r"'10\.0\.0' is neither an address nor a network"):
        Sessions(None, {"client_addresses": ["10.0.0"]})


def test_the_diagnosis_counts_clients_against_the_limit_and_shows_no_value():
    found = diagnosis(
        seen(
            session(1),
            session(2),
            session(3, **IDLE, blocked_by=(1,)),
            session(4, kind="walsender", user="rdsrepladmin", database=None, protection="walsender"),
            session(5, kind=None, state=None, user="other", application="?", protection="hidden", started=None),
            prepared=({"gid": "payment-7", "owner": "regami", "database": "regami", "seconds": 5.4},),
        )
    )
    assert found["connections"] == {
        "max_connections": 100,
        "reserved_for_superusers": 3,
        "reserved_for_entitled": 2,
        "used": 4,
        "free": 91,
        "groups": [
            {"user": "regami", "application": "regami-api", "state": "active", "count": 2},
            {"user": "regami", "application": "regami-api", "state": "idle in transaction", "count": 1},
            {"user": "other", "application": "?", "state": None, "count": 1},
        ],
    }
    (chain,) = found["blocking_chains"]
    assert (chain["head"]["query"], chain["waits"]) == ("SELECT ?", [{"pid": 3, "waits_for": 1}])
    assert found["prepared_transactions"][0]["seconds"] == 5
    assert "planted" not in str(found)
