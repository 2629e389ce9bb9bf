# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the builds of the application that are not good: one class a build, in the application's process.

erroring   half of the requests to /v1 fail, the first of a process included; /health does not notice
crashing   the process ends with status 1 shortly after it began
slow       listens only after APP_SLOW_SECONDS (default 10)
leaking    every request to /v1 takes a database connection and never gives it back
unhealthy  /health answers 500, the rest works
bloating   every request to /v1 keeps 32 MiB of memory for good
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

CRASH_SECONDS = 0.2
SLOW_SECONDS = 10.0
BLOAT_MEGABYTES = 32


class Defect(Exception):
    """The application's own fault: the request is answered with 500."""


class Good:
    def before_listening(self) -> None:
        """Called once, in the main thread."""

    def on_health(self) -> None:
        """Called for each /health. Raises Defect."""

    def on_request(self, connect: Callable[[], Any]) -> None:
        """Called for each request to /v1; `connect` opens a connection to the database. Raises Defect."""


class Erroring(Good):
    def __init__(self) -> None:
        self._numbers = itertools.count()

    def on_request(self, connect: Callable[[], Any]) -> None:
        # In turn and not by chance: a test of a few requests must see both.
        if next(self._numbers) % 2 == 0:
            raise Defect("KeyError: 'tenant'")


class Crashing(Good):
    def before_listening(self) -> None:
        time.sleep(CRASH_SECONDS)
        print("FATAL ModuleNotFoundError: No module named 'regami.tenants'", file=sys.stderr, flush=True)
        os._exit(1)


class Slow(Good):
    def before_listening(self) -> None:
        time.sleep(float(os.environ.get("APP_SLOW_SECONDS", SLOW_SECONDS)))


class Leaking(Good):
    def __init__(self) -> None:
        self._lost: list[Any] = []

    def on_request(self, connect: Callable[[], Any]) -> None:
        self._lost.append(connect())


class Unhealthy(Good):
    def on_health(self) -> None:
        raise Defect("the self-test failed")


class Bloating(Good):
    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def on_request(self, connect: Callable[[], Any]) -> None:
        # Not zeros: pages that were never written to take no memory.
        self._kept.append(b"\x01" * (BLOAT_MEGABYTES * 2**20))


_BUILDS = {each.__name__.lower(): each for each in (Good, Erroring, Crashing, Slow, Leaking, Unhealthy, Bloating)}


def of_build(name: str) -> Good:
    """Raises KeyError for a build that does not exist."""
    return _BUILDS[name]()
