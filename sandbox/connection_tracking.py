# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network interface of an instance: what its security groups let in reaches the program behind it, by connections that are
tracked, or not.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html
A connection that came in by a rule for everybody (0.0.0.0/0), where everything may go out to everybody too, is not tracked:
each packet of it needs a rule, and it ends in silence when there is none any more. Any other is tracked, and lives on whatever
becomes of the groups, unless they come to be such that it would not be tracked.
https://docs.aws.amazon.com/systems-manager-automation-runbooks/latest/userguide/automation-awssupport-containec2instance.html
Packets of a new connection that no rule lets in are dropped in the kernel: who connects hears nothing and gives up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import packet_filter

if TYPE_CHECKING:
    from .world import World

EVERYBODY = ipaddress.ip_network("0.0.0.0/0")
_BLOCK = 1 << 16

_world: World
_interfaces: dict[str, Interface] = {}  # by id of the network interface
_loop = asyncio.new_event_loop()
# Who is in a security group besides: function(group id) -> addresses, called with the lock held.
members: list[Callable[[str], list[str]]] = []


@dataclass(frozen=True)
class Rules:
    """What the groups of an interface say of its port: who may come in, and whether all may go out to everybody."""

    sources: tuple[ipaddress.IPv4Network, ...] = ()
    all_out: bool = False

    def lets_in(self, address: str) -> bool:
        return any(ipaddress.ip_address(address) in source for source in self.sources)

    @property
    def tracks(self) -> bool:
        return not (EVERYBODY in self.sources and self.all_out)


@dataclass(eq=False)
class _Connection:
    client: str
    tracked: bool
    cut: bool = False  # nothing passes any more, and nobody is told
    tasks: list[asyncio.Task] = field(default_factory=list)


class Interface:
    """Serves `address`:`port` for a program at `inside`:`port`, as the rules say."""

    def __init__(self, address: str, inside: str, port: int, rules: Rules) -> None:
        self._inside, self._port, self._rules = inside, port, rules
        self._connections: set[_Connection] = set()
        self._listener = socket.create_server((address, port), backlog=256)
        packet_filter.let_in(self._listener, rules.sources)
        self._server = _run(asyncio.start_server(self._serve, sock=self._listener))

    def obey(self, rules: Rules) -> None:
        """Other rules, at once, for new connections and for those that are there."""

        async def follow() -> None:
            self._rules = rules
            for each in self._connections:
                # One that is tracked stays, unless it would not be tracked any more.
                each.tracked = each.tracked and rules.tracks
                if not each.tracked and not rules.lets_in(each.client):
                    each.cut = True

        packet_filter.let_in(self._listener, rules.sources)
        _run(follow())

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for each in self._connections:
                for task in each.tasks:
                    task.cancel()

        _run(end())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("peername")[0]
        connection = _Connection(client, self._rules.tracks)
        self._connections.add(connection)
        other = None
        try:
            inner, other = await asyncio.open_connection(self._inside, self._port)
            connection.tasks = [
                asyncio.create_task(_carry(connection, *ends)) for ends in ((reader, other), (inner, writer))
            ]
            await asyncio.gather(*connection.tasks)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(connection)
            for each in filter(None, (writer, other)):
                each.close()


async def _carry(connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its sender ends."""
    while data := await reader.read(_BLOCK):
        if not connection.cut:
            writer.write(data)
            await writer.drain()
    if connection.cut:
        # The end of one side does not reach the other either.
        await asyncio.Event().wait()
    if writer.can_write_eof():
        writer.write_eof()


def _run(coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop).result(5)


# ---- which rules there are -------------------------------------------------------------------------------------------


def rules_of(groups: list[Any], port: int) -> Rules:
    """Of moto's security groups. Hold the world's lock."""
    sources = []
    for rule in (rule for group in groups for rule in group.ingress_rules if _is_for(rule, port)):
        sources += [ipaddress.ip_network(rule.ip_range["CidrIp"])] if rule.ip_range.get("CidrIp") else []
        if other := (rule.source_group or {}).get("GroupId"):
            sources += [ipaddress.ip_network(address) for find in members for address in find(other)]
    # Responses may go to any port.
    all_out = any(
        rule.ip_range.get("CidrIp") == str(EVERYBODY)
        and (rule.ip_protocol == "-1" or (rule.ip_protocol == "tcp" and (rule.from_port, rule.to_port) == (0, 65535)))
        for group in groups
        for rule in group.egress_rules
    )
    return Rules(tuple(sources), all_out)


def _is_for(rule: Any, port: int) -> bool:
    if rule.ip_protocol == "-1":
        return True
    return rule.ip_protocol == "tcp" and rule.from_port <= port <= rule.to_port


# ---- interfaces of instances -----------------------------------------------------------------------------------------


def attach(region: str, interface_id: str, address: str, inside: str, port: int) -> None:
    """The instance of this interface serves now. Hold the world's lock."""
    _interfaces[interface_id] = Interface(address, inside, port, _present(region, interface_id, port))


def detach(interface_id: str) -> None:
    if interface := _interfaces.pop(interface_id, None):
        interface.close()


def _present(region: str, interface_id: str, port: int) -> Rules:
    return rules_of(_world.backend("ec2", region).enis[interface_id].group_set, port)


def _follow(call: Any) -> None:
    if call.service not in ("ec2", "elbv2"):
        return
    for region in _world.regions:
        for name in _interfaces.keys() & _world.backend("ec2", region).enis.keys():
            interface = _interfaces[name]
            interface.obey(_present(region, name, interface._port))


def install(world: World) -> None:
    global _world
    _world = world
    threading.Thread(target=_loop.run_forever, name="network interfaces", daemon=True).start()
    world.after_change.append(_follow)


def stop(world: World) -> None:
    with world.lock:
        for name in list(_interfaces):
            detach(name)
