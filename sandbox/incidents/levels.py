# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the metrics of a service are while nothing is wrong with it, as they were measured."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..world import World

_COUNTS = ("RequestCount", "CacheHits", "CacheMisses", "NewConnections", "Evictions", "TargetConnectionErrorCount")


@dataclass(frozen=True)
class Level:
    """One metric where nothing is wrong: its values lately; of a count what it comes to in a second."""

    values: tuple[float, ...]
    a_second: float


def epoch(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_count(name: str) -> bool:
    return name in _COUNTS or name.startswith("HTTPCode_")


def measured_since(world: World, began: float) -> dict[tuple, Level]:
    """{(namespace, name, dimensions): Level} of what was measured since then."""
    found: dict[tuple, list[float]] = defaultdict(list)
    with world.lock:
        for datum in world.backend("cloudwatch", world.regions[0]).metric_data:
            if epoch(datum.timestamp) >= began:
                found[_key(datum)].append(datum.value)
    seconds = time.time() - began
    return {key: Level(tuple(values), sum(values) / seconds) for key, values in found.items()}


def _key(datum: Any) -> tuple:
    return datum.namespace, datum.name, tuple((each.name, each.value) for each in datum.dimensions)
