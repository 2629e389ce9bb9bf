# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for what is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

# Nothing takes so long but what never comes: a machine may be busy with all the tests at once.
PATIENCE = 60.0
# Many a look asks AWS's stand-in, and takes the processors from what is waited for.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.1

Value = TypeVar("Value")


class NotInTime(ValueError):
    """One line for a person."""


def wait_until(true: Callable[[], Value], what: str, seconds: float = PATIENCE) -> Value:
    """The first value of `true()` that counts as true. Raises NotInTime, which names `what`, when it does not come in `seconds`."""
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while not (value := true()):
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
        pause = min(LONGEST_PAUSE, 1.5 * pause)
    return value
