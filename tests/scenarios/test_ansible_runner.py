# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As AWX runs a job: ansible-runner, a copy of the project, its inventory as a script, extra vars from a survey, nobody at a keyboard."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from runbook import BIN, DEADLINE, REPOSITORY
from world import World

# What AWX 24.6.1 adds to the extra vars of a job (awx_meta_vars of awx/main/models/unified_jobs.py), and what a question of its survey that
# nobody answered comes as.
OF_AWX = {"awx_job_id": 7, "awx_job_launch_type": "manual", "awx_user_name": "jane", "tower_job_id": 7, "incident": ""}
NOT_OF_THE_PROJECT = shutil.ignore_patterns(".git", ".venv", ".cache", ".sandbox", "incidents", "tests", "__pycache__")


@pytest.fixture
def job(tmp_path: Path):
    """Runs one job; (exit code, what the job page shows)."""
    shutil.copytree(REPOSITORY, tmp_path / "project", symlinks=True, ignore=NOT_OF_THE_PROJECT)

    def run(world: World, **survey) -> tuple[int, str]:
        environment = world.runbook.environment
        del environment["ANSIBLE_CONFIG"]  # the project brings its own
        exported = subprocess.run(
            [BIN / "ansible-inventory", "--inventory", "inventories/sandbox", "--list", "--export"],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        # AWX reads an inventory in this way, keeps it, and gives it to the job as a script that prints it.
        script = tmp_path / "inventory" / "hosts"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!{BIN / 'python'}\nprint({exported.stdout!r})\n")
        script.chmod(0o700)
        (tmp_path / "env").mkdir(exist_ok=True)
        (tmp_path / "env" / "extravars").write_text(json.dumps(OF_AWX | survey))
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


def artifacts(folder: Path) -> dict:
    """What AWX keeps of a job for the next one of its workflow: `set_stats`, in the last event."""
    events = (json.loads(path.read_text()) for path in folder.glob("artifacts/*/job_events/*.json"))
    return next(event["event_data"]["artifact_data"] for event in events if event["event"] == "playbook_on_stats")


def test_job_recovers_and_shows_progress(switchover, world: World, job, tmp_path: Path) -> None:
    code, shown = job(world, env="sandbox", confirm_required=True, confirm="true")
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
    assert artifacts(tmp_path)["sre_runbooks"]["record"].endswith("-db_failover-sandbox")


def test_job_that_nobody_confirmed_ends(untouched: World, job) -> None:
    """A job has a terminal of sorts, at which nobody sits: it must not wait there for an answer."""
    code, shown = job(untouched, env="sandbox", confirm_required=True)
    assert code == 2
    assert "sandbox was not confirmed" in shown and "-e confirm=true" in shown
