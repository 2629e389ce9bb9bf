# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user: writes numbered rows through the public name and keeps every acknowledgement. A process of its own.

Started as `python -m sandbox.writers ACKS ERRORS OPTIONS-AS-JSON`; ends on SIGTERM. A line of ACKS is one row that the
application said was committed, flushed before the next is sent. A row that was not acknowledged is sent again with the
same number, as a user does who got no answer.
"""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import sys
import threading
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

ANSWER_SECONDS = 3.0
RETRY_SECONDS = 0.1


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


class Writers:
    """`options`: dns, name, port, first (number), writers, rate (rows a second of all), pinned (address or null)."""

    def __init__(self, acks: Path, errors: Path, options: dict) -> None:
        self._acks, self._errors, self._options = Journal(acks), Journal(errors), options
        self._resolver = Resolver(options["dns"])
        self._numbers = itertools.count(options["first"])
        self._stop = threading.Event()
        self._pause = options["writers"] / options["rate"]

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        addresses = [None] * self._options["writers"] + ([self._options["pinned"]] if self._options["pinned"] else [])
        threads = [threading.Thread(target=self._write, args=(pinned,)) for pinned in addresses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _write(self, pinned: str | None) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            while not self._stop.is_set() and not self._send(number, pinned):
                self._stop.wait(RETRY_SECONDS)
            self._stop.wait(self._pause)

    def _send(self, number: int, pinned: str | None) -> bool:
        """One try; whether it was acknowledged."""
        name, port = self._options["name"], self._options["port"]
        sent, via, problem = time.time(), pinned, ""
        try:
            via = via or self._resolver.address(name)
            connection = http.client.HTTPConnection(via, port, timeout=ANSWER_SECONDS)
            try:
                body = json.dumps({"id": number, "payload": f"row {number}"})
                headers = {"Host": f"{name}:{port}", "Content-Type": "application/json"}
                connection.request("POST", "/v1/rows", body, headers)
                response = connection.getresponse()
                answer = response.read()
            finally:
                connection.close()
            if response.status == 201:
                database = json.loads(answer)["database"]
                self._acks.add(id=number, sent=sent, acked=time.time(), database=database, via=via, pinned=bool(pinned))
                return True
            problem = str(response.status)
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = type(error).__name__
        self._errors.add(id=number, sent=sent, failed=time.time(), problem=problem, via=via, pinned=bool(pinned))
        return False


if __name__ == "__main__":
    Writers(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])).run()
