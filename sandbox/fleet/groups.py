# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Auto Scaling groups that keep their capacity: launch what is missing, replace what is unhealthy, end what is too much.

moto keeps the configuration of the groups and describes them; which instances there are is decided here.
https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import quotas
from . import activities, placement, refresh, schedule
from .machine import Machine

if TYPE_CHECKING:
    from ..processes import Process
    from ..world import World

TICK_SECONDS = 0.1

# https://aws.amazon.com/ec2/instance-types/t3/
VCPUS = {"t3.small": 2, "t3.medium": 2}

machines: dict[str, Machine] = {}  # by instance id
_wake = threading.Event()


def wake() -> None:
    """Instances start when somebody first asks Auto Scaling anything, which most drills never do."""
    _wake.set()


def sleep() -> None:
    _wake.clear()
    for machine in machines.values():
        machine.kill()
    machines.clear()
    activities.forget()


def _bury() -> None:
    """Instances that somebody terminated past Auto Scaling; a group finds that its own are not healthy."""
    for machine in [each for each in machines.values() if each.instance.state == "terminated"]:
        machine.kill()
        if machine.lifecycle == "Detached":
            del machines[machine.id]


def run(world: World) -> None:
    while not _wake.is_set():
        world.pause(TICK_SECONDS)
    while True:
        with world.lock:
            _bury()
            for region in world.regions:
                if region in world.cut_regions:
                    continue
                schedule.look(world.backend("autoscaling", region))
                for group in list(world.backend("autoscaling", region).autoscaling_groups.values()):
                    _reconcile(world, group)
        world.pause(TICK_SECONDS)


def of(group: Any) -> list[Machine]:
    return [machines[state.instance.id] for state in group.instance_states]


def in_zone(zone: str) -> Iterator[Process]:
    """The processes of the instances in a zone."""
    return (machine.process for machine in list(machines.values()) if machine.zone == zone and machine.process)


def vcpus(_world: World, region: str) -> float:
    """What the instances of a region take of the quota."""
    return sum(VCPUS[each.instance_type] for each in machines.values() if each.region == region)


def active(group: Any) -> list[Machine]:
    return [machine for machine in of(group) if machine.is_active]


def suspended(group: Any) -> set[str]:
    return {each["ProcessName"] for each in group.suspended_processes}


def version_of(group: Any) -> int:
    """The number of the launch template version that the group launches now."""
    return number_of(group.ec2_launch_template, group.launch_template_version)


def number_of(template: Any, version: str) -> int:
    if version == "$Latest":
        return template.latest_version_number
    return template.default_version_number if version == "$Default" else int(version)


def launch(world: World, group: Any, version: int) -> Machine | None:
    """None where the process is suspended, or where the account may have no more."""
    if "Launch" in suspended(group):
        return None
    from moto.autoscaling.models import ASG_NAME_TAG, InstanceState

    data = group.ec2_launch_template.get_version(version).data
    if VCPUS[data["InstanceType"]] > quotas.room(world, quotas.EC2, group.region):
        activities.note_failed_launch(
            group,
            "You have requested more vCPU capacity than your current vCPU limit allows for the instance bucket that the "
            "specified instance type belongs to. Launching EC2 instance failed. (VcpuLimitExceeded)",
        )
        return None
    instance = group.ec2_backend.run_instances(
        data["ImageId"],
        1,
        None,
        [],
        security_group_ids=data["SecurityGroupIds"],
        instance_type=data["InstanceType"],
        tags={"instance": group.get_propagated_tags() | {ASG_NAME_TAG: group.name}},
        subnet_id=placement.subnet_for(group, active(group)),
        is_instance_type_default=False,
    ).instances[0]
    state = InstanceState(instance, autoscaling_group=group)
    # In this order: who asks for the machines of a group, with or without the lock, finds one for each state.
    machine = machines[instance.id] = Machine(world, state, version, data["UserData"])
    group.instance_states.append(state)
    return machine


def terminate(group: Any, machine: Machine) -> bool:
    """False where the process is suspended."""
    if "Terminate" in suspended(group):
        return False
    machine.terminate()
    return True


def _reconcile(world: World, group: Any) -> None:
    from moto.autoscaling.models import ASG_NAME_TAG

    grace = float(group.health_check_grace_period or 0)
    for state in list(group.instance_states):
        machine = machines[state.instance.id]
        machine.advance(grace)
        if state.lifecycle_state == "Terminated":
            group.instance_states.remove(state)
            machine.kill()
            # Auto Scaling terminates what is protected too.
            # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_ChangingDisableAPITermination.html
            state.instance.disable_api_termination = False
            group.ec2_backend.terminate_instances([machine.id])
            del machines[machine.id]
            activities.end(group, machine.id)
        elif state.lifecycle_state == "Detached":
            group.instance_states.remove(state)
            group.ec2_backend.delete_tags([machine.id], {ASG_NAME_TAG: group.name})
            activities.end(group, machine.id)
        elif state.health_status == "Unhealthy" and machine.is_active and "ReplaceUnhealthy" not in suspended(group):
            refresh.note_failure(group, machine)
            terminate(group, machine)
    refreshing = refresh.advance(world, group)
    wanted, there = refreshing or group.desired_capacity, active(group)
    misplaced = [] if refreshing or "AZRebalance" in suspended(group) else placement.misplaced(group, there)
    # One that is in the wrong zone goes when another one serves in its place.
    for _number in range(wanted + bool(misplaced) - len(there)):
        launch(world, group, refresh.version_to_launch(group))
    if misplaced:
        leaver = misplaced[0]
        if sum(machine.is_healthy for machine in there if machine is not leaver) >= wanted:
            terminate(group, leaver)
        return
    surplus = placement.surplus(there, len(there) - wanted)
    if all(machine.lifecycle == "InService" for machine in there if machine not in surplus):
        for machine in surplus:
            terminate(group, machine)
