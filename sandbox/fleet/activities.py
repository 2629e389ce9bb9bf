# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Launches that failed, and instances that somebody wanted gone, as DescribeScalingActivities tells them.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/CHAP_Troubleshooting.html
"""

from __future__ import annotations

import time
import uuid
from typing import Any

# A group tries again after a while, and longer after each failure.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
KEPT = 50

_noted: dict[str, list[dict]] = {}  # by name of the group, the newest first
_not_before: dict[str, float] = {}


def forget() -> None:
    _noted.clear()
    _not_before.clear()


def of(group: Any) -> list[dict]:
    return _noted.get(group.name, [])


def note_failed_launch(group: Any, message: str) -> None:
    from moto.core.utils import utcnow

    if time.monotonic() < _not_before.get(group.name, 0.0):
        return
    failed = sum(each["StatusCode"] == "Failed" for each in of(group))
    _not_before[group.name] = time.monotonic() + min(LONGEST_PAUSE, FIRST_PAUSE * 2**failed)
    _note(
        group,
        Description="Launching a new EC2 instance.",
        Cause="an instance was started in response to a difference between desired and actual capacity",
        EndTime=utcnow(),
        StatusCode="Failed",
        StatusMessage=message,
        Progress=100,
    )


def note_termination(group: Any, instance_id: str) -> dict:
    """Of an instance that somebody wanted gone."""
    return _note(
        group,
        Description=f"Terminating EC2 instance: {instance_id}",
        Cause=f"instance {instance_id} was taken out of service in response to a user request",
        StatusCode="InProgress",
        Progress=0,
    )


def note_detachment(group: Any, instance_id: str) -> dict:
    return _note(
        group,
        Description=f"Detaching EC2 instance: {instance_id}",
        Cause=f"instance {instance_id} was detached in response to a user request",
        StatusCode="InProgress",
        Progress=50,
    )


def end(group: Any, instance_id: str) -> None:
    from moto.core.utils import utcnow

    for each in of(group):
        if each["StatusCode"] == "InProgress" and each["Description"].endswith(instance_id):
            each.update(StatusCode="Successful", Progress=100, EndTime=utcnow())


def _note(group: Any, **about: Any) -> dict:
    from moto.core.utils import utcnow

    known = _noted.setdefault(group.name, [])
    known.insert(
        0, {"ActivityId": str(uuid.uuid4()), "AutoScalingGroupName": group.name, "StartTime": utcnow(), **about}
    )
    del known[KEPT:]
    return known[0]
