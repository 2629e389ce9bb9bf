# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many pods a rolling update may add and take away. Pure arithmetic.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment
"""

from __future__ import annotations

import math
from dataclasses import dataclass


def of_total(value: int | str, total: int, up: bool) -> int:
    """A number, or a percentage of `total` rounded up or down."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value)


@dataclass(frozen=True)
class Bounds:
    """Of a rolling update: pods more and pods fewer than wanted."""

    surge: int
    unavailable: int

    @classmethod
    def of(cls, replicas: int, max_surge: int | str, max_unavailable: int | str) -> Bounds:
        """Surge is rounded up, unavailability down; should both be zero, one pod may be missing."""
        surge, unavailable = of_total(max_surge, replicas, True), of_total(max_unavailable, replicas, False)
        if surge == unavailable == 0:
            unavailable = 1
        return cls(surge, min(unavailable, replicas))


@dataclass(frozen=True)
class Group:
    """The pods of one template: how many are wanted, and how many of them are available."""

    wanted: int
    available: int


def grown(replicas: int, bounds: Bounds, new: Group, old: list[Group]) -> int:
    """How large the new group is to be now."""
    if new.wanted >= replicas:
        return replicas
    room = replicas + bounds.surge - new.wanted - sum(each.wanted for each in old)
    return new.wanted + max(0, min(room, replicas - new.wanted))


def shrunk(replicas: int, bounds: Bounds, new: Group, old: list[Group]) -> list[int]:
    """How large the old groups are to be now, in the order given (oldest first).

    Pods that serve nobody go first, since taking them away costs no availability.
    """
    sizes = [each.wanted for each in old]
    least = replicas - bounds.unavailable
    may_go = new.wanted + sum(sizes) - least - (new.wanted - new.available)
    if may_go <= 0:
        return sizes
    cleaned = 0
    for number, each in enumerate(old):
        dead = min(may_go - cleaned, sizes[number] - min(each.available, sizes[number]))
        if dead > 0:
            sizes[number] -= dead
            cleaned += dead
    spare = new.available + sum(each.available for each in old) - least
    for number in range(len(sizes)):
        step = min(sizes[number], max(0, spare))
        sizes[number] -= step
        spare -= step
    return sizes


def proportional(sizes: list[int], change: int, wanted: int, limit_before: list[int]) -> list[int]:
    """Spread `change` over groups by their size: a scaling in the middle of a rollout.

    `limit_before`: the largest number that all groups together were meant to have, as each group remembers it;
    `wanted`: that number now. The first group takes what rounding leaves over.
    """
    result, left = list(sizes), change
    for number, size in enumerate(sizes):
        before = limit_before[number] or sum(sizes)
        share = round(size * wanted / before) - size if before else 0
        share = min(share, left) if change > 0 else max(share, left)
        if (change > 0) == (share > 0):
            result[number] += share
            left -= share
    if result:
        result[0] = max(0, result[0] + left)
    return result
