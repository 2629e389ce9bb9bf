# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords and keys go where they are needed and nowhere else, however much a run is asked to say."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from runbook import Result, name_of
from world import WEST, World

PLANTED = "planted-Zq7"
# A key of AWS, and what a team's smoke tests may carry.
VARIABLES = {
    "aws_secret_access_key": f"{PLANTED}-key",
    "smoke_tests": [
        {
            "name": "login",
            "url": "{{ simulated.public_url }}/v1/auth/login",
            "method": "POST",
            "headers": {"Authorization": f"Bearer {PLANTED}-bearer", "X-Api-Key": f"{PLANTED}-header"},
            "json": {"email": "test@example.com"},
            "secret_json": {"password": f"{PLANTED}-password"},
            "expect_status": [401],
        }
    ],
}


def assert_kept(world: World, run: Result) -> None:
    written = {path: path.read_text() for path in run.folder.rglob("*") if path.is_file()}
    assert len(written) == 2
    for secret in (PLANTED, *world.secrets()):
        assert secret not in run.output
        assert [path for path, text in written.items() if secret in text] == []
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert stat.S_IMODE(run.folder.stat().st_mode) == 0o700


def test_talkative_run(world: World) -> None:
    """The database's password comes from Secrets Manager, out of the region that is not left."""
    user, password = world.sandbox.state["db_admin_user"], world.sandbox.state["db_admin_password_file"]
    secret = world.aws("secretsmanager", WEST).create_secret(
        Name="regami/admin", SecretString=json.dumps({"username": user, "password": Path(password).read_text()})
    )
    run = world.runbook.run(
        "db_failover", "-vvv", "--diff", db_admin_secret=secret["ARN"], db_admin_password="", **VARIABLES
    )
    assert run.returncode == 0, run.output
    assert "secretsmanager:GetSecretValue us-west-2" in [name_of(call) for call in run.calls]
    assert "module_args" in run.output
    assert_kept(world, run)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param({"db_admin_password": f"{PLANTED}-wrong"}, id="password that the database refuses"),
        pytest.param({"db_admin_password": f"{PLANTED}-CHANGEME"}, id="placeholder in a password"),
    ],
)
def test_run_that_fails(untouched: World, mistake: dict) -> None:
    run = untouched.runbook.run("db_failover", "-vvv", **{**VARIABLES, **mistake})
    assert run.returncode == 2
    assert_kept(untouched, run)


def test_no_earlier_record_has_one(any_world: World, incidents: Path) -> None:
    """Whatever the scenarios before this one have written."""
    records = [path for path in incidents.rglob("*") if path.is_file()]
    assert records
    for secret in (PLANTED, *any_world.secrets()):
        assert [path for path in records if secret in path.read_text()] == []
