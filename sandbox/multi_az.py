# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in zones: one in a zone that fails does not answer, and one in two zones fails over when it is told to.

The standby of a Multi-AZ instance is no process here: after the failover the same data are served from the other zone. RDS would
fail over by itself where it notices; in a grey failure it does not.
https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.MultiAZSingleStandby.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import rds, zones

if TYPE_CHECKING:
    from .processes import Process
    from .world import World

_world: World
_moto: dict[str, Any] = {}


def _secondary(instance: Any) -> str | None:
    """The zone of the standby."""
    if not instance.multi_az:
        return None
    return instance.region + ("b" if instance.availability_zone.endswith("a") else "a")


def reboot_db_instance(response: Any) -> Any:
    """https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RebootDBInstance.html"""
    from moto.rds.exceptions import RDSClientError

    instance = response.backend.describe_db_instances(response.params["DBInstanceIdentifier"])[0]
    other = _secondary(instance) if response.params.get("ForceFailover") else None
    if response.params.get("ForceFailover") and not other:
        raise RDSClientError(
            "InvalidParameterCombination", "Cannot force failover of an instance that is not Multi-AZ enabled."
        )
    answer = _moto["reboot_db_instance"](response)
    if other:
        instance.availability_zone = other
    return answer


def _in_zone(zone: str) -> Iterator[Process]:
    """The processes of the databases in a zone."""
    for (region, name), server in rds.servers.items():
        instance = _world.backend("rds", region).databases.get(name)
        if instance and instance.availability_zone == zone and server.is_running:
            yield server.process


def install(world: World) -> None:
    from moto.rds.models import DBInstance
    from moto.rds.responses import RDSResponse

    global _world
    _world = world
    DBInstance.secondary_availability_zone = property(_secondary)
    _moto["reboot_db_instance"] = RDSResponse.reboot_db_instance
    RDSResponse.reboot_db_instance = reboot_db_instance
    zones.inhabitants.append(_in_zone)
