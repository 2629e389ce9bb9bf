# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application that an ECS task of the sandbox runs: a small HTTP API over one PostgreSQL database.

    GET  /health              the process answers (the load balancer's check: a dead database does not fail it)
    GET  /health?check=db     ... and its database too: {"database": "connected", "writable": true}
    POST /v1/auth/login       {"email", "password"} -> {"token"}
    POST /v1/rows             {"id", "payload"} -> 201 {"id", "database"} once the row is committed; safe to repeat
    GET  /v1/rows/ID          the row
    GET  /v1/audit/search     the last rows written, with who wrote them and when; 400 where the schema has no such columns

Settings come from the task definition: DATABASE_URL and the secret DATABASE_PASSWORD, unless the URL holds it; the sandbox
adds where to listen, APP_HOST and APP_PORT, and what the image would hold: APP_VERSION, which every answer of /health
and /v1 carries as X-App-Version, and APP_BUILD (builds.py), which says how this build misbehaves. Connections stay open
between requests, as a real pool's do: they outlive a change of security groups. What else it may use: backing.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import psycopg2.extensions

from . import backing, misbehaviour

CONNECT_SECONDS = 3.0
STATEMENT_SECONDS = 4.0
# A request that takes longer is worth a line.
LONG_SECONDS = 1.0
DRAIN_SECONDS = 2.0


def _wait(connection: psycopg2.extensions.connection) -> None:
    """Wait for the server's answer, but not for ever: a frozen server's kernel keeps the connection alive."""
    deadline = time.monotonic() + STATEMENT_SECONDS
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        reads = [connection] if state == psycopg2.extensions.POLL_READ else []
        writes = [connection] if state == psycopg2.extensions.POLL_WRITE else []
        if not any(select.select(reads, writes, [], max(0.0, deadline - time.monotonic()))):
            raise psycopg2.OperationalError("the database does not answer")


psycopg2.extensions.set_wait_callback(_wait)


class Database:
    """A pool that opens a connection when none is idle, and drops one that failed."""

    connect_seconds, statement_seconds = CONNECT_SECONDS, STATEMENT_SECONDS

    def __init__(self, url: str, password: str | None) -> None:
        self._url, self._password = url, password
        self._idle: queue.SimpleQueue = queue.SimpleQueue()

    @contextmanager
    def session(self) -> Iterator[tuple[psycopg2.extensions.cursor, str]]:
        """A cursor that commits each statement, and the `host:port` of the server at the other end.

        Raises psycopg2.Error when the database cannot be reached or refuses.
        """
        try:
            connection, server = self._idle.get_nowait()
        except queue.Empty:
            connection, server = self.connect()
        try:
            with connection.cursor() as cursor:
                yield cursor, server
        except psycopg2.Error:
            connection.close()
            raise
        finally:
            if not connection.closed:
                self._idle.put((connection, server))

    def connect(self) -> tuple[psycopg2.extensions.connection, str]:
        connection = psycopg2.connect(
            self._url,
            password=self._password,
            application_name="regami-api",
            connect_timeout=int(self.connect_seconds),
            options=f"-c statement_timeout={int(self.statement_seconds * 1000)}",
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            # The server says who it is: a name or a proxy in between cannot mislead us.
            cursor.execute("SELECT host(inet_server_addr()) || ':' || inet_server_port()")
            return connection, cursor.fetchone()[0]


class Pool(Database):
    """A pool of so many connections and no more, of SQLAlchemy, which waits for one to be given back."""

    # Less than users wait: they are told so.
    connect_seconds, statement_seconds = 2.0, 2.0

    def __init__(self, url: str, password: str | None, size: str) -> None:
        super().__init__(url, password)
        # With a callback of ours libpq would not keep to connect_timeout; what is logged is to be what everybody's says.
        psycopg2.extensions.set_wait_callback(None)
        self._server = ""
        self._pool = backing.pool(size, self._open)

    def _open(self) -> psycopg2.extensions.connection:
        connection, self._server = super().connect()
        return connection

    @contextmanager
    def session(self) -> Iterator[tuple[psycopg2.extensions.cursor, str]]:
        connection = self._pool.connect()
        try:
            with connection.cursor() as cursor:
                yield cursor, self._server
        except psycopg2.Error:
            connection.invalidate()
            raise
        finally:
            connection.close()

    def connect(self) -> Any:
        """One out of the pool, which its caller is to give back."""
        return self._pool.connect()


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def health(database: Database, query: str) -> dict:
    if query != "check=db":
        return {"status": "ok"}
    with database.session() as (cursor, _):
        cursor.execute("SELECT current_setting('transaction_read_only') = 'off'")
        return {"status": "ok", "database": "connected", "writable": cursor.fetchone()[0]}


def login(database: Database, body: dict) -> dict:
    digest = hashlib.sha256(str(body.get("password")).encode()).hexdigest()
    with database.session() as (cursor, _):
        cursor.execute("SELECT FROM users WHERE email = %s AND password_sha256 = %s", (body.get("email"), digest))
        if cursor.rowcount != 1:
            raise Refused(401, "wrong email or password")
    return {"token": secrets.token_urlsafe(16)}


def write_row(database: Database, body: dict, others: backing.Backing) -> dict:
    try:
        number, payload = int(body["id"]), str(body["payload"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(400, "wanted: id (a number) and payload") from error
    row = {"id": number, "payload": payload}
    others.accept(row)
    with database.session() as (cursor, server):
        cursor.execute(
            "INSERT INTO rows (id, payload, written_by) VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING",
            (number, payload, TASK),
        )
    others.keep(row)
    return {"id": number, "database": server}


def read_row(database: Database, number: str, others: backing.Backing) -> dict:
    if known := others.known(int(number)):
        return known
    with database.session() as (cursor, server):
        cursor.execute("SELECT id, payload FROM rows WHERE id = %s", (int(number),))
        row = cursor.fetchone()
    if row is None:
        raise Refused(404, f"no row {number}")
    found = {"id": row[0], "payload": row[1]}
    others.remember(found)
    return found | {"database": server}


def search_audit(database: Database, query: str) -> dict:
    try:
        with database.session() as (cursor, _):
            cursor.execute("SELECT id, written_by, written_at FROM rows ORDER BY written_at DESC LIMIT 20")
            found = cursor.fetchall()
    except psycopg2.ProgrammingError as error:
        log(f"ERROR GET /v1/audit/search ProgrammingError: {str(error).splitlines()[0]}")
        raise Refused(400, "bad request") from error
    return {"rows": [{"id": number, "by": by, "at": at.isoformat()} for number, by, at in found]}


TASK = os.environ.get("APP_TASK", "app")
VERSION = os.environ.get("APP_VERSION", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self._answer(200, health, url.query)
        elif url.path.startswith("/v1/rows/") and url.path[9:].isdigit():
            self._answer(200, partial(read_row, others=self.server.others), url.path[9:])
        elif url.path == "/v1/audit/search":
            self._answer(200, search_audit, url.query)
        else:
            self._answer(404)

    def do_POST(self) -> None:
        write = partial(write_row, others=self.server.others)
        routes = {"/v1/auth/login": (200, login), "/v1/rows": (201, write)}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path not in routes:
            return self._answer(404)
        try:
            fields = json.loads(body)
        except ValueError:
            return self._answer(400)
        status, function = routes[self.path]
        return self._answer(status, function, fields if isinstance(fields, dict) else {})

    def _answer(self, status: int, function=None, argument=None) -> None:
        started = time.monotonic()
        with self.server.serving():
            answer = {"error": "no such page" if status == 404 else "not JSON"}
            try:
                if function:
                    answer = self._work(function, argument)
            except misbehaviour.Defect as defect:
                log(f"ERROR {self.command} {self.path} {defect}")
                status, answer = 500, {"error": "internal server error"}
            except Refused as refused:
                status, answer = refused.status, {"error": refused.message}
            except psycopg2.Error as error:
                # Never the connection string. The class name says enough to tell refused from read-only.
                reason = str(error).splitlines()[0] if str(error) else ""
                log(f"ERROR {self.command} {self.path} {type(error).__name__}: {reason}")
                status, answer = 503, {"error": "database", "detail": type(error).__name__}
                if function is health:
                    answer["database"] = "unreachable"
            except backing.Busy as busy:
                log(f"WARNING {self.command} {self.path} {busy}")
                status, answer = 503, {"error": "busy"}
            except backing.Late as late:
                log(f"ERROR {self.command} {self.path} deadline exceeded: {late}")
                status, answer = 503, {"error": "deadline exceeded"}
            except Exception as error:  # whatever the libraries behind it raise is a 500 of ours
                log(f"ERROR {self.command} {self.path} {_described(error)}")
                status, answer = 500, {"error": "internal server error"}
            body = json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-App-Version", VERSION)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
            except OSError:
                self.close_connection = True
        if self.path != "/health":
            took = time.monotonic() - started
            log(f'INFO "{self.command} {self.path}" {status} {took * 1000:.1f} ms{self._client(status)}')
            if took > LONG_SECONDS:
                log(f"WARNING slow request: {self.command} {self.path} took {took:.1f} s")

    def _client(self, status: int) -> str:
        """Whose request it was that was refused."""
        address = self.headers.get("X-Forwarded-For", "").partition(",")[0].strip()
        return f" from {address}" if address and status in (401, 403, 404) else ""

    def _work(self, function: Callable, argument: Any) -> dict:
        if function is health:
            self.server.build.on_health()
            return health(self.server.database, argument)
        with self.server.others.worker():
            self.server.build.on_request(self.server.database.connect)
            database = self.server.reads if self.command == "GET" else self.server.database
            return function(database, argument)

    def log_message(self, *args: object) -> None:
        """Each answer logs its own line."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        host: str,
        port: int,
        database: Database,
        reads: Database,
        build: misbehaviour.Good,
        others: backing.Backing,
    ) -> None:
        super().__init__((host, port), Handler)
        self.database, self.reads, self.build, self.others = database, reads, build, others
        self._serving, self._lock = 0, threading.Lock()

    @contextmanager
    def serving(self) -> Iterator[None]:
        with self._lock:
            self._serving += 1
        try:
            yield
        finally:
            with self._lock:
                self._serving -= 1

    def drain(self) -> None:
        """Accept nothing more and let the requests in hand end."""
        self.shutdown()
        self.server_close()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._serving and time.monotonic() < deadline:
            time.sleep(0.01)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nobody's error."""


def log(line: str) -> None:
    print(line, flush=True)


def _described(error: Exception) -> str:
    """As the last line of a traceback, in one line."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {' '.join(str(error).split())}"


def main() -> int:
    os.environ.setdefault("PGUSER", "regami")
    url, password = os.environ.get("DATABASE_URL"), os.environ.get("DATABASE_PASSWORD")
    if not url:
        log("ERROR DATABASE_URL is needed")
        return 1
    build = misbehaviour.of_build(os.environ.get("APP_BUILD", "good"))
    build.before_listening()
    size = os.environ.get("DATABASE_POOL")
    database = Pool(url, password, size) if size else Database(url, password)
    # Where it has a replica to read from.
    read_url = os.environ.get("DATABASE_READ_URL")
    reads = Database(read_url, password) if read_url else database
    others = backing.Backing(os.environ)
    server = Server(os.environ["APP_HOST"], int(os.environ["APP_PORT"]), database, reads, build, others)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    log(f"INFO listening on {os.environ['APP_HOST']}:{os.environ['APP_PORT']}")
    stop.wait()
    server.drain()
    log("INFO stopped")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # threads of idle connections are not waited for
