# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook as an engineer starts it: a process of its own, and what it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import forker
import psutil

from sandbox.client import Sandbox
from sandbox.journal import Journal

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# What the engineer who runs the tests has set for other targets.
OTHERS = ("ANSIBLE_", "AWS_", "K8S_AUTH_", "SRE_")
# Seconds after which a run hangs: the longest of them, against a region that answers nothing, takes half of this.
DEADLINE = 120


@dataclass(frozen=True)
class Result:
    """A run that has ended. `calls` are the AWS calls between its start and its end, whoever sent them."""

    returncode: int
    output: str
    folder: Path | None
    calls: list[dict]
    seconds: float

    @property
    def timeline(self) -> list[dict]:
        return read_timeline(self.folder)

    @cached_property
    def report(self) -> dict:
        return json.loads((self.folder / "report.json").read_text())

    @property
    def complaints(self) -> list[str]:
        """What ansible prints in red: for an engineer who reads one line only, this is it."""
        return re.findall(r"^\[ERROR\]: (.*)$", self.output, re.MULTILINE)

    @property
    def recap(self) -> dict[str, int]:
        """ok, changed, failed ... of the play recap."""
        line = re.search(r"^\S+ +: (ok=.*)$", self.output, re.MULTILINE)
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line[1])} if line else {}

    @property
    def mutations(self) -> list[str]:
        """`service:Action region` of every change that AWS was asked for, applied or not; the lease is none of the target."""
        return [name_of(call) for call in self.calls if call["mutation"] and call["service"] != "dynamodb"]

    @property
    def lease_calls(self) -> list[str]:
        return [call["action"] for call in self.calls if call["mutation"] and call["service"] == "dynamodb"]


@dataclass
class Running:
    """A run that has not ended yet."""

    process: subprocess.Popen | forker.Forked
    sandbox: Sandbox
    incidents: Path
    first_call: int
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # Written before the caller has its answer; asking the sandbox over HTTP would be later.
        self._calls = Journal(self.sandbox.home / "calls.jsonl")
        self._timeline: Journal | None = None

    @property
    def folder(self) -> Path | None:
        """The record of this very process."""
        for timeline in sorted(self.incidents.glob("*/timeline.jsonl"), reverse=True)[:3]:
            opening = timeline.read_text().partition("\n")[0]
            if opening and json.loads(opening)["run"].split(":")[1] == str(self.process.pid):
                return timeline.parent
        return None

    @property
    def timeline(self) -> list[dict]:
        if self._timeline is None and (folder := self.folder):
            self._timeline = Journal(folder / "timeline.jsonl")
        return self._timeline.look() if self._timeline else []

    @property
    def calls(self) -> list[dict]:
        return self._calls.look()[self.first_call :]

    def until(self, reached: Callable[[Running], Any]) -> None:
        """Wait for a point of the run; AssertionError where it ends without coming there."""
        while not reached(self):
            assert self.process.poll() is None, f"the run never came there:\n{self.process.stdout.read()}"
            assert time.monotonic() - self.started < DEADLINE, "the run neither comes there nor ends"
            time.sleep(0.003)

    def kill(self) -> Result:
        """kill -9, every process of it at once, as a machine that loses its power does."""
        self._end()
        return self.wait()

    def _end(self) -> None:
        """Ansible gives the process of each task a session of its own; nobody forks while the tree is taken down."""
        run = psutil.Process(self.process.pid)
        run.suspend()
        for each in [*run.children(recursive=True), run]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def wait(self) -> Result:
        try:
            output, _ = self.process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self._end()
            output, _ = self.process.communicate()
            raise AssertionError(f"still running after {DEADLINE} s:\n{output}") from None
        seconds = time.monotonic() - self.started
        return Result(
            self.process.returncode, output, self.folder, self.sandbox.calls(self.first_call), round(seconds, 2)
        )


@dataclass
class Runbook:
    """The playbooks of this clone against one sandbox, their records in one folder."""

    sandbox: Sandbox
    incidents: Path

    def start(
        self,
        playbook: str = "db_failover",
        *flags: str,
        environment: dict[str, str] | None = None,
        **variables: Any,
    ) -> Running:
        """Start `playbook` with `variables` as extra vars (env=None leaves even `env` out)."""
        variables = {"env": "sandbox", **variables}
        if variables["env"] is None:
            del variables["env"]
        arguments = [f"playbooks/{playbook}.yml", *flags, "--extra-vars", json.dumps(variables)]
        if any(name.startswith("ANSIBLE_") for name in environment or ()):
            process = self._configured(arguments, environment)
        else:
            process = forker.start(arguments, REPOSITORY, {**self.environment, **(environment or {})})
        return Running(
            process,
            self.sandbox,
            self.incidents,
            self.sandbox.status()["calls"],
        )

    def _configured(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen:
        """Ansible reads its configuration as it is loaded."""
        return subprocess.Popen(
            [BIN / "ansible-playbook", *arguments],
            cwd=REPOSITORY,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *args: Any, **variables: Any) -> Result:
        return self.start(*args, **variables).wait()

    @property
    def environment(self) -> dict[str, str]:
        """Of this machine, without what is meant for other targets."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
        return ours | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "SRE_SANDBOX_HOME": str(self.sandbox.home),
            "SRE_RUNBOOKS_INCIDENTS": str(self.incidents),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def name_of(call: dict) -> str:
    return f"{call['service']}:{call['action']} {call['region']}"


def read_timeline(folder: Path | None) -> list[dict]:
    return Journal(folder / "timeline.jsonl").look() if folder else []
