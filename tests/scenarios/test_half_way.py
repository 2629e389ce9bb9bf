# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that stop half way or begin half way, since the world changed under them: what is done counts, the rest is done."""

from __future__ import annotations

import pytest
from world import EAST, REPLICA, WEST, World, wait_until


@pytest.mark.soak
def test_promotion_is_denied(world: World, switchover) -> None:
    """Known only when it is tried: the old side is stopped then. With the permission the same command goes on."""
    world.start_users()
    world.sandbox.fault("api", service="rds", action="PromoteReadReplica", kind="denied")
    run = world.runbook.run()
    assert run.returncode == 2
    (complaint,) = run.complaints
    assert f"missing permission rds:PromoteReadReplica in {WEST}" in complaint
    assert "Done so far: fence" in complaint and "The same command again goes on from here" in complaint
    assert run.report["outcome"] == "failed" and run.report["undo"]
    assert world.snapshot()["lease"] == "free"
    world.sandbox.heal()
    again = world.runbook.run()
    assert again.returncode == 0, again.output
    assert world.snapshot() == switchover.state
    assert world.stop_users()["lost_writes"] == 0


def test_standby_never_turns_healthy(world: World, switchover) -> None:
    """The database has moved by then; the name must not follow to where nobody serves."""
    standby = world.names(WEST)
    world.aws("ecs", WEST).update_service(
        cluster=standby["cluster"], service=standby["service"], healthCheckGracePeriodSeconds=0
    )
    world.sandbox.fault("standby-unhealthy")
    run = world.runbook.run()
    assert run.returncode == 2
    (complaint,) = run.complaints
    assert "regami-tg-secondary" in complaint and "The same command again goes on from here" in complaint
    assert world.snapshot()["records"] == switchover.before["records"]
    assert "ChangeResourceRecordSets" not in {call["action"] for call in run.calls}
    world.sandbox.heal()
    again = world.runbook.run()
    assert again.returncode == 0, again.output
    # Without a grace period ECS replaces a task at each probe that a busy machine answers late.
    wait_until(lambda: world.snapshot() == switchover.state, "the end of a run that nothing interrupted")


def test_promoted_by_hand(world: World, switchover) -> None:
    """Somebody was quicker, in the console: the run takes it from there."""
    world.aws("rds", WEST).promote_read_replica(DBInstanceIdentifier=REPLICA, BackupRetentionPeriod=7)
    wait_until(lambda: not world.database(WEST).get("ReadReplicaSourceDBInstanceIdentifier"), "promotion")
    # The primary lives, and what users write there the other one does not get: that is a person's to give up.
    refused = world.runbook.run()
    assert refused.returncode == 2 and refused.mutations == [], refused.output
    assert any("still takes writes" in complaint for complaint in refused.complaints)
    run = world.runbook.run(accept_standalone=True)
    assert run.returncode == 0, run.output
    assert "rds:PromoteReadReplica us-west-2" not in run.mutations
    state = world.snapshot()
    assert state[WEST]["service"] == switchover.state[WEST]["service"]
    assert state["records"] == switchover.state["records"]
    assert not world.takes_writes(EAST) and world.takes_writes(WEST)
