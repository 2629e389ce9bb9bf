# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sessions of a PostgreSQL server: who they are, which of them a filter means, and signals to those and no others.

What may be ended is decided by the server, in the statement that sends the signals and at that moment: a session that went
on to something else since it was looked at is left alone.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections import Counter
from dataclasses import dataclass

from . import blocking
from .errors import Refusal
from .postgres import APPLICATION
from .sql_text import statement

# Roles of Amazon RDS and of RDS Proxy.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.MasterAccounts.html
PROVIDER_ROLES = ("rdsadmin", "rdsrepladmin", "rdstopmgr", "rdswriteforwarduser", "rdsproxyadmin")
# What ends a session with one of these loses a backup, and the night that it took.
BACKUPS = ("pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup")
WAITERS_SHOWN = 50

# {option: the condition that it puts}. All that are given must hold.
FILTERS = {
    "min_query_seconds": "query_seconds >= %(min_query_seconds)s",
    "min_transaction_seconds": "transaction_seconds >= %(min_transaction_seconds)s",
    "min_idle_in_transaction_seconds": "idle_in_transaction_seconds >= %(min_idle_in_transaction_seconds)s",
    "min_idle_seconds": "idle_seconds >= %(min_idle_seconds)s",
    "states": "state = ANY (%(states)s)",
    "users": "usename = ANY (%(users)s)",
    "databases": "datname = ANY (%(databases)s)",
    "applications": "application_name LIKE ANY (%(applications)s)",
    "client_addresses": "client_addr <<= ANY (%(client_addresses)s::inet[])",
    "query_pattern": "query ~* %(query_pattern)s",
    # Of a chain only its head: those behind it hold what they hold only as long as they wait.
    "only_blocking": "blocked_by = '{}' AND pid IN (SELECT unnest(blocked_by) FROM seen)",
    "only_idle": "state = 'idle'",
}

# `%%` is psycopg2's way of writing a percent sign. Rows of others are shown without backend_type to whom lacks pg_monitor.
_SESSIONS = """
WITH seen AS MATERIALIZED (
  SELECT a.pid, a.backend_start, a.backend_type, a.usesysid, a.usename, a.datname, a.application_name, a.client_addr,
    a.state, a.query, a.wait_event_type, a.wait_event, r.rolsuper,
    CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END AS blocked_by,
    CASE WHEN a.state IN ('active', 'fastpath function call')
      THEN extract(epoch FROM clock_timestamp() - a.query_start)::float8 END AS query_seconds,
    -- A transaction that failed has no start any more, and stays open until its client says so.
    extract(epoch FROM clock_timestamp() - coalesce(a.xact_start,
      CASE WHEN a.state LIKE 'idle in transaction%%' THEN a.state_change END))::float8 AS transaction_seconds,
    CASE WHEN a.state LIKE 'idle in transaction%%'
      THEN extract(epoch FROM clock_timestamp() - a.state_change)::float8 END AS idle_in_transaction_seconds,
    CASE WHEN a.state = 'idle' THEN extract(epoch FROM clock_timestamp() - a.state_change)::float8 END AS idle_seconds
  FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
), judged AS MATERIALIZED (
  SELECT *, CASE
      WHEN backend_type IS NULL THEN 'hidden'
      WHEN backend_type <> 'client backend' THEN backend_type
      WHEN pid = pg_backend_pid() OR application_name = %(own_application)s AND usename = current_user THEN 'own'
      WHEN rolsuper IS DISTINCT FROM false THEN 'superuser'
      WHEN usename = ANY (%(provider_roles)s) THEN 'provider'
      WHEN usename = ANY (%(protected_users)s) OR datname = ANY (%(protected_databases)s)
        OR application_name LIKE ANY (%(protected_applications)s) THEN 'protected'
      WHEN NOT (pg_has_role('pg_signal_backend', 'USAGE') OR pg_has_role(usesysid, 'USAGE')) THEN 'not permitted'
    END AS protection, (@matches@) IS TRUE AS matches
  FROM seen
)
"""
_LOOK = (
    _SESSIONS
    + """
SELECT pid, backend_start, backend_type, usename, datname, application_name, host(client_addr) AS client, state,
  wait_event_type || ':' || wait_event AS wait, blocked_by, query_seconds, transaction_seconds,
  coalesce(idle_in_transaction_seconds, idle_seconds) AS idle_seconds, left(query, 2000) AS query, protection, matches
FROM judged WHERE usesysid IS NOT NULL OR pid IN (SELECT unnest(blocked_by) FROM seen)
"""
)
_CHOSEN = (
    _SESSIONS
    + """, chosen AS MATERIALIZED (
  SELECT j.pid, j.backend_start, j.query_seconds FROM judged j
    JOIN unnest(%(pids)s::int[], %(starts)s::timestamptz[]) AS given (pid, start)
      ON given.pid = j.pid AND given.start = j.backend_start
  WHERE j.matches AND j.protection IS NULL
)
SELECT pid, backend_start, @signal@ AS sent FROM chosen
"""
)
_ALIVE = """
SELECT a.pid, a.backend_start FROM pg_stat_activity a
  JOIN unnest(%(pids)s::int[], %(starts)s::timestamptz[]) AS given (pid, start)
    ON given.pid = a.pid AND given.start = a.backend_start
"""
# By pg_settings: what a role may not see is left out there, and refused by SHOW. The last one is that of RDS.
_LIMITS = """
SELECT clock_timestamp() AS now,
  coalesce(sum(setting::int) FILTER (WHERE name = 'max_connections'), 0)::int AS max_connections,
  coalesce(sum(setting::int) FILTER (WHERE name = 'superuser_reserved_connections'), 0)::int AS reserved_for_superusers,
  coalesce(sum(setting::int) FILTER (WHERE name <> 'superuser_reserved_connections' AND name <> 'max_connections'), 0)::int
    AS reserved_for_entitled
FROM pg_settings WHERE name IN
  ('max_connections', 'superuser_reserved_connections', 'reserved_connections', 'rds.rds_superuser_reserved_connections')
"""
_PREPARED = """
SELECT gid, owner::text, database::text, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds
FROM pg_prepared_xacts ORDER BY prepared
"""


@dataclass(frozen=True)
class Session:
    """One session, as it was seen.

    Attributes:
        pid, started: who it is; a pid alone may be another session's a moment later.
        protection: why it is left alone whatever is asked for; None where it may be ended.
        matches: whether the filters mean it.
        blocked_by: the pids that it waits for.
        *_seconds: how long its statement runs, its transaction lasts, and it has been idle; None where it does not.
    """

    pid: int
    started: datetime.datetime
    kind: str | None
    user: str | None
    database: str | None
    application: str | None
    client: str | None
    state: str | None
    wait: str | None
    blocked_by: tuple
    query_seconds: float | None
    transaction_seconds: float | None
    idle_seconds: float | None
    query: str
    protection: str | None
    matches: bool

    @property
    def id(self):
        return self.pid, self.started

    @property
    def chosen(self):
        return self.matches and self.protection is None

    @property
    def runs(self):
        """Whether there is a statement to cancel."""
        return self.state in ("active", "fastpath function call")

    @property
    def is_client(self):
        """Whether it takes one of max_connections; of a hidden session only its database tells."""
        return self.kind == "client backend" or (self.kind is None and self.database is not None)

    def told(self):
        """For people: its statement without values, its times in whole seconds."""
        seconds = {
            name: round(value)
            for name in ("query_seconds", "transaction_seconds", "idle_seconds")
            if (value := getattr(self, name)) is not None
        }
        return {
            **{
                name: getattr(self, name)
                for name in ("pid", "user", "database", "application", "client", "state", "wait")
            },
            "started": self.started.isoformat() if self.started else None,
            **seconds,
            "query": statement(self.query or ""),
        }


@dataclass(frozen=True)
class Seen:
    """A server at one moment (`now`, by its own clock)."""

    now: datetime.datetime
    max_connections: int
    reserved_for_superusers: int
    reserved_for_entitled: int
    sessions: tuple
    prepared: tuple

    @property
    def used(self):
        return sum(each.is_client for each in self.sessions)

    @property
    def free(self):
        """Slots that any role may still take."""
        return max(0, self.max_connections - self.reserved_for_superusers - self.reserved_for_entitled - self.used)

    @property
    def hidden(self):
        return sum(each.protection == "hidden" for each in self.sessions)

    @property
    def waiting(self):
        return sum(bool(each.blocked_by) for each in self.sessions)


class Sessions:
    """The sessions of the server at the other end of `line` (a postgres.Line).

    Args:
        wanted: the options of FILTERS and the protected_* lists; {} means nobody and protects nothing more.

    Raises:
        Refusal: a filter that no server can understand.
    """

    def __init__(self, line, wanted):
        self._line = line
        given = {name: wanted[name] for name in FILTERS if is_given(wanted.get(name))}
        self._where = " AND ".join(f"({FILTERS[name]})" for name in given) or "false"
        self._values = {
            **given,
            "own_application": APPLICATION,
            "provider_roles": list(PROVIDER_ROLES),
            "protected_users": wanted.get("protected_users") or [],
            "protected_databases": wanted.get("protected_databases") or [],
            "protected_applications": [_like(each) for each in wanted.get("protected_applications") or []],
        }
        if "applications" in given:
            self._values["applications"] = [_like(each) for each in given["applications"]]
        for address in given.get("client_addresses", ()):
            _refuse_unknown(address)

    def look(self):
        """A `Seen`, in three statements."""
        limits = self._line.rows(_LIMITS)[0]
        return Seen(
            **limits,
            sessions=tuple(_session(row) for row in self._line.rows(self._judging(_LOOK), **self._values)),
            prepared=tuple(self._line.rows(_PREPARED)),
        )

    def cancel(self, ids):
        """Cancel what `ids` run, in one statement; returns the ids that were sent the signal, which is all that it tells."""
        return self._signal("pg_cancel_backend(pid)", ids)

    def terminate(self, ids):
        """End the sessions `ids`, likewise."""
        return self._signal("pg_terminate_backend(pid)", ids)

    def still_meant(self, ids, running=False):
        """Those of `ids` that the filters still mean; with `running` only those of them with a statement that runs."""
        return self._signal("query_seconds IS NOT NULL" if running else "true", ids)

    def alive(self, ids):
        """Those of `ids` that are still there."""
        return _ids(self._line.rows(_ALIVE, **_given(ids)))

    def _signal(self, function, ids):
        rows = self._line.rows(self._judging(_CHOSEN).replace("@signal@", function), **self._values, **_given(ids))
        return _ids(row for row in rows if row["sent"])

    def _judging(self, text):
        return text.replace("@matches@", self._where)


def diagnosis(seen):
    """What a person must know of a server short of connections: {connections, blocking_chains, prepared_transactions}."""
    groups = Counter((each.user, each.application, each.state) for each in seen.sessions if each.is_client)
    return {
        "connections": {
            "max_connections": seen.max_connections,
            "reserved_for_superusers": seen.reserved_for_superusers,
            "reserved_for_entitled": seen.reserved_for_entitled,
            "used": seen.used,
            "free": seen.free,
            "groups": [
                {"user": user, "application": application, "state": state, "count": count}
                for (user, application, state), count in groups.most_common()
            ],
        },
        "blocking_chains": [_told_chain(chain, seen) for chain in found_chains(seen)],
        "prepared_transactions": [
            {**row, "gid": statement(row["gid"], 60), "seconds": round(row["seconds"])} for row in seen.prepared
        ],
    }


def found_chains(seen):
    return blocking.chains({each.pid: each.blocked_by for each in seen.sessions if each.blocked_by})


def _told_chain(chain, seen):
    by_pid = {each.pid: each for each in seen.sessions}
    head = by_pid.get(chain.head)
    return {
        "head": head.told() if head else None,
        "what": what_heads(chain, head),
        "waiting": len(chain.waiting),
        "depth": chain.depth,
        "waits": [{"pid": pid, "waits_for": chain.waits_for[pid]} for pid in list(chain.waiting)[:WAITERS_SHOWN]],
    }


def what_heads(chain, head):
    """What others wait for, for people; `head` is its session, where that is one that was seen."""
    if chain.head == blocking.PREPARED:
        return "a prepared transaction"
    if chain.head is None:
        return "a deadlock"
    if head is None:
        return f"process {chain.head}"
    why = f" ({head.protection})" if head.protection not in (None, "hidden", head.kind) else ""
    return f"{head.kind or 'a hidden session'} {head.pid}{why}"


def _session(row):
    return Session(
        row["pid"],
        row["backend_start"],
        row["backend_type"],
        row["usename"],
        row["datname"],
        row["application_name"],
        row["client"],
        row["state"],
        row["wait"],
        tuple(row["blocked_by"]),
        row["query_seconds"],
        row["transaction_seconds"],
        row["idle_seconds"],
        row["query"],
        row["protection"],
        row["matches"],
    )


def is_given(value):
    """An empty list is a filter too: one that means nobody. False is none."""
    return value is not None and value is not False


def _given(ids):
    return {"pids": [pid for pid, _start in ids], "starts": [start for _pid, start in ids]}


def _ids(rows):
    return [(row["pid"], row["backend_start"]) for row in rows]


def _like(pattern):
    """A pattern with * and ? as one of LIKE."""
    return "".join({"*": "%", "?": "_"}.get(each, "\\" + each if each in "\\%_" else each) for each in pattern)


def _refuse_unknown(address):
    try:
        ipaddress.ip_network(address, strict=False)
    except ValueError as error:
        raise Refusal(f"client_addresses: {address!r} is neither an address nor a network: {error}") from error
