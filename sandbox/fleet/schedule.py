# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduled actions of Auto Scaling groups that run once, at their time; then they are gone.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutScheduledUpdateGroupAction.html
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def moment(text: Any) -> datetime | None:
    if isinstance(text, str):
        text = datetime.fromisoformat(text)
    return text and (text if text.tzinfo else text.replace(tzinfo=UTC))


def look(backend: Any) -> None:
    for action in list(backend.scheduled_actions.values()):
        at = moment(action.start_time)
        if at is None or action.recurrence or at > datetime.now(UTC):
            continue
        del backend.scheduled_actions[action.scheduled_action_name]
        group = backend.autoscaling_groups.get(action.auto_scaling_group_name)
        if group is None or any(each["ProcessName"] == "ScheduledActions" for each in group.suspended_processes):
            continue
        for name, value in (("min_size", action.min_size), ("max_size", action.max_size)):
            if value is not None:
                setattr(group, name, value)
        wanted = group.desired_capacity if action.desired_capacity is None else action.desired_capacity
        group.desired_capacity = min(max(wanted, group.min_size), group.max_size)
