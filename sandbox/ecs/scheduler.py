# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service scheduler: looks at every service again and again, moves its tasks on, and lets its controller decide.

What any controller needs is here: starting and stopping tasks, replacing those whose health checks fail, starting the
next ones later and later when they fail. What is to run is the controller's business: `rolling` for ECS itself. A
controller is a function (service, own tasks, tasks that have failed since the last look); a service whose controller
is not here gets no tasks.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from .. import elbv2, quotas
from . import one_off, state, tasks
from .events import names, say
from .task import Task

TICK_SECONDS = 0.1
LONGEST_PAUSE = 10.0
LIMITED_PAUSE = 2.0

controllers: dict[str, Callable[[Any, list[Task], list[Task]], None]] = {}
_pace: dict[str, tuple[int, float]] = {}  # what started the tasks -> (failed starts, not before)


def forget() -> None:
    _pace.clear()


def run() -> None:
    while True:
        with state.world.lock:
            for region in state.world.regions:
                if region not in state.world.cut_regions:
                    for service in list(state.world.backend("ecs", region).services.values()):
                        look(service)
            for task in one_off.unfinished():
                advance(task)
        if not state.wake.wait(TICK_SECONDS):
            state.world.pause(0)
        state.wake.clear()
        state.world.pause(0.02)


def look(service: Any) -> None:
    own = tasks.of_service.setdefault(service.arn, [])
    moving = [task for task in own if task.status != "STOPPED"]
    launched = [task for task in moving if not task.running_since]
    for task in moving:
        advance(task)
    _say_of_targets(service, "registered", [task for task in launched if task.running_since])
    failed = [task for task in moving if task.status == "STOPPED" and task.has_failed]
    failed += _replace_unhealthy(service, moving)
    for started_by, number in Counter(task.started_by for task in failed).items():
        failures = _pace.get(started_by, (0, 0.0))[0] + number
        _pace[started_by] = failures, time.monotonic() + min(LONGEST_PAUSE, 0.25 * 2**failures)
    if failed:
        say(service, f"has stopped {len(failed)} running tasks: {names(failed)}.")
    if control := controllers.get(service.deployment_controller["type"]):
        control(service, own, failed)
    tasks.forget_old(own)
    _count_cluster(service)


def advance(task: Task) -> None:
    """One step of its life, and what it has written since."""
    task.advance()
    _log(task)


def start(
    service: Any, started_by: str, definition: str, number: int, load_balancers: list[dict], images: dict[str, str]
) -> None:
    """Start tasks, unless their predecessors failed just now.

    `started_by`, `load_balancers`, `images`: as for Task. `definition`: ARN of the task definition.
    """
    if number <= 0 or time.monotonic() < _pace.get(started_by, (0, 0.0))[1] or state.world.closed.is_set():
        return
    known = service._backend.describe_task_definition(definition)
    number = min(number, _allowed(service, started_by, known))
    started = [Task(state.world, service, started_by, known, load_balancers, images) for _ in range(number)]
    tasks.of_service[service.arn] += started
    if not started:
        return
    state.wake.set()  # the next look launches them, and sees it when that fails
    say(service, f"has started {len(started)} tasks: {names(started)}.")


def _allowed(service: Any, started_by: str, definition: Any) -> int:
    """How many tasks the account's quota has room for; ECS says so, and tries again later, where that is none.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
    """
    each = int(definition.cpu or 0) / 1024
    if service.launch_type != "FARGATE" or not each:
        return sys.maxsize
    fit = int(quotas.room(state.world, quotas.FARGATE, service.region_name) // each)
    if fit <= 0:
        say(
            service,
            "was unable to place a task. Reason: You've reached the limit on the number of vCPUs you can run concurrently.",
        )
        _pace[started_by] = _pace.get(started_by, (0, 0.0))[0], time.monotonic() + LIMITED_PAUSE
    return max(0, fit)


def stop(service: Any, surplus: list[Task]) -> None:
    if not surplus:
        return
    for task in surplus:
        task.stop("ServiceSchedulerInitiated", f"Scaling activity initiated by (deployment {task.started_by})")
    registered = [task for task in surplus if task.running_since and task.group_arns]
    if registered:
        say(service, f"has begun draining connections on {len(registered)} tasks.")
        _say_of_targets(service, "deregistered", registered)
    say(service, f"has stopped {len(surplus)} running tasks: {names(surplus)}.")


def _say_of_targets(service: Any, what: str, of: list[Task]) -> None:
    for arn, number in Counter(arn for task in of for arn in task.group_arns).items():
        say(service, f"{what} {number} targets in (target-group {arn})")


def _replace_unhealthy(service: Any, running: list[Task]) -> list[Task]:
    grace, failed = getattr(service, "health_check_grace_period_seconds", None) or 0, []
    for task in running:
        arn = task.unhealthy_group() if task.is_active and task.running_since else None
        if arn and time.monotonic() - task.running_since > grace:
            why = elbv2.target(arn, task.address).description
            say(service, f"(port {task.port}) is unhealthy in (target-group {arn}) due to (reason {why})")
            task.stop("ServiceSchedulerInitiated", f"Task failed ELB health checks in (target-group {arn})")
            failed.append(task)
    return failed


def _count_cluster(service: Any) -> None:
    backend = service._backend
    cluster = backend.clusters[service.cluster_name]
    services = [each for each in backend.services.values() if each.cluster_name == cluster.name]
    cluster.running_tasks_count = sum(each.running_count for each in services)
    cluster.pending_tasks_count = sum(each.pending_count for each in services)


def _log(task: Task) -> None:
    """What it wrote to its log group, as the driver awslogs does."""
    if not (events := task.new_log_events()):
        return
    container = task.definition.container_definitions[0]
    options = (container.get("logConfiguration") or {}).get("options") or {}
    logs = state.world.backend("logs", options.get("awslogs-region", task.region))
    group = logs.groups.get(options.get("awslogs-group"))
    if group is None:
        return
    stream = f"{options.get('awslogs-stream-prefix', 'ecs')}/{container['name']}/{task.id}"
    if stream not in group.streams:
        group.create_log_stream(stream)
    group.put_log_events(stream, events)
