# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A command is filled in without a shell, heard without its secrets, and ended when its time is up."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import team_command
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LeaseLost, Refusal, WaitTimeout
from ansible_collections.sre.runbooks.plugins.module_utils.team_command import filled


def test_placeholders_are_filled_wherever_they_stand() -> None:
    argv = ["terraform", "apply", "-var=app_version={version}", "{region}/{version}", "{{}"]
    values = {"version": "v1.2.3-stable", "region": "us-east-1", "unused": "; rm -rf /"}
    assert filled(argv, values) == [
        "terraform",
        "apply",
        "-var=app_version=v1.2.3-stable",
        "us-east-1/v1.2.3-stable",
        "{{}",
    ]


@pytest.mark.parametrize(
    ("argv", "values", "message"),
    [
        (["deploy", "{version}"], {}, "needs a value for {version}"),
        (["deploy", "{version}"], {"version": ""}, "needs a value for {version}"),
        (["deploy", "{version}"], {"version": "-destroy"}, "version: -destroy does not match"),
        (["deploy", "{version}"], {"version": "v1 -destroy"}, "does not match"),
        (["deploy", "{version}"], {"version": "v1\n"}, "does not match"),
        (["deploy", "{version}"], {"version": "$(reboot)"}, "does not match"),
        (["{version}"], {"version": "v1"}, "which program runs is never filled in"),
        ([], {}, "the command is empty"),
    ],
)
def test_what_could_be_more_than_a_value_is_refused(argv: list[str], values: dict, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        filled(argv, values)


@given(st.text())
def test_a_value_never_adds_a_word_or_an_option(value: str) -> None:
    try:
        argv = filled(["deploy", "{version}"], {"version": value})
    except Refusal:
        return
    assert argv == ["deploy", value]
    assert not value.startswith("-")


def run(code: str, **options: object) -> tuple[team_command.Ended, list[str]]:
    heard: list[str] = []
    ended = team_command.run([sys.executable, "-u", "-c", code], options.pop("timeout", 20), heard.append, **options)
    return ended, heard


def test_it_is_heard_line_by_line_and_cannot_ask() -> None:
    ended, heard = run("import sys; print('one'); print('two', file=sys.stderr); sys.stdin.read(); sys.exit(3)")
    assert (ended.status, heard, ended.lines) == (3, ["one", "two"], ("one", "two"))
    assert ended.told() == "exit status 3: one | two"


def test_colours_are_left_out() -> None:
    assert run("print('\\x1b[31mError:\\x1b[0m no such module')")[1] == ["Error: no such module"]


def test_no_secret_is_told() -> None:
    code = "import os; print('using', os.environ['TOKEN']); print('password=hunter2')"
    ended, heard = run(code, environment={"TOKEN": "Env-Secret-1"})
    assert heard == ["using ********", "password=********"]
    assert "Env-Secret-1" not in ended.told()


def test_it_runs_where_it_is_told_to(tmp_path: Path) -> None:
    _ended, heard = run("import os; print(os.path.basename(os.getcwd()))", chdir=str(tmp_path))
    assert heard == [tmp_path.name]


def is_running(pid: int) -> bool:
    """Not so for what has ended and whose parent did not look yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_when_time_is_up_it_ends_with_all_that_it_started() -> None:
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid); sys.stdout.flush(); import time; time.sleep(60)"
    heard: list[str] = []
    started = time.monotonic()
    with pytest.raises(WaitTimeout, match="did not end within 1 s and was stopped"):
        team_command.run([sys.executable, "-u", "-c", code], 1, heard.append)
    assert time.monotonic() - started < 10
    deadline = time.monotonic() + 5
    while is_running(int(heard[0])):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lost_lease_ends_it() -> None:
    def tick() -> None:
        raise LeaseLost("gone")

    started = time.monotonic()
    with pytest.raises(LeaseLost):
        run("import time; time.sleep(60)", tick=tick)
    assert time.monotonic() - started < 10


def test_what_it_leaves_running_is_not_waited_for() -> None:
    started = time.monotonic()
    ended, _heard = run("import subprocess; print(subprocess.Popen(['sleep', '20']).pid)")
    os.kill(int(ended.lines[0]), 9)
    assert ended.status == 0
    assert time.monotonic() - started < 15


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(Refusal, match="there is no command no-such-program"):
        team_command.find("no-such-program", None)
    with pytest.raises(Refusal, match="there is no folder /no/such/folder"):
        team_command.find("make", "/no/such/folder")
    team_command.find(sys.executable, None)
