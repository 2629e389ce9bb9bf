# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill is worth, of 100 points: half for the time, the rest for what was not made worse."""

from __future__ import annotations

from dataclasses import asdict, dataclass

TIME, DATA, TURNS = 50, 30, 20
# All points for the time up to the target, none from so many times that.
TOO_LONG = 4
# An acknowledged write that is gone is a customer's; after thirty it does not matter how many.
PER_LOST_WRITE, PER_WRONG_TURN = 1, 10


@dataclass(frozen=True)
class Score:
    """`data` is None where nothing measures it: the rest counts for all, then."""

    time: float
    data: float | None
    turns: float

    @property
    def points(self) -> int:
        if self.data is None:
            return round((self.time + self.turns) * (TIME + DATA + TURNS) / (TIME + TURNS))
        return round(self.time + self.data + self.turns)

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self) | {"points": self.points}


def score(
    recovery_seconds: float | None,
    target_seconds: float,
    lost_writes: int | None,
    wrong_turns: int,
    measured: bool = True,
) -> Score:
    """Pure. `recovery_seconds` is None where it was not recovered: no points at all, since then nothing was gained.

    `lost_writes` is None where the database cannot be asked, which is no better than many. `measured`: whether anybody writes and
    keeps account of it at all.
    """
    if recovery_seconds is None:
        return Score(0, 0 if measured else None, 0)
    beyond = max(0.0, recovery_seconds - target_seconds) / ((TOO_LONG - 1) * target_seconds)
    lost = DATA if lost_writes is None else PER_LOST_WRITE * lost_writes
    return Score(
        time=round(TIME * max(0.0, 1 - beyond), 1),
        data=max(0, DATA - lost) if measured else None,
        turns=max(0, TURNS - PER_WRONG_TURN * wrong_turns),
    )
