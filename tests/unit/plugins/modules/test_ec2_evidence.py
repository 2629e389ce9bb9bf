# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ec2_evidence: its plan, what the script says of this very machine, and what becomes of an answer that makes no sense."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import zlib
from types import SimpleNamespace

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import live_script
from ansible_collections.sre.runbooks.plugins.module_utils.containment import Memory
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.modules.ec2_evidence import Ec2Evidence, _unpacked

FILES = ["connections.json", "processes.json", "system.json", "instance.json", "console.txt"]


def plan(**observed):
    seen = {"memory": None, "trouble": None, "files": []} | observed
    return Ec2Evidence.plan(seen, {"instance_id": "i-1"})


def test_what_is_gone_first_is_kept_first():
    assert [step.after for step in plan().steps] == [f"i-1-{name}" for name in FILES]


def test_what_was_kept_is_not_asked_for_again():
    kept = [f"i-1-{name}" for name in FILES[:2]]
    assert [step.after for step in plan(files=kept).steps] == [f"i-1-{name}" for name in FILES[2:]]
    assert not plan(files=[f"i-1-{name}" for name in FILES]).steps


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        ({"trouble": "its agent has not answered"}, "connections: its agent has not answered"),
        (
            {"memory": Memory("2026-11-21T23:05:00Z", is_done=True)},
            "connections: it is cut off since 2026-11-21T23:05:00Z",
        ),
    ],
)
def test_who_says_nothing_is_told_of_by_aws(observed, why):
    planned = plan(**observed)
    assert [step.do for step in planned.steps] == ["instance", "console"] and planned.returned["blind"][0] == why


def answer(part):
    """Of the script, run as an instance runs it."""
    command = [sys.executable, "-I", "-B", live_script.__file__, part, "{}"]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return _unpacked(SimpleNamespace(output=output, trouble=lambda: None))


def test_who_is_connected_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        place = f"127.0.0.1:{server.getsockname()[1]}"
        found = [each for each in answer("connections")["connections"] if each["remote"] == place]
        assert [(each["protocol"], each["state"], each["pids"]) for each in found] == [
            ("tcp", "ESTABLISHED", [os.getpid()])
        ]


def test_what_runs_from_a_file_that_is_deleted_is_told_by_its_digest(tmp_path):
    program = tmp_path / "miner"
    shutil.copy(os.path.realpath(shutil.which("sleep")), program)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    with (tmp_path / "loot").open("w+") as loot, subprocess.Popen([program, "60"], cwd=tmp_path) as running:
        try:
            loot.write("stolen")
            loot.flush()
            for name in ("miner", "loot"):
                (tmp_path / name).unlink()
            found = next(each for each in answer("processes")["processes"] if each["pid"] == running.pid)
            assert (found["program"], found["sha256"]) == (f"{program} (deleted)", digest)
            assert (found["parent"], found["folder"]) == (os.getpid(), str(tmp_path))
            assert found["arguments"].endswith("miner 60")
            deleted = [each for each in answer("system")["deleted"] if each["path"].startswith(str(tmp_path / "loot"))]
            assert {(each["pid"], each["bytes"]) for each in deleted} >= {(os.getpid(), 6)}
        finally:
            running.kill()


def test_logins_are_read_as_the_machine_writes_them(tmp_path):
    entry = live_script.LOGIN.pack(
        7, 4711, b"pts/0", b"", b"root", b"203.0.113.7", 0, 0, 0, 1763766000, 0, 0, 0, 0, 0, b""
    )
    boot = live_script.LOGIN.pack(2, 0, b"~", b"", b"reboot", b"", *[0] * 9, b"")
    (tmp_path / "utmp").write_bytes(boot + entry)
    (login,) = live_script._logins(tmp_path / "utmp")
    assert login == {"user": "root", "line": "pts/0", "host": "203.0.113.7", "pid": 4711, "at": "2025-11-21T23:00:00Z"}


def test_addresses_are_read_in_both_families():
    assert live_script._address("0100007F:1F90") == "127.0.0.1:8080"
    assert live_script._address("00000000000000000000000001000000:0016") == "::1:22"


def test_what_does_not_fit_is_left_out_and_counted():
    many = [{"pid": number, "sha256": hashlib.sha256(str(number).encode()).hexdigest()} for number in range(2000)]
    text = live_script.packed({"processes": many, "kernel": ["Linux"]})
    report = json.loads(zlib.decompress(base64.b64decode(text)))
    assert len(text) <= live_script.MOST and report["processes"] == many[: len(report["processes"])]
    assert report["left_out"] == {"processes": 2000 - len(report["processes"])} and report["kernel"] == ["Linux"]


@pytest.mark.parametrize("output", ["", "not packed", base64.b64encode(b"neither").decode()])
def test_an_answer_that_makes_no_sense_is_said_so(output):
    with pytest.raises(Stop, match="makes no sense"):
        _unpacked(SimpleNamespace(output=output, trouble=lambda: None))
