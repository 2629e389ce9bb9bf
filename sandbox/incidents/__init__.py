# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Incidents of known cause, as a service in production has them: the cause is real and so are its signs, and there is noise.

    stage    the service with all that it depends on: cache, bucket, partner, a pool, a disk; and its users
    causes   what goes wrong, and how it is put right
    past     what was before: metrics, logs, deployments and other people's changes, made up from a number
    lapse    seconds of the drill stand for minutes of the past

    python -m sandbox fault incident CAUSE [--seed N] [--seconds N]

Returns when users have suffered for that long. The cause is told by nothing but its signs: no name of a fault, an image or a
build says it.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from ..faults import Fault
from . import causes, lapse, past, stage

if TYPE_CHECKING:
    from ..world import World

NEVER = "there is no incident: `fault incident CAUSE` makes one"
_now: list[tuple[causes.Cause, causes.Scene]] = []


def _begin(world: World, cause: str, seed: str | int = 1, seconds: str | float | None = None) -> None:
    """Raises ValueError for an unknown cause, and where one goes on."""
    known = causes.CAUSES.get(cause)
    if known is None:
        raise ValueError(f"unknown cause {cause!r}: one of {', '.join(causes.CAUSES)}")
    if _now:
        raise ValueError("an incident goes on: `heal incident` ends it")
    seed = int(seed)
    dice = random.Random(f"{cause} {seed}")
    stage.ready(world)
    scene = causes.Scene(world, seed, dice)
    began = time.time()
    _now.append((known, scene))
    try:
        known.begin(scene)
        causes.wait_for(known.is_there(scene) if known.is_there else None)
    except Exception:
        _end(world)
        raise
    time.sleep(known.seconds if seconds is None else float(seconds))
    past.write(world, dice, stage.levels(world), lapse.stretch(world, began, dice.uniform(*known.minutes) * 60))


def _end(world: World) -> None:
    while _now:
        known, scene = _now.pop()
        known.end(scene)
        stage.settle(world)


def _control(world: World, arguments: dict) -> dict:
    """`ready`: the service with all that it depends on, and users, without anything going wrong."""
    if arguments.get("action") != "ready":
        raise ValueError(NEVER)
    stage.ready(world)
    past.write(world, random.Random(int(arguments.get("seed", 0))), stage.levels(world), time.time())
    return {"causes": list(causes.CAUSES)}


def seed(world: World) -> None:
    _now.clear()
    stage.forget()


def stop(world: World) -> None:
    causes.forget(world)


control: dict[str, Any] = {"incidents": _control}
faults = {
    "incident": Fault(
        f"regami-api, with all that it depends on, suffers from CAUSE: {', '.join(causes.CAUSES)}; another --seed, another day",
        _begin,
        _end,
        ("cause",),
        ("seed", "seconds"),
    )
}
