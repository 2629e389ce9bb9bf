# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Queues of SQS on which somebody waits; moto waits with the one lock of the sandbox, and nothing else is answered meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

LOOK_SECONDS = 0.2


def install(world: World) -> None:
    from moto.sqs.models import SQSBackend

    receive_message = SQSBackend.receive_message

    def wait_unlocked(backend: Any, queue_name: str, count: int, wait_seconds_timeout: int, *args: Any) -> list:
        end = time.monotonic() + wait_seconds_timeout
        while True:
            found = receive_message(backend, queue_name, count, 0, *args)
            if found or time.monotonic() >= end:
                return found
            world.lock.release()
            try:
                time.sleep(LOOK_SECONDS)
            finally:
                world.lock.acquire()

    SQSBackend.receive_message = wait_unlocked
