# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the processes behind services, instances and databases use of processor and memory, as CloudWatch has it.

A service: of what its tasks may have. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service_utilization.html
A task likewise, where its cluster has Container Insights with enhanced observability:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-enhanced-observability-metrics-ECS.html
An instance, a database: of its virtual processors, here all processors of this machine.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from . import cloudwatch

if TYPE_CHECKING:
    from .world import World

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
MEBIBYTE = 2**20


def resident_bytes(pid: int) -> int:
    """0 for a process that has ended."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except OSError:
        return 0


def cpu_seconds(pid: int) -> float:
    """Of all its threads since it began, without its children; 0 for a process that has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / _TICKS


class Meter:
    """Processors that a group of processes uses between two looks."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._used: dict[int, float] = {}

    def read(self, pids: list[int]) -> float | None:
        """How many processors were busy on average; None at the first look, where there is nothing to compare with."""
        now, used = time.monotonic(), {pid: cpu_seconds(pid) for pid in pids}
        spent = sum(max(0.0, used[pid] - self._used[pid]) for pid in used.keys() & self._used.keys())
        elapsed, first = now - self._at, not self._used
        self._at, self._used = now, used
        return None if first or elapsed <= 0 else spent / elapsed


_meters: dict[str, Meter] = {}


def _busy(key: str, pids: list[int]) -> float | None:
    return _meters.setdefault(key, Meter()).read(pids)


def start(world: World) -> None:
    _meters.clear()
    world.background(_publish, world)


def _publish(world: World) -> None:
    while True:
        world.pause(world.settings.metric_seconds)
        with world.lock:
            measured = [*_services(world), *_fleets(world)]
        for region, namespace, dimensions, values in measured:
            if region not in world.cut_regions:
                cloudwatch.publish(world, region, namespace, dimensions, values)


def _services(world: World) -> list[tuple]:
    """A value for each task, so that CloudWatch knows the average, and the largest; and each task by itself."""
    from .ecs import tasks

    single = []
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    disks: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for task in [task for own in tasks.of_service.values() for task in own]:
        if task.status != "RUNNING" or task.pid is None or not task.group.startswith("service:"):
            continue
        key = task.region, task.cluster_arn.rpartition("/")[2], task.service_name
        used = {"Memory": 100 * resident_bytes(task.pid) / (int(task.definition.memory) * MEBIBYTE)}
        if (busy := _busy(task.id, [task.pid])) is not None:
            used["CPU"] = 100 * busy * 1024 / int(task.definition.cpu)
        for name, value in used.items():
            found[key][f"{name}Utilization"].append(value)
        if _is_observed(world, task):
            dimensions = {"ClusterName": key[1], "ServiceName": key[2], "TaskId": task.id}
            values = {f"Task{name.capitalize()}Utilization": value for name, value in used.items()}
            single.append((task.region, "ECS/ContainerInsights", dimensions, values))
        if task.disk:
            for name, value in _disk(task.pid, task.disk).items():
                disks[key][name].append(value)
    together = [
        (region, namespace, {"ClusterName": cluster, "ServiceName": service}, dict(values))
        for namespace, measured in (("AWS/ECS", found), ("ECS/ContainerInsights", disks))
        for (region, cluster, service), values in measured.items()
    ]
    return together + single


def _is_observed(world: World, task: Any) -> bool:
    cluster = world.backend("ecs", task.region).clusters[task.cluster_arn.rpartition("/")[2]]
    return {"name": "containerInsights", "value": "enhanced"} in cluster.settings


def _disk(pid: int, mounted: str) -> dict[str, float]:
    """Of the storage that a process has mounted, in GB, as Container Insights tells it of Fargate tasks.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-metrics-ECS.html
    """
    try:
        seen = os.statvfs(f"/proc/{pid}/root{mounted}")
    except OSError:
        return {}
    blocks = {"EphemeralStorageReserved": seen.f_blocks, "EphemeralStorageUtilized": seen.f_blocks - seen.f_bfree}
    return {name: number * seen.f_frsize / 1e9 for name, number in blocks.items()}


def _fleets(world: World) -> list[tuple]:
    """Each instance by itself, and all of a group together."""
    from . import ssm
    from .fleet import groups

    found = []
    for region in world.regions:
        for group in world.backend("autoscaling", region).autoscaling_groups.values():
            busy = {
                machine.id: 100 * share / os.cpu_count()
                for machine in groups.of(group)
                if machine.pid is not None
                and (share := _busy(machine.id, [machine.pid, *ssm.pids(region, machine.id)])) is not None
            }
            found += [
                (region, "AWS/EC2", {"InstanceId": name}, {"CPUUtilization": value}) for name, value in busy.items()
            ]
            if busy:
                together = {"CPUUtilization": list(busy.values())}
                found.append((region, "AWS/EC2", {"AutoScalingGroupName": group.name}, together))
    return found
