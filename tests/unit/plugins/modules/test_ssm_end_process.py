# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""ssm_end_process against an account in memory whose scripts really run here, on processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import instance_processes, process_script, ssm
from ansible_collections.sre.runbooks.plugins.module_utils import verb as engine
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules import ssm_end_process
from ansible_collections.sre.runbooks.plugins.modules.ssm_end_process import SsmEndProcess
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from ansible_collections.sre.runbooks.tests.unit.ssm_account import Account, at_once

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
OBEDIENT = "import time; print('x', flush=True); time.sleep(60)"


def really(_instance_id: str, text: str) -> tuple[int, str, str]:
    path = f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"
    # A session of its own, as the agent's is.
    done = subprocess.run(
        ["sh", "-c", text], env={"PATH": path}, capture_output=True, text=True, start_new_session=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen]]:
    """Processes that are ended with the test, each once it is what it will be."""
    begun = []

    def go(code: str = OBEDIENT, **options: Any) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, **options
        )
        begun.append(process)
        process.stdout.readline()
        return process

    yield go
    for each in begun:
        each.kill()
        each.wait()
        each.stdout.close()


def identity(process: subprocess.Popen) -> dict:
    return {"pid": process.pid, "started": process_script.start_of(process_script.stat_of(process.pid))}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    there = Account(really)
    monkeypatch.setattr(engine, "Aws", there)
    monkeypatch.setattr(engine.waiting, "wait_until", at_once)
    return there


@pytest.fixture
def run(account: Account) -> Callable[..., dict]:
    (name,) = account.add(1)

    def go(check: bool = False, **arguments: Any) -> dict:
        return run_main(ssm_end_process.main, check, **{"region": "us-east-1", "instance_id": name, **arguments})

    return go


def ends(account: Account) -> int:
    return sum(" process-end " in each["Comment"] for each in account.sent())


def test_a_process_ends_when_it_is_asked_to_and_a_second_run_finds_it_gone(
    account: Account, run: Callable, begin: Callable
) -> None:
    runaway, other = begin(), begin()
    meant = identity(runaway)
    planned = run(check=True, **meant)
    assert (planned["changed"], planned["ended"], ends(account), runaway.poll()) == (True, "there", 0, None)
    result = run(**meant)
    assert not result.get("failed"), result
    assert (result["changed"], result["ended"]) == (True, "ended")
    assert [set(entry) for entry in result["undo"]] == [{"stays", "instead"}]
    assert (result["before"], result["after"]) == ({"process": "there"}, {"process": "gone"})
    assert (runaway.wait(5), other.poll()) == (-15, None)
    again = run(**meant)
    assert (again["changed"], again["ended"], ends(account)) == (False, "gone", 1)


def test_one_that_does_not_listen_is_killed_after_its_grace(run: Callable, begin: Callable) -> None:
    runaway = begin(STUBBORN)
    result = run(grace_seconds=0, **identity(runaway))
    assert (result["ended"], runaway.wait(5)) == ("killed", -9)
    assert "it did not end within 0 s, and was killed" in result["notes"]


def test_a_pid_that_is_another_process_by_now_is_never_hit(account: Account, run: Callable, begin: Callable) -> None:
    other = begin()
    meant = identity(other)
    boot, ticks = meant["started"].split(":")
    for started in (f"{boot}:{int(ticks) - 1}", f"00000000:{ticks}"):
        result = run(pid=other.pid, started=started)
        assert (result["changed"], result["ended"]) == (False, "gone")
    assert (other.poll(), ends(account)) == (None, 0)


def test_it_is_looked_at_again_between_the_look_and_the_signal(
    monkeypatch: pytest.MonkeyPatch, begin: Callable
) -> None:
    """The pid changes hands after the script has looked: what has it now gets no signal."""
    other = begin()
    options = {**identity(other), "protected": [], "restart_unit": False, "grace": 1, "timeout": 1}
    looks = iter([process_script.look(options), {"state": "gone"}])
    monkeypatch.setattr(process_script, "look", lambda _options: next(looks))
    assert process_script.end(options) == {"state": "gone"}
    assert other.poll() is None


def test_what_the_machine_lives_by_is_never_ended(run: Callable, begin: Callable) -> None:
    first = process_script.stat_of(1)
    assert "first process" in run(pid=1, started=process_script.start_of(first))["msg"]
    thread = process_script.stat_of(2)
    if thread is not None and thread.flags & process_script.KERNEL_THREAD:
        assert "a thread of the kernel" in run(pid=2, started=process_script.start_of(thread))["msg"]
    mine = begin()
    refused = run(protected=["pyth*"], **identity(mine))
    assert "is never ended: it is named in protected" in refused["msg"]
    assert "belongs to no unit of systemd: leave restart_unit out" in run(restart_unit=True, **identity(mine))["msg"]
    assert mine.poll() is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sshd", "managed by it"),
        ("sshd-session", "managed by it"),
        ("amazon-ssm-agen", "managed by it"),  # as the kernel cuts it
        ("systemd-journal", "managed by it"),
        ("postgres", "kill_queries.yml"),
        ("mysqld", "it is a database"),
        ("postfix", None),
        ("systemctl", None),
    ],
)
def test_protected_are_names_whole_or_cut(name: str, why: str | None) -> None:
    seen = process_script.Stat(2**22 + 1, name, "S", 1, 7, 0, 0, 0, 0)
    found = process_script.protection(seen, [])
    assert found is None if why is None else why in found


def test_the_own_session_is_protected() -> None:
    seen = process_script.Stat(2**22 + 1, "tail", "S", 1, os.getsid(0), 0, 0, 0, 0)
    assert process_script.protection(seen, []) == "this command runs in it"
    assert process_script.protection(process_script.stat_of(os.getppid()), []) == "this command runs in it"


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        ("0::/system.slice/worker.service\n", "worker.service"),
        ("12:cpu:/x\n1:name=systemd:/system.slice/worker.service\n", "worker.service"),
        ("0::/system.slice/system-app.slice/app@1.service\n", "app@1.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", None),
        ("0::/system.slice/docker-0123.scope\n", None),
        ("0::/\n", None),
    ],
)
def test_units_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch, lines: str, unit: str | None) -> None:
    monkeypatch.setattr(process_script, "_read", lambda *path: lines)
    assert process_script.unit_of(4711) == unit


def test_a_unit_is_restarted_as_a_whole(monkeypatch: pytest.MonkeyPatch, begin: Callable) -> None:
    worker, asked = begin(), []
    monkeypatch.setattr(process_script, "unit_of", lambda pid: "worker.service")
    monkeypatch.setattr(process_script.subprocess, "check_output", lambda command, **how: asked.append(command))
    options = {**identity(worker), "protected": [], "restart_unit": True, "grace": 1, "timeout": 1}
    assert process_script.end(options)["state"] == "restarted"
    assert (asked, worker.poll()) == ([["systemctl", "restart", "worker.service"]], None)


def test_a_lost_answer_sends_no_second_command(account: Account, run: Callable, begin: Callable) -> None:
    runaway = begin()
    account.trouble = ["", "lost"]
    result = run(**identity(runaway))
    assert (result["ended"], ends(account), runaway.wait(5)) == ("ended", 1, -15)


def test_a_run_that_was_killed_is_waited_for(account: Account, run: Callable, begin: Callable) -> None:
    runaway = begin()
    meant = identity(runaway)
    (name,) = account.nodes
    options = {**meant, "protected": [], "restart_unit": False, "grace": 1, "timeout": 1}
    earlier = ssm.RunCommand(account, "process-end")
    script = instance_processes.command("end", options)
    sent = earlier.send(script, ssm.Selection((name,)), {"InstanceIds": [name]}, ssm.Limits())
    result = run(**meant)
    assert not result.get("failed"), result
    assert (result["changed"], result["ended"], ends(account)) == (False, "gone", 1)
    assert sent in result["command_ids"]


def test_an_instance_that_cannot_be_asked_is_refused(account: Account, run: Callable) -> None:
    silent = account.add(1, PingStatus="ConnectionLost")[0]
    assert f"{silent} runs no command: its agent has not answered" in run(instance_id=silent, pid=9, started="x")["msg"]
    assert account.sent() == []


def plan(state: str, running: tuple[str, ...] = (), unit: str | None = None, **wanted: Any) -> engine.Plan:
    process = {"pid": 7, "started": "b:1", "elapsed": 240, "user": "app", "command": "report.py", "cpu": None, "rss": 9}
    seen = {"state": state} if state == "gone" else {"state": state, "why": "why", "process": dict(process, unit=unit)}
    observed = {"running": list(running), "seen": seen}
    return SsmEndProcess.plan(observed, {"instance_id": "i-1", "pid": 7, "restart_unit": False, **wanted})


def test_the_plan_ends_what_is_there_and_nothing_else() -> None:
    (step,) = plan("there").steps
    assert (step.do, step.what) == ("end", "end 7 report.py of app, 9 B, for 4 min, on i-1")
    found = plan("there", unit="worker.service")
    assert found.notes == ("worker.service may start it again: with restart_unit=true it is restarted as a whole",)
    (step,) = plan("there", unit="worker.service", restart_unit=True).steps
    assert step.what.startswith("restart worker.service, to which 7 report.py of app")
    assert plan("gone").steps == ()
    (step,) = plan("gone", running=("c-1",)).steps
    assert (step.do, step.arguments, step.look_again, step.waits) == ("finish", {"command_ids": ["c-1"]}, True, True)
    with pytest.raises(Refusal, match=r"7 report\.py of app, 9 B, for 4 min, on i-1 is never ended: why"):
        plan("protected")


# ---- who uses most ---------------------------------------------------------------------------------------------------


def test_a_survey_names_who_is_busy_and_no_arguments(begin: Callable, tmp_path: Any) -> None:
    script = tmp_path / "report.py"
    script.write_text("print('x', flush=True)\nwhile True: pass\n")
    begun = subprocess.Popen(
        [sys.executable, str(script), "--token", "hunter2"], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        begun.stdout.readline()
        few, everybody = (
            really("i-1", instance_processes.command("survey", {"seconds": 0.5, "count": count}))
            for count in (4, 10000)
        )
    finally:
        begun.kill()
        begun.wait()
        begun.stdout.close()
    assert [(code, error) for code, _output, error in (few, everybody)] == [(0, "")] * 2
    assert len(few[1]) <= 2500 and "hunter2" not in everybody[1]
    # Whatever else this machine is busy with.
    survey = instance_processes.survey_of(ssm.Result("i-1", "Success", 0, everybody[1]))
    (found,) = [each for each in survey.processes if each["pid"] == begun.pid]
    assert found["command"].endswith(" report.py") and found["cpu"] > 0
    assert 0 < survey.cpu <= 100 and 0 < survey.memory < 100


def test_an_answer_that_makes_no_sense_is_trouble() -> None:
    for output in ("", "[]", '{"cpus": 2}', "Segmentation fault"):
        survey = instance_processes.survey_of(ssm.Result("i-1", "Success", 0, output))
        assert "makes no sense" in survey.trouble
    assert instance_processes.survey_of(ssm.Result("i-1", "Failed", 1, "", "no")).trouble == "Failed: no"


def test_ages_are_for_people() -> None:
    assert [instance_processes.age(each) for each in (5, 119, 300, 7200, 90000, 864000)] == [
        "5 s",
        "119 s",
        "5 min",
        "2 h",
        "25 h",
        "10 d",
    ]
