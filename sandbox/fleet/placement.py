# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which of its subnets a group has its instances: the one with the fewest gets the next. Hold the world's lock.

A group whose subnets change, or whose zones differ by more than one instance, is brought into balance again: another instance is
launched, and one that is in the wrong place ends when that one serves.
https://docs.aws.amazon.com/autoscaling/ec2/userguide/auto-scaling-benefits.html#AutoScalingBehavior.InstanceUsage
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .machine import Machine


def subnets(group: Any) -> list[str]:
    return group.vpc_zone_identifier.split(",")


def subnet_for(group: Any, there: list[Machine]) -> str:
    """For one more than `there`."""
    taken = Counter(machine.subnet_id for machine in there)
    return min(subnets(group), key=lambda subnet: taken[subnet])


def surplus(there: list[Machine], number: int) -> list[Machine]:
    """So many of `there` that go first: the newest of the fullest subnet, again and again.

    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-termination-policies.html
    """
    left, leaving = list(there), []
    for _number in range(number):
        taken = Counter(machine.subnet_id for machine in left)
        leaver = max(left, key=lambda machine: (taken[machine.subnet_id], left.index(machine)))
        left.remove(leaver)
        leaving.append(leaver)
    return leaving


def misplaced(group: Any, there: list[Machine]) -> list[Machine]:
    """Those of `there` in subnets that the group has no more, else one of the fullest subnet where that has two more than another."""
    allowed = subnets(group)
    outside = [machine for machine in there if machine.subnet_id not in allowed]
    if outside or len(there) < 2:
        return outside
    taken = Counter(machine.subnet_id for machine in there)
    fullest = max(allowed, key=lambda subnet: taken[subnet])
    steady = all(machine.lifecycle == "InService" for machine in there)
    if steady and taken[fullest] - min(taken[subnet] for subnet in allowed) >= 2:
        return [next(machine for machine in there if machine.subnet_id == fullest)]
    return []
