# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The primary is gone at night. What was acknowledged and never replicated is lost, and the record says how much that can be."""

from __future__ import annotations

import time

import pytest
from world import EAST, PRIMARY, REPLICA, WEST, World, wait_until

# What a run may spend on a region that answers nothing, in seconds beyond what it takes anyway.
PATIENCE = 60


def lost(world: World) -> list[dict]:
    """The acknowledgements whose rows the new primary does not have."""
    with world.session(WEST) as query:
        there = {number for (number,) in query("SELECT id FROM rows")}
    return [ack for ack in world.acknowledged() if ack["id"] not in there]


def assert_told_truly(report: dict, losses: list[dict], killed: float) -> None:
    """The oldest lost write is no older, counted back from the death of the primary, than the report says."""
    assert (report["mode"], report["unfenced"]) == ("failover", True)
    real = max((killed - ack["acked"] for ack in losses), default=0.0)
    assert real <= report["possible_loss_seconds"]


def test_primary_killed_under_load(world: World) -> None:
    world.start_users()
    world.sandbox.fault("primary-killed")
    killed = time.time()
    run = world.runbook.run()
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    users = world.stop_users()
    assert users["rto_seconds"] < run.seconds + 2
    assert users["overlap"] is False
    losses = lost(world)
    assert_told_truly(run.report, losses, killed)
    # Replication was a moment behind at most.
    assert [killed - ack["acked"] < 1 for ack in losses].count(False) == 0
    assert any(note.startswith("UNFENCED") for note in run.report["notes"])

    # It comes back as it was, writable: the same command again fences it.
    world.sandbox.heal()
    assert world.takes_writes(EAST)
    again = world.runbook.run()
    assert again.returncode == 0, again.output
    assert (again.report["outcome"], again.report["unfenced"]) == ("recovered", False)
    assert not world.takes_writes(EAST)
    assert (
        world.database(EAST)["VpcSecurityGroups"][0]["VpcSecurityGroupId"]
        == world.names(EAST)["quarantine_security_group"]
    )
    third = world.runbook.run()
    assert (third.returncode, third.report["outcome"], third.recap["changed"]) == (0, "noop", 0)


@pytest.mark.soak
def test_primary_killed_while_the_replica_lags(world: World) -> None:
    world.start_users()
    world.sandbox.fault("replica-frozen")
    frozen = time.time()
    world.await_users(40)
    world.sandbox.fault("primary-killed")
    killed = time.time()

    # Nobody accepted a loss, then somebody accepted too little of it: nothing moves.
    wait_until(lambda: world.database(EAST)["DBInstanceStatus"] == "failed", "RDS notices")
    before = world.snapshot()
    for accepted in (0, 1):
        refused = world.runbook.run(accept_data_loss_seconds=accepted)
        assert refused.returncode == 2
        (complaint,) = refused.complaints
        assert f"the primary {PRIMARY} does not answer" in complaint
        assert f"accepted are {accepted} s: accept more with -e accept_data_loss_seconds=" in complaint
        assert refused.mutations == []
        assert refused.lease_calls[0] == "PutItem" and len(refused.lease_calls) == 2
        assert refused.report["outcome"] == "failed"
    assert world.snapshot() == before

    run = world.runbook.run(accept_data_loss_seconds=120)
    assert run.returncode == 0, run.output
    users, losses = world.stop_users(), lost(world)
    assert users["lost_writes"] == len(losses) >= 40
    assert min(ack["acked"] for ack in losses) > frozen - 1
    assert_told_truly(run.report, losses, killed)
    # A bound, and no guess that covers everything: what users lost, and the time that passed until the run asked.
    assert run.report["possible_loss_seconds"] < time.time() - frozen
    assert any("accepted a loss of up to 120 s" in note for note in run.report["notes"])


@pytest.mark.parametrize("metrics", ["metrics-missing", "metrics-stale"])
def test_primary_killed_and_metrics_gone(world: World, metrics: str) -> None:
    """The replica itself says how far it is: the run does not need CloudWatch for that, and never takes silence for zero."""
    world.start_users()
    world.sandbox.fault(metrics)
    world.sandbox.fault("primary-killed")
    planned = world.runbook.run("db_failover", "--check", accept_data_loss_seconds=0)
    assert planned.returncode == 2
    assert "of acknowledged writes would be lost" in planned.complaints[0]
    assert planned.mutations == []


@pytest.mark.soak
def test_region_cut(world: World) -> None:
    """us-east-1 answers nothing: no API, no database, no load balancer; connections hang."""
    world.start_users()
    world.sandbox.fault("region-cut", region=EAST)
    run = world.runbook.run(accept_data_loss_seconds=120)
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered" and run.report["unfenced"] is True
    assert run.seconds < 15 + PATIENCE
    # Nothing came from there, and nothing there was needed.
    assert {call["status"] for call in run.calls if call["region"] == EAST} == {None}
    assert any(f"{EAST} does not answer" in note for note in run.report["notes"])
    users, losses = world.stop_users(), lost(world)
    assert users["rto_seconds"] is not None and users["overlap"] is False
    assert_told_truly(run.report, losses, users["last_ack_before"])

    # The region is back, its database writable, its application running: two primaries, until the run is repeated.
    world.sandbox.heal()
    assert world.takes_writes(EAST) and world.takes_writes(WEST)
    again = world.runbook.run()
    assert again.returncode == 0, again.output
    assert again.report["unfenced"] is False
    assert not world.takes_writes(EAST)
    assert world.service(EAST)["desiredCount"] == 0
    assert world.database(WEST, REPLICA)["DBInstanceStatus"] == "available"
