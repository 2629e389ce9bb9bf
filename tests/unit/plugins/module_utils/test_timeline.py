# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The picture can be read without knowing the code."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils.timeline import draw


def step(second, name, duration, state="changed"):
    return {
        "time": f"2026-01-01T00:00:{second:06.3f}Z",
        "event": "step",
        "step": name,
        "duration": duration,
        "state": state,
    }


def test_steps_stand_where_and_as_long_as_they_ran():
    lines = draw(
        [step(10, "sre.runbooks.guard : Stop the writers", 10), step(30, "Promote", 20), step(40, "Move the name", 10)]
    )
    assert lines == [
        "    0.0 s  [========                        ]   10.0 s  Stop the writers",
        "   10.0 s  [        ================        ]   20.0 s  Promote",
        "   30.0 s  [                        ========]   10.0 s  Move the name",
    ]


def test_failures_and_changes_are_shown_however_short_and_the_rest_is_not():
    events = [step(1, "Right account", 0.1, "ok"), step(2, "Promote", 0.1, "failed"), step(3, "Scale", 0.1)]
    assert [line.rpartition("  ")[2] for line in draw(events)] == ["Promote: FAILED", "Scale"]


def test_what_users_saw_stands_between():
    lines = draw([step(10, "Promote", 10)], [(1767225598.0, "users: first failed write")])
    assert "users: first failed write" in lines[0]
    assert lines[0].startswith("    0.0 s  [|")


def test_empty_record_draws_nothing():
    assert draw([]) == []
