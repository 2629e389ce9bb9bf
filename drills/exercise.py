# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One drill in a sandbox: all is well, something breaks, somebody recovers, and what came of it."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.client import Sandbox, SandboxError

from .collection import REPOSITORY, drill_watch
from .result import Held, is_under_way, runs, told
from .scenario import Breakage, DrillError, Scenario
from .steady import SIGNS, MustEnd, Sign, Users

LOOK_SECONDS = 0.5
# A service that was just started becomes steady within this.
SETTLE_SECONDS = 60.0
# A run takes no longer to verify what it did.
RUN_SECONDS = 180.0
# Of the time before, so much is drawn.
BEFORE_SECONDS = 15


@dataclass
class Exercise:
    """`folder` gets the record of the drill; `tell` a line for a person. `patience_seconds`: then it is ended, unrecovered."""

    sandbox: Sandbox
    scenario: Scenario
    breakage: Breakage
    folder: Path
    by: str
    tell: Callable[[str], None] = print
    patience_seconds: float = 1800.0
    steady_seconds: float = drill_watch.STEADY_SECONDS
    _why: str = field(default="", init=False)

    @property
    def incidents(self) -> Path:
        """Where the runs of this drill leave their records, apart from those of real incidents."""
        return self.folder / "incidents"

    @property
    def environment(self) -> dict[str, str]:
        return {"SRE_SANDBOX_HOME": str(self.sandbox.home), "SRE_RUNBOOKS_INCIDENTS": str(self.incidents)}

    # ---- its course ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Users come, and all is well. Raises DrillError where it does not become so: nothing is broken then."""
        self.incidents.mkdir(parents=True, mode=0o700)
        if self.scenario.staged:
            self.sandbox.control("incidents", action="ready")
        else:
            served = self.sandbox.state["fleet"] if self.scenario.users == "fleet" else self.sandbox.state
            self.sandbox.control("load", action="start", name=served["public_name"])
        self._users = Users(self.sandbox)
        self._signs: list[Sign] = [self._users, *(SIGNS[name](self.sandbox) for name in self.scenario.signs)]
        began = time.time()
        watch = drill_watch.Watch(began, SETTLE_SECONDS, self.steady_seconds, paged=began)
        symptoms = self._follow(watch, lambda _symptoms: None)
        if watch.outcome != drill_watch.RECOVERED:
            raise DrillError(f"it is not steady, so nothing is broken: {'; '.join(symptoms)}")

    def run(self, auto: bool) -> dict[str, Any]:
        """Break it and watch. Returns what came of it, also where it is ended by Ctrl-C."""
        self._first_call = self.sandbox.status()["calls"]
        self.sandbox.fault(self.breakage.fault, secretly=True, **self.breakage.arguments)
        watch = drill_watch.Watch(time.time(), self.patience_seconds, self.steady_seconds)
        with self._responder(auto) as responder:
            try:
                self._follow(watch, lambda symptoms: self._look(watch, symptoms, responder))
                self._let_runs_end()
            except KeyboardInterrupt:
                watch.outcome, self._why = drill_watch.GIVEN_UP, "ended by hand"
            except (MustEnd, SandboxError) as error:
                watch.outcome, self._why = drill_watch.STOPPED, str(error)
        return self._result(watch)

    def _follow(self, watch: drill_watch.Watch, look: Callable[[list[str]], None]) -> list[str]:
        """Until the watch is over; returns the last symptoms."""
        while True:
            now = time.time()
            symptoms = [line for sign in self._signs for line in sign.symptoms(now)]
            watch.observe(now, symptoms)
            look(symptoms)
            if watch.outcome:
                return symptoms
            time.sleep(LOOK_SECONDS)

    def _let_runs_end(self) -> None:
        """All is well, and the run that made it so is still verifying: to end the sandbox now would fail it."""
        deadline = time.monotonic() + RUN_SECONDS
        while any(map(is_under_way, runs(self.incidents).values())) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def _look(self, watch: drill_watch.Watch, symptoms: list[str], responder: Responder) -> None:
        if watch.paged is not None and not responder.called:
            self.tell(f"PAGE: {self.filled(self.scenario.page)}")
            for line in symptoms:
                self.tell(f"  {line}")
            responder.call([self.filled(line) for line in self.breakage.answer])
        if failed := responder.failed:
            raise MustEnd(f"{failed} failed, and nobody is there to go on")

    def filled(self, text: str) -> str:
        """With what only the sandbox knows, such as the id of an instance."""
        return text.format_map(self.sandbox.state)

    @contextlib.contextmanager
    def _responder(self, auto: bool) -> Iterator[Responder]:
        responder = Responder(self.environment) if auto else Somebody()
        try:
            yield responder
        finally:
            responder.end()

    # ---- what came of it -------------------------------------------------------------------------------------------

    def _result(self, watch: drill_watch.Watch) -> dict[str, Any]:
        ended = time.time()
        with contextlib.suppress(SandboxError):
            watched = self.sandbox.control("load", action="stop")
            calls = self.sandbox.calls(self._first_call)
            return self._told(watch, ended, watched, calls)
        return self._told(watch, ended, {}, [])

    def _told(self, watch: drill_watch.Watch, ended: float, users: dict, calls: list[dict]) -> dict[str, Any]:
        scenario = self.scenario
        held = Held(
            scenario.name, scenario.kind, scenario.title, self.breakage.told, self.by, "sandbox", scenario.target_seconds,
            self.breakage.mended_by, watch.outcome, self._why, watch.broke, watch.paged, watch.recovered, ended,
        )  # fmt: skip
        requests = per_second(self._users.answered(), self._users.failed(), watch.broke, ended)
        return told(held, users, requests, runs(self.incidents), calls)


def per_second(answered: list[dict], failed: list[dict], broke: float, ended: float) -> list[list[int]]:
    """Pure: [second since it broke, answered, failed] for each second that is drawn."""
    good = Counter(math.floor(each["acked"] - broke) for each in answered)
    bad = Counter(math.floor(each["failed"] - broke) for each in failed)
    first = max(-BEFORE_SECONDS, min([0, *good, *bad]))
    return [[second, good[second], bad[second]] for second in range(first, int(ended - broke) + 1)]


# ---- who recovers --------------------------------------------------------------------------------------------------


class Somebody:
    """A person in another terminal, who needs no telling."""

    called, failed = False, ""

    def call(self, _commands: list[str]) -> None:
        self.called = True

    def end(self) -> None:
        """He goes home by himself."""


class Responder(Somebody):
    """Types the answer, one command after the other, from the page on."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = {
            **os.environ,
            **environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._left: list[str] = []
        self._process: subprocess.Popen | None = None
        self._command = ""

    def call(self, commands: list[str]) -> None:
        self.called, self._left = True, list(commands)
        self._next()

    def _next(self) -> None:
        self._command = self._left.pop(0)
        print(f"$ ansible-playbook playbooks/{self._command}", flush=True)
        self._process = subprocess.Popen(
            ["ansible-playbook", *f"playbooks/{self._command}".split()],
            cwd=REPOSITORY,
            env=self._environment,
            stdin=subprocess.DEVNULL,
        )

    @property
    def failed(self) -> str:
        """The command that failed; "" while all goes well. Begins the next when one is over."""
        code = self._process.poll() if self._process else None
        if code:
            return self._command
        if code == 0 and self._left:
            self._next()
        return ""

    def end(self) -> None:
        """Ansible ends its own tasks at SIGTERM; the lease of a run that is gone is free."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)
