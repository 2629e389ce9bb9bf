# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ECS services that do what they are told: tasks that are real processes, deployments, their failures and history.

moto keeps clusters, task definitions and services; a scheduler brings each service's tasks to what it wants.

    services, definitions, tasks, service_deployments   the calls, by what they are about
    scheduler                                           looks at every service; starts, stops and replaces tasks
    rolling, failure_detection                          the controller ECS, and when it gives a deployment up
    task_sets                                           the controller CODE_DEPLOY
    deployments                                         what was deployed, and how that ended
    task, one_off                                       one task, a process; and one that belongs to no service
    first_day, pipeline                                 the services at the beginning; a pipeline that deploys to them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import quotas, subnets, zones
from ..patience import wait_until
from . import (
    definitions,
    deployments,
    first_day,
    one_off,
    pipeline,
    rolling,
    scheduler,
    service_deployments,
    services,
    state,
    task_sets,
    tasks,
)

if TYPE_CHECKING:
    from ..world import World


faults = pipeline.faults | service_deployments.faults


def install(world: World) -> None:
    from moto.ecs.models import EC2ContainerServiceBackend
    from moto.ecs.responses import EC2ContainerServiceResponse

    state.world = world
    for calls in (services, definitions, tasks, one_off, service_deployments):
        state.replace(EC2ContainerServiceBackend, *getattr(calls, "BACKEND", ()))
        state.replace(EC2ContainerServiceResponse, *getattr(calls, "RESPONSE", ()))
    quotas.used_by(quotas.FARGATE, lambda _world, region: tasks.fargate_vcpus(region))
    subnets.takers.append(tasks.in_subnet)
    zones.inhabitants.append(tasks.in_zone)
    scheduler.controllers["ECS"] = rolling.control
    scheduler.controllers[task_sets.CONTROLLER] = task_sets.control


def seed(world: World) -> None:
    tasks.of_service.clear()
    one_off.forget()
    task_sets.asleep.clear()
    deployments.history.clear()
    scheduler.forget()
    service_deployments.allow(world)
    first_day.seed(world)


def start(world: World) -> None:
    world.background(scheduler.run)
    wait_until(lambda: _all_deployed(world), "the services are steady")


def _all_deployed(world: World) -> bool:
    with world.lock:
        services = [each for region in world.regions for each in world.backend("ecs", region).services.values()]
        return all(each.rollout_state == "COMPLETED" for service in services for each in service.deployments)


def stop(world: World) -> None:
    with world.lock:
        for task in [task for each in tasks.of_service.values() for task in each]:
            task.kill()
        tasks.of_service.clear()


def status(world: World) -> list[dict]:
    rows = []
    with world.lock:
        for region in world.regions:
            for service in world.backend("ecs", region).services.values():
                rollout = service.deployments[0].rollout_state if service.deployments else service.status
                rows.append(
                    {
                        "region": region,
                        "kind": "service",
                        "name": service.name,
                        "state": rollout.lower(),
                        "detail": f"running {service.running_count} of {service.desired_count}  "
                        f"{service.task_definition.rpartition('/')[2]}",
                    }
                )
    return rows
