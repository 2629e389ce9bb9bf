# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long readiness.yml takes of many services, and how near it comes to what AWS lets an account ask."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

from ansible_collections.sre.runbooks.plugins.module_utils.pace import GLOBAL, QUOTAS


@dataclass(frozen=True)
class Rate:
    """What one service of AWS was asked in one region.

    Attributes:
        calls: in all.
        most: in the fullest second.
        missing: tokens that a bucket of AWS's size would have lacked at the worst moment, so that so many calls had been
            throttled and repeated; None where AWS publishes no quota.
    """

    service: str
    region: str
    calls: int
    most: int
    missing: int | None


def rates(calls: list[dict]) -> list[Rate]:
    """Pure: one for each service and region, the most asked first.

    Args:
        calls: of the sandbox's log, each with its service, region and time in seconds.
    """
    times = defaultdict(list)
    for call in calls:
        where = "all" if call["service"] in GLOBAL else call["region"]
        times[call["service"], where].append(call["time"])
    found = [
        Rate(service, region, len(at), max(Counter(map(int, at)).values()), missing(sorted(at), QUOTAS.get(service)))
        for (service, region), at in times.items()
    ]
    return sorted(found, key=lambda rate: -rate.calls)


def missing(times: list[float], quota: tuple[int, int] | None) -> int | None:
    """Pure: how far below zero a token bucket would have come.

    Args:
        times: in seconds, in their order.
        quota: (its size, tokens a second); None for none.
    """
    if quota is None:
        return None
    size, refill = quota
    tokens = least = size - 1.0
    for before, now in pairwise(times):
        tokens = min(size, tokens + (now - before) * refill) - 1
        least = min(least, tokens)
    return max(0, round(-least))
