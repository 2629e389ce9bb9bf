# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds of a drill stand for minutes: what was measured, logged, deployed and changed since an incident began is laid over as
many minutes, and counts are what they would then have come to. What was before is past.write's.
"""

from __future__ import annotations

import bisect
import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .. import cloudtrail, elasticache
from ..ecs import deployments, tasks
from . import stage
from .levels import epoch, is_count

if TYPE_CHECKING:
    from ..world import World


PART_SECONDS, LOOK_SECONDS = 10.0, 0.2


def stretch(world: World, began: float, seconds: float) -> float:
    """Let what began at `began` (seconds of the epoch) have begun so many `seconds` ago; returns when that was."""
    now = time.time()
    lasted = max(now - began, 1.0)
    factor = max(1.0, seconds / lasted)

    def moved(at: float) -> float:
        """What was before stays as long before it as it was."""
        return at - (seconds - lasted) if at < began else now - (now - at) * factor

    region = world.regions[0]
    with world.lock:
        _metrics(world, moved, began, factor)
        for name in stage.log_groups(world):
            _log(world.backend("logs", region).groups[name], moved, name == stage.FLOW_LOG_GROUP)
        for event in cloudtrail.events():
            event["EventTime"] = moved(event["EventTime"])
            told = json.loads(event["CloudTrailEvent"])
            told["eventTime"] = f"{datetime.fromtimestamp(event['EventTime'], UTC):%Y-%m-%dT%H:%M:%SZ}"
            event["CloudTrailEvent"] = json.dumps(told)
        for event in elasticache.events():
            event["Date"] = datetime.fromtimestamp(moved(event["Date"].timestamp()), UTC)
        for event in world.backend("rds", region).events:
            event.date = _moved(event.date, moved)
        for owner in _dated(world):
            for name, value in owner.items():
                if isinstance(value, datetime):
                    owner[name] = _moved(value, moved)
    return now - seconds


def _moved(moment: datetime, moved: Callable[[float], float]) -> datetime:
    """moto keeps UTC, and says so nowhere."""
    zone = moment.tzinfo or UTC
    there = datetime.fromtimestamp(moved(moment.replace(tzinfo=zone).timestamp()), zone)
    return there if moment.tzinfo else there.replace(tzinfo=None)


def _metrics(world: World, moved: Callable[[float], float], began: float, factor: float) -> None:
    """A count is what came since the look before: it is spread over that time."""
    data, made = world.backend("cloudwatch", world.regions[0]).metric_data, []
    looks: dict[str, set[float]] = defaultdict(set)
    for datum in data:
        looks[datum.namespace].add(epoch(datum.timestamp))
    looked = {namespace: sorted(moments) for namespace, moments in looks.items()}
    for datum in data:
        at = epoch(datum.timestamp)
        if at < began:
            continue
        parts = 1
        if is_count(datum.name):
            # One look takes a moment: what it tells of one balancer and of the next is not of the same microsecond.
            moments = looked[datum.namespace]
            earlier = bisect.bisect_left(moments, at - LOOK_SECONDS)
            since = max(began, moments[earlier - 1] if earlier else at - world.settings.metric_seconds)
            parts = max(1, math.ceil((at - since) * factor / PART_SECONDS))
            datum.value *= factor / parts
        for number in range(parts):
            part = copy.copy(datum)
            part.timestamp = _moved(datum.timestamp, lambda at, late=number * PART_SECONDS: moved(at) - late)
            made.append(part)
    data[:] = made


def _log(group: Any, moved: Callable[[float], float], are_flows: bool) -> None:
    for stream in group.streams.values():
        for event in stream.events:
            event.timestamp = int(moved(event.timestamp / 1000) * 1000)
            if are_flows:
                fields = event.message.split(" ")
                fields[10:12] = [str(int(moved(float(each)))) for each in fields[10:12]]
                event.message = " ".join(fields)


def _dated(world: World) -> Iterator[dict[str, Any]]:
    """What has times of the service: its deployments, tasks, events and revisions."""
    own = stage.service(world)
    yield from own.events
    for each in [*own.deployments, *deployments.history[own.arn]]:
        yield vars(each)
        yield vars(each.target.revision if hasattr(each, "target") else each.revision)
    for task in tasks.of_service[own.arn]:
        yield task.times
    family = own.task_definition.rpartition("/")[2].partition(":")[0]
    for definition in world.backend("ecs", world.regions[0]).task_definitions[family].values():
        yield vars(definition)
