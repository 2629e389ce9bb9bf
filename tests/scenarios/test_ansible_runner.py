# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As AWX runs a job: ansible-runner, a copy of the project, extra vars from a survey, nobody at a keyboard."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from runbook import BIN, DEADLINE, REPOSITORY
from world import World

NOT_OF_THE_PROJECT = shutil.ignore_patterns(".git", ".venv", ".cache", ".sandbox", "incidents", "tests", "__pycache__")


@pytest.fixture
def job(tmp_path: Path):
    """Runs one job; (exit code, what the job page shows)."""
    shutil.copytree(REPOSITORY, tmp_path / "project", symlinks=True, ignore=NOT_OF_THE_PROJECT)

    def run(world: World, **survey) -> tuple[int, str]:
        (tmp_path / "env").mkdir(exist_ok=True)
        (tmp_path / "env" / "extravars").write_text(json.dumps(survey))
        environment = world.runbook.environment
        del environment["ANSIBLE_CONFIG"]  # the project brings its own
        done = subprocess.run(
            [BIN / "ansible-runner", "run", tmp_path, "--playbook", "playbooks/db_failover.yml"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return done.returncode, done.stdout

    return run


def test_job_recovers_and_shows_progress(switchover, world: World, job) -> None:
    code, shown = job(world, env="sandbox", confirm_required=True, confirm=True)
    assert code == 0, shown
    for line in (
        "regami-service drains: ",
        "regami-db-replica is promoted: modifying, still a replica, 0 s, usually 420 s",
        "Route 53 tells its name servers of api.regami.test: PENDING",
        "RECOVERED in ",
        "passed: write",
    ):
        assert line in shown
    assert world.snapshot() == switchover.state


def test_job_that_nobody_confirmed_ends(untouched: World, job) -> None:
    """A job has a terminal of sorts, at which nobody sits: it must not wait there for an answer."""
    code, shown = job(untouched, env="sandbox", confirm_required=True)
    assert code == 2
    assert "sandbox was not confirmed" in shown and "-e confirm=true" in shown
