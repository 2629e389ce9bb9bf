# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is asked for: who is protected lives, and who is ended is who the filters mean, by a reading of their own."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import pytest
from cluster import HOST, SUPERUSER, Cluster, Held
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from task import kill

from sandbox.patience import wait_until

PROTECTED = {
    "protected_users": ["migrator"],
    "protected_databases": ["vault"],
    "protected_applications": ["alembic*", "pg_dump"],
}
LONG_AGO = 1_000_000
IN_TRANSACTION = "idle in transaction"
# name: (state, user, statements, more). Their order matters: the holder is there before the waiter.
ORDINARY = {
    "idle": ("idle", "app", ["SELECT 'idle'"], {}),
    "other": ("idle", "other", ["SELECT 'other'"], {"application": "w%rker"}),
    "reads": (IN_TRANSACTION, "app", ["BEGIN", "SELECT 'reads'"], {"application": "reports"}),
    "failed": (f"{IN_TRANSACTION} (aborted)", "app", ["BEGIN", "SELECT 1 / 0"], {}),
    "sleeps": ("active", "app", ["SELECT pg_sleep(600)"], {"unanswered": True}),
    "holds": (IN_TRANSACTION, "other", ["BEGIN", "SELECT pg_advisory_xact_lock(7)"], {"application": "billing"}),
    "waits": ("active", "app", ["SELECT pg_advisory_lock(7)"], {"unanswered": True, "application": "billing"}),
}


class Crowd:
    """Sessions that may be ended, opened again when they were, and those that may not."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.ordinary = cluster, {}
        self._held = [
            Held(cluster, SUPERUSER, "BEGIN", "SELECT pg_advisory_xact_lock(8)", application="worker"),
            Held(cluster, "rdsadmin", "SELECT 1"),
            Held(cluster, "migrator", "SELECT pg_sleep(600)", unanswered=True),
            Held(cluster, "app", "BEGIN", "SELECT 1", database="vault"),
            Held(cluster, "app", "SELECT 1", application="alembic upgrade head"),
            Held(cluster, "app", "BEGIN", "SELECT 1", application="pg_dump"),
            Held(cluster, "admin", "BEGIN", "SELECT 1", application="sre.runbooks"),
        ]
        self._receiver = subprocess.Popen(
            [str(cluster.bin / "pg_receivewal"), "-D", str(cluster.data.parent), "--no-loop"],
            env={**cluster.environment, "PGUSER": "replicator"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with cluster.superuser() as query:
            query("CREATE TABLE dead AS SELECT generate_series(1, 200000) AS n")
            query("DELETE FROM dead")
            kinds = wait_until(
                lambda: (
                    len(
                        found := query(
                            "SELECT pid, backend_start, backend_type FROM pg_stat_activity WHERE backend_type IN"
                            " ('walsender', 'autovacuum worker', 'autovacuum launcher', 'checkpointer')"
                        )
                    )
                    == 4
                    and found
                ),
                "a walsender and a vacuum at work",
            )
        self.worker = next((pid, start) for pid, start, kind in kinds if kind == "autovacuum worker")
        self.protected = {each.id for each in self._held} | {(pid, start) for pid, start, _kind in kinds}

    def restore(self) -> None:
        """Everybody there, and in the state that ORDINARY says."""
        with self.cluster.superuser() as query:
            gone = {name for name in ORDINARY if not self._is_as_it_was(query, name)}
            if gone & {"holds", "waits"}:
                gone |= {"holds", "waits"}
            for name in gone & self.ordinary.keys():
                self.ordinary[name].close()
            locked = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 7"
            wait_until(lambda: "holds" not in gone or not query(locked), "those that were closed have ended")
            for name in [name for name in ORDINARY if name in gone]:
                _state, user, statements, more = ORDINARY[name]
                self.ordinary[name] = Held(self.cluster, user, *statements, **more)
            wait_until(lambda: all(self._is_as_it_was(query, name) for name in ORDINARY), "each does what it is to do")
            wait_until(
                lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"), "one waits for another"
            )

    def _is_as_it_was(self, query: Callable[..., list[tuple]], name: str) -> bool:
        state = "SELECT state FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"
        return name in self.ordinary and query(state, *self.ordinary[name].id) == [(ORDINARY[name][0],)]

    def close(self) -> None:
        for each in (*self._held, *self.ordinary.values()):
            each.close()
        self._receiver.kill()
        self._receiver.wait()
        with self.cluster.superuser() as query:
            query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'test' AND usesysid IS NOT NULL"
            )
            query("DROP TABLE dead")


@pytest.fixture(scope="module")
def crowd(cluster: Cluster) -> Iterator[Crowd]:
    there = Crowd(cluster)
    yield there
    there.close()


def means(filters: dict, name: str) -> bool:
    """Whether `filters` mean the session ORDINARY[name]; the ages are 0, which all have, and LONG_AGO, which none has."""
    state, user, statements, more = ORDINARY[name]
    application, busy = more.get("application", "worker"), state == "active"
    aged = {
        "min_query_seconds": busy,
        "min_transaction_seconds": busy or state.startswith(IN_TRANSACTION),
        "min_idle_in_transaction_seconds": state.startswith(IN_TRANSACTION),
        "min_idle_seconds": state == "idle",
    }
    tests = {
        **{age: lambda value, has=has: has and value == 0 for age, has in aged.items()},
        "states": lambda value: state in value,
        "users": lambda value: user in value,
        "databases": lambda value: "postgres" in value,
        "applications": lambda value: any(fnmatchcase(application, each) for each in value),
        "client_addresses": lambda value: any(
            ipaddress.ip_address(HOST) in ipaddress.ip_network(each) for each in value
        ),
        "query_pattern": lambda value: bool(re.search(value, statements[-1], re.IGNORECASE)),
        "only_blocking": lambda value: not value or name == "holds",
        "only_idle": lambda value: not value or state == "idle",
    }
    return all(tests[option](value) for option, value in filters.items())


AGES = st.sampled_from([0, LONG_AGO])
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "min_query_seconds": AGES,
        "min_transaction_seconds": AGES,
        "min_idle_in_transaction_seconds": AGES,
        "min_idle_seconds": AGES,
        "states": st.lists(st.sampled_from([state for state, *_more in ORDINARY.values()])),
        "users": st.lists(st.sampled_from(["app", "other", "migrator", "rdsadmin", "admin", "replicator", SUPERUSER])),
        "databases": st.lists(st.sampled_from(["postgres", "vault"])),
        "applications": st.lists(
            st.sampled_from(["*", "w?rker", "worker", "w%rker", "w%", "bill*", "alembic*", "sre.*"])
        ),
        "client_addresses": st.lists(st.sampled_from(["127.0.0.0/8", HOST, "10.0.0.0/8"])),
        "query_pattern": st.sampled_from(["select", "SLEEP", "^$", "lock|idle", "."]),
        "only_blocking": st.booleans(),
        "only_idle": st.booleans(),
    },
).filter(lambda filters: any(value is not False for value in filters.values()))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=FILTERS, signal=st.sampled_from(["terminate", "cancel_then_terminate", "cancel"]))
@example(filters={"client_addresses": [HOST]}, signal="terminate")
@example(filters={"applications": ["*"]}, signal="cancel_then_terminate")
@example(filters={"only_blocking": True}, signal="terminate")
def test_who_is_protected_lives_and_who_is_ended_was_meant(crowd: Crowd, filters: dict, signal: str) -> None:
    crowd.restore()
    identities = {name: held.id for name, held in crowd.ordinary.items()}
    result = kill(crowd.cluster, **filters, **PROTECTED, signal=signal, grace_seconds=0.02)
    assert not result["failed"], result["msg"]
    alive = crowd.cluster.alive()
    # The vacuum may come to its end by itself.
    assert crowd.protected - alive <= {crowd.worker}
    ended = {name for name, identity in identities.items() if identity not in alive}
    meant = {name for name in ORDINARY if means(filters, name)}
    assert {each["pid"] for each in result["sessions"]} == {identities[name][0] for name in meant}
    if signal == "terminate":
        assert ended == meant
    else:
        assert ended <= (meant if signal == "cancel_then_terminate" else set())
