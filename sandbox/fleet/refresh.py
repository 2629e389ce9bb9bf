# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instance refreshes: one after the other the instances of a group are replaced by those of the desired configuration.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import groups

if TYPE_CHECKING:
    from ..world import World
    from .machine import Machine

ACTIVE = ("Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking")
# A refresh whose new instances failed so often is given up. AWS names no number and waits an hour for healthy ones.
FAILURES = 3
DEFAULT_MIN_HEALTHY = 90


@dataclass
class Refresh:
    """One of a group. `goal` is the version of the launch template that it brings."""

    group: str
    goal: int
    desired: dict | None
    preferences: dict
    start: datetime
    skipping: bool = False
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "Pending"
    reason: str = ""
    end: datetime | None = None
    percent: int = 0
    left: int = 0
    began: float = field(default_factory=time.monotonic)
    failures: int = 0
    rollback: dict | None = None

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    def finish(self, status: str, reason: str = "") -> None:
        from moto.core.utils import utcnow

        self.status, self.end = status, utcnow()
        self.reason = reason or self.reason

    def describe(self) -> dict:
        shown = {
            "InstanceRefreshId": self.id,
            "AutoScalingGroupName": self.group,
            "Status": self.status,
            "StatusReason": self.reason or None,
            "StartTime": self.start,
            "EndTime": self.end,
            "PercentageComplete": self.percent,
            "InstancesToUpdate": self.left,
            "Preferences": self.preferences,
            "DesiredConfiguration": self.desired,
            "RollbackDetails": self.rollback,
            "Strategy": "Rolling",
        }
        return {name: value for name, value in shown.items() if value is not None}


refreshes: dict[str, list[Refresh]] = {}  # by the ARN of the group, oldest first


def of(group: Any) -> list[Refresh]:
    return refreshes.setdefault(group.arn, [])


def current(group: Any) -> Refresh | None:
    return next((each for each in of(group) if each.is_active), None)


def is_reversible(group: Any, refresh: Refresh) -> bool:
    """A rollback needs a desired configuration, and a group that names its version by a number."""
    return refresh.desired is not None and not str(group.launch_template_version).startswith("$")


def roll_back(group: Any, refresh: Refresh, why: str) -> None:
    from moto.core.utils import utcnow

    refresh.rollback = {
        "RollbackReason": why,
        "RollbackStartTime": utcnow(),
        "PercentageCompleteOnRollback": refresh.percent,
        "InstancesToUpdateOnRollback": refresh.left,
    }
    refresh.status, refresh.percent, refresh.failures = "RollbackInProgress", 0, 0


def version_to_launch(group: Any) -> int:
    """What a new instance gets: that of the refresh while it goes forward, else the group's."""
    refresh = current(group)
    forward = refresh is not None and refresh.status in ("Pending", "InProgress", "Baking")
    return refresh.goal if forward else groups.version_of(group)


def note_failure(group: Any, machine: Machine) -> None:
    refresh = current(group)
    if refresh is not None and machine.version == version_to_launch(group):
        refresh.failures += 1


def advance(world: World, group: Any) -> int | None:
    """Replace the next instances; the number of active instances wanted meanwhile, None without a refresh."""
    refresh = current(group)
    if refresh is None:
        return None
    if "InstanceRefresh" in groups.suspended(group):
        return len(groups.active(group))
    if refresh.status == "Cancelling":
        refresh.finish("Cancelled", "Cancelled due to user request.")
        return None
    if refresh.status == "Pending":
        refresh.status = "InProgress"
    back = refresh.status == "RollbackInProgress"
    goal = groups.version_of(group) if back else refresh.goal
    there = groups.active(group)
    old = [each for each in there if not _is_updated(refresh, each, goal, back)]
    fresh = [each for each in there if each not in old]
    refresh.left = len(old)
    done = sum(_is_warm(group, refresh, each) for each in fresh)
    refresh.percent = min(100, 100 * done // max(group.desired_capacity, 1))
    if refresh.failures >= FAILURES:
        return _fail(group, refresh, back)
    if not old and done >= group.desired_capacity:
        _succeed(group, refresh, back)
        return None
    return _replace(group, refresh, old, len(there), done)


def _is_updated(refresh: Refresh, machine: Machine, goal: int, back: bool) -> bool:
    if machine.version != goal:
        return False
    # A rollback keeps what was not replaced yet; skip matching keeps what is right already.
    return back or refresh.skipping or machine.born > refresh.began


def _is_warm(group: Any, refresh: Refresh, machine: Machine) -> bool:
    warmup = float(refresh.preferences.get("InstanceWarmup", group.health_check_grace_period or 0))
    return machine.is_healthy and time.monotonic() - machine.in_service_since >= warmup


def _replace(group: Any, refresh: Refresh, old: list[Machine], there: int, done: int) -> int:
    """How many instances are wanted now. Those that are not in service are replaced at once."""
    desired = group.desired_capacity
    minimum = int(refresh.preferences.get("MinHealthyPercentage", DEFAULT_MIN_HEALTHY))
    at_once = max(1, desired - math.ceil(desired * minimum / 100))
    changing = there - done - len(old)
    launch_first = minimum == 100 or int(refresh.preferences.get("MaxHealthyPercentage", 100)) > 100
    if launch_first:
        extra = min(at_once, len(old))
        if there >= desired + extra and changing == 0 and old:
            groups.terminate(group, old[0])
            return there - 1
        return desired + extra
    if old and changing == 0 and there >= desired:
        for machine in old[:at_once]:
            groups.terminate(group, machine)
    return desired


def _succeed(group: Any, refresh: Refresh, back: bool) -> None:
    refresh.percent, refresh.left = 100, 0
    if back:
        refresh.finish("RollbackSuccessful", "Rollback completed.")
        return
    if refresh.desired is not None:
        version = refresh.desired["LaunchTemplate"]["Version"]
        group.launch_template_version = group.provided_launch_template_version = version
    refresh.finish("Successful")


def _fail(group: Any, refresh: Refresh, back: bool) -> int:
    reason = f"{refresh.failures} new instances failed their health checks."
    if not back and refresh.preferences.get("AutoRollback") and is_reversible(group, refresh):
        roll_back(group, refresh, f"Automatic rollback: {reason}")
    else:
        refresh.finish("RollbackFailed" if back else "Failed", reason)
    return group.desired_capacity
