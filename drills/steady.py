# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is well: users are served, the database lets more of them in, an intruder is cut off.

Asserted before a drill, waited for after it.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Callable
from typing import Any, Protocol

import psycopg2

from sandbox.client import Sandbox
from sandbox.distress import APPLICATION_USER
from sandbox.journal import Journal

# Users are judged by what they asked within so many seconds: enough for a dozen requests of the quietest load.
WINDOW_SECONDS = 2.0
# Of twenty answers one may take longer than this.
SLOW_SECONDS = 1.0
# Every user asks, is answered or fails within three seconds. Where nothing is heard of any, they themselves are gone.
SILENT_SECONDS = 15.0
ANSWER_SECONDS = 1.0


class MustEnd(Exception):
    """Nothing can be learned any more: the drill is stopped, and says why."""


class Sign(Protocol):
    def symptoms(self, now: float) -> list[str]:
        """What is not well, a line each. Raises MustEnd."""


# ---- users ---------------------------------------------------------------------------------------------------------


def judge(answered: list[dict], failed: list[dict], now: float) -> list[str]:
    """Pure: what users complain of at `now` (epoch seconds).

    `answered`: {"sent", "acked", "write"}, `failed`: {"failed"}, of the whole load. Raises MustEnd where no user asks any more.
    """
    since = now - WINDOW_SECONDS
    heard = max([each["acked"] for each in answered[-1:]] + [each["failed"] for each in failed[-1:]], default=None)
    if heard is not None and now - heard > SILENT_SECONDS:
        raise MustEnd(f"the users are gone: none has asked for {now - heard:.0f} s")
    recent = [each for each in answered if each["acked"] > since]
    refused = [each for each in failed if each["failed"] > since]
    found = []
    if refused:
        found.append(f"{len(refused)} of {len(refused) + len(recent)} requests of the last {WINDOW_SECONDS:g} s failed")
    if not any(each["write"] for each in recent):
        found.append(f"no write was acknowledged for {WINDOW_SECONDS:g} s")
    took = sorted(each["acked"] - each["sent"] for each in recent)
    slow = took[math.ceil(len(took) * 0.95) - 1] if took else 0.0
    if slow > SLOW_SECONDS:
        found.append(f"answers take {slow:.1f} s (p95 of the last {WINDOW_SECONDS:g} s)")
    return found


class Users:
    """The load generator's journals."""

    def __init__(self, sandbox: Sandbox) -> None:
        folder = sandbox.home / "load"
        self._acks, self._reads, self._errors = (
            Journal(folder / f"{name}.jsonl") for name in ("acks", "reads", "errors")
        )

    def answered(self) -> list[dict]:
        writes, reads = _lines(self._acks), _lines(self._reads)
        both = [each | {"write": True} for each in writes] + [each | {"write": False} for each in reads]
        return sorted(both, key=lambda each: each["acked"])

    def failed(self) -> list[dict]:
        return sorted(_lines(self._errors), key=lambda each: each["failed"])

    def symptoms(self, now: float) -> list[str]:
        return judge(self.answered(), self.failed(), now)


def _lines(journal: Journal) -> list[dict]:
    """Of the users that ask DNS; none where nobody has written it yet."""
    with contextlib.suppress(FileNotFoundError):
        return [each for each in journal.look() if not each.get("pinned")]
    return []


# ---- the database -------------------------------------------------------------------------------------------------


class Connections:
    """Whether another process of the application would be let in: users do not notice at once, since pools keep what they have."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def symptoms(self, now: float) -> list[str]:
        region = self._sandbox.state["regions"]["us-east-1"]
        found = self._sandbox.boto("rds").describe_db_instances(DBInstanceIdentifier=region["db_instance"])
        endpoint = found["DBInstances"][0]["Endpoint"]
        try:
            psycopg2.connect(
                host=endpoint["Address"],
                port=endpoint["Port"],
                dbname=self._sandbox.state["db_name"],
                user=APPLICATION_USER,
                password=(self._sandbox.home / "secrets" / "db_app").read_text(),
                connect_timeout=2,
            ).close()
        except psycopg2.Error as error:
            return [f"the database takes no connection: {str(error).strip().splitlines()[-1]}"]
        return []


# ---- an intruder ---------------------------------------------------------------------------------------------------


class Intruder:
    """Keeps a connection open to the instance that he is in, and makes another when that is cut: as long as he is answered,
    he is not contained.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox, self._held = sandbox, None

    def symptoms(self, now: float) -> list[str]:
        known = self._sandbox.state.get("intruder")
        if known is None:
            return []
        if self._held is None or not _answers(self._held):
            self._held = _connect(known)
        if self._held is not None and _answers(self._held):
            return [f"{known['address']} is answered by {known['instance']}"]
        return []


def _connect(known: dict[str, Any]) -> socket.socket | None:
    connection = socket.socket()
    connection.settimeout(ANSWER_SECONDS)
    try:
        connection.bind((known["address"], 0))
        connection.connect(tuple(known["open"]))
    except OSError:
        connection.close()
        return None
    return connection


def _answers(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 ")
    except OSError:
        return False


SIGNS: dict[str, Callable[[Sandbox], Sign]] = {"connections": Connections, "intruder": Intruder}
