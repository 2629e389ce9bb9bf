# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The users: write numbered rows through a public name, keep every acknowledgement, and read rows. A process of its own.

Started as `python -m sandbox.writers FOLDER OPTIONS-AS-JSON`; ends on SIGTERM. Journals in FOLDER, a line flushed before
the next request is sent: acks.jsonl has the rows that the application said were committed, reads.jsonl those that it
gave back, errors.jsonl every request that failed. A row that was not acknowledged is sent again with the same number, as
a user does who got no answer. Each user keeps the cookies that it is given, as a browser does.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import signal
import sys
import threading
import time
from collections import deque
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

ANSWER_SECONDS = 3.0
READ_BACK = 50  # a reader asks for one of so many rows that were written last


class Resolver:
    """Asks one name server and obeys the TTL of its answers, as the resolver of a user does."""

    def __init__(self, server: str) -> None:
        self._host, _, port = server.partition(":")
        self._port = int(port)
        self._known: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def address(self, name: str) -> str:
        """Raises OSError when the name has no address."""
        with self._lock:
            address, until = self._known.get(name, ("", 0.0))
            if time.monotonic() >= until:
                address, until = self._ask(name)
                self._known[name] = address, until
            return address

    def _ask(self, name: str) -> tuple[str, float]:
        try:
            query = dns.message.make_query(name, dns.rdatatype.A)
            answer = dns.query.udp(query, self._host, port=self._port, timeout=1)
        except dns.exception.DNSException as error:
            raise OSError(f"no answer from the name server: {type(error).__name__}") from error
        for record in answer.answer:
            if record.rdtype == dns.rdatatype.A:
                return record[0].address, time.monotonic() + record.ttl
        raise OSError(f"{name} has no address")


class Journal:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def add(self, **entry: object) -> None:
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()


class Refused(Exception):
    """An answer that is not what the user wanted."""


class User:
    """One browser: its cookies, and the address that it keeps to (or None: it asks DNS)."""

    def __init__(self, options: dict, resolver: Resolver, pinned: str | None = None) -> None:
        self._host, self._port = options["name"], options["port"]
        self._resolver, self.pinned = resolver, pinned
        self._cookies: dict[str, str] = {}
        self.last: dict[str, Any] = {}

    def ask(self, method: str, path: str, wanted: int, body: Any = None) -> dict:
        """The answer to one request; `last` is what the journals say of it, also where it failed.

        Raises:
            Refused: another status than `wanted`.
            OSError, ValueError, HTTPException: no answer, or none that can be read.
        """
        self.last = seen = {"sent": time.time(), "via": self.pinned, "pinned": bool(self.pinned)}
        seen["via"] = self.pinned or self._resolver.address(self._host)
        connection = http.client.HTTPConnection(seen["via"], self._port, timeout=ANSWER_SECONDS)
        headers = {"Host": f"{self._host}:{self._port}", "Content-Type": "application/json"}
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        for header in response.headers.get_all("Set-Cookie", ()):
            self._cookies |= {name: each.value for name, each in SimpleCookie(header).items()}
        seen["version"] = response.headers.get("X-App-Version")
        if response.status != wanted:
            raise Refused(str(response.status))
        return json.loads(answer)


class Users:
    """`options`: dns, name, port, first (number), writers, rate (rows a second of all), pinned (address or null), readers,
    reads (a second of all), retry (seconds until a row that failed is sent again).
    """

    def __init__(self, folder: Path, options: dict) -> None:
        self._acks, self._reads, self._errors = (
            Journal(folder / f"{name}.jsonl") for name in ("acks", "reads", "errors")
        )
        self._options, self._resolver = options, Resolver(options["dns"])
        self._numbers = itertools.count(options["first"])
        self._written: deque[int] = deque(maxlen=READ_BACK)
        self._stop = threading.Event()

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        options = self._options
        pinned = [None] * options["writers"] + ([options["pinned"]] if options["pinned"] else [])
        jobs = [(self._write, each) for each in pinned] + [(self._read, None)] * options["readers"]
        threads = [
            threading.Thread(target=job, args=(User(options, self._resolver, address),)) for job, address in jobs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _write(self, user: User) -> None:
        pause = self._options["writers"] / self._options["rate"]
        while not self._stop.is_set():
            number = next(self._numbers)
            while not self._stop.is_set() and not self._send(number, user):
                self._stop.wait(self._options["retry"])
            self._stop.wait(pause)

    def _send(self, number: int, user: User) -> bool:
        """One try; whether it was acknowledged."""
        try:
            answer = user.ask("POST", "/v1/rows", 201, {"id": number, "payload": f"row {number}"})
            self._acks.add(id=number, acked=time.time(), database=answer["database"], **user.last)
            self._written.append(number)
            return True
        except (Refused, OSError, LookupError, ValueError, http.client.HTTPException) as error:
            self._failed(user, error, "write", number)
            return False

    def _read(self, user: User) -> None:
        pause = self._options["readers"] / self._options["reads"]
        while not self._stop.wait(pause):
            if not self._written:
                continue
            number = random.choice(tuple(self._written))
            try:
                user.ask("GET", f"/v1/rows/{number}", 200)
                self._reads.add(id=number, acked=time.time(), **user.last)
            except (Refused, OSError, ValueError, http.client.HTTPException) as error:
                self._failed(user, error, "read", number)

    def _failed(self, user: User, error: Exception, what: str, number: int) -> None:
        problem = str(error) if isinstance(error, Refused) else type(error).__name__
        self._errors.add(id=number, what=what, failed=time.time(), problem=problem, **user.last)


if __name__ == "__main__":
    Users(Path(sys.argv[1]), json.loads(sys.argv[2])).run()
