# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of one contestant: the same start for all, the clock, and whether the incident is over."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.client import Sandbox

from .contest import REPOSITORY, Contest, Contestant, NotRecovered

PATIENCE = 30.0  # seconds for the sandbox to come into the state from which a run starts, or in which it is judged
LONGEST_RUN = 300.0


@dataclass(frozen=True)
class Run:
    """Seconds of wall time, of processor time and of that in which AWS alone was at work, and the number of AWS calls."""

    contest: str
    contestant: str
    seconds: float
    cpu_seconds: float
    calls: int
    unavoidable_seconds: float = 0.0

    as_dict = asdict


class Race:
    """Runs contestants against one sandbox; `folder` takes their files and their output.

    `environment` is added to that of every contestant.
    """

    def __init__(self, sandbox: Sandbox, folder: Path, environment: dict[str, str]) -> None:
        self.sandbox, self.folder, self.environment, self._number = sandbox, folder, environment, 0

    def run(self, contest: Contest, contestant: Contestant) -> Run:
        """Reset, let the incident happen, run, judge.

        Raises:
            NotRecovered: the command failed, or the incident is not over after it.
        """
        self._number += 1
        place = self.folder / str(self._number)
        place.mkdir()
        self.sandbox.reset()
        arranged = {} if contestant is contest.start else contest.arrange(self.sandbox, place)
        facts = {"ansible_python_interpreter": sys.executable, **arranged}
        (place / "facts.json").write_text(json.dumps(facts))
        environment = self._environment(place, facts)
        since, cpu = self.sandbox.status()["calls"], _cpu_seconds()
        with open(place / "output", "wb") as output:
            started = time.monotonic()
            try:
                code = subprocess.run(
                    contestant.command,
                    cwd=REPOSITORY if contestant.in_repository else place,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=LONGEST_RUN,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            seconds = time.monotonic() - started
        cpu, calls = _cpu_seconds() - cpu, len(self.sandbox.calls(since))
        if code != 0:
            ended = "did not end" if code is None else f"ended with {code}"
            raise NotRecovered(f"{contestant.name} {ended}: see {place / 'output'}")
        if contestant is not contest.start:
            wait(
                lambda: contest.is_over(self.sandbox),
                f"{contestant.name}: {contest.name} is not over: see {place / 'output'}",
            )
        unavoidable = 0.0 if contestant is contest.start else contest.unavoidable(self.sandbox)
        return Run(contest.name, contestant.name, seconds, cpu, calls, unavoidable)

    def _environment(self, place: Path, facts: dict[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "AWS_", "SRE_"))}
        return {
            **kept,
            **{name.upper(): value for name, value in facts.items()},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": self.sandbox.state["endpoint_url"],
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_PAGER": "",
            # Cheaper modules, as a good user has it.
            "ANSIBLE_PIPELINING": "true",
            "SRE_SANDBOX_HOME": str(self.sandbox.home),
            "SRE_RUNBOOKS_INCIDENTS": str(place / "incidents"),
            **self.environment,
        }


def wait(done: Callable[[], bool], otherwise: str) -> None:
    """Until `done()`. Raises NotRecovered, with `otherwise`, when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise NotRecovered(otherwise)
        time.sleep(0.1)


def _cpu_seconds() -> float:
    """Of all processes that we started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
