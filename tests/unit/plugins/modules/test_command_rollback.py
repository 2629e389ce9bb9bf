# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""command_rollback with commands that note when they ran."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.sre.runbooks.plugins.modules import command_rollback
from ansible_collections.sre.runbooks.plugins.modules.command_rollback import CommandRollback
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What the commands wrote, a line each."""
    return tmp_path / "ran"


@pytest.fixture
def script(ran: Path) -> Callable[..., list[str]]:
    def make(name: str, status: int = 0, *words: str) -> list[str]:
        code = f"import sys; open({str(ran)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10)); print('says', *sys.argv[1:]); sys.exit({status})"
        return [sys.executable, "-c", code, name, *words]

    return make


def run(check: bool = False, **arguments: object) -> dict:
    return run_main(command_rollback.main, check, **arguments)


def test_the_plan_says_what_would_run_and_what_it_cannot_know() -> None:
    observed = {"state": "unknown", "argv": ["deploy", "v1", "a b"]}
    plan = CommandRollback.plan(observed, {"check_argv": None})
    assert [step.what for step in plan.steps] == ["run deploy v1 'a b'"]
    assert "nothing can be told of what the command would do" in plan.notes[0]
    assert CommandRollback.plan(observed | {"state": "nothing to do"}, {"check_argv": ["x"]}).steps == ()


def test_it_runs_filled_in_and_its_output_is_returned(script: Callable, ran: Path) -> None:
    result = run(argv=script("deploy", 0, "--version={version}"), values={"version": "v1.2.3"})
    assert not result.get("failed"), result
    assert ran.read_text() == "deploy --version=v1.2.3\n"
    assert (result["changed"], result["after"], result["output"]) == (
        True,
        {"state": "done"},
        ["says deploy --version=v1.2.3"],
    )


def test_check_mode_runs_the_dry_run_alone(script: Callable, ran: Path) -> None:
    result = run(
        check=True, argv=script("deploy"), check_argv=script("plan", 2), changed_codes=[2], unchanged_codes=[0]
    )
    assert ran.read_text() == "plan\n"
    assert (result["changed"], result["before"], result["after"]) == (
        True,
        {"state": "would change"},
        {"state": "done"},
    )


def test_check_mode_without_a_dry_run_runs_nothing(script: Callable, ran: Path) -> None:
    result = run(check=True, argv=script("deploy"))
    assert not ran.exists()
    assert "nothing can be told" in result["notes"][0]


def test_where_the_dry_run_finds_nothing_to_do_nothing_is_done(script: Callable, ran: Path) -> None:
    result = run(argv=script("deploy"), check_argv=script("plan", 0), changed_codes=[2], unchanged_codes=[0])
    assert ran.read_text() == "plan\n"
    assert (result["changed"], result["after"]) == (False, {"state": "nothing to do"})


def test_a_dry_run_that_fails_closes_the_gate(script: Callable, ran: Path) -> None:
    result = run(argv=script("deploy"), check_argv=script("plan", 1))
    assert ran.read_text() == "plan\n"
    assert "the dry run" in result["msg"]
    assert "exit status 1: says plan): nothing was changed" in result["msg"]


def test_a_failure_says_how_to_go_on(script: Callable) -> None:
    result = run(argv=script("deploy", 4), resume="unlock the state, then the same command again")
    assert result["failed"]
    assert "exit status 4: says deploy" in result["msg"]
    assert result["msg"].endswith("to go on: unlock the state, then the same command again")


def test_a_version_that_is_none_is_refused(script: Callable, ran: Path) -> None:
    for version in ("", "-x", "v1;reboot"):
        assert run(argv=script("deploy", 0, "{version}"), values={"version": version})["failed"]
    assert not ran.exists()


def test_no_secret_comes_out() -> None:
    code = "import os; print('token', os.environ['DEPLOY_TOKEN'])"
    result = run(
        argv=[sys.executable, "-c", code, "--password=Word-Secret-2"], environment={"DEPLOY_TOKEN": "Env-Secret-1"}
    )
    assert not result.get("failed"), result
    assert "Env-Secret-1" not in json.dumps(result)
    assert "Word-Secret-2" not in json.dumps({key: result[key] for key in ("steps", "output", "diff")})
