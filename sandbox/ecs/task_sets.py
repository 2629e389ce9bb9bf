# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller CODE_DEPLOY: a service consists of task sets, two of them while a deployment lasts.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskSet.html
The first is made with the service, the others by a deployment of CodeDeploy (codedeploy/deployment.py). Hold the
world's lock.
"""

from __future__ import annotations

import math
from typing import Any

from . import scheduler, state
from .task import Task

CONTROLLER = "CODE_DEPLOY"

# ARNs of services whose tasks are not started before somebody needs them: a sandbox is to be up in seconds.
asleep: set[str] = set()


def wake() -> None:
    """Let the tasks of every service start."""
    asleep.clear()
    state.wake.set()


def create(service: Any, task_definition: str, load_balancers: list[dict], external_id: str | None = None) -> Any:
    """A new ACTIVE task set at full scale; `external_id` is the deployment of CodeDeploy that it is made for."""
    from moto.ecs.models import TaskSet

    made = TaskSet(
        service.name,
        service.cluster_name,
        task_definition,
        service._account_id,
        service.region_name,
        external_id=external_id,
        network_configuration=service.network_configuration,
        load_balancers=load_balancers,
        launch_type=service.launch_type,
        platform_version=service.platform_version,
    )
    made.service_arn, made.cluster_arn = service.arn, service.cluster_arn
    made.started_by = CONTROLLER if external_id else None
    made.running_count = made.pending_count = 0
    made.computed_desired_count = service.desired_count
    made.stabilityStatus = "STABILIZING"
    made.images = {}
    service.task_sets.append(made)
    state.wake.set()
    return made


def make_primary(service: Any, chosen: Any) -> None:
    for each in service.task_sets:
        if each.status != "DRAINING":
            each.status = "PRIMARY" if each is chosen else "ACTIVE"
    service.task_definition, service.load_balancers = chosen.task_definition, chosen.load_balancers


def primary(service: Any) -> Any:
    return next(each for each in service.task_sets if each.status == "PRIMARY")


def delete(doomed: Any) -> None:
    """It drains, and is gone with its last task."""
    doomed.status, doomed.scale = "DRAINING", {"value": 0.0, "unit": "PERCENT"}
    state.wake.set()


def group_of(task_set: Any) -> str:
    """ARN of the target group of its tasks."""
    return task_set.load_balancers[0]["targetGroupArn"]


def is_steady(task_set: Any) -> bool:
    return task_set.stabilityStatus == "STEADY_STATE"


def control(service: Any, own: list[Task], failed: list[Task]) -> None:
    """One look: bring the tasks of each set to what is wanted of it."""
    if not service.task_sets and service.status == "ACTIVE":
        make_primary(service, create(service, service.task_definition, service.load_balancers))
    if service.arn in asleep:
        return
    for each in list(service.task_sets):
        mine = [task for task in own if task.started_by == each.id]
        _bring(service, each, mine)
        if each.status == "DRAINING" and all(task.status == "STOPPED" for task in mine):
            service.task_sets.remove(each)
    service.running_count = sum(each.running_count for each in service.task_sets)
    service.pending_count = sum(each.pending_count for each in service.task_sets)


def _bring(service: Any, task_set: Any, mine: list[Task]) -> None:
    wanted = math.ceil(service.desired_count * task_set.scale["value"] / 100)
    active = [task for task in mine if task.is_active]
    missing = wanted - len(active)
    scheduler.start(service, task_set.id, task_set.task_definition, missing, task_set.load_balancers, task_set.images)
    scheduler.stop(service, sorted(active, key=lambda task: task.is_ready)[: max(0, -missing)])
    task_set.computed_desired_count = wanted
    task_set.running_count = sum(task.status == "RUNNING" for task in mine)
    task_set.pending_count = sum(task.is_active and task.status in ("PROVISIONING", "PENDING") for task in mine)
    steady = sum(task.is_ready for task in mine) == task_set.running_count == wanted and not task_set.pending_count
    status = "STEADY_STATE" if steady else "STABILIZING"
    if status != task_set.stabilityStatus:
        task_set.stabilityStatus, task_set.stabilityStatusAt = status, state.now()
