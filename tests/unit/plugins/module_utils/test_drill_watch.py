# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A drill: when it is over, and how that is told."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils.drill_watch import OUT_OF_TIME, RECOVERED, VOID, Watch, told

NOW = 1_000_000.0


def seen(*symptoms, patience=100):
    """A look each second from the moment it broke."""
    watching = Watch(NOW, patience, steady_seconds=3, show_seconds=5)
    for second, sick in enumerate(symptoms):
        watching.observe(NOW + second, ["it is bad"] if sick else [])
    return watching


def test_it_is_over_when_all_was_well_for_long_enough():
    assert seen(False, True, False, False, True, False, False).outcome is None
    over = seen(False, True, False, False, True, False, False, False, False)
    assert (over.outcome, over.paged, over.recovered) == (RECOVERED, NOW + 1, NOW + 5)


def test_what_never_shows_is_no_drill_and_what_never_ends_is_ended():
    assert seen(*[False] * 8).outcome == VOID
    over = seen(*[True] * 13, patience=10)
    assert (over.outcome, over.recovered) == (OUT_OF_TIME, None)


def test_how_it_ended_is_told_in_words():
    assert told(seen(True, False, False, False, False)) == "the drill was recovered 1.0 s after the first sign"
    assert told(seen(*[False] * 8)) == "the drill is void: nothing failed within 5 s"
    assert told(seen(*[True] * 13, patience=10)) == "the drill ended without a recovery: out of time"
