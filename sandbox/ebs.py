# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic volumes: modifications that take their time and are limited, and the instance that sees its disk grow.

A volume is larger once its modification is `optimizing`; what is on it is not, until somebody grows the partition and the
file system in it, or the instance boots. https://docs.aws.amazon.com/ebs/latest/userguide/ebs-modify-volume.html
An instance's file system is small, so that a drill can fill it: MEGABYTES for each GiB of its root volume.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from .faults import Fault

if TYPE_CHECKING:
    from .ssm.machine import Machine
    from .world import World

MEGABYTES = 2
OPTIMIZING_SECONDS = 2.0
A_DAY, PER_DAY = 86400.0, 4
LARGEST = {"gp2": 16384, "gp3": 65536, "standard": 1024}  # GiB

_world: World
_moto: dict[str, Any] = {}
_six_hours = threading.Event()
_machines: dict[str, Machine] = {}  # by root volume
_BOOT = """
mkdir -p /run/ebs && cd /run/ebs && echo {kind} >kind && echo {serial} >serial
for each in disk part fs; do echo {size} >$each; done
mount -n -o remount,size={megabytes}m none /
"""


def install(world: World) -> None:
    global _world
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.elastic_block_store import VolumeModification

    _world = world
    for function in (modify_volume, describe_volumes_modifications):
        _moto[function.__name__] = getattr(EC2Backend, function.__name__)
        setattr(EC2Backend, function.__name__, function)
    VolumeModification.modification_state = property(_state)
    VolumeModification.progress = property(_progress)


def seed(world: World) -> None:
    _six_hours.clear()
    _machines.clear()


def boot(region: str, machine: Machine) -> None:
    """An instance starts: its partition and file system are as large as its root volume, as cloud-init makes them."""
    # The lock is not taken: who holds it may be waiting for this very instance.
    backend = _world.backend("ec2", region)
    instance = backend.get_instance_by_id(machine.id)
    if instance is None:
        return  # one of a simulated fleet
    volume = next(each.volume_id for each in instance.block_device_mapping.values())
    size, second = backend.volumes[volume].size, machine.id == _world.state["batch"]["instance_ids"][-1]
    _machines[volume] = machine
    kind, serial = ("xfs", "''") if second else ("ext4", volume.replace("-", ""))
    machine.run(_BOOT.format(kind=kind, serial=serial, size=size, megabytes=size * MEGABYTES), 10)


def _state(modification: Any) -> str:
    age = time.monotonic() - modification.born
    if age < _world.settings.create_seconds:
        return "modifying"
    return "optimizing" if age < _world.settings.create_seconds + OPTIMIZING_SECONDS else "completed"


def _progress(modification: Any) -> int:
    age = time.monotonic() - modification.born
    return min(100, int(100 * age / (_world.settings.create_seconds + OPTIMIZING_SECONDS)))


def modify_volume(backend: Any, volume_id: str, target_size: Any = None, *others: Any) -> Any:
    volume = backend.get_volume(volume_id)
    size = int(target_size) if target_size else None
    _check(volume, size)
    present = volume.size
    _moto["modify_volume"](backend, volume_id, size, *others)
    volume.modifications[-1].born = time.monotonic()
    volume.size = present
    _world.background(_enlarge, volume, size or present)
    return volume


def _check(volume: Any, size: int | None) -> None:
    """Raises what AWS answers to a modification that cannot begin."""
    from moto.ec2.exceptions import EC2ClientError

    recent = [each for each in volume.modifications if time.monotonic() - each.born < A_DAY]
    if recent and recent[-1].modification_state != "completed":
        state = recent[-1].modification_state.upper()
        raise EC2ClientError(
            "IncorrectModificationState", f"Volume {volume.id} cannot be modified in modification state {state}."
        )
    if len(recent) >= (1 if _six_hours.is_set() else PER_DAY):
        raise EC2ClientError(
            "VolumeModificationRateExceeded",
            "You've reached the maximum modification rate per volume limit. "
            "Wait at least 6 hours between modifications per EBS volume.",
        )
    if size is not None and size < volume.size:
        raise EC2ClientError("InvalidParameterValue", "New size cannot be smaller than existing size")
    if size is not None and size > LARGEST.get(volume.volume_type, 16384):
        raise EC2ClientError(
            "InvalidParameterValue", f"Volume of {size}GiB is too large for volume type {volume.volume_type}"
        )


def _enlarge(volume: Any, size: int) -> None:
    _world.pause(_world.settings.create_seconds)
    with _world.lock:
        volume.size = size
        machine = _machines.get(volume.id)
    if machine:
        machine.run(f"echo {size} >/run/ebs/disk", 10)


def describe_volumes_modifications(backend: Any, volume_ids: list[str] | None = None, filters: Any = None) -> list[Any]:
    """Also: the most recent one of each volume, and an error for one that was never modified."""
    from moto.ec2.exceptions import EC2ClientError

    found = {each.volume_id: each for each in _moto["describe_volumes_modifications"](backend, volume_ids, filters)}
    for name in volume_ids or ():
        if not backend.get_volume(name).modifications:
            raise EC2ClientError(
                "InvalidVolumeModification.NotFound", f"Modification for volume '{name}' does not exist."
            )
    return list(found.values())


faults = {
    "ebs-six-hours": Fault(
        "a volume is modified once in six hours, as it was before AWS allowed four times a day",
        lambda world: _six_hours.set(),
        lambda world: _six_hours.clear(),
    )
}
