# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One sandbox for the whole session; `fresh_sandbox` puts it back to its first state before a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Running, with short delays; a test that changes it takes `fresh_sandbox`."""
    running = Sandbox(Path(tmp_path_factory.mktemp("sandbox")) / "home")
    running.up(
        promotion_seconds=0.5,
        create_seconds=0.2,
        backup_seconds=1,
        log_seconds=0.3,
        metric_seconds=0.5,
        hold_seconds=3,
    )
    yield running
    running.down()


@pytest.fixture
def fresh_sandbox(sandbox: Sandbox) -> Iterator[Sandbox]:
    sandbox.reset()
    yield sandbox
    sandbox.heal()
