# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two people are woken by the same alarm."""

from __future__ import annotations

from runbook import Running
from world import World


def acts(run: Running) -> bool:
    return any(event["event"] == "step" and event["step"].startswith("Stop the writers") for event in run.timeline)


def replays(run: Running) -> bool:
    return any("replays what is left" in event.get("line", "") for event in run.timeline)


def test_exactly_one_acts(switchover, world: World) -> None:
    runs = [world.runbook.start(), world.runbook.start()]
    told, acted = sorted((run.wait() for run in runs), key=lambda result: len(result.timeline))
    assert (acted.returncode, told.returncode) == (0, 2), acted.output + told.output
    (complaint,) = told.complaints
    assert "has held the lease regami-api since 20" in complaint and "break_lease=true" in complaint
    assert told.report["outcome"] == "failed" and told.report["undo"] == []
    assert [step["do"] for step in told.report["steps"]] == []
    # The calls of both: nothing was sent twice.
    assert acted.mutations == switchover.run.mutations
    assert world.snapshot() == switchover.state


def test_broken_lease_stops_the_first_run_at_its_next_step(switchover, world: World) -> None:
    world.start_users()
    world.sandbox.fault("replica-lag")
    first = world.runbook.start()
    first.until(replays)
    second = world.runbook.start(break_lease=True)
    second.until(replays)
    world.sandbox.heal()
    took_over, stopped = second.wait(), first.wait()
    assert took_over.returncode == 0, took_over.output
    assert stopped.returncode == 2
    (complaint,) = stopped.complaints
    assert "has held the lease regami-api since 20" in complaint
    assert stopped.report["outcome"] == "failed"
    assert any("taken from" in note and "by force" in note for note in took_over.report["notes"])
    assert [name for name in took_over.mutations if "PromoteReadReplica" in name] == [
        "rds:PromoteReadReplica us-west-2"
    ]
    # Neither the first run's end nor its haste took the lease from the second.
    assert world.snapshot() == switchover.state
    assert world.lease()["token"] == "2"
    assert world.stop_users()["lost_writes"] == 0
