# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One sandbox for all scenarios; a test that changes it takes `world`, which begins as the first day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runbook import Runbook
from world import Switchover, World

from sandbox.client import Sandbox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What measures itself by the undisturbed switchover comes first and together: so one worker alone makes it."""
    items.sort(key=lambda item: "switchover" not in item.fixturenames)


@pytest.fixture(scope="package")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """As quick as it can be without hiding the waits; a region that is cut off stays silent as long as a real one."""
    running = Sandbox(Path(tmp_path_factory.mktemp("sandbox")) / "home")
    running.up(
        promotion_seconds=1,
        create_seconds=0.3,
        backup_seconds=0.3,
        log_seconds=0.5,
        metric_seconds=1,
        dns_ttl=1,
        # No test waits so long for CodeDeploy: they say "go on".
        deployment_minute=6,
        hold_seconds=30,
    )
    yield running
    running.down()


@pytest.fixture(scope="package")
def incidents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("incidents")


@pytest.fixture(scope="package")
def any_world(sandbox: Sandbox, incidents: Path) -> World:
    """In whatever state the test before has left it."""
    return World(sandbox, Runbook(sandbox, incidents))


@pytest.fixture(scope="module")
def first_day(any_world: World) -> tuple[World, dict]:
    any_world.begin()
    return any_world, any_world.snapshot()


@pytest.fixture
def untouched(first_day: tuple[World, dict]) -> Iterator[World]:
    """As on the first day, and still so when the test is over; not set back in between, which saves a second each."""
    world, before = first_day
    yield world
    world.sandbox.heal()
    assert world.snapshot() == before


@pytest.fixture
def world(any_world: World) -> Iterator[World]:
    any_world.begin()
    yield any_world
    any_world.sandbox.heal()


@pytest.fixture(scope="package")
def switchover(any_world: World) -> Switchover:
    """What an uninterrupted run is and ends in: the measure for those that are interrupted."""
    world = any_world
    world.begin()
    before = world.snapshot()
    world.start_users(pinned=True)
    planned = world.runbook.run("db_failover", "--check", "--diff")
    planned_state = world.snapshot()
    run = world.runbook.run()
    users, state = world.stop_users(), world.snapshot()
    again = world.runbook.run()
    return Switchover(before, planned, planned_state, run, users, state, again, world.snapshot())
