# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions that a database suffers from, held by a process of its own as an application holds them.

Started as `python -m sandbox.crowd OPTIONS-AS-JSON` with libpq's variables (PGHOST, PGPASSWORD ...) in its environment.
Prints how many sessions it holds once it has them; ends on SIGTERM. `options`: kind (of KINDS), count (None: until the server
has none left).
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
import time
from typing import Any

import psycopg2

LEAK_SECONDS = 0.5
LONGEST_QUERY_SECONDS = 3600
FIRST_ROW = -2000  # of those that a chain locks; users write positive numbers
ENOUGH = 100_000
# By kind, what its sessions call themselves.
APPLICATIONS = {
    "leak": "regami-worker",
    "idle_in_transaction": "regami-reports",
    "blocking_chain": "regami-billing",
    "long_queries": "regami-search",
    "locking_report": "regami-reports-nightly",
}
SAID = threading.Lock()


def connect(kind: str) -> Any:
    """A connection, or None where the server has no slot left for it."""
    try:
        return psycopg2.connect(application_name=APPLICATIONS[kind], connect_timeout=5)
    except psycopg2.OperationalError as error:
        if "slots are reserved" in str(error) or "too many" in str(error):
            return None
        raise


def connections(kind: str, count: int | None) -> list[Any]:
    opened = (connect(kind) for _try in range(ENOUGH if count is None else count))
    return list(itertools.takewhile(lambda each: each is not None, opened))


def leak(count: int | None) -> list[Any]:
    """A worker that takes a connection for every job and gives none back."""
    held = connections("leak", count)

    def go_on() -> None:
        while count is None:
            time.sleep(LEAK_SECONDS)
            try:
                held.append(connect("leak"))
            except psycopg2.Error:
                continue  # the database is restarting: the next job tries again

    threading.Thread(target=go_on, daemon=True).start()
    return held


def idle_in_transaction(count: int | None) -> list[Any]:
    """Reports that read something and then wait for something else, with their transactions open."""
    held = connections("idle_in_transaction", count)
    for connection in held:
        connection.cursor().execute("SELECT count(*) FROM rows WHERE payload <> 'row 4711'")
    return held


def blocking_chain(count: int | None) -> list[Any]:
    """The head changed its row and waits for a person; each one after it changed its own row and wants the row before."""
    held = connections("blocking_chain", count)
    with held[0] as head, head.cursor() as cursor:
        numbers = [FIRST_ROW - place for place in range(len(held))]
        cursor.execute("INSERT INTO rows (id, payload) SELECT unnest(%s), 'billing' ON CONFLICT DO NOTHING", (numbers,))

    def change(connection: Any, number: int) -> None:
        connection.cursor().execute("UPDATE rows SET payload = 'card 4111-1111' WHERE id = %s", (number,))

    def wait(connection: Any, before: int) -> None:
        try:
            change(connection, before)
            connection.commit()
        except psycopg2.Error as error:
            say(f"{before}: {error}")

    for connection, number in zip(held, numbers, strict=True):
        change(connection, number)
    for connection, before in zip(held[1:], numbers, strict=False):
        threading.Thread(target=wait, args=(connection, before), daemon=True).start()
    return held


def long_queries(count: int | None) -> list[Any]:
    """Searches that no index helps."""
    held = connections("long_queries", count)

    def search(connection: Any) -> None:
        connection.autocommit = True
        try:
            connection.cursor().execute(f"SELECT pg_sleep({LONGEST_QUERY_SECONDS}) -- LIKE '%jane@example.com%'")
        except psycopg2.Error as error:
            say(str(error))

    for connection in held:
        threading.Thread(target=search, args=(connection,), daemon=True).start()
    return held


def locking_report(count: int | None) -> list[Any]:
    """A report that keeps others from writing while it reads, and reads for an hour."""
    held = connections("locking_report", count)

    def read(connection: Any) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE rows IN EXCLUSIVE MODE")
                cursor.execute(
                    f"SELECT payload, count(*), pg_sleep({LONGEST_QUERY_SECONDS}) FROM rows GROUP BY payload"
                )
        except psycopg2.Error as error:
            say(str(error))

    for connection in held:
        threading.Thread(target=read, args=(connection,), daemon=True).start()
    return held


KINDS = {each.__name__: each for each in (leak, idle_in_transaction, blocking_chain, long_queries, locking_report)}


def say(line: str) -> None:
    with SAID:
        print(" ".join(line.split()), flush=True)


def main() -> None:
    options = json.loads(sys.argv[1])
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    held = KINDS[options["kind"]](options["count"])
    say(f"holds {len(held)}")
    over.wait()


if __name__ == "__main__":
    main()
