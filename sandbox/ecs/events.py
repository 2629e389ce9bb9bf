# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The events of a service, in AWS's words.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import state

if TYPE_CHECKING:
    from .task import Task

KEPT = 100


def say(service: Any, text: str) -> None:
    event = {"id": str(uuid.uuid4()), "createdAt": state.now(), "message": f"(service {service.name}) {text}"}
    service.events = [event, *service.events][:KEPT]


def names(tasks: Iterable[Task]) -> str:
    return " ".join(f"(task {task.id})" for task in tasks)
