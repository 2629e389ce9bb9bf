# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moto's Auto Scaling lacks: instance refreshes, and instances that are what their group's version was at launch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .. import quotas, zones
from . import activities, groups, refresh, schedule

if TYPE_CHECKING:
    from ..world import World

_moto: dict[str, Any] = {}


def _error(code: str, message: str) -> Exception:
    from moto.autoscaling.exceptions import AutoscalingClientError

    problem = AutoscalingClientError(message)
    problem.code = code
    return problem


def _group(response: Any) -> Any:
    name = response._get_param("AutoScalingGroupName")
    found = response.autoscaling_backend.autoscaling_groups.get(name)
    if found is None:
        raise _error("ValidationError", f"AutoScalingGroup name not found - AutoScalingGroup {name} not found")
    return found


def _active(group: Any) -> refresh.Refresh:
    found = refresh.current(group)
    if found is None:
        raise _error(
            "ActiveInstanceRefreshNotFound", "No in progress or pending Instance Refresh found for Auto Scaling group"
        )
    return found


def start_instance_refresh(response: Any) -> Any:
    from moto.core.responses import ActionResult
    from moto.core.utils import utcnow

    group = _group(response)
    if refresh.current(group) is not None:
        raise _error(
            "InstanceRefreshInProgress",
            "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.",
        )
    desired = response._get_param("DesiredConfiguration") or None
    preferences = response._get_param("Preferences") or {}
    version = ((desired or {}).get("LaunchTemplate") or {}).get("Version") or group.launch_template_version
    try:
        goal = groups.number_of(group.ec2_launch_template, str(version))
    except ValueError:
        goal = 0
    if not 1 <= goal <= group.ec2_launch_template.latest_version_number:
        raise _error("ValidationError", f"You must use a valid launch template version: {version}")
    if preferences.get("AutoRollback") and (desired is None or str(version).startswith("$")):
        raise _error("ValidationError", "AutoRollback needs a desired configuration with a numbered version")
    begun = refresh.Refresh(group.name, goal, desired, preferences, utcnow(), bool(preferences.get("SkipMatching")))
    refresh.of(group).append(begun)
    return ActionResult({"InstanceRefreshId": begun.id})


def describe_instance_refreshes(response: Any) -> Any:
    from moto.core.responses import ActionResult

    wanted = response._get_param("InstanceRefreshIds") or []
    newest_first = reversed(refresh.of(_group(response)))
    found = [each for each in newest_first if not wanted or each.id in wanted]
    first, size = int(response._get_param("NextToken") or 0), int(response._get_param("MaxRecords") or 50)
    page: dict[str, Any] = {"InstanceRefreshes": [each.describe() for each in found[first : first + size]]}
    if len(found) > first + size:
        page["NextToken"] = str(first + size)
    return ActionResult(page)


def cancel_instance_refresh(response: Any) -> Any:
    from moto.core.responses import ActionResult

    active = _active(_group(response))
    active.status = "Cancelling"
    return ActionResult({"InstanceRefreshId": active.id})


def rollback_instance_refresh(response: Any) -> Any:
    from moto.core.responses import ActionResult

    group = _group(response)
    active = _active(group)
    if active.status == "RollbackInProgress" or not refresh.is_reversible(group, active):
        raise _error("IrreversibleInstanceRefresh", "The instance refresh cannot be rolled back.")
    refresh.roll_back(group, active, "Manual rollback")
    return ActionResult({"InstanceRefreshId": active.id})


def describe_auto_scaling_groups(response: Any) -> Any:
    groups.wake()
    return _moto["describe_auto_scaling_groups"](response)


def describe_scaling_activities(response: Any) -> Any:
    from moto.core.responses import ActionResult

    return ActionResult(
        {"Activities": activities.of(_group(response))[: int(response._get_param("MaxRecords") or 100)]}
    )


def terminate_instance_in_auto_scaling_group(response: Any) -> Any:
    """The group launches another one, unless it is to have one less. moto takes the instance away at once.

    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_TerminateInstanceInAutoScalingGroup.html
    """
    from moto.core.responses import ActionResult

    name = response._get_param("InstanceId")
    machine = groups.machines.get(name)
    if machine is None or not machine.is_active:
        raise _error("ValidationError", f"Instance Id not found - No managed instance found for instance ID: {name}")
    group = next(
        each
        for each in response.autoscaling_backend.autoscaling_groups.values()
        if name in [state.instance.id for state in each.instance_states]
    )
    if response._get_bool_param("ShouldDecrementDesiredCapacity", False):
        if group.desired_capacity <= group.min_size:
            raise _error("ValidationError", f"Currently, desiredSize equals minSize ({group.min_size}).")
        group.desired_capacity -= 1
    machine.terminate()
    return ActionResult({"Activity": activities.note_termination(group, name)})


def detach_instances(response: Any) -> Any:
    """They run on; the group launches others, unless it is to have less.

    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DetachInstances.html
    """
    from moto.core.responses import ActionResult

    group, names = _group(response), response._get_param("InstanceIds", [])
    mine = {state.instance.id: groups.machines[state.instance.id] for state in group.instance_states}
    for name in names:
        if name not in mine:
            raise _error("ValidationError", f"The instance {name} is not part of Auto Scaling group {group.name}.")
        if mine[name].lifecycle != "InService":
            raise _error("ValidationError", f"The instance {name} is not in InService or Standby.")
    if response._get_bool_param("ShouldDecrementDesiredCapacity", False):
        if group.desired_capacity - len(names) < group.min_size:
            raise _error("ValidationError", f"Currently, desiredSize equals minSize ({group.min_size}).")
        group.desired_capacity -= len(names)
    for name in names:
        mine[name].detach()
    return ActionResult({"Activities": [activities.note_detachment(group, name) for name in names]})


def attach_instances(response: Any) -> Any:
    """The group is to have so many more.

    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_AttachInstances.html
    """
    from moto.autoscaling.models import ASG_NAME_TAG, InstanceState
    from moto.core.responses import EmptyResult

    group, names = _group(response), response._get_param("InstanceIds", [])
    for name in names:
        machine = groups.machines.get(name)
        if machine is None or machine.lifecycle != "Detached":
            raise _error("ValidationError", f"Invalid Instance ID(s) given: {name} is not free to be attached")
    if group.desired_capacity + len(names) > group.max_size:
        raise _error("ValidationError", f"Currently, desiredSize equals maxSize ({group.max_size}).")
    group.desired_capacity += len(names)
    for name in names:
        machine, protected = groups.machines[name], group.new_instances_protected_from_scale_in
        state = InstanceState(machine.instance, protected_from_scale_in=protected, autoscaling_group=group)
        group.instance_states.append(state)
        machine.join(state)
        group.ec2_backend.create_tags([name], {ASG_NAME_TAG: group.name})
    return EmptyResult()


def describe_auto_scaling_instances(response: Any) -> Any:
    groups.wake()
    return _moto["describe_auto_scaling_instances"](response)


def put_scheduled_update_group_action(response: Any) -> Any:
    at = schedule.moment(response._get_param("StartTime"))
    if at is not None and at <= datetime.now(UTC):
        raise _error("ValidationError", "Given start time is in the past")
    return _moto["put_scheduled_update_group_action"](response)


def set_desired_capacity(group: Any, capacity: int | None) -> None:
    """The reconciler does the rest."""
    group.desired_capacity = group.min_size if capacity is None else capacity


def _launch_template(state: Any) -> dict | None:
    template = state.auto_scaling_group.ec2_launch_template
    return template and {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "Version": str(state.version),
    }


def install(world: World) -> None:
    from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup, InstanceState
    from moto.autoscaling.responses import AutoScalingResponse

    for function in (
        start_instance_refresh,
        describe_instance_refreshes,
        cancel_instance_refresh,
        rollback_instance_refresh,
        describe_auto_scaling_groups,
        describe_scaling_activities,
        put_scheduled_update_group_action,
        attach_instances,
        detach_instances,
        describe_auto_scaling_instances,
        terminate_instance_in_auto_scaling_group,
    ):
        _moto[function.__name__] = getattr(AutoScalingResponse, function.__name__, None)
        setattr(AutoScalingResponse, function.__name__, function)
    quotas.used_by(quotas.EC2, groups.vcpus)
    zones.inhabitants.append(groups.in_zone)
    FakeAutoScalingGroup.set_desired_capacity = set_desired_capacity
    # Instances are registered when they are in service, not when the group is made.
    AutoScalingBackend.update_attached_target_groups = lambda backend, name: None
    AutoScalingBackend.notify_terminate_instances = lambda backend, instance_ids: None
    InstanceState.launch_template = property(_launch_template)
    world.after_change.append(
        lambda call: groups.wake() if call.service == "autoscaling" and not world.seeding else None
    )
