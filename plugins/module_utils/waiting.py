# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for a terminal state, and saying so while it lasts."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .errors import GivenUp, Throttled, Unreachable, WaitTimeout


@dataclass(frozen=True)
class Pace:
    """Seconds between two looks: the first pause, the longest, the factor from one to the next; `lead` before the first look."""

    first: float
    longest: float
    growth: float
    lead: float = 0.0


# Quick at first, never more than a second or two behind the truth afterwards, and well below the describe quotas of AWS
# (30 calls a minute and waiter at the slowest).
QUICK = Pace(first=0.05, longest=2.0, growth=1.4)
# A wait that changes nothing says so this often, in seconds.
SAY_EVERY = 5.0

# Set by the action plugin that runs a verb in the controller's process; an ordinary module has nobody to tell.
listener = None


def say(line):
    """Tell the person who is watching."""
    if listener is not None:
        listener(line)


def wait_until(
    look, done, what, timeout, usual=None, tick=None, state=str, pace=None, clock=time.monotonic, sleep=time.sleep
):
    """Look until `done(seen)`; returns (seen, seconds waited).

    Args:
        look: reads the present state; Unreachable (not GivenUp) and Throttled are waited through, any other exception ends the wait.
        done: pure predicate on what was seen; raises Stop where the state can never become right.
        what: what is waited for, for people.
        timeout: seconds.
        usual: seconds that this usually takes, shown beside the elapsed time.
        tick: called before each look (renews the lease).
        state: makes a short text of what was seen.
        pace: how often to look, QUICK by default.

    Raises:
        WaitTimeout: names the last state seen.
    """
    pace = pace or QUICK
    started, pause, said, said_at, silent = clock(), pace.first, None, 0.0, None
    if pace.lead:
        sleep(min(pace.lead, timeout))
    while True:
        if tick is not None:
            tick()
        try:
            seen, silent = look(), None
            text = state(seen)
            if done(seen):
                elapsed = clock() - started
                if said is not None:
                    say(f"{what}: {text}, after {elapsed:.0f} s")
                return seen, round(elapsed, 2)
        except GivenUp:
            raise
        except (Unreachable, Throttled) as error:
            silent, text = error, str(error)
        elapsed = clock() - started
        if elapsed >= timeout:
            raise WaitTimeout(f"{what}: still {text} after {timeout:.0f} s") from silent
        if text != said or elapsed - said_at >= SAY_EVERY:
            usually = f", usually {usual:.0f} s" if usual else ""
            say(f"{what}: {text}, {elapsed:.0f} s{usually}")
            said, said_at = text, elapsed
        sleep(min(pause, max(timeout - elapsed, 0.01)))
        pause = min(pause * pace.growth, pace.longest)
