# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the whole run at every stage, under writes; the same command again ends as if nothing had happened."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from runbook import Result, Running
from world import EAST, REPLICA, WEST, Switchover, World

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


def promoted_unnoticed(_run: Running, world: World) -> bool:
    """RDS is through with the promotion; what is read here is not in the log of calls."""
    return any(
        row["name"] == REPLICA and row["state"] == "available" and "primary" in row["detail"]
        for row in world.sandbox.status()["rows"]
    )


@dataclass(frozen=True)
class Point:
    """Where the run is killed. `stuck` is a call (service, action, region) that gets nowhere from the moment `stuck_after`
    on, so that the run is killed before it is applied, however fast the machine.
    """

    name: str
    reached: Reached
    stuck: tuple[str, str, str] | None = None
    stuck_after: Reached | None = None
    replay_paused: bool = False


ROLL_OUT, COUNT = "roll regami-service-secondary out", "set the desired count of regami-service-secondary"
POINTS = (
    Point("lease taken", answered("PutItem", WEST)),
    Point(
        "scaling floor lowered, writers not stopped",
        said("set the desired count of regami-service to 0"),
        ("ecs", "UpdateService", EAST),
    ),
    Point("primary fenced, not noted", answered("DescribeDBInstances", EAST, 3), ("rds", "AddTagsToResource", EAST)),
    Point("replica replays the rest", said("replays what is left"), replay_paused=True),
    Point("replica marked, not promoted", said("promote regami-db-replica"), ("rds", "PromoteReadReplica", WEST)),
    Point("promotion accepted", answered("PromoteReadReplica", WEST)),
    Point("promoted, still read-only", promoted_unnoticed),
    Point("promoted, primary not quarantined", said("let nothing new connect"), ("rds", "ModifyDBInstance", EAST)),
    Point("revision registered, not rolled out", said(ROLL_OUT), ("ecs", "UpdateService", WEST)),
    Point(
        "standby's floor lifted, not started",
        said(COUNT),
        ("ecs", "UpdateService", WEST),
        answered("UpdateService", WEST),
    ),
    Point("name moved, not in sync", answered("ChangeResourceRecordSets", WEST)),
    Point(
        "verified, lease not given back",
        said("give the lease regami-api back"),
        ("dynamodb", "UpdateItem", WEST),
        answered("FilterLogEvents", WEST),
    ),
)
# One night of bad luck: each run is killed where the one before it had not yet come.
AGAIN_AND_AGAIN = (
    Point("in the middle of the preflight", planned("Fence the old database and promote the replica")),
    Point("writers drain", said("regami-service drains: 0 of 0 running")),
    Point("promotion runs", said("is promoted: modifying")),
    Point("primary quarantined", answered("ModifyDBInstance", EAST)),
    Point("standby starts", said("regami-service-secondary serves with 2 tasks: ")),
    Point("resolvers forget", said("INSYNC")),
)


def hold(world: World, service: str, action: str, region: str) -> None:
    """The next such call takes three seconds to be dropped unapplied."""
    for kind in ("latency", "reset"):
        world.sandbox.fault("api", service=service, action=action, kind=kind, region=region, count=1, seconds=3)


def killed_at(world: World, point: Point) -> Result:
    if point.replay_paused:
        world.sandbox.fault("replica-lag")
    run = world.runbook.start()
    if point.stuck:
        if point.stuck_after:
            run.until(lambda run: point.stuck_after(run, world))
        hold(world, *point.stuck)
    run.until(lambda run: point.reached(run, world))
    killed = run.kill()
    world.sandbox.heal()
    assert killed.returncode == -signal.SIGKILL
    # It has left its part.
    assert killed.timeline[0]["event"] == "run_started" and killed.timeline[-1]["event"] != "run_ended"
    assert not (killed.folder / "report.json").exists()
    return killed


def assert_ends_well(world: World, uninterrupted: Switchover, killed: Result) -> None:
    """The same command again, to the same end; nobody has lost anything."""
    again = world.runbook.run()
    assert again.returncode == 0, again.output
    assert world.snapshot() == uninterrupted.state
    assert again.report["resumes"] == killed.folder.name
    assert again.report["outcome"] in ("recovered", "noop")
    assert again.report["unfenced"] is False
    assert all(check["ok"] for check in again.report["verification"]) and again.report["verification"]
    users = world.stop_users()
    assert users["lost_writes"] == 0
    assert users["overlap"] is False and len(users["databases"]) == 2


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_killed(switchover: Switchover, world: World, point: Point) -> None:
    world.start_users()
    assert_ends_well(world, switchover, killed_at(world, point))


def test_killed_again_and_again(switchover: Switchover, world: World) -> None:
    world.start_users()
    for point in AGAIN_AND_AGAIN:
        killed = killed_at(world, point)
    assert_ends_well(world, switchover, killed)
