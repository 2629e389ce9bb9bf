# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moto gets wrong of EC2 instances: the security groups of their interfaces, their protections, and how snapshots are made.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyNetworkInterfaceAttribute.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .wire import ApiError

if TYPE_CHECKING:
    from .world import World

_world: World
_moto: dict[str, Any] = {}
_FLAGS = {"DisableApiTermination": "disable_api_termination", "DisableApiStop": "disable_api_stop"}


def install(world: World) -> None:
    global _world
    _world = world
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.elastic_block_store import Snapshot
    from moto.ec2.models.elastic_network_interfaces import NetworkInterface
    from moto.ec2.models.instances import Instance
    from moto.ec2.responses import EC2Response

    for owner, function in (
        (EC2Response, modify_instance_attribute),
        (EC2Backend, modify_network_interface_attribute),
        (EC2Backend, delete_security_group),
        (EC2Backend, create_snapshot),
    ):
        _moto[function.__name__] = getattr(owner, function.__name__)
        setattr(owner, function.__name__, function)
    # An interface has its own groups; those of an instance are those of its first interface.
    NetworkInterface.group_set = property(lambda interface: interface._group_set)
    Instance.security_groups = property(_groups, lambda instance, groups: setattr(instance, "_launched_with", groups))
    Snapshot.status = property(_status, lambda snapshot, value: None)


def first_interface(instance: Any) -> Any:
    return instance.nics[min(instance.nics, key=int)]


def _groups(instance: Any) -> list[Any]:
    known = getattr(instance, "nics", None)
    return first_interface(instance).group_set if known else instance._launched_with


def modify_instance_attribute(response: Any) -> Any:
    """One attribute a call. moto takes what it does not know for an empty list of groups."""
    from moto.core.responses import EmptyResult

    instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
    for name, attribute in _FLAGS.items():
        value = response._get_param(f"{name}.Value")
        if value is not None:
            setattr(instance, attribute, str(value).lower() == "true")
            return EmptyResult()
    if behaviour := response._get_param("InstanceInitiatedShutdownBehavior.Value"):
        instance.instance_initiated_shutdown_behavior = behaviour
        return EmptyResult()
    if groups := response._get_param("Groups", []):
        if len(instance.nics) > 1:
            raise ApiError("InvalidInstanceID", f"There are multiple interfaces attached to instance '{instance.id}'.")
        modify_network_interface_attribute(response.ec2_backend, first_interface(instance).id, groups)
        return EmptyResult()
    return _moto["modify_instance_attribute"](response)


def modify_network_interface_attribute(backend: Any, eni_id: str, group_ids: list[str], *others: Any) -> None:
    interface = backend.get_network_interface(eni_id)
    for name in group_ids:
        group = backend.get_security_group_from_id(name)
        if group is None:
            raise ApiError("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
        if group.vpc_id != interface.subnet.vpc_id:
            raise ApiError(
                "InvalidParameter", f"Security group {name} and interface {eni_id} belong to different networks."
            )
    _moto["modify_network_interface_attribute"](backend, eni_id, group_ids, *others)


def delete_security_group(backend: Any, name: str | None = None, group_id: str | None = None) -> None:
    found = backend.get_security_group_from_id(group_id) if group_id else None
    if found and any(found in interface.group_set for interface in backend.enis.values()):
        raise ApiError("DependencyViolation", f"resource {group_id} has a dependent object")
    _moto["delete_security_group"](backend, name, group_id)


def create_snapshot(backend: Any, *arguments: Any, **options: Any) -> Any:
    snapshot = _moto["create_snapshot"](backend, *arguments, **options)
    snapshot.born = time.monotonic()
    return snapshot


def _status(snapshot: Any) -> str:
    """What it will hold is decided when it is asked for; it is copied afterwards."""
    age = time.monotonic() - getattr(snapshot, "born", 0.0)
    return "completed" if age > _world.settings.create_seconds else "pending"
