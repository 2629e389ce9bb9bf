# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_full.yml where no cleaning helps: a database has filled the disk, and the volume under it grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from killing import Point, answered, killed_at
from runbook import Result
from world import EAST, World, wait_until

MODIFY = f"ec2:ModifyVolume {EAST}"


@pytest.fixture
def full(world: World) -> Iterator[tuple[World, str]]:
    """The first day, but that a database has filled the disk of the first worker."""
    first = world.sandbox.state["batch"]["instance_ids"][0]
    if "allows no file systems" in on(world, first, "true")["stderr"]:
        pytest.skip("this machine allows no file systems of its own")
    world.sandbox.fault("disk-full", what="database", instance=first)
    yield world, first


def on(world: World, instance: str, script: str) -> dict:
    return world.sandbox.control("instance", instance=instance, script=script)


def free_percent(world: World, instance: str) -> int:
    return 100 - int(on(world, instance, "df --output=pcent / | tail -1 | tr -d ' %'")["stdout"])


def volumes(world: World) -> list[int]:
    """GiB of the first worker's volume and of the second's."""
    found = world.aws("ec2").describe_instances(InstanceIds=world.sandbox.state["batch"]["instance_ids"])
    instances = [each for reservation in found["Reservations"] for each in reservation["Instances"]]
    ids = {each["InstanceId"]: each["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] for each in instances}
    sizes = {each["VolumeId"]: each["Size"] for each in world.aws("ec2").describe_volumes()["Volumes"]}
    return [sizes[ids[each]] for each in world.sandbox.state["batch"]["instance_ids"]]


def make_room(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run("disk_full", *flags, **variables)


def test_what_no_cleaning_helps_is_grown_once(full: tuple[World, str]) -> None:
    world, first = full
    planned = make_room(world, "--check", "--diff")
    assert planned.returncode == 0, planned.output
    assert "to 11 GiB" in planned.output and "can never be taken back" in planned.output
    assert (volumes(world), MODIFY in planned.mutations) == ([8, 8], False)

    run = make_room(world)
    assert run.returncode == 0, run.output
    assert (volumes(world), run.mutations.count(MODIFY)) == ([10, 8], 1)
    assert free_percent(world, first) >= 20
    assert run.report["verification"] and all(each["ok"] for each in run.report["verification"])

    again = make_room(world)
    assert (again.returncode, MODIFY in again.mutations, volumes(world)) == (0, False, [10, 8]), again.output


@pytest.mark.soak
def test_killed_while_the_volume_grows(full: tuple[World, str]) -> None:
    world, first = full
    killed = killed_at(world, Point("the volume is modified", answered("ModifyVolume", EAST)), "disk_full")
    assert killed.mutations.count(MODIFY) == 1
    wait_until(lambda: volumes(world)[0] == 10, "EBS goes on by itself")
    again = make_room(world)
    assert again.returncode == 0, again.output
    assert (again.mutations.count(MODIFY), volumes(world)) == (0, [10, 8])
    assert free_percent(world, first) >= 20


@pytest.mark.soak
def test_an_answer_that_is_lost_and_a_volume_that_must_rest(full: tuple[World, str]) -> None:
    world, first = full
    world.sandbox.fault("api", service="ec2", action="ModifyVolume", kind="lost-answer", region=EAST, count=1)
    run = make_room(world)
    assert (run.returncode, run.mutations.count(MODIFY), volumes(world)) == (0, 1, [10, 8]), run.output
    # It fills up again, within six hours.
    on(world, first, "cat /dev/zero >/var/lib/postgresql/16/main/base/1/2601 2>/dev/null; true")
    name = world.aws("ec2").describe_volumes_modifications()["VolumesModifications"][0]["VolumeId"]

    def state() -> str:
        found = world.aws("ec2").describe_volumes_modifications(VolumeIds=[name])
        return found["VolumesModifications"][0]["ModificationState"]

    wait_until(lambda: state() == "completed", "the first modification is completed")
    refused = make_room(world)
    assert (refused.returncode, refused.mutations.count(MODIFY)) == (2, 0), refused.output
    assert "six hours): accept_recent_modification=true" in refused.output
    assert first in refused.complaints[-1]
    allowed = make_room(world, accept_recent_modification=True)
    assert allowed.returncode == 0, allowed.output
    assert volumes(world)[0] > 10 and free_percent(world, first) >= 20
