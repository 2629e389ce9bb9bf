# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capacity for a while: how much is asked for, and what there was before, as the target itself remembers it. Pure.

"+50%" that was killed half way and is typed again must not add another half, and whoever gives the capacity back, hours
later and from another machine, must know what to go back to. So the target carries a line that says both (a tag, an
annotation), written before the first change and taken away when all is given back.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, replace

from .errors import Refusal

# The key of that line on a target.
MARK = "sre.runbooks/scaled"

ARGUMENTS = dict(
    capacity=dict(type="str"),
    restore=dict(type="bool", default=False),
    accept_shortage=dict(type="bool", default=False),
    db_instance=dict(type="str"),
    connections_each=dict(type="int"),
)
REQUIRED_BY = {"connections_each": "db_instance"}
CONDITIONS = dict(required_if=[("restore", False, ["capacity"])], required_by=REQUIRED_BY)

# What takes it back by hand.
GIVE_BACK = "playbooks/emergency_scale.yml --tags restore (restore=true)"

_ASKED = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+)(?P<percent>%?)")
# In the characters that every kind of tag takes: letters, digits, space and + - = . _ : / @
_SIZE = r"(\d+)(?: in (\d+)-(\d+))?"
_KEPT = re.compile(rf"{_SIZE} to {_SIZE}(?: until (\S+))?")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Size:
    """How much of something there is, and the bounds in which it is scaled (None where nothing scales it)."""

    count: int
    floor: int | None = None
    ceiling: int | None = None

    @property
    def bounds(self):
        return None if self.floor is None else (self.floor, self.ceiling)

    def text(self):
        return str(self.count) if self.bounds is None else f"{self.count} in {self.floor}-{self.ceiling}"


@dataclass(frozen=True)
class Kept:
    """What a target had, what it was given instead, and when its bounds are given back by themselves (seconds, or None)."""

    before: Size
    after: Size
    until: float | None = None

    def text(self):
        until = f" until {moment(self.until)}" if self.until else ""
        return f"{self.before.text()} to {self.after.text()}{until}"


def parse(text):
    """The Kept of a line, None for none or for one that is not ours to read."""
    found = _KEPT.fullmatch(text or "")
    if not found:
        return None
    *sizes, until = found.groups()
    numbers = [None if each is None else int(each) for each in sizes]
    return Kept(Size(*numbers[:3]), Size(*numbers[3:]), _seconds(until) if until else None)


def moment(seconds):
    """Seconds since the epoch as a time in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(_TIME)


def _seconds(text):
    return datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC).timestamp()


def holds(kept, present, now):
    """Is what the line says still so? Not once its time is over, nor where somebody else has set other bounds since."""
    if kept is None or (kept.until is not None and now >= kept.until):
        return False
    if present.bounds is None:  # nothing scales it: a third count is somebody's decision
        return present.count in (kept.before.count, kept.after.count)
    return present.bounds in (kept.before.bounds, kept.after.bounds)


def count_of(asked, base, what="capacity"):
    """How many "6", "+2", "-1", "+50%" or "-25%" are of `base`; a part of one is a whole one.

    Args:
        what: is counted, for people.

    Raises:
        Refusal: it is none of these, or less than none.
    """
    found = _ASKED.fullmatch(str(asked))
    if not found or (found["percent"] and not found["sign"]):
        raise Refusal(f"{what} is {asked}: give a number (6), or a change (+2, -1, +50%, -25%)")
    number = int(found["number"])
    if not found["sign"]:
        return number
    change = number if found["sign"] == "+" else -number
    count = -(-base * (100 + change) // 100) if found["percent"] else base + change
    if count < 0:
        raise Refusal(f"{asked} of {base} is less than none: give a number, 0 to have none at all")
    return count


def fitting(before, count):
    """The size with bounds that let `count` last: scaling may give more than that, or less of what was less before."""
    if before.bounds is None:
        return Size(count)
    return Size(count, count, max(before.ceiling, count) if count >= before.count else count)


def changed(name, present, kept, asked, minutes, now):
    """What to have instead of `present` for a while.

    Args:
        name: of the target, for people.
        present: Size, as it is now.
        kept: Kept of the target, or None.
        asked: as for `count_of`; a change counts from what there was before all of this.
        minutes: after which the bounds shall be given back by themselves, or None.
        now: seconds since the epoch.

    Returns:
        (Size to be at, Kept to write down, notes).
    """
    is_ours = holds(kept, present, now)
    before = kept.before if is_ours else present
    after, notes = fitting(before, count_of(asked, before.count)), []
    if kept is not None and not is_ours:
        notes.append(f"{name} was scaled before ({kept.text()}), and that is over: this begins anew")
    is_again = is_ours and kept.after == after
    goal = after
    if is_again and present.count not in (before.count, after.count):
        goal = replace(after, count=present.count)
        notes.append(
            f"{name} was given {after.count}, and has {present.count} now: scaling or somebody else knows better"
        )
    elif str(asked).startswith("+"):
        goal = replace(after, count=max(after.count, present.count))
    elif str(asked).startswith("-"):
        goal = replace(after, count=min(after.count, present.count))
    if is_ours and not str(asked).isdigit():
        notes.append(
            f"{name} had {before.count} before this began, and {asked} of that is {after.count}: say a number for more"
        )
    until = None
    if minutes and after.bounds is not None:
        until = kept.until if is_again and kept.until is not None else float(int(now) + 60 * minutes)
    return goal, Kept(before, after, until), notes


def growth(asked, present, kept, now):
    """How many more than `present` the same arguments as for `changed` ask for; a capacity that is given back (None) for none.

    Only these need room: for what is there already, or gets fewer, nobody is asked who may be gone, or may not be asked.
    """
    return 0 if asked is None else changed("", present, kept, asked, None, now)[0].count - present.count


def lasting(name, present, line, minutes):
    """A note on when the capacity ends, and what takes it back by hand."""
    if line.until is not None:
        return f"the bounds of {name} are given back at {moment(line.until)}, its count when scaling takes it; {GIVE_BACK} does both"
    why = f": nothing scales {name}, so nothing can by itself" if minutes and present.bounds is None else ""
    return f"{name} keeps this until it is given back{why}: {GIVE_BACK}"


def restored(name, present, kept):
    """(Size to go back to, notes): all that is still as `kept` set it. What somebody, or scaling, changed since stays."""
    notes, goal = [], kept.before
    if present.bounds not in (kept.before.bounds, kept.after.bounds):
        goal = replace(present, count=goal.count)
        notes.append(
            f"{name}: its bounds are {present.text()} and not {kept.after.text()}: somebody changed them, they stay"
        )
    if present.count not in (kept.before.count, kept.after.count):
        goal = replace(goal, count=present.count)
        notes.append(f"{name} has {present.count}, not the {kept.after.count} that it was given: that count stays")
    return goal, notes


def back(count, scaled, params):
    """The arguments that undo a verb with `params` that found `count`, and the line `scaled` (None for none)."""
    return {"capacity": str(count)} if scaled or params["restore"] else {"restore": True}
