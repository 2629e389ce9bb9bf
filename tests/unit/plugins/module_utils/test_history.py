# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back through what was there, the newest first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils.history import last_other


@pytest.mark.parametrize(
    ("held", "bad", "running", "index"),
    [
        ("BA", "", "B", 1),  # the last deployment is undone
        ("ABA", "", "A", None),  # it was undone: A again, on top of B
        ("BA", "B", "A", None),  # B failed or was rolled back while A stayed
        ("ABA", "B", "A", None),  # ... and A was refreshed to anew
        ("CBA", "B", "C", 2),  # B never came to serve
        ("?BA", "", "C", 1),  # C came without saying what it was
        ("B?BA", "", "B", None),  # back from what nobody named
        ("??", "", "C", None),
        ("AA", "", "A", None),
        ("A", "", "B", 0),
        ("", "", "A", None),
    ],
)
def test_back(held: str, bad: str, running: str, index: int | None) -> None:
    entries = [None if each == "?" else each for each in held]
    assert last_other(entries, running, [each not in bad for each in held]) == index


@given(st.lists(st.sampled_from("ABC"), max_size=6), st.sampled_from("ABC"))
def test_going_back_twice_goes_back_once(held: list[str], running: str) -> None:
    """Where the present state is the newest entry, and going back adds one, the second time nothing is left to do."""
    held = [running, *held]
    index = last_other(held, running)
    if index is not None:
        assert last_other([held[index], *held], held[index]) is None
