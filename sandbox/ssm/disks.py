# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What fills a disk, and what comes of it."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

from ..faults import Fault
from ..patience import PATIENCE
from . import api
from .machine import NO_ROOM, Machine
from .nodes import Nodes

if TYPE_CHECKING:
    from ..world import World

SERVICE = "regami-batch"

# Each fills what is left, to the last block or inode.
KINDS = {
    # Old logs, a few of them too young to go.
    "logs": """
for day in $(seq 10 40); do
    head -c 300k /dev/zero >"/var/log/app/worker.log.$day" 2>/dev/null; touch -d "$day days ago" "/var/log/app/worker.log.$day"
done
cat /dev/zero >/var/log/app/worker.log 2>/dev/null
""",
    # One session file after the other.
    "inodes": """
mkdir -p /var/log/app/sessions
python3 -c '
import os, time
old = time.time() - 20 * 86400
try:
    for number in range(10 ** 6):
        path = "/var/log/app/sessions/%d.log" % number
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.utime(path, (old, old))
except OSError:
    pass
'
""",
    # A log was deleted while its writer lives on, as by an impatient person.
    "deleted": """
python3 -c '
import os, time
path = "/var/log/app/worker.log"
log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.unlink(path)
os.setsid()
if os.fork(): os._exit(0)
for each in (0, 1, 2): os.dup2(os.open("/dev/null", os.O_RDWR), each)
chunk, pause = b"x" * 65536, 0
while True:
    try:
        os.write(log, chunk)
    except OSError:
        chunk, pause = b"one more line\\n", 1
    time.sleep(pause)
' &
wait
for attempt in $(seq 200); do [ "$(df --output=avail / | tail -1)" -lt 64 ] && break; sleep 0.05; done
""",
    # What no cleaning frees.
    "database": "cat /dev/zero >/var/lib/postgresql/16/main/base/1/2600 2>/dev/null",
}
# Not even the agent has room: the blocks that are kept for it are gone too, those of the script that took them included.
NO_RESERVE = "(while :; do cat /dev/zero >>/var/lib/amazon/filler; sleep 0.3; done) >/dev/null 2>&1 &"


def _nodes(world: World) -> Nodes:
    return api.regions[world.state["batch"]["region"]].nodes


def _chosen(world: World, instance: str | None) -> list[str]:
    there = world.state["batch"]["instance_ids"]
    if instance is None:
        return there
    known = _nodes(world).tags()
    if instance not in known:
        raise ValueError(f"no instance {instance}: there are {', '.join(there)}")
    return [instance]


def _fill(world: World, what: str, instance: str | None = None, reserve: str = "yes") -> None:
    if what not in KINDS:
        raise ValueError(f"a disk is full of one of {', '.join(KINDS)}, not of {what!r}")
    for each in _chosen(world, instance):
        machine = _nodes(world).machine(each)
        machine.run(KINDS[what], 60)
        if reserve == "no":
            _stop_agent(machine)


def _stop_agent(machine: Machine) -> None:
    machine.run(NO_RESERVE, 10)
    deadline = time.monotonic() + PATIENCE
    while machine.run("true", 10)[1] != NO_ROOM:
        if time.monotonic() > deadline:
            raise ValueError(f"{machine.id} keeps some room")
        # What the look itself has freed must be taken again before the next one.
        time.sleep(0.5)


def _empty(world: World) -> None:
    for each in list(_nodes(world).machines):
        _nodes(world).renew(each)


def _lose(world: World, instance: str | None = None) -> None:
    for each in _chosen(world, instance):
        _nodes(world).lost[each] = datetime.datetime.now(datetime.UTC)


def _run(world: World, arguments: dict[str, Any]) -> dict[str, Any]:
    """A script past the API, for whoever wants to know what is really there."""
    code, stdout, stderr = _nodes(world).run(arguments["instance"], arguments["script"])
    return {"code": code, "stdout": stdout, "stderr": stderr}


def _simulate(world: World, arguments: dict[str, Any]) -> dict[str, Any]:
    """A fleet of `count` without anything behind it; each instance takes `seconds` for a script, `failing` of them fail."""
    with world.lock:
        names = _nodes(world).simulate(
            int(arguments["count"]),
            arguments.get("tags") or {"service": "simulated"},
            float(arguments.get("seconds", 0.05)),
            int(arguments.get("failing", 0)),
        )
    if arguments.get("full"):
        _nodes(world).machine(names[0]).run(KINDS[arguments["full"]], 60)
    return {"instance_ids": names}


control = {"instance": _run, "simulated-fleet": _simulate}
faults = {
    "disk-full": Fault(
        f"disks of {SERVICE} are full of WHAT: {', '.join(KINDS)}; --instance: of one only; --reserve no: no room for the agent",
        _fill,
        _empty,
        ("what",),
        ("instance", "reserve"),
    ),
    "agent-lost": Fault(
        f"SSM agents of {SERVICE} do not answer; --instance: one only",
        _lose,
        lambda world: _nodes(world).lost.clear(),
        (),
        ("instance",),
    ),
}
