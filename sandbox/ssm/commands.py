# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands and their invocations: concurrency that grows, errors that end it, statuses.

https://docs.aws.amazon.com/systems-manager/latest/userguide/send-commands-multiple.html#send-commands-rate
https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html
"""

from __future__ import annotations

import datetime
import heapq
import itertools
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..world import World

# What the agent reports of a script's output, in characters: both streams in one, and each of them.
# https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetCommandInvocation.html
LISTED, STDOUT, STDERR = 2500, 24000, 8000
# Run Command is eventually consistent: a command shows up so many seconds after it was sent.
SHOWN_AFTER = 0.15
_ERROR_TITLE = "\n----------ERROR-------\n"
_STATUS = {
    "Delivery Timed Out": "TimedOut",
    "Execution Timed Out": "TimedOut",
    "Terminated": "Failed",
    "Undeliverable": "Failed",
    "In Progress": "InProgress",
}
OPEN = ("Pending", "In Progress", "Delayed")
# These count against MaxErrors; a script that was not delivered does not.
ERRORS = ("Failed", "Execution Timed Out")


@dataclass
class Invocation:
    """A command on one instance."""

    instance_id: str
    details: str = "Pending"
    code: int = -1
    stdout: str = ""
    stderr: str = ""

    @property
    def is_over(self) -> bool:
        return self.details not in OPEN

    @property
    def status(self) -> str:
        return _STATUS.get(self.details, self.details)

    @property
    def listed_output(self) -> str:
        title = _ERROR_TITLE if self.stderr else ""
        whole = self.stdout + title + self.stderr
        if len(whole) < LISTED:
            return whole
        cut = "\n---Output truncated---"
        return (
            self.stdout[: max(0, LISTED - len(title) - len(cut) - len(self.stderr))] + cut + title + self.stderr[:1000]
        )


@dataclass
class Command:
    """One SendCommand. Fields change with the world's lock held."""

    arguments: dict[str, Any]
    invocations: dict[str, Invocation]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    requested: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    sent: float = field(default_factory=time.monotonic)
    cancelled: set[str] = field(default_factory=set)

    @property
    def is_shown(self) -> bool:
        return time.monotonic() - self.sent >= SHOWN_AFTER

    @property
    def script(self) -> str:
        return "\n".join(self.arguments.get("Parameters", {}).get("commands", []))

    @property
    def timeout(self) -> float:
        return float(self.arguments.get("Parameters", {}).get("executionTimeout", ["3600"])[0])

    def limit(self, name: str, default: str) -> int:
        text = str(self.arguments.get(name, default))
        return len(self.invocations) * int(text[:-1]) // 100 if text.endswith("%") else int(text)

    def count(self, *details: str) -> int:
        return sum(each.details in details for each in self.invocations.values())

    @property
    def is_over(self) -> bool:
        return all(each.is_over for each in self.invocations.values())

    def state(self) -> tuple[str, str]:
        """Status and StatusDetails."""
        if not self.invocations:
            return "Success", "NoInstancesInTag"
        if not self.is_over:
            return "InProgress", "In Progress"
        if self.cancelled:
            return "Cancelled", "Cancelled"
        if self.count(*ERRORS) > self.limit("MaxErrors", "0"):
            return "Failed", "Failed"
        if self.count("Success") < len(self.invocations):
            return "Failed", "Incomplete"
        return "Success", "Success"


class Journey:
    """Brings a command to its instances, in a background thread.

    Args:
        is_reachable: whether the agent of an instance answers now.
        start: begins the script on an instance; calls back once with (code, stdout, stderr), or returns the seconds after
            which it will have ended, with that outcome, where nothing is run.
    """

    def __init__(
        self, world: World, command: Command, is_reachable: Callable[[str], bool], start: Callable[..., Any]
    ) -> None:
        self._world, self._command, self._is_reachable, self._start = world, command, is_reachable, start
        self._done: queue.SimpleQueue = queue.SimpleQueue()
        self._due: list[tuple[float, int, Invocation, tuple]] = []
        self._numbers = itertools.count()

    def run(self) -> None:
        command = self._command
        most, width, active = max(1, command.limit("MaxConcurrency", "50")), 1, 0
        left, unreachable = deque(command.invocations.values()), []
        while left or active or unreachable:
            with self._world.lock:
                if command.count(*ERRORS) > command.limit("MaxErrors", "0"):
                    self._end(left, "Terminated")
                while left and active < width:
                    invocation = left.popleft()
                    if invocation.instance_id in command.cancelled:
                        invocation.details = "Cancelled"
                    elif self._is_reachable(invocation.instance_id):
                        invocation.details, active = "In Progress", active + 1
                        self._begin(invocation)
                    else:
                        invocation.details = "Delayed"
                        unreachable.append(invocation)
                unreachable = [each for each in unreachable if self._is_late(each, left)]
            for invocation, outcome in self._ended():
                with self._world.lock:
                    self._finish(invocation, *outcome)
                # To one, then to two more, and so on until the concurrency is reached.
                active, width = active - 1, min(most, width + 1)

    def _end(self, left: deque, details: str) -> None:
        for each in left:
            each.details = details
        left.clear()

    def _is_late(self, invocation: Invocation, left: deque) -> bool:
        """Whether it still waits for its agent."""
        if invocation.instance_id in self._command.cancelled:
            invocation.details = "Cancelled"
        elif self._is_reachable(invocation.instance_id):
            left.append(invocation)
        elif time.monotonic() - self._command.sent > float(self._command.arguments.get("TimeoutSeconds", 3600)):
            invocation.details = "Delivery Timed Out"
        else:
            return True
        return False

    def _begin(self, invocation: Invocation) -> None:
        taken = self._start(
            self._command, invocation.instance_id, lambda *outcome: self._done.put((invocation, outcome))
        )
        if taken is not None:
            seconds, outcome = taken
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), invocation, outcome))

    def _ended(self) -> list[tuple[Invocation, tuple]]:
        """What has ended within a moment."""
        found = []
        while self._due and self._due[0][0] <= time.monotonic():
            found.append(heapq.heappop(self._due)[2:])
        while not self._done.empty():
            found.append(self._done.get())
        if not found:
            self._world.pause(0.01)
        return found

    def _finish(self, invocation: Invocation, code: int | None, stdout: str, stderr: str) -> None:
        invocation.stdout, invocation.stderr = stdout[:STDOUT], stderr[:STDERR]
        invocation.code = -1 if code is None else code
        if invocation.instance_id in self._command.cancelled:
            invocation.details = "Cancelled"
        elif code is None:
            invocation.details = "Execution Timed Out"
        else:
            invocation.details = "Failed" if code else "Success"
