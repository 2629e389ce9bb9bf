# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Launches that failed, as DescribeScalingActivities tells them.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/CHAP_Troubleshooting.html
"""

from __future__ import annotations

import time
import uuid
from typing import Any

# A group tries again after a while, and longer after each failure.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
KEPT = 50

_failed: dict[str, list[dict]] = {}  # by name of the group, the newest first
_not_before: dict[str, float] = {}


def forget() -> None:
    _failed.clear()
    _not_before.clear()


def of(group: Any) -> list[dict]:
    return _failed.get(group.name, [])


def note_failed_launch(group: Any, message: str) -> None:
    from moto.core.utils import utcnow

    if time.monotonic() < _not_before.get(group.name, 0.0):
        return
    known = _failed.setdefault(group.name, [])
    _not_before[group.name] = time.monotonic() + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** len(known))
    known.insert(
        0,
        {
            "ActivityId": str(uuid.uuid4()),
            "AutoScalingGroupName": group.name,
            "Description": "Launching a new EC2 instance.",
            "Cause": "an instance was started in response to a difference between desired and actual capacity",
            "StartTime": utcnow(),
            "EndTime": utcnow(),
            "StatusCode": "Failed",
            "StatusMessage": message,
            "Progress": 100,
        },
    )
    del known[KEPT:]
