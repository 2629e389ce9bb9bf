# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a verb asks of PostgreSQL itself: is it alive, can it write, how far is it, and let it write no more."""

from __future__ import annotations

import contextlib

try:
    import psycopg2

    HAS_PSYCOPG2 = True
except ImportError:
    HAS_PSYCOPG2 = False

from .errors import Stop, Unreachable

# Seconds: a database that is down must not cost more than this, and no statement of ours may hang on a lock.
CONNECT_TIMEOUT, STATEMENT_TIMEOUT = 3, 5

LOGIN_ARGUMENTS = dict(
    login_user=dict(type="str"),
    login_password=dict(type="str", no_log=True),
    login_db=dict(type="str"),
    sslmode=dict(
        type="str", choices=["disable", "allow", "prefer", "require", "verify-ca", "verify-full"], default="require"
    ),
    ssl_root_cert=dict(type="path"),
)

# A server that says one of these serves nobody at this moment. (postmaster.c, "FATAL: the database system is ...")
NOT_THERE_YET = (
    "starting up",
    "shutting down",
    "in recovery mode",
    "not yet accepting connections",
    "terminating connection",
)


class Database:
    """One database of one instance, as the given login sees it.

    Args:
        host, port: where it is.
        login: the LOGIN_ARGUMENTS of a module's parameters.
    """

    def __init__(self, host, port, login):
        self.host, self.port, self._login = host, port, login
        self.name = login["login_db"]

    @contextlib.contextmanager
    def session(self):
        """A connection in autocommit mode; Unreachable where there is none to be had in CONNECT_TIMEOUT seconds."""
        if not HAS_PSYCOPG2:
            raise Stop("psycopg2 is missing on the controller: pip install psycopg2-binary")
        try:
            connection = psycopg2.connect(
                host=self.host,
                port=self.port,
                user=self._login["login_user"],
                password=self._login["login_password"],
                dbname=self.name,
                sslmode=self._login["sslmode"],
                sslrootcert=self._login["ssl_root_cert"],
                connect_timeout=CONNECT_TIMEOUT,
                application_name="sre.runbooks",
                options=f"-c statement_timeout={STATEMENT_TIMEOUT}s -c default_transaction_read_only=off",
                # A peer that vanished is noticed in seconds; TCP alone would take minutes.
                keepalives_idle=2,
                keepalives_interval=1,
                keepalives_count=3,
                tcp_user_timeout=5000,
            )
        except psycopg2.OperationalError as error:
            raise self._no_session(error) from error
        try:
            connection.autocommit = True
            yield connection
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise self._no_session(error) from error
        except psycopg2.Error as error:
            raise Stop(f"{self._named()} refused: {_one_line(error)}") from error
        finally:
            connection.close()

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

    def _named(self):
        return f"the database {self.name} at {self.host}:{self.port}"

    def _no_session(self, error):
        """A server that answers "no" lives: taking it for dead would leave two primaries."""
        reason = _one_line(error)
        if "FATAL" in reason and not any(text in reason for text in NOT_THERE_YET):
            return Stop(
                f"{self._named()} lives but lets {self._login['login_user']} not in: {reason}: check login_user, "
                f"login_password and login_db"
            )
        return Unreachable(f"{self._named()} does not answer: {reason}")


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__
