# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that eats the processors of one instance of the fleet: somebody's report, begun by hand and never ended.

It really runs, in the instance that SSM reaches, for as long as nobody ends it there. What it takes from the application does not
depend on the processors of this machine: as long as it lives, the application of that instance gets little time, so that
users wait, though not so long that a health check fails.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from .. import ssm
from ..faults import Fault
from ..patience import wait_until
from ..processes import is_zombie
from . import groups, pipeline

if TYPE_CHECKING:
    from ..world import World

# Seconds that the application waits for the processor, and has it. The target group's checks wait for 2 s.
WAITS, RUNS = 1.3, 0.15
SCRIPT = "report.py"
# Its argument is what nobody else must read; `stubborn` does not end when it is asked to.
_BEGIN = """
mkdir -p /opt/app && cat >/opt/app/{script} <<'END'
import signal, sys
if "{stubborn}" == "yes":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    pass
END
cd /opt/app && setsid python3 {script} --password=report-s3cret >/dev/null 2>&1 </dev/null &
"""


def _begin(world: World, instance: str | None = None, stubborn: str = "no") -> None:
    """Returns when it runs. Raises ValueError where there is no such instance."""
    facts = world.state["fleet"]
    pipeline.await_steady(world, facts)
    there = sorted(name for name, machine in groups.machines.items() if machine.is_healthy)
    chosen = instance or there[0]
    if chosen not in there:
        raise ValueError(f"no instance {chosen} serves: there are {', '.join(there)}")
    ssm.run(facts["region"], chosen, _BEGIN.format(script=SCRIPT, stubborn=stubborn))
    pids = wait_until(lambda: _pids(facts["region"], chosen), f"{SCRIPT} runs on {chosen}")
    world.background(_compete, world, facts["region"], chosen, pids)


def _pids(region: str, instance: str) -> list[int]:
    """Of this machine."""
    return [pid for pid in ssm.pids(region, instance) if _runs_it(pid)]


def _runs_it(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as words:
            return SCRIPT.encode() in words.read().split(b"\0")
    except OSError:
        return False


def _compete(world: World, region: str, instance: str, pids: list[int]) -> None:
    """Until it is gone, or its instance is."""
    try:
        while not all(map(is_zombie, pids)):
            for number, seconds in ((signal.SIGSTOP, WAITS), (signal.SIGCONT, RUNS)):
                if not _signal(world, instance, number):
                    ssm.forget(region, instance)
                    return
                _while_any(world, pids, seconds)
    finally:
        _signal(world, instance, signal.SIGCONT)


def _while_any(world: World, pids: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(map(is_zombie, pids)):
        world.pause(0.05)


def _signal(world: World, instance: str, number: int) -> bool:
    with world.lock:
        machine = groups.machines.get(instance)
        if machine is not None:
            machine.signal(number)
        return machine is not None


def _end(world: World) -> None:
    region = world.state["fleet"]["region"]
    for instance in list(groups.machines):
        if _pids(region, instance):
            ssm.forget(region, instance)


faults = {
    "hot-process": Fault(
        "a process eats the processors of one instance of the fleet; --instance ID; --stubborn yes: only a kill ends it",
        _begin,
        _end,
        (),
        ("instance", "stubborn"),
    )
}
