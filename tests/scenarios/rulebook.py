# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-rulebook with the rulebook of this collection, and what sends to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from runbook import BIN, OTHERS, REPOSITORY

from sandbox.addresses import free_port

TOKENS = {"ALERTS_TOKEN": "of-the-monitoring", "APPROVALS_TOKEN": "of-the-people"}
# A Java machine starts; on a busy one that takes its time.
START, DEADLINE = 60, 90


@dataclass
class Rulebook:
    """One that runs."""

    output: Path
    alerts: int
    approvals: int

    def alert(self, body: dict, token: str = TOKENS["ALERTS_TOKEN"]) -> int:
        return _post(self.alerts, body, token)

    def decide(self, body: dict, token: str = TOKENS["APPROVALS_TOKEN"]) -> int:
        return _post(self.approvals, body, token)

    def until(self, *words: str, seconds: float = DEADLINE) -> str:
        """What it has printed, once all of `words` are in it."""
        end = time.monotonic() + seconds
        while True:
            printed = self.output.read_text()
            if all(word in printed for word in words):
                return printed
            assert time.monotonic() < end, f"{[word for word in words if word not in printed]} never came:\n{printed}"
            time.sleep(0.2)


@contextmanager
def started(
    folder: Path, config: Path, inventory: Path, environment: dict[str, str], **variables: str
) -> Iterator[Rulebook]:
    """Run it in `folder` until the block ends.

    Args:
        config: the ansible.cfg by which it finds the collection and its playbooks.
        variables: what differs from extensions/eda/vars.yml.
    """
    running = Rulebook(folder / "output", *(free_port("127.0.0.1", keep=True) for _ in range(2)))
    said = yaml.safe_load((REPOSITORY / "extensions/eda/vars.yml").read_text()) | variables
    said |= {"alerts_port": running.alerts, "approvals_port": running.approvals}
    (folder / "vars.yml").write_text(yaml.safe_dump(said))
    ours = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    ours |= {"PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(config), **TOKENS, **environment}
    command = [BIN / "ansible-rulebook", "--rulebook", "sre.runbooks.alerts", "--inventory", inventory]
    command += ["--vars", folder / "vars.yml", "--env-vars", ",".join(TOKENS)]
    with running.output.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=ours,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        _wait_for(process, running)
        yield running
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(process: subprocess.Popen, running: Rulebook) -> None:
    end = time.monotonic() + START
    for port in (running.alerts, running.approvals):
        while True:
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < end, running.output.read_text()
            time.sleep(0.2)


def _post(port: int, body: dict, token: str) -> int:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def of_alertmanager(
    name: str,
    summary: str = "it is broken",
    status: str = "firing",
    starts: str = "2026-11-22T02:58:00Z",
    **labels: str,
) -> dict:
    """One alert as Alertmanager posts it."""
    alert = {
        "status": status,
        "labels": {"alertname": name, **labels},
        "annotations": {"summary": summary},
        "startsAt": starts,
    }
    return {"version": "4", "groupKey": "{}", "status": status, "alerts": [alert]}
