# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What db_connections_assess decides (its plan): the cheapest relief that can help, and what a person reads."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import connection_pressure as pressure
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import NoSlot
from ansible_collections.sre.runbooks.plugins.module_utils.sessions import Seen, Session

NOW = datetime.datetime(2024, 1, 12, 14, 30, tzinfo=datetime.UTC)
LIMITS = pressure.Limits(free_percent=20, idle_in_transaction=60, query=300, blocked=30, database="app")
INSTANCE = {
    "id": "db",
    "status": "available",
    "port": 5432,
    "instance_class": "db.t3.medium",
    "parameter_group": "mine",
    "parameters_applied": "in-sync",
    "pending": {},
    "security_groups": ["sg-1"],
}


def session(pid, state="idle", seconds=600.0, blocked_by=(), protection=None, database="app"):
    active, idle = state == "active", state.startswith("idle")
    return Session(
        pid=pid,
        started=NOW,
        kind="client backend",
        user="app",
        database=database,
        application="api",
        client="10.0.0.1",
        state=state,
        wait=None,
        blocked_by=tuple(blocked_by),
        query_seconds=seconds if active else None,
        transaction_seconds=None if state == "idle" else seconds,
        idle_seconds=seconds if idle else None,
        query="SELECT 1",
        protection=protection,
        matches=False,
    )


def crowd(count, state="idle", seconds=600.0, first=100, **more):
    return [session(first + number, state, seconds, **more) for number in range(count)]


def server(*crowds):
    return Seen(NOW, 100, 3, 2, tuple(each for crowd in crowds for each in crowd), ())


def observed(seen, **more):
    return pressure.Observed(**{"instance": INSTANCE, "seen": seen, "ingress": ("tcp 5432 from sg-2 (sg-1)",), **more})


def decide(seen, limits=LIMITS, **more):
    return pressure.decide(observed(seen, **more), limits)


def test_enough_connections_and_nobody_waits():
    assert decide(server(crowd(50))).act == "none"


@pytest.mark.parametrize(
    ("sessions", "act", "because"),
    [
        (crowd(90, "idle in transaction"), "kill", "90 are idle in a transaction since 60 s and more"),
        (crowd(90, "active", 600), "kill", "90 run a statement for 300 s and more"),
        (crowd(90, "idle"), "restart", "90 of them are idle"),
        (crowd(90, "idle in transaction", 5), "restart", "90 of them are idle"),
        (crowd(90, "active", 1), "raise", "more work than connections"),
        (crowd(90, "idle in transaction", protection="protected"), "raise", "only 0 are idle"),
    ],
)
def test_the_cheapest_relief_that_can_help(sessions, act, because):
    found = decide(server(sessions))
    assert (found.act, found.short) == (act, True)
    assert because in found.because


def test_a_chain_is_solved_at_its_head_although_connections_are_not_short():
    head, waiting = session(1, "idle in transaction"), crowd(5, "active", 40, blocked_by=[1])
    found = decide(server([head], waiting))
    assert (found.act, found.short) == ("kill", False)
    assert found.kill == ({"only_blocking": True, "min_transaction_seconds": 30},)
    assert decide(server([head], crowd(5, "active", 10, blocked_by=[1]))).act == "none"
    protected = session(1, "idle in transaction", protection="protected")
    assert decide(server([protected], waiting)).act == "none", "nobody may end what heads it"


def test_sessions_of_other_databases_are_somebody_elses():
    assert decide(server(crowd(90, "active", 600, database="other"))).act == "raise"


def test_what_is_not_a_matter_of_connections():
    full = server(crowd(95))
    assert decide(full, instance={**INSTANCE, "status": "storage-full"}).act == "failover"
    assert decide(full, instance={**INSTANCE, "status": "rebooting"}).act == "wait"
    assert decide(Unreachable("no answer")).act == "failover"
    closed = decide(Unreachable("no answer"), ingress=())
    assert closed.act == "security_groups" and "sg-1" in closed.because
    assert decide(full, ingress=None).act == "restart", "groups that cannot be read close nothing"


def test_where_postgresql_could_not_be_asked_the_metric_tells():
    assert decide(NoSlot("none left")).act == "restart"
    points = [(0.0, 20.0), (60.0, 97.0)]
    assert decide(Stop("password refused"), connections=points, value="100").act == "restart"
    assert decide(None, connections=points[:1], value="100").act == "none"
    assert decide(None, connections=points).act == "unknown"


def test_twice_as_many_as_far_as_there_is_memory():
    def more(limit, memory):
        return pressure.more_connections(observed(None, value=str(limit), class_memory=memory))

    assert more(100, 4 << 30) == 200
    assert more(400, 4 << 30) == 450
    assert more(450, 4 << 30) is None
    assert more(100, None) is None


def test_what_a_person_reads():
    seen = server(crowd(90, "idle in transaction"), crowd(2, "active", 40, first=1, blocked_by=[100]))
    told = "\n".join(
        pressure.findings(
            observed(
                seen,
                connections=[(0.0, 4.0), (60.0, 92.0)],
                memory=[(60.0, 2.5 * (1 << 30))],
                events=[(NOW, "DB instance restarted")],
            )
        )
    )
    for line in (
        "db is available, a db.t3.medium, max_connections 100 by mine (in-sync)",
        "DatabaseConnections: 92 now, 92 at most and 4 at least in an hour",
        "FreeableMemory: 2.5 GiB",
        "92 of 100 connections are taken (5 are reserved), 3 are free",
        "  90 idle in transaction: app, api",
        "2 wait for client backend 100 app",
        "security groups let in on port 5432: tcp 5432 from sg-2 (sg-1)",
        "event 14:30:00 UTC: DB instance restarted",
    ):
        assert line in told
