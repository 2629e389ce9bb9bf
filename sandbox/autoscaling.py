# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Application Auto Scaling of ECS services: scheduled actions that run at their time, and a policy that scales in.

https://docs.aws.amazon.com/autoscaling/application/userguide/scheduled-scaling-policy-overview.html
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import ecs
from .faults import Fault

if TYPE_CHECKING:
    from .world import World

TICK_SECONDS = 0.2

_activities: dict[str, list[dict]] = {}  # by region, newest first

SUSPENDABLE = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


def install(world: World) -> None:
    from moto.applicationautoscaling.exceptions import AWSValidationException
    from moto.applicationautoscaling.models import ApplicationAutoscalingBackend
    from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
    from moto.core.exceptions import JsonRESTError
    from moto.core.responses import ActionResult

    register = ApplicationAutoscalingBackend.register_scalable_target
    put = ApplicationAutoscalingBackend.put_scheduled_action
    delete = ApplicationAutoscalingBackend.delete_scheduled_action

    def put_scheduled_action(backend: Any, **given: Any) -> None:
        """https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScheduledAction.html"""
        if given["resource_id"] not in backend.targets.get(given["scalable_dimension"], {}):
            raise JsonRESTError("ObjectNotFoundException", f"No scalable target found: {given['resource_id']}")
        at = _at(given["schedule"])
        if at is not None and at <= datetime.now(UTC):
            raise AWSValidationException("The scheduled time must be in the future")
        put(backend, **given)

    def delete_scheduled_action(backend: Any, **given: Any) -> None:
        count = len(backend.scheduled_actions)
        delete(backend, **given)
        if len(backend.scheduled_actions) == count:
            raise JsonRESTError(
                "ObjectNotFoundException", f"No scheduled action found: {given['scheduled_action_name']}"
            )

    def register_scalable_target(backend: Any, *where: str, suspended_state: dict | None, **given: Any) -> Any:
        """A target always tells what of it is suspended, which is nothing at first.

        https://docs.aws.amazon.com/autoscaling/application/APIReference/API_SuspendedState.html
        """
        target = register(backend, *where, suspended_state=suspended_state, **given)
        target.suspended_state = dict.fromkeys(SUSPENDABLE, False) | (target.suspended_state or {})
        return target

    def describe_scaling_activities(response: Any) -> Any:
        """https://docs.aws.amazon.com/autoscaling/application/APIReference/API_DescribeScalingActivities.html"""
        wanted = response._get_param("ResourceId")
        found = [each for each in _activities.get(response.region, []) if wanted in (None, each["ResourceId"])]
        return ActionResult({"ScalingActivities": found})

    ApplicationAutoscalingBackend.register_scalable_target = register_scalable_target
    ApplicationAutoScalingResponse.describe_scaling_activities = describe_scaling_activities
    ApplicationAutoscalingBackend.put_scheduled_action = put_scheduled_action
    ApplicationAutoscalingBackend.delete_scheduled_action = delete_scheduled_action


def seed(world: World) -> None:
    _activities.clear()


def start(world: World) -> None:
    world.background(_run, world)


def _run(world: World) -> None:
    while True:
        world.pause(TICK_SECONDS)
        with world.lock:
            for region in world.regions:
                if region not in world.cut_regions:
                    _look(world, region)


def _look(world: World, region: str) -> None:
    backend = world.backend("application-autoscaling", region)
    for action in backend.scheduled_actions:
        at = _at(action.schedule)
        target = backend.targets.get(action.scalable_dimension, {}).get(action.resource_id)
        # It stays where it is once it has run; another schedule makes it run again.
        if at is None or at > datetime.now(UTC) or getattr(action, "ran", None) == action.schedule or target is None:
            continue
        action.ran = action.schedule
        if not (target.suspended_state or {}).get("ScheduledScalingSuspended"):
            wanted = action.scalable_target_action
            target.update(wanted.get("MinCapacity"), wanted.get("MaxCapacity"), None)
            count = min(max(_service(world, region, target).desired_count, target.min_capacity), target.max_capacity)
            _scale(world, region, target, count, f"scheduled action name {action.scheduled_action_name} was triggered")


def _at(schedule: str) -> datetime | None:
    """The moment of a one-time schedule; None for a recurring one, which nothing here runs."""
    found = re.fullmatch(r"at\((\S+)\)", schedule)
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None


def _service(world: World, region: str, target: Any) -> Any:
    _kind, cluster, name = target.resource_id.split("/")
    return world.backend("ecs", region)._get_service(cluster, name)


def _scale(world: World, region: str, target: Any, count: int, cause: str) -> None:
    service = _service(world, region, target)
    if count != service.desired_count:
        ecs.services.update_service(
            service._backend, {"cluster": service.cluster_name, "service": service.name, "desired_count": count}
        )
        now = datetime.now(UTC)
        activity = {
            "ActivityId": str(uuid.uuid4()),
            "ServiceNamespace": "ecs",
            "ResourceId": target.resource_id,
            "ScalableDimension": target.scalable_dimension,
            "Description": f"Setting desired count to {count}.",
            "Cause": cause,
            "StartTime": now,
            "EndTime": now,
            "StatusCode": "Successful",
        }
        _activities.setdefault(region, []).insert(0, activity)


def _scale_in(world: World) -> None:
    """As a policy that finds little to do: as far as the bounds allow. It takes a call of a person to scale out again."""
    with world.lock:
        for region in world.regions:
            for targets in world.backend("application-autoscaling", region).targets.values():
                for target in targets.values():
                    if not (target.suspended_state or {}).get("DynamicScalingInSuspended"):
                        cause = "monitor alarm low-usage in state ALARM triggered policy scale-in"
                        _scale(world, region, target, target.min_capacity, cause)


faults = {
    "scale-in": Fault(
        "a scaling policy takes away as many tasks of each ECS service as the bounds let it",
        _scale_in,
        lambda world: None,
    )
}
