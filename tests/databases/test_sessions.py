# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crowds, chains, lost answers and logins that may not do all: on a real server."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import HOST, PASSWORD, Cluster, Held
from task import kill

from ansible_collections.sre.runbooks.plugins.module_utils import postgres, sessions
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import LOGIN_ARGUMENTS, Login
from ansible_collections.sre.runbooks.plugins.modules import pg_kill_queries
from sandbox.patience import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def crowd(cluster: Cluster, kind: str, count: int | None) -> Iterator[int]:
    """The sandbox's crowd; how many sessions it holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.crowd", json.dumps({"kind": kind, "count": count})],
        cwd=REPOSITORY,
        env={**os.environ, **cluster.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield int(process.stdout.readline().split()[1])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def open_sessions(cluster: Cluster) -> Iterator[list[Held]]:
    held: list[Held] = []
    yield held
    for each in held:
        each.close()


def states(cluster: Cluster, application: str) -> dict:
    with cluster.superuser() as query:
        rows = query("SELECT pid, state FROM pg_stat_activity WHERE application_name = %s", application)
    return dict(rows)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that the verb sends."""
    sent: list[str] = []
    rows = postgres.Line.rows

    def counting(line: postgres.Line, statement: str, **values: object) -> list[dict]:
        sent.append(statement)
        return rows(line, statement, **values)

    monkeypatch.setattr(postgres.Line, "rows", counting)
    return sent


def test_a_chain_of_200_is_solved_by_ending_its_head_only(cluster: Cluster, counted: list[str]) -> None:
    with crowd(cluster, "blocking_chain", 201), cluster.superuser() as query:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: query(waiting) == [(200,)], "200 wait")
        before = states(cluster, "regami-billing")
        (head,) = [pid for pid, state in before.items() if state == "idle in transaction"]

        planned = kill(cluster, check=True, only_blocking=True)
        assert [each["pid"] for each in planned["sessions"]] == [head]
        assert query(waiting) == [(200,)]

        result = kill(cluster, only_blocking=True)
        assert [(each["pid"], each["outcome"]) for each in result["sessions"]] == [(head, "terminated")]
        (chain,) = result["blocking_chains"]
        assert (chain["head"]["pid"], chain["waiting"], chain["depth"]) == (head, 200, 200)
        assert "4111" not in str(result)
        wait_until(lambda: set(states(cluster, "regami-billing").values()) == {"idle"}, "each gets its row")
        assert set(states(cluster, "regami-billing")) == before.keys() - {head}


def test_a_crowd_takes_as_many_statements_as_one(cluster: Cluster, counted: list[str]) -> None:
    def statements(count: int) -> int:
        counted.clear()
        with crowd(cluster, "idle_in_transaction", count):
            result = kill(cluster, applications=["regami-reports"], max_per_round=1000)
        assert [each["outcome"] for each in result["sessions"]] == ["terminated"] * count
        assert "regami-reports" not in str(result["left"])
        # How often it looks whether they are gone depends on how long that takes.
        return sum(statement != sessions._ALIVE for statement in counted)

    assert statements(1) == statements(150)


def test_relief_where_no_slot_is_left_but_reserved_ones(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "SLOT_PATIENCE", 0.3)
    with crowd(cluster, "idle_in_transaction", None) as count:
        refused = kill(cluster, users=["app"], check=True, login_user="other")
        assert refused["failed"]
        assert "has no connection slot left for other" in refused["msg"]
        with cluster.superuser() as query:
            query("GRANT pg_use_reserved_connections TO admin")
            result = kill(cluster, users=["app"], min_idle_in_transaction_seconds=0, max_per_round=100)
            query("REVOKE pg_use_reserved_connections FROM admin")
    assert not result["failed"], result["msg"]
    assert count == len(result["sessions"]) > 250
    assert result["before"]["free"] == 0
    assert "regami-reports" not in str(result["left"])
    assert [step["do"] for step in result["steps"]] == ["terminate", "pause", "terminate", "pause", "terminate"]


def test_cancelled_first_and_ended_after_the_grace(cluster: Cluster, open_sessions: list[Held]) -> None:
    open_sessions += [
        Held(cluster, "app", "SELECT pg_sleep(600)", unanswered=True, application="query"),
        Held(cluster, "app", "BEGIN", "SELECT pg_sleep(600)", unanswered=True, application="transaction"),
    ]
    options = {"applications": ["query", "transaction"], "min_transaction_seconds": 0, "grace_seconds": 0.5}
    result = kill(cluster, signal="cancel_then_terminate", **options)
    assert {each["application"]: each["outcome"] for each in result["sessions"]} == {
        "query": "cancelled",
        "transaction": "terminated",
    }
    assert states(cluster, "query") == {open_sessions[0].id[0]: "idle"}
    assert states(cluster, "transaction") == {}


def test_a_session_that_goes_on_to_something_else_is_left_alone(cluster: Cluster, open_sessions: list[Held]) -> None:
    """Between the look and the signal: who is no longer meant, and another session of the same pid."""
    held = Held(cluster, "app", "BEGIN", "SELECT 1", application="moves on")
    open_sessions.append(held)
    pid, start = held.id
    wanted = {"applications": ["moves on"], "states": ["idle in transaction"]}
    there = sessions.Sessions(line(cluster), wanted)
    assert there.still_meant([held.id]) == [held.id]
    assert there.terminate([(pid, start - datetime.timedelta(microseconds=1))]) == []
    held.ask("ROLLBACK")
    assert there.terminate([held.id]) == []
    assert states(cluster, "moves on") == {pid: "idle"}


def line(cluster: Cluster, **given: object) -> postgres.Line:
    unset = {name: option.get("default") for name, option in LOGIN_ARGUMENTS.items()}
    params = {**unset, "login_user": "admin", "login_password": PASSWORD, "login_db": "postgres", "sslmode": "disable"}
    return postgres.Line(postgres.Database(HOST, cluster.port, Login({**params, **given}, None)))


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
def test_an_answer_is_lost(
    cluster: Cluster, open_sessions: list[Held], monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    open_sessions += [Held(cluster, "app", "SELECT 1", application="lost") for _each in range(3)]
    lost = []

    class Losing(postgres.Line):
        def rows(self, statement: str, **values: object) -> list[dict]:
            if "pg_terminate_backend" not in statement or lost:
                return super().rows(statement, **values)
            lost.append(statement)
            if applied:
                super().rows(statement, **values)
                wait_until(lambda: not states(cluster, "lost"), "they end")
            self._connection.close()
            self._connection = None
            raise Unreachable("the connection broke")

    monkeypatch.setattr(pg_kill_queries, "Line", Losing)
    result = kill(cluster, applications=["lost"])
    assert not result["failed"], result["msg"]
    assert [each["outcome"] for each in result["sessions"]] == ["terminated"] * 3
    assert [step["do"] for step in result["steps"]] == ["terminate"]
    assert states(cluster, "lost") == {}


def test_a_frozen_server_is_not_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "ANSWER_TIMEOUT", 0.3)
    with line(cluster).database.session() as connection, connection.cursor() as cursor:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(Unreachable, match="no answer in time"), line(cluster).database.told():
                cursor.execute("SELECT 1")
        finally:
            os.kill(backend, signal.SIGCONT)


def test_a_prepared_transaction_is_named_and_left(cluster: Cluster, open_sessions: list[Held]) -> None:
    held = Held(cluster, "app", "BEGIN", "SELECT pg_advisory_xact_lock(9)", "PREPARE TRANSACTION 'payment-4711'")
    open_sessions.append(held)
    try:
        open_sessions.append(Held(cluster, "app", "SELECT pg_advisory_xact_lock(9)", unanswered=True))
        with cluster.superuser() as query:
            wait_until(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"), "one waits")
        result = kill(cluster, only_blocking=True)
        assert (result["changed"], result["blocking_chains"][0]["what"]) == (False, "a prepared transaction")
        assert result["prepared_transactions"][0]["owner"] == "app"
        assert "behind a prepared transaction, which is left alone: 1 session" in result["notes"]
    finally:
        held.ask("ROLLBACK PREPARED 'payment-4711'")


def test_a_login_sees_and_ends_what_it_may(cluster: Cluster, open_sessions: list[Held]) -> None:
    open_sessions += [Held(cluster, user, "SELECT 1", application="job") for user in ("app", "other")]
    own = kill(cluster, applications=["job"], login_user="app")
    assert [each["user"] for each in own["sessions"]] == ["app"]
    assert any("are hidden from this one: grant it pg_monitor" in note for note in own["notes"])
    refused = kill(cluster, applications=["job"], login_user="watcher")
    assert "watcher may not end the 1 sessions that are meant: GRANT pg_signal_backend" in refused["msg"]
    assert list(states(cluster, "job").values()) == ["idle"]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({}, "no filter given, which would mean every session"),
        ({"only_idle": False, "only_blocking": False}, "no filter given, which would mean every session"),
        ({"query_pattern": "(unclosed"}, "invalid regular expression"),
        ({"users": ["app"], "sslmode": "require"}, "server does not support SSL"),
        ({"users": ["app"], "login_password": "planted-wrong"}, "lives but lets admin not in"),
        (
            {"users": ["app"], "login_password": None},
            "no password supplied: check sslmode, ssl_root_cert and login_password",
        ),
        (
            {"users": ["app"], "login_password": None, "login_password_file": "/none"},
            "login_password_file /none cannot be",
        ),
        ({"users": ["app"], "login_port": 1}, "does not answer"),
    ],
    ids=str,
)
def test_a_mistake_is_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict, part: str
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    result = kill(cluster, **given)
    assert result["failed"]
    assert part in result["msg"]
    assert "planted" not in result["msg"]


def test_an_empty_list_means_nobody(cluster: Cluster, open_sessions: list[Held]) -> None:
    open_sessions.append(Held(cluster, "app", "SELECT 1"))
    assert not kill(cluster, users=[])["changed"]


def test_the_password_may_come_from_a_file(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    result = kill(cluster, users=[], login_password=None, login_password_file=str(path))
    assert not result["failed"]
    assert PASSWORD not in str(result)
