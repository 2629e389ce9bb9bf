# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeDeploy, blue/green, for a second ECS service in the first region: regami-web, at web.regami.test.

    api          the calls
    deployment   the life of one deployment, with its rollback
    traffic      how it moves the traffic, by the listeners' rules
    first_day    the service, its load balancer and its deployment group at the beginning
    pipeline     ships a build

Its tasks start when somebody first asks CodeDeploy anything, which most drills never do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ecs import task_sets
from ..wire import ApiError, Call
from . import api, first_day, pipeline

if TYPE_CHECKING:
    from ..world import World

_world: World
_regions: dict[str, api.Region] = {}

faults = pipeline.faults


def answer(call: Call) -> dict:
    if call.region not in _regions:
        raise ApiError("UnrecognizedClientException", f"the sandbox has no region {call.region}")
    if not _world.seeding:
        task_sets.wake()
    return _regions[call.region].answer(call)


def install(world: World) -> None:
    global _world
    _world = world
    world.handlers["codedeploy"] = answer


def seed(world: World) -> None:
    _regions.clear()
    _regions.update({region: api.Region(world, region) for region in world.regions})
    first_day.seed(world, _regions[world.regions[0]])


def status(world: World) -> list[dict]:
    with world.lock:
        return [
            {
                "region": region,
                "kind": "deployment group",
                "name": group.name,
                "state": group.deployments[-1].status.lower(),
                "detail": f"{group.deployments[-1].id}, {group.traffic_now()}",
            }
            for region, codedeploy in _regions.items()
            for group in codedeploy.groups.values()
        ]
