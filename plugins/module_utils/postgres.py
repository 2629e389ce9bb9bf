# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a verb asks of PostgreSQL itself: is it alive, can it write, how far is it, and let it write no more."""

from __future__ import annotations

import contextlib
import select
import threading
import time

try:
    import psycopg2
    import psycopg2.extensions

    HAS_PSYCOPG2 = True
except ImportError:
    HAS_PSYCOPG2 = False

from . import read_only
from .aws import attempt
from .errors import NotLetIn, Stop, Throttled, Unreachable
from .waiting import wait_until

# Seconds: a database that is down must not cost more than this, and no statement of ours may hang on a lock.
CONNECT_TIMEOUT, STATEMENT_TIMEOUT = 3, 5
# The server ends a statement by its own clock; a server that is frozen does not, while its kernel keeps the connection.
ANSWER_TIMEOUT = STATEMENT_TIMEOUT + 2
# Where all slots are taken one may become free at any moment, and others wait for it too.
SLOT_PATIENCE = 10
# What our sessions call themselves, so that no other run of ours takes them for an application's.
APPLICATION = "sre.runbooks"

# A server that says one of these serves nobody at this moment. (postmaster.c, "FATAL: the database system is ...")
NOT_THERE_YET = (
    "starting up",
    "shutting down",
    "in recovery mode",
    "not yet accepting connections",
    "terminating connection",
)
# ... one of whom this is said lives, though it was libpq that said no, without a "FATAL" ...
REFUSED_HERE = ("does not support SSL", "certificate", "no password supplied")
# ... and one that says one of these has no slot left for this role. (proc.c, postinit.c)
NO_SLOT = ("too many clients", "connection slots are reserved", "too many connections for")

_patience = threading.local()


class NoSlot(Throttled):
    """The server lives and has no connection slot left for this login."""


def _wait(connection):
    """Called by psycopg2 while it waits for the server; raises OperationalError when that takes too long."""
    deadline = time.monotonic() + getattr(_patience, "seconds", ANSWER_TIMEOUT)
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        reads = [connection] if state == psycopg2.extensions.POLL_READ else []
        writes = [connection] if state == psycopg2.extensions.POLL_WRITE else []
        if not any(select.select(reads, writes, [], max(0.0, deadline - time.monotonic()))):
            raise psycopg2.OperationalError("no answer in time")


if HAS_PSYCOPG2:
    psycopg2.extensions.set_wait_callback(_wait)


class Database:
    """One database of one instance, as the given login sees it.

    Args:
        host, port: where it is.
        login: a `postgres_login.Login`.
        region: of the instance, where it is one of RDS.
        within: seconds for a connection, and for a statement.
    """

    def __init__(self, host, port, login, region=None, within=None):
        self.host, self.port, self._login, self._region = host, port, login, region
        self._connect_within, self._answer_within = within or CONNECT_TIMEOUT, within or ANSWER_TIMEOUT
        self.name = login.db

    def connect(self):
        """A connection in autocommit mode.

        Raises:
            NoSlot: the server has none to give.
            Unreachable: no answer within CONNECT_TIMEOUT seconds.
            Stop: the server answers "no".
        """
        if not HAS_PSYCOPG2:
            raise Stop("psycopg2 is missing on the controller: pip install psycopg2-binary")
        password = self._login.password(self.host, self.port, self._region)
        _patience.seconds = self._connect_within
        writes_not = "on" if read_only.is_on() else "off"
        try:
            connection = psycopg2.connect(
                host=self.host,
                port=self.port,
                user=self._login.user,
                password=password,
                dbname=self.name,
                sslmode=self._login.sslmode,
                sslrootcert=self._login.root_cert,
                application_name=APPLICATION,
                options=f"-c statement_timeout={STATEMENT_TIMEOUT}s -c default_transaction_read_only={writes_not}",
                # A peer that vanished is noticed in seconds; TCP alone would take minutes.
                keepalives_idle=2,
                keepalives_interval=1,
                keepalives_count=3,
                tcp_user_timeout=5000,
            )
            connection.autocommit = True
        except psycopg2.OperationalError as error:
            raise self._no_session(error) from error
        finally:
            _patience.seconds = self._answer_within
        return connection

    @contextlib.contextmanager
    def session(self):
        """A connection for a few statements; their errors as sentences."""
        connection = self.connect()
        try:
            with self.told():
                yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def told(self):
        """Errors of statements as Unreachable, or as Stop where the server said no."""
        try:
            yield
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise self._no_session(error) from error
        except psycopg2.Error as error:
            raise Stop(f"{self.named} refused: {_one_line(error)}") from error

    def facts(self):
        """{in_recovery, read_only, lsn, replayed_at, streaming, sessions} in one statement.

        `lsn` counts bytes of write-ahead log: written on a primary, replayed on a replica. `replayed_at` is the primary's
        clock at the last commit replayed, in seconds since the epoch (None on a primary).
        https://www.postgresql.org/docs/16/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL
        """
        with self.session() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_is_in_recovery(),"
                " EXISTS (SELECT 1 FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
                "   WHERE d.datname = current_database() AND 'default_transaction_read_only=on' = ANY (s.setconfig)),"
                " pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
                "   ELSE pg_current_wal_lsn() END, '0/0')::bigint,"
                " extract(epoch FROM pg_last_xact_replay_timestamp())::float8,"
                " (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'),"
                " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                "   AND backend_type = 'client backend' AND pid <> pg_backend_pid()),"
                " extract(epoch FROM clock_timestamp())::float8"
            )
            row = cursor.fetchone()
        return dict(
            zip(("in_recovery", "read_only", "lsn", "replayed_at", "streaming", "sessions", "now"), row, strict=True),
            streaming=bool(row[4]),
        )

    def setting(self, name):
        """The value of a setting that is in force, as text."""
        with self.session() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_setting(%s)", (name,))
            return cursor.fetchone()[0]

    def fence(self):
        """Let this database take no more writes from clients; returns the log position after the last one.

        New sessions are read-only by the database's own setting; sessions from before it are ended, since it does not
        reach them. The provider's and other superusers' sessions are left alone.
        """
        with self.session() as connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {self._quoted(connection)} SET default_transaction_read_only = on")
            cursor.execute("SELECT clock_timestamp()")
            fenced_at = cursor.fetchone()[0]
            for _try in range(100):
                cursor.execute(
                    "SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid) IS NOT NULL) FROM pg_stat_activity a"
                    " JOIN pg_roles r ON r.oid = a.usesysid"
                    " WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND NOT r.rolsuper"
                    " AND a.pid <> pg_backend_pid() AND a.backend_start <= %s",
                    (fenced_at,),
                )
                if cursor.fetchone()[0] == 0:
                    break
                cursor.execute("SELECT pg_sleep(0.03)")
            else:
                raise Stop(
                    f"sessions on {self.host}:{self.port} do not end after pg_terminate_backend: "
                    f"the primary is not fenced, nothing was promoted"
                )
            cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
            return cursor.fetchone()[0]

    def unfence(self):
        """Take back the read-only setting (a promoted replica has inherited it from its fenced source)."""
        with self.session() as connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {self._quoted(connection)} RESET default_transaction_read_only")

    def write_probe(self):
        """A real committed write that needs no table; True where a client's write would pass too."""
        with self.session() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            if cursor.fetchone()[0]:
                return False
            cursor.execute("SELECT pg_logical_emit_message(true, 'sre.runbooks', 'write probe')")
            return True

    def _quoted(self, connection):
        return psycopg2.extensions.quote_ident(self.name, connection)

    @property
    def named(self):
        return f"the database {self.name} at {self.host}:{self.port}"

    def _no_session(self, error):
        """A server that answers "no" lives: taking it for dead would leave two primaries."""
        reason = _one_line(error)
        if any(text in reason for text in NO_SLOT):
            return NoSlot(
                f"{self.named} has no connection slot left for {self._login.user} ({reason}): log in as a member of "
                f"rds_superuser, or of pg_use_reserved_connections, which reserved slots are for"
            )
        if any(text in reason for text in REFUSED_HERE):
            return NotLetIn(
                f"{self.named} lives and is not logged in to: {reason}: check sslmode, ssl_root_cert and login_password"
            )
        if "FATAL" in reason and not any(text in reason for text in NOT_THERE_YET):
            return NotLetIn(
                f"{self.named} lives but lets {self._login.user} not in: {reason}: check login_user, "
                f"login_db and login_password, or where else the password comes from"
            )
        return Unreachable(f"{self.named} does not answer: {reason}")


class Line:
    """One connection kept for many statements: where slots are scarce, a second one may not be had."""

    def __init__(self, database, tick=None):
        self.database, self._tick, self._connection = database, tick, None

    def rows(self, statement, **values):
        """The rows of a statement as dicts.

        Raises:
            Unreachable: the connection broke, or no answer came: the statement may have been carried out.
            Stop: the server refused it.
        """
        connection = self._open()
        try:
            with self.database.told(), connection.cursor() as cursor:
                cursor.execute(statement, values)
                if cursor.description is None:  # a statement that has none
                    return []
                names = [column.name for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except Unreachable:
            self._connection = None
            connection.close()
            raise

    def quoted(self, name):
        """A name as an identifier in the text of a statement."""
        return psycopg2.extensions.quote_ident(name, self._open()).replace("%", "%%")

    def verifier(self, role, password):
        """What the server keeps of a password: in place of it in a statement, no log of statements has the password.

        https://www.postgresql.org/docs/16/libpq-misc.html#LIBPQ-PQENCRYPTPASSWORDCONN
        """
        return psycopg2.extensions.encrypt_password(password, role, self._open(), "scram-sha-256")

    def _open(self):
        """Waits for a slot; a server that does not answer is no reason to wait."""
        if self._connection is None:
            found, _seconds = wait_until(
                lambda: attempt(self.database.connect, Unreachable),
                bool,
                "a connection slot",
                SLOT_PATIENCE,
                tick=self._tick,
                state=lambda found: "no answer" if isinstance(found, Unreachable) else "got one",
            )
            if isinstance(found, Unreachable):
                raise found
            self._connection = found
        return self._connection


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__
