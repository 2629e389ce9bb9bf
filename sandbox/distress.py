# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in distress: real sessions on the real PostgreSQL, held by processes until they are healed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import psycopg2

from . import crowd, rds
from .faults import Fault
from .patience import PATIENCE, wait_until
from .postgres import DATABASE

if TYPE_CHECKING:
    from .postgres import Server
    from .processes import Process
    from .world import World

APPLICATION_USER = "regami"

_crowds: dict[str, list[Process]] = {}


def hold(kind: str, world: World, count: str | int | None = None, instance: str = rds.PRIMARY) -> None:
    """Returns when the sessions are there, and as they are to be. Raises ValueError when they do not come."""
    server = rds.find(instance)
    count = None if count is None else int(count)
    if count is not None and count < 1:
        raise ValueError("count: 1 or more")
    process = world.spawn(
        f"crowd {kind}",
        [sys.executable, "-m", "sandbox.crowd", json.dumps({"kind": kind, "count": count})],
        env={
            "PGHOST": server.address.partition(":")[0],
            "PGPORT": str(server.port),
            "PGUSER": APPLICATION_USER,
            "PGDATABASE": DATABASE,
            "PGPASSWORD": world.secret("db_app"),
        },
        stdout=subprocess.PIPE,
        region=server.region,
    )
    _crowds.setdefault(kind, []).append(process)
    said = process.stdout.readline().decode()
    if not said.startswith("holds "):
        let_go(kind, world)
        raise ValueError(f"the sessions do not come: {said.strip()}")
    _await_waiting(server, kind, int(said.split()[1]))


def _await_waiting(server: Server, kind: str, held: int) -> None:
    """What a thread of the crowd has only just sent is on its way: a test that looks now must find it there."""
    waiting = {
        crowd.blocking_chain.__name__: ("wait_event_type = 'Lock'", held - 1),
        crowd.long_queries.__name__: ("wait_event = 'PgSleep'", held),
    }
    if kind not in waiting:
        return
    condition, number = waiting[kind]
    count = f"SELECT count(*) FROM pg_stat_activity WHERE {condition}"
    with server.session() as query:
        wait_until(lambda: query(count) >= number, f"all of {held} sessions wait")


def let_go(kind: str, _world: World) -> None:
    """Ends them."""
    for process in _crowds.pop(kind, ()):
        process.kill()
        process.stdout.close()
    # A server does not notice that a client is gone while it works or sleeps for it.
    gone = f"FROM pg_stat_activity WHERE application_name = '{crowd.APPLICATIONS[kind]}'"
    for server in rds.servers.values():
        with contextlib.suppress(psycopg2.Error), server.session() as query:
            query(f"SELECT count(pg_terminate_backend(pid)) {gone}")
            deadline = time.monotonic() + PATIENCE
            while query(f"SELECT count(*) {gone}") and time.monotonic() < deadline:
                time.sleep(0.02)


def stop(_world: World) -> None:
    """The databases end with the world, and their sessions with them."""
    for processes in _crowds.values():
        for process in processes:
            process.kill()
            process.stdout.close()
    _crowds.clear()


def status(_world: World) -> list[dict]:
    return [
        {"region": each.region, "kind": "sessions", "name": crowd.APPLICATIONS[kind], "state": "held", "detail": ""}
        for kind, processes in _crowds.items()
        for each in processes
        if each.poll() is None
    ]


def _fault(kind: Callable, what: str) -> Fault:
    name = kind.__name__
    options = ("count", "instance")
    return Fault(f"{what}, as many as there can be", partial(hold, name), partial(let_go, name), (), options)


faults = {
    "connection-leak": _fault(crowd.leak, "connections that an application never gives back"),
    "idle-in-transaction": _fault(crowd.idle_in_transaction, "sessions idle in transactions"),
    "blocking-chain": _fault(crowd.blocking_chain, "sessions each of which waits for the one before it"),
    "long-queries": _fault(crowd.long_queries, "statements that run for an hour"),
}
