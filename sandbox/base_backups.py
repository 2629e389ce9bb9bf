# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a PostgreSQL server: base backups, and the write-ahead log that leads from one to any later second.

https://www.postgresql.org/docs/16/continuous-archiving.html. The log is read from the server that wrote it, which keeps the last
256 MB (wal_keep_size): so far back goes a point in time here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from .postgres import PROVIDER_HOST

if TYPE_CHECKING:
    from .postgres import Installation, Server

_SEGMENT = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
_BEGINS = re.compile(r"START WAL LOCATION: \S+ \(file (\w+)\)")


@dataclass(frozen=True)
class Base:
    """A copy of a data directory. It holds all that was committed before `begun`; from `done` on the log leads further.

    `segment`: the file of the log that it begins with. Times are UTC, without saying so, as moto keeps its own.
    """

    folder: Path
    begun: datetime
    done: datetime
    segment: str


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def first(server: Server) -> Base:
    """Of a server that is still as every one begins: nothing is copied."""
    pristine, moment = server.installation.pristine(server.world), now()
    return Base(pristine, moment, moment, min(each.name for each in _log(pristine)))


def take(server: Server) -> Base:
    """Of a running server, primary or replica. Raises RuntimeError where pg_basebackup fails."""
    begun, folder = now(), server.installation.folder(f"backup-{uuid.uuid4().hex[:12]}")
    server.installation.run(
        *("pg_basebackup", "-D", str(folder), "-h", PROVIDER_HOST, "-p", str(server.port), "-U", "rdsrepladmin"),
        *("-X", "stream", "-c", "fast", "--no-sync", "--no-manifest"),
        env={"PGPASSWORD": server.world.secret("replication")},
    )
    return Base(folder, begun, now(), _BEGINS.search((folder / "backup_label").read_text())[1])


def forget(installation: Installation) -> None:
    """Remove every copy that was made."""
    for folder in installation.home.glob("backup-*"):
        shutil.rmtree(folder, ignore_errors=True)


def usable(server: Server) -> list[Base]:
    """Its automated backups from which its log still leads on, oldest first."""
    there = {each.name for each in _log(server.data)}
    return [base for base in server.backups if base.segment in there]


def fill(server: Server, base: Base) -> None:
    """Make `server`, which has never run, what `base` is."""
    subprocess.run(["cp", "-a", f"{base.folder}/.", str(server.data)], check=True)
    (server.data / "standby.signal").unlink(missing_ok=True)


def replay(server: Server, source: Server, until: datetime) -> None:
    """Let `server`, filled from a base backup of `source`, begin with all that `source` had committed up to `until`."""
    _mark(source)
    archive = server.installation.folder(f"{server.data.name}-log")
    for segment in _log(source.data):
        server.installation.own(Path(shutil.copy2(segment, archive)))
    server.installation.write(server.data / "recovery.signal", "")
    # Nobody is let in before the end: a standby would want settings as large as those of the source.
    recovery = {"restore_command": f"cp {archive}/%f %p", "recovery_target_action": "promote", "hot_standby": "off"}
    told = server.parameters
    try:
        server.parameters = told | recovery | {"recovery_target_time": f"{until.isoformat(' ')}+00"}
        if not _recovers(server):
            # PostgreSQL refuses where nothing was committed after that time, since it cannot know: all of the log is wanted.
            server.parameters = told | recovery
            if not _recovers(server):
                raise RuntimeError(f"PostgreSQL {server.name} does not come to {until}: see its log")
    finally:
        server.parameters = told
        shutil.rmtree(archive, ignore_errors=True)
    server.restart()  # without what was for the recovery only


def _recovers(server: Server, seconds: float = 60.0) -> bool:
    """Start it and wait until it has replayed what it shall; False where it ends instead."""
    try:
        server.start()
    except RuntimeError:
        if server.is_running:
            raise
    deadline = time.monotonic() + seconds
    while server.is_running and time.monotonic() < deadline:
        try:
            with server.session() as query:
                if not query("SELECT pg_is_in_recovery()"):
                    return True
        except psycopg2.Error:
            pass  # not yet
        time.sleep(0.02)
    return False


def _mark(source: Server) -> None:
    """A commit after whatever time is asked for, as RDS's own heartbeat makes; a server that is down cannot."""
    try:
        with source.session() as query:
            query("SELECT pg_logical_emit_message(true, 'rdsadmin', 'heartbeat')")
    except psycopg2.Error:
        pass


def _log(data: Path) -> list[Path]:
    return [each for each in (data / "pg_wal").iterdir() if _SEGMENT.fullmatch(each.name)]
