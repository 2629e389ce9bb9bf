# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Up, reset, down, and what is left after a crash: nothing."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from core_helpers import PRIMARY, connect, instance, row_numbers, wait_until, write_row

from sandbox import cli
from sandbox.client import Sandbox, SandboxError
from sandbox.processes import leftovers


def run(*arguments):
    """The command line: its exit code, what it printed and its complaint."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = cli.main([str(each) for each in arguments])
    return code, out.getvalue(), errors.getvalue()


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ports_of(sandbox):
    return [urlsplit(sandbox.state["endpoint_url"]).port] + [
        instance(sandbox, region, facts["db_instance"])["Endpoint"]["Port"]
        for region, facts in sandbox.state["regions"].items()
    ]


def forgotten_segments():
    """Ids of the System V shared memory segments of this machine that nobody is attached to."""
    with open("/proc/sysvipc/shm") as table:
        return {fields[1] for fields in map(str.split, table.readlines()[1:]) if fields[6] == "0"}


@pytest.mark.parametrize("crash", [False, True])
def test_nothing_is_left(tmp_path, crash):
    home = tmp_path / "home"
    segments = forgotten_segments()
    sandbox = Sandbox(home)
    sandbox.up(promotion_seconds=0)
    ports, data = ports_of(sandbox), sandbox.postgres_home
    assert all(map(is_listening, ports))
    sandbox.fault("region-cut", region="us-west-2")  # stopped processes must go, too
    if crash:
        os.kill(int((home / "daemon.pid").read_text()), signal.SIGKILL)
        sandbox._daemon.wait(5)
    sandbox.down()
    assert list(leftovers(home, data)) == []
    assert not any(map(is_listening, ports))
    assert not home.exists() and not data.exists()
    # A sandbox beside may be about to clear up after itself.
    wait_until(lambda: forgotten_segments() <= segments, "no segment is left")


BEGIN = """
import sys
from sandbox.client import Sandbox
sandbox = Sandbox(sys.argv[1])
sandbox.up(promotion_seconds=0)
print(sandbox.postgres_home, flush=True)
sys.stdin.read()
"""


@pytest.mark.soak
def test_it_goes_with_who_started_it(tmp_path):
    home = tmp_path / "home"
    caller = subprocess.Popen(
        [sys.executable, "-c", BEGIN, home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with caller:
        data = Path(caller.stdout.readline().strip())
        ports = ports_of(Sandbox(home))
        caller.kill()
    wait_until(lambda: not home.exists() and not list(leftovers(home, data)), "nothing is left")
    wait_until(lambda: not any(map(is_listening, ports)), "nobody listens")  # the last one has no memory, but files yet
    assert not data.exists()


@pytest.mark.soak
def test_up_after_a_crash_clears_the_remains_and_two_sandboxes_live_side_by_side(tmp_path, fresh_sandbox):
    second = Sandbox(tmp_path / "home")
    second.up(promotion_seconds=0)
    with pytest.raises(SandboxError, match="is up already"):
        second.up()
    os.kill(int((second.home / "daemon.pid").read_text()), signal.SIGKILL)
    second._daemon.wait(5)
    old = set(leftovers(second.home, second.postgres_home))
    try:
        second.up(promotion_seconds=0)
        assert not old & set(leftovers(second.home, second.postgres_home))
        assert instance(fresh_sandbox, *PRIMARY)["DBInstanceStatus"] == "available"
    finally:
        second.down()


def test_reset_brings_back_the_first_state(fresh_sandbox):
    sandbox = fresh_sandbox
    write_row(connect(sandbox, *PRIMARY), 1)
    sandbox.boto("rds", "us-west-2").promote_read_replica(DBInstanceIdentifier="regami-db-replica")
    sandbox.fault("wrong-account")
    sandbox.fault("api", service="rds", action="*", kind="denied")
    sandbox.fault("primary-killed")
    sandbox.reset()
    sandbox.heal("primary-killed")  # heals nothing: the reset did
    assert row_numbers(connect(sandbox, *PRIMARY)) == []
    replica = instance(sandbox, "us-west-2", "regami-db-replica")
    assert (replica["DBInstanceStatus"], replica["StatusInfos"][0]["Status"]) == ("available", "replicating")
    assert sandbox.boto("sts").get_caller_identity()["Account"] == "123456789012"
    assert sandbox.status()["faults"] == []
    assert {call["action"] for call in sandbox.calls()} <= {"DescribeDBInstances", "GetCallerIdentity"}


def test_secrets_are_for_the_owner_alone(sandbox):
    files = [sandbox.home / "sandbox.json", *(sandbox.home / "secrets").iterdir()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (sandbox.home / "secrets").stat().st_mode & 0o777 == 0o700


def test_the_state_file_keeps_the_contract(sandbox):
    state = sandbox.state
    assert state["account_id"] == "123456789012" and state["lock_table"] == "sre-incident-locks"
    assert (state["db_admin_user"], state["db_name"]) == ("regami_admin", "regami")
    assert Path(state["db_admin_password_file"]).read_text()
    roles = {region: facts["role"] for region, facts in state["regions"].items()}
    assert roles == {"us-east-1": "primary", "us-west-2": "secondary"}
    assert {"db_instance", "db_security_group", "quarantine_security_group"} <= set(state["regions"]["us-west-2"])


def test_status_and_faults_for_people(fresh_sandbox):
    home = ("--home", fresh_sandbox.home)
    code, out, _ = run("fault", *home, "api", "rds", "Promote*", "throttle", "--count", "2")
    assert code == 0 and out.startswith("fault api: ")
    code, out, _ = run("status", *home)
    assert code == 0 and re.search(r"regami-db-replica +available +.*lag 0 s", out)
    assert "fault: api service=rds" in out
    code, out, _ = run("fault", *home, "list")
    assert {"primary-killed", "primary-slow", "replica-frozen", "region-cut", "wrong-account"} <= set(out.split())
    assert run("heal", *home) == (0, "healed: api\n", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fault", "no-such"], "unknown fault 'no-such': see `fault list`"),
        (["fault", "region-cut"], "fault region-cut lacks REGION: fault region-cut REGION"),
        (["fault", "region-cut", "moon"], "unknown region 'moon': one of us-east-1, us-west-2"),
        (["fault", "api", "rds", "*", "melt"], "unknown kind of API fault 'melt'"),
        (["fault", "primary-killed", "--instance", "x"], "no database 'x'"),
        (["heal", "no-such"], "unknown fault 'no-such'"),
        (["up"], "is up already"),
    ],
)
def test_a_mistake_is_one_line(sandbox, arguments, complaint):
    code, out, errors = run(arguments[0], "--home", sandbox.home, *arguments[1:])
    assert code == 1 and out == "" and complaint in errors and errors.count("\n") == 1


def test_without_a_sandbox_there_is_a_hint(tmp_path):
    code, _, errors = run("status", "--home", tmp_path / "none")
    assert code == 1 and "`python -m sandbox up` starts one" in errors
