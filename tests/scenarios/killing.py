# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of a whole run at a stage that is known by what the run has said, or what AWS has answered."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runbook import Result, Running
from world import World

Reached = Callable[[Running, World], bool]


def said(text: str) -> Reached:
    """The run has told its watcher so; what it tells of is about to begin."""
    return lambda run, _world: any(text in event.get("line", "") for event in run.timeline)


def planned(step: str) -> Reached:
    return lambda run, _world: any(event["event"] == "preflight" and event["step"] == step for event in run.timeline)


def answered(action: str, region: str, times: int = 1) -> Reached:
    """AWS has applied the call, and at most its answer was on the way."""

    def reached(run: Running, _world: World) -> bool:
        return [call["status"] for call in run.calls if (call["action"], call["region"]) == (action, region)].count(
            200
        ) >= times

    return reached


@dataclass(frozen=True)
class Point:
    """Where the run is killed. `stuck` is a call (service, action, region) that gets nowhere from the moment `stuck_after`
    on, so that the run is killed before it is applied, however fast the machine. `fault` is there from the beginning.
    """

    name: str
    reached: Reached
    stuck: tuple[str, str, str] | None = None
    stuck_after: Reached | None = None
    fault: str | None = None


def hold(world: World, service: str, action: str, region: str) -> None:
    """The next such call takes three seconds to be dropped unapplied."""
    for kind in ("latency", "reset"):
        world.sandbox.fault("api", service=service, action=action, kind=kind, region=region, count=1, seconds=3)


def killed_at(world: World, point: Point, playbook: str = "db_failover", **variables: Any) -> Result:
    if point.fault:
        world.sandbox.fault(point.fault)
    run = world.runbook.start(playbook, **variables)
    if point.stuck:
        if point.stuck_after:
            run.until(lambda run: point.stuck_after(run, world))
        hold(world, *point.stuck)
    # What a call of the run before still changes is no point of this run, which has not begun its record.
    run.until(lambda run: run.timeline and point.reached(run, world))
    killed = run.kill()
    world.sandbox.heal()
    assert killed.returncode == -signal.SIGKILL
    # It has left its part.
    assert killed.timeline[0]["event"] == "run_started" and killed.timeline[-1]["event"] != "run_ended"
    assert not (killed.folder / "report.json").exists()
    return killed
