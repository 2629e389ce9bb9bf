# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the whole run at every stage, under writes; the same command again ends as if nothing had happened."""

from __future__ import annotations

import os
import signal

import pytest
from killing import Point, answered, killed_at, planned, said
from runbook import Result, Running
from world import EAST, REPLICA, WEST, Switchover, World


def promoted_unnoticed(_run: Running, world: World) -> bool:
    """RDS is through with the promotion; what is read here is not in the log of calls."""
    return any(
        row["name"] == REPLICA and row["state"] == "available" and "primary" in row["detail"]
        for row in world.sandbox.status()["rows"]
    )


ROLL_OUT, COUNT = "roll regami-service-secondary out", "set the desired count of regami-service-secondary"
# All points in the order of a run.
POINTS = (
    Point("in the middle of the preflight", planned("Fence the old database and promote the replica")),
    Point("lease taken", answered("PutItem", WEST)),
    Point(
        "scaling floor lowered, writers not stopped",
        said("set the desired count of regami-service to 0"),
        ("ecs", "UpdateService", EAST),
    ),
    Point("writers drain", said("regami-service drains: 0 of 0 running")),
    Point("primary fenced, not noted", answered("DescribeDBInstances", EAST, 3), ("rds", "AddTagsToResource", EAST)),
    Point("replica replays the rest", said("replays what is left"), fault="replica-lag"),
    Point("replica marked, not promoted", said("promote regami-db-replica"), ("rds", "PromoteReadReplica", WEST)),
    Point("promotion accepted", answered("PromoteReadReplica", WEST)),
    Point("promotion runs", said("is promoted: modifying")),
    Point("promoted, still read-only", promoted_unnoticed),
    Point("promoted, primary not quarantined", said("let nothing new connect"), ("rds", "ModifyDBInstance", EAST)),
    Point("primary quarantined", answered("ModifyDBInstance", EAST)),
    Point("revision registered, not rolled out", said(ROLL_OUT), ("ecs", "UpdateService", WEST)),
    Point(
        "standby's floor lifted, not started",
        said(COUNT),
        ("ecs", "UpdateService", WEST),
        answered("UpdateService", WEST),
    ),
    Point("standby starts", said("regami-service-secondary serves with 2 tasks: ")),
    Point("name moved, not in sync", answered("ChangeResourceRecordSets", WEST)),
    Point("resolvers forget", said("INSYNC")),
    Point(
        "verified, lease not given back",
        said("give the lease regami-api back"),
        ("dynamodb", "UpdateItem", WEST),
        answered("FilterLogEvents", WEST),
    ),
)
# Each is one night of bad luck: a run is killed where the one before it had not yet come, and the next goes on.
NIGHTS = [POINTS[first::3] for first in range(3)]


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


@pytest.mark.soak
@pytest.mark.parametrize("night", NIGHTS, ids=lambda night: f"first {night[0].name}")
def test_killed_again_and_again(switchover: Switchover, world: World, night: tuple[Point, ...]) -> None:
    world.start_users()
    killed = killed_at(world, night[0])
    for point in night[1:]:
        before, killed = killed, killed_at(world, point)
        assert killed.timeline[0]["resumes"] == before.folder.name
    assert_ends_well(world, switchover, killed)


def test_the_task_that_outlives_its_run_changes_nothing_more(switchover: Switchover, world: World) -> None:
    """The out-of-memory killer takes one process; ansible's workers are in sessions of their own."""
    world.start_users()
    run = world.runbook.start()
    run.until(lambda run: said("is promoted: modifying")(run, world))
    os.kill(run.process.pid, signal.SIGKILL)
    # Returns when the last of its processes has closed its output.
    killed = run.wait()
    assert killed.mutations[-1] == f"rds:PromoteReadReplica {WEST}"
    assert_ends_well(world, switchover, killed)
