# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller ECS: a rolling update between minimumHealthyPercent and maximumPercent.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html
"""

from __future__ import annotations

import math
from typing import Any

from . import deployments, failure_detection, scheduler
from .events import say
from .task import Task


def control(service: Any, own: list[Task], failed: list[Task]) -> None:
    """One look: start and stop what is needed, and see whether the deployment has ended, one way or the other."""
    deployments.advance(service)
    for task in failed:
        service.steady = False
        failure_detection.count_failure(service, task.started_by)
    failure_detection.watch_alarms(service)
    primary, desired = service.deployments[0], service.desired_count
    new = [task for task in own if task.is_active and task.started_by == primary.id]
    old = [task for task in own if task.is_active and task.started_by != primary.id]
    ready = sum(task.is_ready for task in new)
    if ready:
        failure_detection.count_success(service)
    if primary.rollout_state != "FAILED":
        missing = min(desired - len(new), _maximum(service) - len(new) - len(old))
        revision = primary.revision
        scheduler.start(
            service, primary.id, revision.task_definition, missing, revision.load_balancers, revision.images
        )
    surplus = sorted(new, key=lambda task: task.is_ready)[: max(0, len(new) - desired)]
    kept_old = max(0, _minimum(service) - ready) if desired else 0
    surplus += sorted(old, key=lambda task: task.is_ready)[: max(0, len(old) - kept_old)]
    scheduler.stop(service, surplus)
    _count(service, own)
    _conclude(service, own)


def _configuration(service: Any, name: str) -> int:
    configured = getattr(service, "deployment_configuration", None) or {}
    return int(configured.get(name, deployments.DEFAULTS[name]))


def _maximum(service: Any) -> int:
    return math.floor(service.desired_count * _configuration(service, "maximumPercent") / 100)


def _minimum(service: Any) -> int:
    return math.ceil(service.desired_count * _configuration(service, "minimumHealthyPercent") / 100)


def _count(service: Any, own: list[Task]) -> None:
    for deployment in service.deployments:
        mine = [task for task in own if task.started_by == deployment.id]
        deployment.running_count = sum(task.status == "RUNNING" for task in mine)
        deployment.pending_count = sum(task.is_active and task.status in ("PROVISIONING", "PENDING") for task in mine)
        primary = deployment.status == "PRIMARY"
        deployment.desired_count = service.desired_count if primary else sum(task.is_active for task in mine)
    service.running_count = sum(each.running_count for each in service.deployments)
    service.pending_count = sum(each.pending_count for each in service.deployments)
    service.current_service_revisions = [each.summary() for each in service.deployments]


def _conclude(service: Any, own: list[Task]) -> None:
    """A rollout is complete, and a service steady, when exactly the wanted tasks are ready and no other is left."""
    primary = service.deployments[0]
    left = [task for task in own if task.status != "STOPPED"]
    done = (
        len(left) == service.desired_count
        and all(task.is_ready and task.started_by == primary.id for task in left)
        and primary.rollout_state != "FAILED"
    )
    if not done:
        service.steady = False
        return
    deployments.complete(service)
    if not service.steady:
        service.steady = True
        say(service, "has reached a steady state.")
