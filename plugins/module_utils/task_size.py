# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much memory and processor the tasks of a task definition have, and one that has more. Pure functions."""

from __future__ import annotations

import copy
import math

from . import temporary_capacity
from .errors import Refusal

# {CPU units: the MiB of memory that Fargate gives with them}.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
GIB = 1024
FARGATE = {
    256: (512, 1 * GIB, 2 * GIB),
    512: tuple(range(1 * GIB, 4 * GIB + 1, GIB)),
    1024: tuple(range(2 * GIB, 8 * GIB + 1, GIB)),
    2048: tuple(range(4 * GIB, 16 * GIB + 1, GIB)),
    4096: tuple(range(8 * GIB, 30 * GIB + 1, GIB)),
    8192: tuple(range(16 * GIB, 60 * GIB + 1, 4 * GIB)),
    16384: tuple(range(32 * GIB, 120 * GIB + 1, 8 * GIB)),
}
# The tag in which a revision remembers what there was before it, so that "+100%" typed twice is not four times as much.
MARK = "sre.runbooks/sized"


def size(request):
    """{cpu, memory} of a task in CPU units and MiB: its own, else the sum of its containers. None where nothing says it.

    Args:
        request: a task definition, as DescribeTaskDefinition or RegisterTaskDefinition have it.
    """
    return {key: int(request.get(key) or 0) or _of_containers(request, key) for key in ("cpu", "memory")}


def _of_containers(request, key):
    limits = [
        each.get(key) or (each.get("memoryReservation") if key == "memory" else 0) for each in _containers(request)
    ]
    return sum(limits) or None if all(limits) or (key == "cpu" and any(limits)) else None


def _containers(request):
    return request.get("containerDefinitions", [])


def resized(request, memory, cpu, on_fargate):
    """(`request` with another size, what it was before it was ever changed).

    Limits of containers grow with the task, each in its proportion: a limit that stays would keep the task from using what it got.

    Args:
        memory: MiB, or a change of what there was before ("+100%"); None to keep it.
        cpu: CPU units; None to keep them, unless Fargate gives so much memory only with more.
        on_fargate: whether only sizes of Fargate will do; memory is rounded up to the next one.

    Raises:
        Refusal: no such size, or nothing says what there is to change.
    """
    name, present = request["family"], size(request)
    if present["memory"] is None and memory is not None:
        raise Refusal(f"{name} has no memory limit of its tasks or of each container: there is none to raise")
    kept = remembered(request, present["memory"])
    wanted = {
        "memory": present["memory"] if memory is None else temporary_capacity.count_of(memory, kept, "memory"),
        "cpu": cpu or present["cpu"],
    }
    if wanted["memory"] == 0:
        raise Refusal(f"memory is {memory}: a task cannot run with none")
    if on_fargate:
        wanted = fitting(wanted["memory"], wanted["cpu"], cpu is not None)
    return _with_size(request, present, wanted, kept), kept


def remembered(request, present):
    """MiB that there were before this was ever changed: what the revision remembers, while it still has what it was given."""
    line = next((tag["value"] for tag in request.get("tags", []) if tag["key"] == MARK), None)
    kept = temporary_capacity.parse(line)
    return kept.before.count if kept is not None and kept.after.count == present else present


def fitting(memory, cpu, cpu_is_given):
    """{cpu, memory}: the smallest size of Fargate that has at least so much of both.

    Raises:
        Refusal: there is none, or not with the CPU units that were given.
    """
    for units, memories in FARGATE.items():
        enough = [each for each in memories if each >= memory]
        if enough and (units == cpu if cpu_is_given else units >= (cpu or 0)):
            return {"cpu": units, "memory": enough[0]}
    if cpu_is_given:
        there = f"{FARGATE[cpu][0]} to {FARGATE[cpu][-1]} MiB" if cpu in FARGATE else "none"
        raise Refusal(
            f"Fargate has no task of {cpu} CPU units with {memory} MiB of memory (with these it has {there}): "
            f"leave cpu out for the smallest that fits, or give one of {', '.join(map(str, FARGATE))}"
        )
    raise Refusal(f"Fargate has no task with {memory} MiB of memory: {FARGATE[16384][-1]} are the most")


def _with_size(request, present, wanted, kept):
    changed = copy.deepcopy(request)
    for key in ("cpu", "memory"):
        if request.get(key):
            changed[key] = str(wanted[key])
        if not present[key] or not wanted[key]:
            continue
        for container in _containers(changed):
            for limit in (key, "memoryReservation") if key == "memory" else (key,):
                if container.get(limit):
                    container[limit] = math.floor(container[limit] * wanted[key] / present[key])
    if wanted["memory"] != present["memory"]:
        line = temporary_capacity.Kept(temporary_capacity.Size(kept), temporary_capacity.Size(wanted["memory"])).text()
        tags = [tag for tag in changed.get("tags", []) if tag["key"] != MARK]
        changed["tags"] = [*tags, {"key": MARK, "value": line}]
    return changed
