# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_full.yml: workers cannot write any more, and are given room without losing what they need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from killing import said
from runbook import Result
from world import World

# Everything on the disk of an instance but what programs of this machine lie there, with its size and its content.
LISTING = """
cd / && find var opt -xdev -not -path 'var/lib/amazon*' \\( -type f -o -type l \\) -printf '%p %y %s %l\\n' | sort
find var/lib/postgresql opt/app var/log/audit -type f -exec sha256sum {} + | sort
"""


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    first = any_world.sandbox.state["batch"]["instance_ids"][0]
    if "allows no file systems" in on(any_world, first, "true")["stderr"]:
        pytest.skip("this machine allows no file systems of its own")
    return any_world


@pytest.fixture
def batch(first_world: World) -> Iterator[World]:
    """Healed, the disks are those of the first day."""
    yield first_world
    first_world.sandbox.heal()
    first_world.sandbox.heal("disk-full")


def on(world: World, instance: str, script: str) -> dict:
    return world.sandbox.control("instance", instance=instance, script=script)


def listing(world: World, instance: str) -> list[str]:
    return on(world, instance, LISTING)["stdout"].splitlines()


def free_percent(world: World, instance: str) -> int:
    """Of blocks and inodes, what there is less of."""
    used = on(world, instance, "df --output=pcent,ipcent / | tail -1")["stdout"].replace("%", "").split()
    return 100 - max(map(int, used))


def make_room(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run("disk_full", *flags, **variables)


def cleanings(world: World) -> list[dict]:
    """Every command that was to clean, as SSM lists them."""
    found = world.aws("ssm").list_commands(MaxResults=50)["Commands"]
    return [each for each in found if " disk-cleanup " in each["Comment"]]


def test_workers_can_write_again_and_what_matters_is_still_there(batch: World) -> None:
    batch.sandbox.fault("disk-full", what="logs")
    first, second = batch.sandbox.state["batch"]["instance_ids"]
    before = listing(batch, first)
    known = len(cleanings(batch))
    planned = make_room(batch, "--check", "--diff")
    assert planned.returncode == 0, planned.output
    assert "clean 2 of 2 instances until 20 % is free: packages 2" in planned.output
    assert (listing(batch, first), len(cleanings(batch))) == (before, known)

    run = make_room(batch)
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    assert all(20 <= free_percent(batch, each) < 25 for each in (first, second))
    gone = set(before) - set(listing(batch, first))
    assert gone, "nothing went"
    # Of each name the oldest went; what is young, open, linked, audited or a database's did not.
    assert all("/var/cache/" in f"/{each}" or ".log." in each or "journal" in each for each in gone)
    assert not any("postgresql" in each or "audit" in each or "settings" in each for each in gone)

    again = make_room(batch)
    assert (again.returncode, again.report["outcome"]) == (0, "noop"), again.output
    assert len(cleanings(batch)) == known + 1


def test_inodes_and_deleted_logs_fill_a_disk_too(batch: World) -> None:
    first, second = batch.sandbox.state["batch"]["instance_ids"]
    batch.sandbox.fault("disk-full", what="inodes", instance=first)
    batch.sandbox.fault("disk-full", what="deleted", instance=second)
    run = make_room(batch)
    assert run.returncode == 0, run.output
    assert all(free_percent(batch, each) >= 20 for each in (first, second))
    assert on(batch, second, "ls -l /proc/[0-9]*/fd | grep -c 'worker.log (deleted)'")["stdout"].strip() == "1"


@pytest.mark.soak
def test_killed_and_run_again_it_has_cleaned_once(batch: World) -> None:
    batch.sandbox.fault("disk-full", what="logs")
    known = len(cleanings(batch))
    running = batch.runbook.start("disk_full")
    running.until(lambda run: said("disk-cleanup")(run, batch))
    running.kill()
    again = make_room(batch)
    assert again.returncode == 0, again.output
    (sent,) = cleanings(batch)[: len(cleanings(batch)) - known]
    # The record of the run that was killed says which command was its own.
    assert any(f"SSM command {sent['CommandId']}: disk-cleanup" in each.get("line", "") for each in running.timeline)


def test_no_command_is_sent_twice_though_no_answer_comes(batch: World) -> None:
    batch.sandbox.fault("disk-full", what="logs")
    known = len(cleanings(batch))
    batch.sandbox.fault("api", service="ssm", action="SendCommand", kind="lost-answer", count=3)
    run = make_room(batch)
    assert run.returncode == 0, run.output
    assert [call["fault"] for call in run.calls].count("lost-answer") == 3
    assert [name for name in run.mutations if "SendCommand" in name] == ["ssm:SendCommand us-east-1"] * 3
    assert len(cleanings(batch)) == known + 1


def test_a_second_responder_is_told_who_is_at_it(batch: World) -> None:
    batch.sandbox.fault("disk-full", what="logs")
    known = len(cleanings(batch))
    runs = [batch.runbook.start("disk_full") for _responder in range(2)]
    acted, told = sorted((run.wait() for run in runs), key=lambda run: run.returncode)
    assert (acted.returncode, told.returncode) == (0, 2), acted.output + told.output
    assert "has held the lease regami-api since 20" in told.complaints[0]
    assert len(cleanings(batch)) == known + 1


def test_what_cannot_be_cleaned_is_named_and_stops_nothing(batch: World) -> None:
    first, second = batch.sandbox.state["batch"]["instance_ids"]
    batch.sandbox.fault("disk-full", what="database", instance=first)
    batch.sandbox.fault("disk-full", what="logs", instance=second, reserve="no")
    run = make_room(batch, grow_volumes=False)
    assert run.returncode == 2, run.output
    (complaint,) = run.complaints
    assert first in complaint and second in complaint and "grow the volume" in complaint
    assert any("the root volume is full" in note for note in run.report["notes"])
    # The service was verified all the same.
    assert all(each["ok"] for each in run.report["verification"])


def test_a_typo_is_answered_with_what_there_is(batch: World) -> None:
    wrong = make_room(batch, disk_tags={"service": "regami-bath"})
    assert wrong.returncode == 2
    assert "SSM manages no instance with service=regami-bath: check the tags" in wrong.complaints[0]
    unsafe = make_room(batch, log_roots=["/var/lib/postgresql/16/main"])
    assert "lies in /var/lib/postgresql, where nothing is ever removed" in unsafe.complaints[0]
    assert json.dumps(unsafe.mutations) == "[]"
