# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make drill` as it is typed: in a sandbox of its own, which is gone afterwards, however the drill ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def start(reports: Path, *arguments: str) -> subprocess.Popen:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_", "SRE_"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "drills", *arguments, "--reports", str(reports)],
        cwd=REPOSITORY,
        env=environment | {"TMPDIR": str(reports)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_behind(reports: Path) -> list[str]:
    """Processes that know of this drill, and folders of sandboxes."""
    mine = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(reports) in word for word in process.info["cmdline"] or ()):
            mine.append(" ".join(process.info["cmdline"]))
    return mine + [path.name for path in reports.glob("sre-drill-*")]


@pytest.fixture
def reports() -> Iterator[Path]:
    """Where PostgreSQL's user can pass, which he cannot through pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="sre-drills-") as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


def test_the_list_names_every_scenario(reports: Path) -> None:
    output, _ = start(reports, "list").communicate(timeout=60)
    assert [line.split()[1] for line in output.splitlines() if line.startswith("intruder ")] == ["security"]


@pytest.mark.soak
@pytest.mark.parametrize(
    "name",
    [
        "bad_deployment",
        "connections",
        "db_failover",
        "hot_instance",
        "intruder",
        "region_outage",
        "slow_answers",
        "zone_outage",
    ],
)
def test_each_scenario_is_recovered_by_its_answer(reports: Path, name: str) -> None:
    output, _ = start(reports, name, "--auto", "--seed", "1").communicate(timeout=300)
    last = output.splitlines()[-1]
    assert last.startswith("RECOVERED seconds="), output
    assert "wrong_turns=0" in last
    assert left_behind(reports) == []


@pytest.mark.soak
def test_a_drill_that_is_ended_leaves_a_report_and_nothing_else(reports: Path) -> None:
    drill = start(reports, "db_failover", "--seed", "1")
    said = ""
    for line in drill.stdout:
        said += line
        if "PAGE" in line:
            break
    time.sleep(2)
    drill.send_signal(signal.SIGTERM)
    rest, _ = drill.communicate(timeout=60)
    assert drill.returncode == 1, said + rest
    assert rest.splitlines()[-1].startswith("NOT RECOVERED seconds=None")
    (result,) = reports.glob("*/result.json")
    assert json.loads(result.read_text())["outcome"] == "given up"
    assert left_behind(reports) == []
