# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""region_evacuation.yml: everything goes to the peer while the region that is left answers nothing at all."""

from __future__ import annotations

from world import EAST, WEST, World

# What the run may wait for the silent region, all its tasks together.
PATIENCE = 3


def test_the_whole_run_waits_no_longer_than_it_says(world: World) -> None:
    # What the peer lacks refuses before anything moves, and says what it is.
    refused = world.runbook.run("region_evacuation", queues=["jobs"], caches=["nowhere"])
    assert refused.returncode == 2 and refused.mutations == []
    (complaint,) = refused.complaints
    assert "the cache nowhere" in complaint and "the queue jobs" in complaint and "accept_missing=true" in complaint

    world.aws("sqs", WEST).create_queue(QueueName="jobs")
    world.start_users()
    world.sandbox.fault("region-cut", region=EAST)
    run = world.runbook.run(
        "region_evacuation", queues=["jobs"], failed_region_seconds=PATIENCE, accept_data_loss_seconds=120
    )
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered" and run.report["unfenced"] is True
    silence = run.report["silent_regions"][EAST]
    assert 1 < silence["waited"] <= silence["allowed"] == PATIENCE
    assert f"silent: {EAST} did not answer, {silence['waited']:.1f} s of the {PATIENCE} s" in run.output
    # As the other side counts: it is asked until that is over, and no more long before the run ends.
    unanswered = [call for call in run.calls if call["region"] == EAST]
    assert unanswered and {call["status"] for call in unanswered} == {None}
    assert unanswered[-1]["time"] < run.calls[-1]["time"] - 2
    notes = run.report["notes"]
    assert any("it was asked no more" in note for note in notes)
    assert any("how many messages jobs in us-east-1 still holds is not known" in note for note in notes)
    users = world.stop_users()
    assert users["rto_seconds"] is not None and users["overlap"] is False
