# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scalable target of an ECS service: the bounds in which Application Auto Scaling moves its desired count."""

from __future__ import annotations

from .aws import code_of
from .ecs import short

# Names for people, and what Application Auto Scaling calls them.
# https://docs.aws.amazon.com/autoscaling/application/APIReference/API_SuspendedState.html
ACTIVITIES = {
    "dynamic_in": "DynamicScalingInSuspended",
    "dynamic_out": "DynamicScalingOutSuspended",
    "scheduled": "ScheduledScalingSuspended",
}
# What starts tasks again in a service that was drained. A scheduled action does it by raising the minimum.
STARTS_TASKS = {"dynamic_out", "scheduled"}
# The scheduled action that gives bounds back.
GIVE_BACK = "sre.runbooks-give-back"


def describe(aws, cluster, service):
    """{floor, ceiling, suspended} of the service's desired count, or None where nothing scales it."""
    answer = aws.read(
        "application-autoscaling",
        "describe_scalable_targets",
        ServiceNamespace="ecs",
        ResourceIds=[_resource(cluster, service)],
        ScalableDimension="ecs:service:DesiredCount",
    )
    found = next(iter(answer["ScalableTargets"]), None)
    if found is None:
        return None
    state = found.get("SuspendedState", {})
    return {
        "floor": found["MinCapacity"],
        "ceiling": found["MaxCapacity"],
        "suspended": sorted(name for name, key in ACTIVITIES.items() if state.get(key)),
    }


def fitting(present, count, at_least):
    """Pure: the bounds under which a desired count of `count` lasts.

    The floor follows the count, or the next scale-in (or scale-out, for a lowered count) would undo it. At 0 nothing
    may start tasks by itself; above 0 it may again.
    """
    floor = max(count, present["floor"]) if at_least else count
    suspended = set(present["suspended"])
    suspended = suspended - STARTS_TASKS if floor else suspended | STARTS_TASKS
    return {"floor": floor, "ceiling": max(present["ceiling"], floor), "suspended": sorted(suspended)}


def text(bounds):
    """Bounds in a few words."""
    paused = f", {' and '.join(bounds['suspended'])} suspended" if bounds["suspended"] else ""
    return f"{bounds['floor']} to {bounds['ceiling']} tasks{paused}"


def register(aws, cluster, service, bounds):
    """Set the bounds; role, policies, scheduled actions and tags stay as they are."""
    aws.change(
        "application-autoscaling",
        "register_scalable_target",
        **_dimension(cluster, service),
        MinCapacity=bounds["floor"],
        MaxCapacity=bounds["ceiling"],
        SuspendedState={key: name in bounds["suspended"] for name, key in ACTIVITIES.items()},
    )


def schedules(aws, cluster, service):
    """{name: {at, floor, ceiling}} of the scheduled actions; `at` is a schedule in AWS's words."""
    found, more = {}, {}
    while True:
        answer = aws.read(
            "application-autoscaling", "describe_scheduled_actions", **_dimension(cluster, service), **more
        )
        for each in answer["ScheduledActions"]:
            action = each.get("ScalableTargetAction", {})
            bounds = {"floor": action.get("MinCapacity"), "ceiling": action.get("MaxCapacity")}
            found[each["ScheduledActionName"]] = dict(bounds, at=each["Schedule"])
        if not answer.get("NextToken"):
            return found
        more = {"NextToken": answer["NextToken"]}


def schedule(aws, cluster, service, action):
    """Have Application Auto Scaling set {floor, ceiling} by itself at the time {at}."""
    aws.change(
        "application-autoscaling",
        "put_scheduled_action",
        **_dimension(cluster, service),
        ScheduledActionName=GIVE_BACK,
        Schedule=action["at"],
        ScalableTargetAction={"MinCapacity": action["floor"], "MaxCapacity": action["ceiling"]},
    )


def unschedule(aws, cluster, service):
    """Not any more; an action that is gone is what was wanted."""
    try:
        aws.change(
            "application-autoscaling",
            "delete_scheduled_action",
            **_dimension(cluster, service),
            ScheduledActionName=GIVE_BACK,
        )
    except Exception as error:
        if code_of(error) != "ObjectNotFoundException":
            raise


def _dimension(cluster, service):
    return {
        "ServiceNamespace": "ecs",
        "ResourceId": _resource(cluster, service),
        "ScalableDimension": "ecs:service:DesiredCount",
    }


def _resource(cluster, service):
    return f"service/{short(cluster)}/{short(service)}"
