# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""temporary_capacity: how much is asked for, what a target remembers, and what is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import temporary_capacity as temporary
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.temporary_capacity import Kept, Size

NOW = 1_700_000_000.0
BEFORE, AFTER = Size(2, 2, 10), Size(3, 3, 10)

bounds = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted)
sizes = st.builds(Size, st.integers(0, 99)) | st.builds(
    lambda count, pair: Size(count, *pair), st.integers(0, 99), bounds
)


def change(present, kept, asked, minutes=None, now=NOW):
    return temporary.changed("api", present, kept, asked, minutes, now)


@pytest.mark.parametrize(
    ("asked", "base", "count"),
    [
        ("6", 2, 6),
        ("0", 2, 0),
        ("+2", 3, 5),
        ("-1", 3, 2),
        ("+50%", 2, 3),
        ("+50%", 3, 5),
        ("-50%", 3, 2),
        ("-25%", 4, 3),
        ("+1%", 2, 3),
        ("-100%", 4, 0),
    ],
)
def test_what_is_asked_for(asked, base, count):
    assert temporary.count_of(asked, base) == count


@pytest.mark.parametrize("asked", ["", "50%", "six", "+", "1.5", "+-1", "6 "])
def test_what_is_no_capacity(asked):
    with pytest.raises(Refusal, match=r"give a number \(6\), or a change"):
        temporary.count_of(asked, 2)


def test_less_than_none():
    with pytest.raises(Refusal, match="-3 of 2 is less than none"):
        temporary.count_of("-3", 2)


@given(sizes, sizes, st.none() | st.integers(0, 2**33).map(float))
def test_what_is_written_is_read_again(before, after, until):
    kept = Kept(before, after, until or None)
    assert temporary.parse(kept.text()) == kept
    # What a tag of ECS may hold.
    assert len(kept.text()) <= 256 and set(kept.text()) <= set("0123456789abcdefghijklmnopqrstuvwxyzTZ -:")


@pytest.mark.parametrize("text", [None, "", "2", "2 to", "two to three", "2 in 2-10 to 3 in 3-10 until"])
def test_a_line_that_is_not_ours(text):
    assert temporary.parse(text) is None


def test_more_lifts_the_floor_and_less_lowers_the_ceiling():
    assert temporary.fitting(Size(2, 2, 10), 4) == Size(4, 4, 10)
    assert temporary.fitting(Size(2, 2, 3), 6) == Size(6, 6, 6)
    assert temporary.fitting(Size(4, 2, 10), 1) == Size(1, 1, 1)
    assert temporary.fitting(Size(4), 6) == Size(6)


def test_the_same_change_again_counts_from_what_there_was_before():
    goal, line, _notes = change(BEFORE, None, "+50%")
    assert (goal, line) == (AFTER, Kept(BEFORE, AFTER))
    for half_way in (BEFORE, Size(2, 3, 10), AFTER):
        again, same, notes = change(half_way, line, "+50%")
        assert (again, same) == (goal, line)
        assert notes == ["api had 2 before this began, and +50% of that is 3: say a number for more"]


def test_another_change_replaces_the_first_and_remembers_what_there_was():
    goal, line, _notes = change(AFTER, Kept(BEFORE, AFTER), "+100%")
    assert (goal, line.before) == (Size(4, 4, 10), BEFORE)


def test_a_repeated_command_does_not_fight_what_scaling_has_done_since():
    for asked in ("3", "+50%"):
        goal, _line, notes = change(Size(7, 3, 10), Kept(BEFORE, AFTER), asked)
        assert goal == Size(7, 3, 10)
        assert "api was given 3, and has 7 now" in notes[0]
    goal, _line, _notes = change(Size(7, 3, 10), Kept(BEFORE, AFTER), "+100%")
    assert goal == Size(7, 4, 10)


@pytest.mark.parametrize("present", [Size(5, 4, 12), Size(5)])
def test_bounds_that_somebody_else_has_set_begin_anew(present):
    goal, line, notes = change(present, Kept(BEFORE, AFTER), "+1")
    assert (goal.count, line.before) == (6, present)
    assert "that is over: this begins anew" in notes[0]


def test_what_was_given_back_at_its_time_begins_anew():
    kept = Kept(BEFORE, AFTER, NOW - 1)
    _goal, line, _notes = change(Size(3, 2, 10), kept, "+1")
    assert line.before == Size(3, 2, 10)


def test_a_repeated_command_does_not_put_the_return_off():
    _goal, line, _notes = change(BEFORE, None, "+50%", minutes=60)
    assert line.until == NOW + 3600
    assert change(AFTER, line, "+50%", minutes=60, now=NOW + 600)[1].until == NOW + 3600
    assert change(AFTER, line, "+100%", minutes=60, now=NOW + 600)[1].until == NOW + 4200
    assert change(AFTER, line, "+50%")[1].until is None


def test_nothing_can_give_back_what_nothing_scales():
    goal, line, _notes = change(Size(2), None, "4", minutes=60)
    assert line.until is None
    assert "nothing scales api" in temporary.lasting("api", goal, line, 60)


@pytest.mark.parametrize(
    ("present", "goal", "told"),
    [
        (AFTER, BEFORE, ""),
        (Size(3, 2, 10), BEFORE, ""),
        (BEFORE, BEFORE, ""),
        (Size(6, 3, 10), Size(6, 2, 10), "has 6, not the 3 that it was given"),
        (Size(3, 4, 12), Size(2, 4, 12), "somebody changed them, they stay"),
        (Size(3), Size(2), "somebody changed them, they stay"),
    ],
)
def test_what_is_given_back_is_what_is_still_as_it_was_set(present, goal, told):
    assert temporary.restored("api", present, Kept(BEFORE, AFTER))[0] == goal
    assert told in " ".join(temporary.restored("api", present, Kept(BEFORE, AFTER))[1])


@pytest.mark.parametrize(
    ("asked", "present", "kept", "more"),
    [
        ("3", BEFORE, None, 1),
        ("2", BEFORE, None, 0),
        ("-25%", AFTER, None, 0),
        ("-50%", AFTER, None, -1),
        ("+50%", BEFORE, None, 1),
        # It is there already, or scaling has given more since.
        ("+50%", AFTER, Kept(BEFORE, AFTER), 0),
        ("+50%", Size(5, 3, 10), Kept(BEFORE, AFTER), 0),
        (None, AFTER, Kept(BEFORE, AFTER), 0),
    ],
)
def test_how_many_more_need_room(asked, present, kept, more):
    assert temporary.growth(asked, present, kept, NOW) == more
