# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instances SSM manages: those of EC2 that run, each with a file system of its own, and simulated fleets.

A simulated fleet is a number of ids and tags without anything behind them. A script that is sent there really runs once, on
an instance that stands for all of them; each of them then takes its time and answers as that one did.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import ebs
from .machine import Machine

if TYPE_CHECKING:
    from ..world import World
    from .commands import Command


@dataclass
class Fleet:
    """`failing` of its instances answer every script with an error."""

    tags: dict[str, str]
    instance_ids: tuple[str, ...]
    seconds: float
    failing: frozenset[str]
    script: str = ""  # the last one, and what came of it on the one that stands for all
    outcome: tuple = ()


class Nodes:
    """The managed instances of a region. Its methods are called with the world's lock held, unless they say otherwise."""

    def __init__(self, world: World, region: str) -> None:
        self._world, self._region = world, region
        self.machines: dict[str, Machine] = {}
        self.lost: dict[str, datetime.datetime] = {}  # whose agent does not answer, and since when
        self.fleets: list[Fleet] = []
        self._simulated: dict[str, Fleet] = {}
        self._boot = threading.Lock()

    # ---- who is there ---------------------------------------------------------------------------------------------

    def tags(self) -> dict[str, dict[str, str]]:
        """{instance id: its tags} of all."""
        found = {each: fleet.tags for each, fleet in self._simulated.items()}
        for instance in self._world.backend("ec2", self._region).all_running_instances():
            found[instance.id] = {each["key"]: each["value"] for each in instance.get_tags()}
        return found

    def matching(self, targets: list[dict]) -> list[str]:
        """Those that every target selects: tag:NAME, tag-key or InstanceIds with any of its values."""
        return [
            name
            for name, tags in self.tags().items()
            if all(_is_selected(name, tags, each["Key"], each["Values"]) for each in targets)
        ]

    def ping(self, instance_id: str) -> str:
        return "ConnectionLost" if instance_id in self.lost else "Online"

    def describe(self, instance_id: str) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.UTC)
        return {
            "InstanceId": instance_id,
            "PingStatus": self.ping(instance_id),
            "LastPingDateTime": self.lost.get(instance_id, now),
            "AgentVersion": "3.3.987.0",
            "IsLatestVersion": True,
            "PlatformType": "Linux",
            "PlatformName": "Amazon Linux",
            "PlatformVersion": "2023",
            "ResourceType": "EC2Instance",
            "SourceId": instance_id,
            "SourceType": "AWS::EC2::Instance",
        }

    def is_reachable(self, instance_id: str) -> bool:
        return instance_id not in self.lost

    # ---- scripts --------------------------------------------------------------------------------------------------

    def start(self, command: Command, instance_id: str, done: Callable[..., None]) -> tuple[float, tuple] | None:
        """See commands.Journey."""
        fleet = self._simulated.get(instance_id)
        if fleet is None:
            self._world.background(lambda: done(*self.run(instance_id, command.script, command.timeout)))
            return None
        if instance_id in fleet.failing:
            return fleet.seconds, (1, "", "df: Input/output error")
        if command.script != fleet.script:
            # The first of them takes as long as the script really takes.
            fleet.script, fleet.outcome = (
                command.script,
                self.run(fleet.instance_ids[0], command.script, command.timeout),
            )
        return fleet.seconds, fleet.outcome

    def run(self, instance_id: str, script: str, timeout: float = 60.0) -> tuple[int | None, str, str]:
        """Run a script on an instance, booting it first. The lock need not be held."""
        try:
            return self.machine(instance_id).run(script, timeout)
        except RuntimeError as error:
            return 1, "", str(error)

    def machine(self, instance_id: str) -> Machine:
        """Raises RuntimeError where it cannot be."""
        with self._boot:
            if instance_id not in self.machines:
                machine = Machine(self._world, instance_id, self._region)
                machine.start()
                ebs.boot(self._region, machine)
                self.machines[instance_id] = machine
            return self.machines[instance_id]

    def renew(self, instance_id: str) -> None:
        """An instance as on its first day."""
        if instance_id in self.machines:
            self.machines.pop(instance_id).kill()

    def simulate(self, count: int, tags: dict[str, str], seconds: float, failing: int) -> list[str]:
        """Add a fleet; returns its instance ids."""
        number = len(self._simulated)
        names = tuple(f"i-{0xF1EE7 << 44 | number + each:017x}" for each in range(count))
        # The first stands for all, so that the last are the ones that fail.
        fleet = Fleet(tags, names, seconds, frozenset(names[count - failing :]))
        self.fleets.append(fleet)
        self._simulated.update(dict.fromkeys(names, fleet))
        return list(names)

    def stop(self) -> None:
        for machine in self.machines.values():
            machine.kill()
        for each in (self.machines, self.lost, self.fleets, self._simulated):
            each.clear()


def _is_selected(name: str, tags: dict[str, str], key: str, values: list[str]) -> bool:
    if key == "InstanceIds":
        return name in values
    if key == "tag-key":
        return not tags.keys().isdisjoint(values)
    return tags.get(key.removeprefix("tag:")) in values
