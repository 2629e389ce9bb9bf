# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""undo.yml: what a run changed is taken back, and what others changed since is not."""

from __future__ import annotations

import pytest
from cases import REVISION, lost_objects, the_image_before
from killing import Point, answered, killed_at
from resources import differences, left, steady
from test_emergency_scale import TARGET
from world import EAST, World

BOUND = "application-autoscaling:RegisterScalableTarget us-east-1"


def test_a_run_is_taken_back_exactly_although_the_undo_was_killed_and_an_answer_lost(world: World) -> None:
    before = steady(world)
    scaled = world.runbook.run("emergency_scale", capacity="+50%")
    assert scaled.returncode == 0 and scaled.recap["changed"] > 0
    planned = world.runbook.run("undo", "--check", "--diff")
    assert (planned.returncode, planned.mutations, planned.report["outcome"]) == (0, [], "planned")
    # Its bounds are back, its tasks are not: the state is neither what the run left nor what it found.
    killed_at(world, Point("in the middle", answered("RegisterScalableTarget", EAST)), "undo")
    # The last of its steps, which is left wherever the other one was killed.
    world.sandbox.fault("api", service="ecs", action="UntagResource", kind="lost-answer", region=EAST, count=1)
    back = world.runbook.run("undo")
    assert (back.returncode, back.report["outcome"]) == (0, "recovered"), back.output
    assert "no answer (forget what regami-service had before)" in back.output
    assert differences(before, steady(world)) == []
    again = world.runbook.run("undo")
    assert (again.returncode, again.mutations, again.report["outcome"]) == (0, [], "noop")


def test_what_others_changed_since_is_left_alone(world: World) -> None:
    world.runbook.run("emergency_scale", capacity="+50%")
    names = world.names(EAST)
    resource = f"service/{names['cluster']}/{names['service']}"
    world.aws("application-autoscaling").register_scalable_target(
        **TARGET, ResourceId=resource, MinCapacity=1, MaxCapacity=7
    )
    run = world.runbook.run("undo")
    assert (run.returncode, run.mutations) == (0, [])
    # At the end, too, where it is read.
    (note,) = [each for each in run.report["notes"] if "Left alone, since something changed it after that run" in each]
    assert "set the desired count of regami-service to 3" in note


def test_what_cannot_be_seen_is_not_taken_for_changed(world: World) -> None:
    """Who may not look, or is not answered, knows nothing: the run is red, and goes on once there is an answer."""
    world.runbook.run("emergency_scale", capacity="+50%")
    world.sandbox.fault("api", service="ecs", action="DescribeServices", kind="denied", region=EAST)
    denied = world.runbook.run("undo")
    assert (denied.returncode, denied.mutations) == (2, [])
    assert any("missing permission ecs:DescribeServices" in each for each in denied.complaints), denied.complaints
    world.sandbox.heal()
    # Its bounds are back, its tasks are not, and nobody killed it.
    world.sandbox.fault("api", service="ecs", action="UpdateService", kind="denied", region=EAST)
    failed = world.runbook.run("undo")
    assert (failed.returncode, failed.mutations[0]) == (2, BOUND), failed.output
    world.sandbox.heal()
    back = world.runbook.run("undo")
    assert (back.report["outcome"], world.service(EAST)["desiredCount"]) == ("recovered", 2), back.output


@pytest.mark.soak
def test_a_run_that_failed_on_its_way_is_taken_back_and_a_plan_is_no_run(world: World) -> None:
    before = steady(world)
    world.sandbox.fault("api", service="ecs", action="UpdateService", kind="denied", region=EAST)
    failed = world.runbook.run("emergency_scale", capacity="+50%")
    assert (failed.returncode, BOUND in failed.mutations) == (2, True), failed.output
    world.sandbox.heal()
    world.runbook.run("traffic", "--check", mode="maintenance")
    back = world.runbook.run("undo")
    assert back.report["outcome"] == "recovered", back.output
    assert differences(before, steady(world)) == []
    again = world.runbook.run("undo")
    assert any(f"{back.folder.name} took it back already" in note for note in again.report["notes"])


@pytest.mark.soak
def test_a_change_in_the_middle_of_which_the_run_was_killed_is_taken_back(world: World) -> None:
    """No step of its record tells of it, and the run that went on with it has changed nothing."""
    before = steady(world)
    said = {"steps": "deploy", **the_image_before(world)}
    killed_at(
        world, Point("rolled out, nobody has heard of it", answered("UpdateService", EAST)), "security_breach", **said
    )
    early = world.runbook.run("undo")
    assert (early.returncode, early.mutations) == (2, []) and "did not end" in early.complaints[0]
    again = world.runbook.run("security_breach", **said)
    assert (again.returncode, again.mutations) == (0, []), again.output
    back = world.runbook.run("undo")
    assert (back.returncode, back.report["outcome"]) == (0, "recovered"), back.output
    assert left(before, steady(world), (REVISION,)) == []


@pytest.mark.soak
def test_all_that_two_runs_have_brought_back_is_taken_back(world: World) -> None:
    said, s3 = lost_objects(world), world.aws("s3")

    def objects() -> dict[str, str]:
        listed = s3.list_objects_v2(Bucket="regami-uploads").get("Contents", [])
        return {each["Key"]: each["ETag"] for each in listed}

    before = objects()
    world.sandbox.fault("s3-slow-down", rate=4)
    killed_at(world, Point("it copies", answered("CopyObject", EAST)), "restore_objects", **said)
    again = world.runbook.run("restore_objects", **said)
    assert again.returncode == 0 and objects() != before, again.output
    back = world.runbook.run("undo")
    assert back.returncode == 0 and objects() == before, back.output


def test_a_typo_names_the_folder(world: World) -> None:
    run = world.runbook.run("undo", run="yesterday")
    (complaint,) = run.complaints
    assert "yesterday is no record of a run: say -e run=NAME" in complaint and run.mutations == []
