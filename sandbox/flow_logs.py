# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flow logs of a VPC, where there is one that goes to CloudWatch Logs: who came to which database, and whether that was let in.

What the kernel says of the connections that the processes of tasks really have or ask for.
https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import rds
from .ecs import tasks

if TYPE_CHECKING:
    from .world import World

# https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
ESTABLISHED, SYN_SENT = "01", "02"
_ACTIONS = {ESTABLISHED: "ACCEPT", SYN_SENT: "REJECT"}
LONGEST_LOOK, PACKET, TCP = 1.0, 60, 6
_FIELD = re.compile(r"\$\{([\w-]+)\}")
DEFAULT = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} "
    "${start} ${end} ${action} ${log-status}"
)
_seen: set[Flow] = set()


@dataclass(frozen=True)
class Flow:
    """One connection, as the interface of its destination sees it."""

    interface: str
    source: str
    destination: str
    source_port: int
    destination_port: int
    action: str

    def record(self, account: str, start: int, end: int, form: str = DEFAULT) -> str:
        """A line of that format; packets are as many as a connection needs to begin, or to try."""
        packets = 6 if self.action == "ACCEPT" else 3
        told = {
            "version": 2,
            "account-id": account,
            "interface-id": self.interface,
            "srcaddr": self.source,
            "dstaddr": self.destination,
            "srcport": self.source_port,
            "dstport": self.destination_port,
            "protocol": TCP,
            "packets": packets,
            "bytes": packets * PACKET,
            "start": start,
            "end": end,
            "action": self.action,
            "log-status": "OK",
        }
        return " ".join(str(told.get(name, "-")) for name in _FIELD.findall(form))


def interface_of(name: str) -> str:
    return f"eni-{hashlib.sha256(name.encode()).hexdigest()[:17]}"


def _connections(port: int) -> Iterator[tuple[str, int, str]]:
    """(inode of the socket, local port, state) of those that go to a port of this machine."""
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            if fields[3] in _ACTIONS and int(fields[2].rpartition(":")[2], 16) == port:
                yield fields[9], int(fields[1].rpartition(":")[2], 16), fields[3]


def _inodes(pid: int) -> set[str]:
    """Of the sockets of a process."""
    found = set()
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # it has ended, or just closed one
    return found


def _flows(region: str) -> set[Flow]:
    running = [task for own in tasks.of_service.values() for task in own if task.region == region and task.pid]
    owners = {inode: task.address for task in running for inode in _inodes(task.pid)}
    return {
        Flow(interface_of(name), owners[inode], host, source, server.port, _ACTIONS[state])
        for (where, name), server in list(rds.servers.items())
        if where == region
        for host in [server.address.partition(":")[0]]
        for inode, source, state in _connections(server.port)
        if inode in owners
    }


def _look(world: World, seconds: float) -> None:
    """One line for each flow that was not told before."""
    for region in world.regions:
        with world.lock:
            wanted = [
                each
                for each in world.backend("ec2", region).flow_logs.values()
                if each.log_destination_type == "cloud-watch-logs"
            ]
            flows = _flows(region) - _seen if wanted else set()
        _seen.update(flows)
        write(world, region, flows, int(time.time() - seconds), int(time.time()))


def write(world: World, region: str, flows: set[Flow], start: int, end: int) -> None:
    """To the log groups of the region's flow logs, a stream for each interface."""
    with world.lock:
        logs = world.backend("logs", region).groups
        for each in world.backend("ec2", region).flow_logs.values():
            group = logs.get(each.log_group_name)
            for flow in sorted(flows, key=lambda flow: flow.source_port) if group else ():
                if each.traffic_type not in ("ALL", flow.action):
                    continue
                stream = f"{flow.interface}-{each.traffic_type.lower()}"
                if stream not in group.streams:
                    group.create_log_stream(stream)
                line = flow.record(world.account_id, start, end, each.log_format)
                group.put_log_events(stream, [{"timestamp": end * 1000, "message": line}])


def _run(world: World) -> None:
    step = min(LONGEST_LOOK, world.settings.metric_seconds)
    while True:
        world.pause(step)
        _look(world, step)


def seed(world: World) -> None:
    _seen.clear()


def start(world: World) -> None:
    world.background(_run, world)
