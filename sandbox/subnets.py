# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Subnets whose free addresses are those that nothing has taken: each Fargate task has an interface of its own.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-networking.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .faults import Fault

if TYPE_CHECKING:
    from .world import World

# What a fault leaves of a subnet for those that are counted below; elsewhere there is enough.
_free: dict[str, int] = {}
# Count what they have in a subnet: function(subnet id), called with the lock held.
takers: list[Callable[[str], int]] = []


def taken(subnet_id: str) -> int:
    return sum(count(subnet_id) for count in takers)


def install(world: World) -> None:
    from moto.ec2.models.subnets import Subnet

    original = Subnet.available_ip_address_count.fget

    def available_ip_address_count(subnet: Any) -> int:
        total = _free.get(subnet.id)
        return max(0, (original(subnet) if total is None else total) - taken(subnet.id))

    Subnet.available_ip_address_count = property(available_ip_address_count)


def is_full(subnet_id: str) -> bool:
    left = _free.get(subnet_id)
    return left is not None and taken(subnet_id) >= left


def seed(world: World) -> None:
    _free.clear()


def _fill(world: World, left: str | int) -> None:
    with world.lock:
        for region in world.regions:
            for subnet in world.backend("ec2", region).get_default_subnets().values():
                _free[subnet.id] = taken(subnet.id) + int(left)


faults = {
    "subnets-full": Fault(
        "others have taken all but LEFT addresses of each subnet", _fill, lambda world: _free.clear(), ("left",)
    )
}
