# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Availability zones, and one that fails: what runs there stops answering, and what is started there never comes up.

It is a grey failure, as most are: the API goes on as if nothing were wrong, so that tasks and instances are placed there and
databases are not failed over by themselves.
https://docs.aws.amazon.com/whitepapers/latest/advanced-multi-az-resilience-patterns/gray-failures.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .faults import Fault

if TYPE_CHECKING:
    from .processes import Process
    from .world import World

_world: World
_failed: dict[str, float] = {}  # zone -> when (monotonic)
# Who runs something: function(zone) that yields its processes there, called with the lock held.
inhabitants: list[Callable[[str], Iterator[Process]]] = []


def of_subnet(region: str, subnet_id: str) -> str:
    """The zone of a subnet; "" for none. Hold the lock."""
    return _world.backend("ec2", region).get_subnet(subnet_id).availability_zone if subnet_id else ""


def is_down(zone: str) -> bool:
    return zone in _failed


def seconds_down(zone: str) -> float:
    """How long it has been, 0 while it works."""
    return time.monotonic() - _failed[zone] if zone in _failed else 0.0


def install(world: World) -> None:
    global _world
    _world = world


def seed(world: World) -> None:
    _failed.clear()


def _processes(zone: str) -> list[Process]:
    with _world.lock:
        return [process for running in inhabitants for process in running(zone)]


def _fail(world: World, zone: str) -> None:
    there = [
        each.name for region in world.regions for each in world.backend("ec2", region).describe_availability_zones()
    ]
    if zone not in there:
        raise ValueError(f"unknown zone {zone!r}: one of {', '.join(there)}")
    _failed.setdefault(zone, time.monotonic())
    for process in _processes(zone):
        process.pause()


def _restore(world: World) -> None:
    while _failed:
        zone, _since = _failed.popitem()
        for process in _processes(zone):
            process.resume()


faults = {
    "zone-fails": Fault(
        "what runs in ZONE stops answering, and what is started there never comes up", _fail, _restore, ("zone",)
    )
}
