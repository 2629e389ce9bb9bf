# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As many calls at once as AWS takes."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.congestion import Window, carry_out
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LeaseLost, LostAnswer, Throttled


def test_the_window_grows_by_one_a_round_and_is_halved_once():
    window = Window(size=4)
    for _answer in range(5):
        window.answered()
    assert 4.9 < window.size < 5.5
    size = window.size
    for _throttled in range(4):  # they were under way together
        window.throttled(began=1.0, now=2.0)
    assert window.size == size / 2
    window.throttled(began=3.0, now=4.0)
    assert window.size == size / 4 and window.pause == 0.2
    window.answered()
    assert window.pause == 0


def test_what_was_throttled_or_lost_is_done_in_the_end():
    tried = {}

    def work(item, lost):
        tried.setdefault(item, []).append(lost)
        if item % 3 == 0 and len(tried[item]) == 1:
            raise Throttled("slow down")
        if item % 5 == 0 and not lost:
            raise LostAnswer("reset")
        if item == 7:
            raise ValueError("no")
        return item * 2

    window = Window()
    ended = dict(carry_out(work, iter(range(100)), window, sleep=lambda _seconds: None))
    assert isinstance(ended.pop(7), ValueError)
    assert ended == {item: item * 2 for item in range(100) if item != 7}
    assert tried[3] == [0, 0] and tried[5] == [0, 1] and tried[15] == [0, 0, 1]


def test_no_more_items_are_read_than_needed_and_a_lost_lease_ends_it_after_what_is_under_way():
    read, ticks = [], []

    def items():
        for item in range(1000):
            read.append(item)
            yield item

    def tick():
        ticks.append(1)
        if len(ticks) == 20:
            raise LeaseLost("another run")

    ended = []
    with pytest.raises(LeaseLost):
        for item, _result in carry_out(lambda item, _lost: item, items(), Window(), tick):
            ended.append(item)
    assert sorted(ended) == read and len(read) < 100


def test_it_gives_up_when_nothing_gets_through():
    now, lock = [0.0], threading.Lock()

    def clock():
        with lock:
            now[0] += 1
            return now[0]

    def work(_item, _lost):
        raise Throttled("slow down")

    with pytest.raises(Throttled):
        list(carry_out(work, range(5), Window(), clock=clock, sleep=lambda _seconds: None))
