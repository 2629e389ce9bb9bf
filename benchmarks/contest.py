# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a folder of benchmarks/ says of itself: the incident, who deals with it, and how ours has to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.client import Sandbox

REPOSITORY = Path(__file__).resolve().parent.parent


class NotRecovered(Exception):
    """One line for a person; the run does not count."""


@dataclass(frozen=True)
class Contestant:
    """`command` runs in the repository where it needs its ansible.cfg, else in a folder of its own."""

    name: str
    command: tuple[str, ...]
    in_repository: bool = False


def unjudged(_sandbox: Sandbox) -> bool:
    return True


@dataclass(frozen=True, eq=False)
class Contest:
    """One incident and the ways out of it.

    Args:
        name: what is typed after `python -m benchmarks`.
        contestants: ours first.
        arrange: brings the incident about in a sandbox that was just reset, writes files that contestants need into the
            given folder, and returns the names that a team knows by heart. Contestants find these in their environment,
            in capitals, and in facts.json. Raises NotRecovered where the sandbox does not come into that state.
        is_over: whether users are served again as they should be; asked after each run until it is true.
        limits: {name of a contestant: the most that ours may take of its wall time}.
        start: a contestant that only starts what ours starts too; the others are given this time as well.
        unavoidable: seconds of the run that just ended which are the same for everybody, since AWS itself takes them;
            `limits` do not count them.
        figures: more figures made of {name of a contestant: median seconds}; all names given took part.
    """

    name: str
    contestants: tuple[Contestant, ...]
    arrange: Callable[[Sandbox, Path], dict[str, str]]
    is_over: Callable[[Sandbox], bool] = unjudged
    limits: dict[str, float] = field(default_factory=dict)
    start: Contestant | None = None
    unavoidable: Callable[[Sandbox], float] = lambda _sandbox: 0.0
    figures: Callable[[dict[str, float]], dict[str, float]] = lambda _seconds: {}

    @property
    def ours(self) -> Contestant:
        return self.contestants[0]
