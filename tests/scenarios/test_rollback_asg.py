# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback_deployment.yml, strategy asg: a bad build reaches the instances of a fleet, and they go back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from runbook import Result, Running
from world import World, wait_until


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def fleet(first_world: World) -> Iterator[World]:
    """Each test leaves version 2 in service."""
    yield first_world
    first_world.sandbox.heal()
    wait_until(lambda: versions(first_world) == ["2", "2"], "the fleet runs version 2")


def group(world: World) -> dict:
    name = world.sandbox.state["fleet"]["auto_scaling_group"]
    return world.aws("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]


def versions(world: World) -> list[str]:
    """Of the launch template, for each instance in service."""
    there = [each for each in group(world)["Instances"] if each["LifecycleState"] == "InService"]
    return [each["LaunchTemplate"]["Version"] for each in there]


def refresh(world: World) -> dict:
    """The newest."""
    name = world.sandbox.state["fleet"]["auto_scaling_group"]
    found = world.aws("autoscaling").describe_instance_refreshes(AutoScalingGroupName=name, MaxRecords=1)
    return found["InstanceRefreshes"][0]


def ship(world: World, build: str, until: str = "Successful", **options: Any) -> str:
    """A pipeline's deployment; the launch template version that it made."""
    world.sandbox.fault("bad-fleet", build=build, **options)
    wait_until(lambda: refresh(world)["Status"] == until, f"the refresh is {until}")
    template = world.aws("ec2").describe_launch_templates()["LaunchTemplates"][0]
    return str(template["LatestVersionNumber"])


def roll_back(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run("rollback_deployment", *flags, env="sandbox_fleet", **variables)


def changes(run: Result) -> list[str]:
    return [name for name in run.mutations if name.startswith("autoscaling:")]


def test_users_are_served_again_and_once_is_enough(fleet: World) -> None:
    fleet.start_users(name=fleet.sandbox.state["fleet"]["public_name"])
    bad = ship(fleet, "erroring")
    planned = roll_back(fleet, "--check", "--diff")
    assert (planned.returncode, planned.mutations) == (0, [])
    assert "refresh regami-fleet to version 2 of its launch template" in planned.output
    run = roll_back(fleet)
    assert run.returncode == 0, run.output
    assert changes(run) == ["autoscaling:StartInstanceRefresh us-east-1"]
    assert (versions(fleet), group(fleet)["LaunchTemplate"]["Version"]) == (["2", "2"], "2")
    assert run.report["undo"][0]["arguments"]["version"] == int(bad)
    seen = fleet.stop_users()
    assert seen["lost_writes"] == 0
    assert seen["errors"]
    again = roll_back(fleet)
    assert (again.returncode, again.mutations, again.report["outcome"]) == (0, [], "noop")
    assert versions(fleet) == ["2", "2"]


@pytest.mark.soak
def test_a_refresh_in_progress_is_rolled_back_though_the_run_was_killed(fleet: World) -> None:
    ship(fleet, "slow", until="InProgress")
    running = fleet.runbook.start("rollback_deployment", env="sandbox_fleet")

    def was_taken(run: Running) -> bool:
        return any(call["action"] == "RollbackInstanceRefresh" and call["status"] == 200 for call in run.calls)

    running.until(was_taken)
    running.kill()
    again = roll_back(fleet)
    assert again.returncode == 0, again.output
    assert changes(again) == []
    assert refresh(fleet)["Status"] == "RollbackSuccessful"
    assert versions(fleet) == ["2", "2"]


def test_a_group_that_follows_latest_is_pinned(fleet: World) -> None:
    ship(fleet, "erroring", latest="yes")
    run = roll_back(fleet)
    assert run.returncode == 0, run.output
    assert group(fleet)["LaunchTemplate"]["Version"] == "2"
    assert any("followed $Latest: it stays at version 2" in note for note in run.report["notes"])


def test_a_suspended_process_refuses_before_anything_is_changed(fleet: World) -> None:
    ship(fleet, "erroring")
    autoscaling, name = fleet.aws("autoscaling"), group(fleet)["AutoScalingGroupName"]
    autoscaling.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=["Terminate"])
    refused = roll_back(fleet)
    assert refused.returncode != 0
    assert changes(refused) == []
    assert "Terminate of regami-fleet is suspended" in refused.complaints[0]
    autoscaling.resume_processes(AutoScalingGroupName=name)
    assert roll_back(fleet).returncode == 0
