# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server of the tests' own, with the settings that they want, and sessions on it."""

from __future__ import annotations

import datetime
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions

from sandbox.patience import wait_until
from sandbox.postgres import Installation
from sandbox.world import World

HOST = "127.0.0.1"
PASSWORD = "planted-Zq7"
SUPERUSER = "provider"
Identity = tuple[int, datetime.datetime]  # pid and start of a session

_ROLES = f"""
CREATE ROLE admin LOGIN PASSWORD '{PASSWORD}';
GRANT pg_monitor, pg_signal_backend TO admin;
CREATE ROLE app LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE other LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE migrator LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE rdsadmin LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{PASSWORD}';
CREATE ROLE watcher LOGIN PASSWORD '{PASSWORD}';
GRANT pg_monitor TO watcher;
CREATE TABLE rows (id bigint PRIMARY KEY, payload text);
GRANT ALL ON rows TO app;
CREATE DATABASE vault;
"""
_SETTINGS = """
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
fsync = off
wal_level = replica
max_prepared_transactions = 5
autovacuum_naptime = 1s
autovacuum_vacuum_threshold = 1
autovacuum_vacuum_cost_delay = 100ms
autovacuum_vacuum_cost_limit = 1
{more}
"""


class Cluster:
    """`programs`: the folder of PostgreSQL's programs, by default those of the sandbox, which know no TLS."""

    def __init__(self, home: Path, programs: Path | None = None, more: str = "") -> None:
        home.chmod(0o755)
        self.installation = Installation(home)
        self.bin = self.installation.bin = programs or self.installation.bin
        self.port = World.free_port(HOST)
        self.data = self.installation.folder("data")
        self._more = more

    def start(self, files: dict[str, str] | None = None, access: str = "host") -> None:
        """`files`: more of them for its data directory. `access`: who gets in, as pg_hba.conf begins its lines."""
        given = self.data.parent / "password"
        self.installation.write(given, PASSWORD)
        data = str(self.data)
        self.installation.run(
            "initdb", "-D", data, "-U", SUPERUSER, "-A", "scram-sha-256", "-N", "--pwfile", str(given)
        )
        for name, text in (files or {}).items():
            self.installation.write(self.data / name, text)
        access = f"{access} all,replication all 127.0.0.1/32 scram-sha-256\n"
        self.installation.write(self.data / "pg_hba.conf", access)
        settings = _SETTINGS.format(host=HOST, port=self.port, more=self._more)
        self.installation.write(self.data / "postgresql.conf", settings)
        user = self.installation.user
        identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        with open(self.data.parent / "log", "wb") as log:
            self.process = subprocess.Popen(
                [str(self.bin / "postgres"), "-D", data], cwd=self.data.parent, stdout=log, stderr=log, **identity
            )
        wait_until(self._is_ready, f"PostgreSQL starts, see {self.data.parent}/log")
        with self.superuser() as query:
            for statement in _ROLES.strip().split(";\n"):
                query(statement)

    def _is_ready(self) -> bool:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        except (OSError, IndexError):
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def connect(self, user: str, database: str = "postgres", application: str = "", **options: Any) -> Any:
        where = {"host": HOST, "port": self.port, "user": user, "password": PASSWORD, "dbname": database}
        return psycopg2.connect(**where, application_name=application, **options)

    @contextmanager
    def superuser(self) -> Iterator[Callable[..., list[tuple]]]:
        connection = self.connect(SUPERUSER, application="test")
        connection.autocommit = True

        def query(sql: str, *values: Any) -> list[tuple]:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []

        try:
            yield query
        finally:
            connection.close()

    def alive(self) -> set[Identity]:
        with self.superuser() as query:
            return set(query("SELECT pid, backend_start FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))

    @property
    def environment(self) -> dict[str, str]:
        """For programs that speak libpq, as the application."""
        return {
            "PGHOST": HOST,
            "PGPORT": str(self.port),
            "PGUSER": "app",
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": "postgres",
        }


class Held:
    """A session that does `statements`; the last one of them is not waited for where `unanswered`."""

    def __init__(
        self, cluster: Cluster, user: str, *statements: str, database="postgres", application="worker", unanswered=False
    ) -> None:
        self.user, self.database, self.application, self.last = user, database, application, statements[-1]
        self.connection = cluster.connect(user, database, application, async_=True)
        self._finish()
        self.id: Identity = self.ask("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")[0]
        for number, statement in enumerate(statements, 1):
            self.cursor = self.connection.cursor()
            try:
                self.cursor.execute(statement)
                if not (unanswered and number == len(statements)):
                    self._finish()
            except psycopg2.Error:
                if not statement.startswith("SELECT 1 /"):
                    raise

    def _finish(self) -> None:
        wait_until(lambda: self.connection.poll() == psycopg2.extensions.POLL_OK, "an answer")

    def ask(self, statement: str) -> list[tuple]:
        cursor = self.connection.cursor()
        cursor.execute(statement)
        self._finish()
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self.connection.close()
