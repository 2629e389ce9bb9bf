# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a login whose answers get lost, or that are killed: one of two logins always gets in, and none is made twice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from breaking import Break, applied, breaking, not_applied, under_way
from cluster import HOST, PASSWORD, Cluster, Held

from ansible_collections.sre.runbooks.plugins.module_utils import postgres, rds
from ansible_collections.sre.runbooks.plugins.modules import pg_login_rotate, pg_role_limit
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from sandbox.patience import wait_until

OLD, NEW, NEW_PASSWORD = "shop", "shop_2", "planted-new-Zq7"
CHANGES = ("CREATE ROLE", "ALTER ROLE", "pg_terminate_backend")
LOST = [not_applied, applied]


class Rotation:
    """Of the login of a shop, by somebody who may do that and no more."""

    def __init__(self, cluster: Cluster, password: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster, self.port, self._password = cluster, cluster.port, password
        password.write_text(NEW_PASSWORD)
        password.chmod(0o600)
        where = {"id": "db", "host": HOST, "status": "available", "arn": "arn:aws:rds:us-east-1:123456789012:db:db"}
        monkeypatch.setattr(rds, "describe", lambda *_asked: {**where, "port": self.port})

    def __call__(self, state: str) -> dict:
        given = {"new_role": NEW, "password_file": str(self._password), "state": state}
        return run_main(pg_login_rotate.main, **self._where(), **given)

    def limit(self, connections: int) -> dict:
        return run_main(pg_role_limit.main, **self._where(), connection_limit=connections)

    @staticmethod
    def _where() -> dict:
        login = {"login_user": "keeper", "login_password": PASSWORD, "login_db": "postgres", "sslmode": "disable"}
        return {"db_instance": "db", "region": "us-east-1", "role": OLD, **login}

    def through(self, breaks: dict[bytes, list[Break]], state: str) -> dict:
        """On a line that breaks."""
        with breaking(self.cluster, breaks) as self.port:
            try:
                return self(state)
            finally:
                self.port = self.cluster.port

    def killed(self, state: str) -> bool:
        """By kill -9 when its first change is done; False where it came to its end and had none to do."""
        pid = os.fork()
        if not pid:
            rows = postgres.Line.rows

            def dies(line: postgres.Line, statement: str, **values: object) -> list[dict]:
                found = rows(line, statement, **values)
                if any(words in statement for words in CHANGES):
                    os.kill(os.getpid(), signal.SIGKILL)
                return found

            postgres.Line.rows = dies
            self(state)
            os._exit(0)
        _pid, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)

    def gets_in(self, user: str, password: str) -> bool:
        try:
            connection = psycopg2.connect(
                host=HOST, port=self.cluster.port, user=user, password=password, dbname="postgres"
            )
        except psycopg2.OperationalError:
            return False
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user")
            acts_as = cursor.fetchone()[0]
        connection.close()
        return acts_as == OLD

    @property
    def doors(self) -> tuple[bool, bool]:
        """Whether the old login and the new one get in."""
        return self.gets_in(OLD, PASSWORD), self.gets_in(NEW, NEW_PASSWORD)


@pytest.fixture
def rotate(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotation]:
    with cluster.superuser() as query:
        query(f"CREATE ROLE keeper LOGIN CREATEROLE PASSWORD '{PASSWORD}' IN ROLE pg_signal_backend")
        query(f"CREATE ROLE {OLD} LOGIN PASSWORD '{PASSWORD}'; GRANT {OLD} TO keeper WITH ADMIN OPTION")
        yield Rotation(cluster, tmp_path / "password", monkeypatch)
        query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('shop', 'shop_2')")
        query(f"DROP ROLE IF EXISTS {NEW}; DROP ROLE {OLD}; DROP ROLE keeper")


@pytest.fixture
def intruder(cluster: Cluster, rotate: Rotation) -> Iterator[Held]:
    held = Held(cluster, OLD, "SELECT 1")
    yield held
    held.close()


def test_each_answer_is_lost_first_before_and_then_after_the_change(rotate: Rotation, intruder: Held) -> None:
    made = rotate.through({b"CREATE ROLE": LOST}, "created")
    assert not made["failed"], made["msg"]
    assert [step["do"] for step in made["steps"]] == ["make"] and rotate.doors == (True, True)
    assert not rotate("created")["changed"]
    closed = rotate.through({b"NOLOGIN": LOST, b"pg_terminate_backend": LOST}, "retired")
    assert not closed["failed"], closed["msg"]
    assert (closed["after"]["role"], closed["after"]["sessions"]) == (False, 0)
    assert rotate.doors == (False, True) and intruder.id not in rotate.cluster.alive()
    assert not rotate("retired")["changed"]
    assert NEW_PASSWORD not in str([made, closed])


def test_a_login_that_is_made_late_is_not_made_twice(rotate: Rotation, cluster: Cluster) -> None:
    """The server is still at it when the look after the lost answer sees nothing."""
    with cluster.superuser() as query:
        query("BEGIN; LOCK TABLE pg_authid IN SHARE MODE")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pg_authid'::regclass"

        def let_go() -> None:
            wait_until(lambda: query(waiting) == [(2,)], "the second one waits, too")
            query("COMMIT")

        later = threading.Thread(target=let_go)
        later.start()
        made = rotate.through({b"CREATE ROLE": [under_way]}, "created")
        later.join()
    assert not made["failed"], made["msg"]
    assert [step["do"] for step in made["steps"]] == ["make"]
    assert rotate.doors == (True, True) and not rotate("created")["changed"]


def test_killed_after_each_change_and_typed_again(rotate: Rotation, intruder: Held) -> None:
    doors = []
    for state in ("created", "retired"):
        while rotate.killed(state):
            doors.append(rotate.doors)
        assert not rotate(state)["changed"]
    # Made; closed; ended.
    assert doors == [(True, True), (False, True), (False, True)]
    assert intruder.id not in rotate.cluster.alive()


def test_who_comes_in_just_before_the_door_is_closed_is_ended(
    rotate: Rotation, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate("created")
    held: list[Held] = []
    close = pg_login_rotate.PgLoginRotate.close

    def late(verb: pg_login_rotate.PgLoginRotate) -> None:
        held.append(Held(cluster, OLD, "SELECT 1"))
        close(verb)

    monkeypatch.setattr(pg_login_rotate.PgLoginRotate, "close", late)
    closed = rotate("retired")
    assert not closed["failed"] and closed["after"]["sessions"] == 0, closed
    assert held[0].id not in cluster.alive()
    held[0].close()


def test_the_old_door_stays_open_until_the_new_one_is_tried(rotate: Rotation, cluster: Cluster) -> None:
    rotate("created")
    with cluster.superuser() as query:
        query(f"ALTER ROLE {NEW} PASSWORD 'somebody changed it'")
    refused = rotate("retired")
    assert refused["failed"] and rotate.doors == (True, False)
    assert f"{NEW} does not get in with that password" in refused["msg"] and "state=created" in refused["msg"]
    rotate("created")
    assert not rotate("retired")["failed"] and rotate.doors == (False, True)


def test_a_limit_is_set_whatever_answer_is_lost(rotate: Rotation, cluster: Cluster) -> None:
    with breaking(cluster, {b"CONNECTION LIMIT": LOST}) as rotate.port:
        limited = rotate.limit(7)
    assert not limited["failed"] and limited["after"]["connection_limit"] == 7, limited
    rotate.port = cluster.port
    assert not rotate.limit(7)["changed"]
    assert rotate.limit(limited["undo"][0]["arguments"]["connection_limit"])["after"]["connection_limit"] == -1
