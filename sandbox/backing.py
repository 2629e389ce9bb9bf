# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the application uses besides its database, where its task definition names it. Each is imported only then: most tests
start the application without any, and often.

    DATABASE_POOL     "SIZE+OVERFLOW": a pool of SQLAlchemy instead of as many connections as there are requests
    REDIS_URL         a cache of the rows, unless DISABLE_REDIS is 1
    DOCUMENTS_BUCKET  each row's document, in S3
    PARTNER_URL       somebody who is asked about each row, over HTTPS; REQUESTS_CA_BUNDLE names the authority
    SPOOL_DIR         a journal of the requests, on the task's own disk
    WORKERS           requests that are worked on at the same time; others wait for QUEUE_SECONDS, then get 503, as do
                      those that take longer than DEADLINE_SECONDS

Errors are the libraries' own, and say what those say.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POOL_WAIT_SECONDS = 1.5
# A connection is not used longer than that: what has changed on the way to the database is noticed soon.
POOL_RECYCLE_SECONDS = 2
ANSWER_SECONDS = 2.0
QUEUE_SECONDS, DEADLINE_SECONDS = 1.0, 2.5
CACHED_SECONDS = 30


class Busy(Exception):
    """No worker became free."""


class Late(Exception):
    """The request took longer than its user waits."""


class Backing:
    """None of them, until the environment names them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._cache: Any = None
        self._documents: Callable[[str, bytes], None] | None = None
        self._check: Callable[[dict], None] | None = None
        self._spool = Path(environment["SPOOL_DIR"]) if "SPOOL_DIR" in environment else None
        self._workers = threading.Semaphore(int(environment["WORKERS"])) if "WORKERS" in environment else None
        url = environment.get("REDIS_URL")
        if url and environment.get("DISABLE_REDIS") != "1":
            self._cache = _redis(url)
        if bucket := environment.get("DOCUMENTS_BUCKET"):
            self._documents = _documents(bucket)
        if url := environment.get("PARTNER_URL"):
            self._check = _partner(url)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Raises Busy when there is none for too long, and Late where the work took too long."""
        if self._workers is None:
            yield
            return
        if not self._workers.acquire(timeout=QUEUE_SECONDS):
            raise Busy(f"no worker was free for {QUEUE_SECONDS:g} s")
        began = time.monotonic()
        try:
            yield
        finally:
            self._workers.release()
        if (took := time.monotonic() - began) > DEADLINE_SECONDS:
            raise Late(f"the request took {took:.1f} s, more than {DEADLINE_SECONDS:g} s")

    def accept(self, row: dict) -> None:
        """Before a row is written."""
        if self._spool:
            with open(self._spool / "journal.log", "a", encoding="utf-8") as journal:
                journal.write(json.dumps(row) + "\n")
        if self._check:
            self._check(row)

    def keep(self, row: dict) -> None:
        """After it was written."""
        if self._documents:
            self._documents(f"rows/{row['id']}.json", json.dumps(row).encode())
        self.remember(row)

    def remember(self, row: dict) -> None:
        if self._cache:
            self._cache.set(f"row:{row['id']}", json.dumps(row), ex=CACHED_SECONDS)

    def known(self, number: int) -> dict | None:
        """The row, where the cache has it."""
        found = self._cache.get(f"row:{number}") if self._cache else None
        return json.loads(found) if found else None


def _redis(url: str) -> Any:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(
        url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0)
    )


def _documents(bucket: str) -> Callable[[str, bytes], None]:
    from botocore.config import Config
    from botocore.session import get_session

    settings = Config(connect_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 2})
    client = get_session().create_client("s3", region_name=os.environ.get("REGION"), config=settings)
    return lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)


def _partner(url: str) -> Callable[[dict], None]:
    import requests

    def check(row: dict) -> None:
        requests.post(f"{url}/v1/checks", json={"id": row["id"]}, timeout=ANSWER_SECONDS).raise_for_status()

    return check


def pool(size: str, connect: Callable[[], Any]) -> Any:
    """SQLAlchemy's pool of what `connect` opens; `size` is "SIZE+OVERFLOW"."""
    from sqlalchemy.pool import QueuePool

    kept, _, more = size.partition("+")
    return QueuePool(
        connect,
        pool_size=int(kept),
        max_overflow=int(more or 0),
        timeout=POOL_WAIT_SECONDS,
        recycle=POOL_RECYCLE_SECONDS,
    )
