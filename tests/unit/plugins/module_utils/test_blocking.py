# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils.blocking import PREPARED, chains


def test_nobody_waits():
    assert chains({}) == []


def test_a_chain_has_one_head_and_its_longest_way():
    (chain,) = chains({2: (1,), 3: (2,), 4: (3, 2)})
    assert (chain.head, chain.waiting, chain.depth) == (1, {2: 1, 3: 2, 4: 2}, 2)
    assert chain.waits_for == {2: 1, 3: 2, 4: 2}


def test_the_one_that_most_wait_for_comes_first():
    assert [chain.head for chain in chains({2: (1,), 4: (3,), 5: (3,)})] == [3, 1]


def test_who_waits_for_two_is_behind_both():
    assert [chain.waiting for chain in chains({3: (1, 2)})] == [{3: 1}, {3: 1}]


def test_a_prepared_transaction_is_a_head():
    assert [chain.head for chain in chains({2: (PREPARED,)})] == [PREPARED]


def test_a_deadlock_has_no_head():
    (chain,) = chains({1: (2,), 2: (1,), 3: (2,)})
    assert chain.head is None
    assert set(chain.waiting) == {1, 2, 3}


@given(st.dictionaries(st.integers(1, 9), st.lists(st.integers(0, 9), min_size=1, max_size=3)))
def test_whoever_waits_is_in_a_chain_and_no_head_waits(blocked_by):
    found = chains(blocked_by)
    assert {pid for chain in found for pid in chain.waiting} == set(blocked_by)
    assert not {chain.head for chain in found} & set(blocked_by)
