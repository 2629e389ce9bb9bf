# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits end on the truth, say what they see, and give up in time."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import waiting
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Throttled, Unreachable, WaitTimeout


class Clock:
    def __init__(self):
        self.now, self.pauses = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(waiting, "listener", lines.append)
    return lines


def wait(look, done=lambda seen: seen == "available", timeout=60, **more):
    clock = Clock()
    result = waiting.wait_until(look, done, "the database", timeout, clock=clock, sleep=clock.sleep, **more)
    return result, clock


def states(*values):
    """A look that returns the values one after the other, the last one for ever."""
    left = list(values)

    def look():
        value = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(value, Exception):
            raise value
        return value

    return look


def test_truth_at_once_costs_no_pause_and_no_line(said):
    (seen, seconds), clock = wait(states("available"))
    assert (seen, seconds, clock.pauses, said) == ("available", 0.0, [], [])


def test_looks_quickly_at_first_and_never_two_seconds_late():
    _result, clock = wait(states(*["modifying"] * 20, "available"))
    assert clock.pauses[0] <= 0.1
    assert max(clock.pauses) <= 2.0


def test_polls_at_most_thirty_times_a_minute_in_the_long_run():
    clock = Clock()
    with pytest.raises(WaitTimeout):
        waiting.wait_until(states("modifying"), lambda seen: False, "x", 600, clock=clock, sleep=clock.sleep)
    assert len(clock.pauses) / (600 / 60) <= 32


def test_says_each_change_and_otherwise_every_few_seconds(said):
    wait(states(*["modifying"] * 12, "rebooting", "available"), usual=300)
    assert said[0] == "the database: modifying, 0 s, usually 300 s"
    assert any("rebooting" in line for line in said)
    assert said[-1].startswith("the database: available, after ")
    assert 3 <= len(said) <= 7


@pytest.mark.parametrize("error", [Unreachable("no answer"), Throttled("slow down")])
def test_silence_and_throttling_are_waited_through(error):
    (seen, _seconds), _clock = wait(states(error, "available"))
    assert seen == "available"


def test_state_that_can_never_become_right_ends_at_once():
    def done(seen):
        raise Stop("storage-full does not pass")

    with pytest.raises(Stop, match="storage-full"):
        wait(states("storage-full"), done)


def test_deadline_names_the_last_state():
    with pytest.raises(WaitTimeout, match="the database: still modifying after 7 s"):
        wait(states("modifying"), timeout=7)


def test_lease_is_renewed_while_waiting():
    ticks = []
    wait(states("modifying", "modifying", "available"), tick=lambda: ticks.append(1))
    assert len(ticks) == 3
