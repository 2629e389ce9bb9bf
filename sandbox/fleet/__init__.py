# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service on EC2 instances in the first region: an Auto Scaling group behind a load balancer, at fleet.regami.test.

    api          the calls that moto lacks
    groups       keeps the capacity
    placement    in which subnet
    refresh      the life of an instance refresh
    machine      an instance, which is a real process
    first_day    the group, its launch template and its past
    pipeline     ships a build
    hot_process  what eats the processors of an instance
    intruder     who has come into one

Its instances start when somebody first asks Auto Scaling anything, or users come, which most drills never do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import api, first_day, groups, hot_process, intruder, pipeline, refresh

if TYPE_CHECKING:
    from ..world import World

faults = pipeline.faults | hot_process.faults | intruder.faults
install = api.install


def seed(world: World) -> None:
    groups.sleep()
    refresh.refreshes.clear()
    first_day.seed(world)


def start(world: World) -> None:
    world.background(groups.run, world)


def stop(world: World) -> None:
    with world.lock:
        groups.sleep()


def wake(world: World, name: str) -> None:
    if name == first_day.NAME:
        groups.wake()


def status(world: World) -> list[dict]:
    rows = []
    with world.lock:
        for region in world.regions:
            for group in world.backend("autoscaling", region).autoscaling_groups.values():
                serving = sum(machine.is_healthy for machine in groups.of(group))
                going = refresh.current(group)
                rows.append(
                    {
                        "region": region,
                        "kind": "fleet",
                        "name": group.name,
                        "state": going.status.lower() if going else "steady",
                        "detail": f"{serving} of {group.desired_capacity} healthy  version {groups.version_of(group)}",
                    }
                )
    return rows
