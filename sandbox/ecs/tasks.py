# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks of all services, and the calls about tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import state
from .definitions import paged
from .task import Task

if TYPE_CHECKING:
    from ..processes import Process

# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html: startedBy is the only filter where it is one.
ALONE = ("containerInstance", "desiredStatus", "family", "launchType", "serviceName")
KEPT_STOPPED = 50  # stopped tasks that are still described, of each service

of_service: dict[str, list[Task]] = {}  # by ARN of the service (of the cluster, for those of none), oldest first


def forget_old(own: list[Task]) -> None:
    del own[: max(0, sum(task.status == "STOPPED" for task in own) - KEPT_STOPPED)]


def fargate_vcpus(region: str) -> float:
    """What the tasks of a region take of the quota."""
    return sum(
        task.vcpus
        for each in of_service.values()
        for task in each
        if task.region == region and task.launch_type == "FARGATE" and task.status != "STOPPED"
    )


def in_subnet(subnet_id: str) -> int:
    """How many have an interface in it."""
    return sum(task.subnet == subnet_id and task.status != "STOPPED" for each in of_service.values() for task in each)


def in_zone(zone: str) -> Iterator[Process]:
    """The processes of those in a zone."""
    for each in of_service.values():
        for task in each:
            if task.zone == zone and task.process and task.process.poll() is None:
                yield task.process


def _of_cluster(cluster: Any) -> list[Task]:
    return [task for each in of_service.values() for task in each if task.cluster_arn == cluster.arn]


def _find(cluster: Any, name: str) -> Task | None:
    return next((task for task in _of_cluster(cluster) if task.id == name.split("/")[-1]), None)


def list_tasks(response: Any) -> Any:
    from moto.core.responses import ActionResult
    from moto.ecs.exceptions import InvalidParameterException

    backend, wanted = response.ecs_backend, response._get_param
    if wanted("startedBy") and any(wanted(each) for each in ALONE):
        raise InvalidParameterException("Cannot specify startedBy together with another filter.")
    found = _of_cluster(backend._get_cluster(wanted("cluster") or "default"))
    if name := wanted("serviceName"):
        service = backend._get_service(wanted("cluster") or "default", name.split("/")[-1])
        found = [task for task in found if task.service_name == service.name]
    if family := wanted("family"):
        found = [task for task in found if task.definition.family == family]
    if started_by := wanted("startedBy"):
        found = [task for task in found if task.started_by == started_by]
    desired = wanted("desiredStatus") or "RUNNING"
    page, more = paged(response, [task.task_arn for task in found if task.desired == desired], 100)
    return ActionResult({"taskArns": page, **more})


def describe_tasks(response: Any) -> Any:
    from moto.core.responses import ActionResult
    from moto.ecs.exceptions import InvalidParameterException

    cluster = response.ecs_backend._get_cluster(response._get_param("cluster") or "default")
    names = response._get_param("tasks", [])
    if not names:
        raise InvalidParameterException("Tasks cannot be empty.")
    found = {name: _find(cluster, name) for name in names}
    missing = [
        {"arn": f"{cluster.arn.replace(':cluster/', ':task/')}/{name.split('/')[-1]}", "reason": "MISSING"}
        for name, task in found.items()
        if task is None
    ]
    return ActionResult({"tasks": [task.describe() for task in found.values() if task], "failures": missing})


def stop_task(response: Any) -> Any:
    from moto.core.responses import ActionResult
    from moto.ecs.exceptions import InvalidParameterException

    cluster = response.ecs_backend._get_cluster(response._get_param("cluster") or "default")
    task = _find(cluster, response._get_param("task"))
    if task is None:
        raise InvalidParameterException("The referenced task was not found.")
    task.stop("UserInitiated", response._get_param("reason") or "Task stopped by user")
    state.wake.set()
    return ActionResult({"task": task.describe()})


RESPONSE = (list_tasks, describe_tasks, stop_task)
