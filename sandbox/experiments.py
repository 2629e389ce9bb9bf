# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AWS FIS: experiments whose actions are faults of this sandbox, ended after their duration, by hand, or by an alarm.

https://docs.aws.amazon.com/fis/latest/userguide/stop-conditions.html
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .wire import ApiError

if TYPE_CHECKING:
    from .server import Call
    from .world import World

SERVICE, ALARM = "fis", "orders-lost"
# The one template: its action, what that does here, and for how long.
TEMPLATE, ACTION, FAULT, DURATION_SECONDS = "EXT1a2b3c4d5e6f7", "aws:rds:reboot-db-instances", "primary-killed", 600.0
LOOK_SECONDS = 0.2
_OVER = ("completed", "stopped", "failed")


@dataclass
class Experiment:
    id: str
    tags: dict[str, str]
    created: float = field(default_factory=time.time)
    status: str = "pending"
    ended: threading.Event = field(default_factory=threading.Event)

    def described(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "experimentTemplateId": TEMPLATE,
            "state": {"status": self.status, "reason": ""},
            "creationTime": self.created,
            "tags": self.tags,
        }


_world: World
_experiments: dict[str, Experiment] = {}  # by client token


def _template() -> dict[str, Any]:
    region = _world.regions[0]
    return {
        "id": TEMPLATE,
        "description": "the primary database is gone",
        "actions": {"database": {"actionId": ACTION, "parameters": {}, "targets": {"DBInstances": "primary"}}},
        "targets": {
            "primary": {"resourceType": "aws:rds:db", "resourceTags": {"drill": "yes"}, "selectionMode": "ALL"}
        },
        "stopConditions": [
            {
                "source": "aws:cloudwatch:alarm",
                "value": f"arn:aws:cloudwatch:{region}:{_world.account_id}:alarm:{ALARM}",
            }
        ],
        "roleArn": f"arn:aws:iam::{_world.account_id}:role/fis",
        "tags": {},
    }


def answer(call: Call) -> dict:
    """Hold the world's lock."""
    name = call.path.rpartition("/")[2]
    match call.action:
        case "GetExperimentTemplate":
            if name != TEMPLATE:
                raise ApiError("ResourceNotFoundException", f"Experiment template {name} does not exist", 404)
            return {"experimentTemplate": _template()}
        case "ListExperiments":
            return {"experiments": [each.described() for each in _experiments.values()]}
        case "StartExperiment":
            return {"experiment": _start(call.params).described()}
        case "GetExperiment":
            return {"experiment": _find(name).described()}
        case "StopExperiment":
            found = _find(name)
            if found.status not in _OVER:
                found.status = "stopping"
                found.ended.set()
            return {"experiment": found.described()}
    raise ApiError("ValidationException", f"unknown operation {call.action}")


def _find(name: str) -> Experiment:
    for each in _experiments.values():
        if each.id == name:
            return each
    raise ApiError("ResourceNotFoundException", f"Experiment {name} does not exist", 404)


def _start(asked: dict[str, Any]) -> Experiment:
    """The same token means the same experiment."""
    if asked.get("experimentTemplateId") != TEMPLATE:
        raise ApiError(
            "ResourceNotFoundException", f"Experiment template {asked.get('experimentTemplateId')} does not exist", 404
        )
    known = _experiments.get(asked["clientToken"])
    if known is None:
        number = f"EXP{len(_experiments):013}"
        known = _experiments[asked["clientToken"]] = Experiment(number, asked.get("tags", {}))
        if asked.get("experimentOptions", {}).get("actionsMode") == "skip-all":
            known.status = "completed"
        else:
            _world.background(_hold, known)
    return known


def _hold(experiment: Experiment) -> None:
    """Its action begins, and ends with it."""
    fault = _world.faults[FAULT]
    fault.apply(_world)
    experiment.status = "running"
    ended, deadline = "completed", time.monotonic() + DURATION_SECONDS
    try:
        while time.monotonic() < deadline:
            if experiment.ended.is_set() or _alarmed():
                ended = "stopped"
                break
            _world.pause(LOOK_SECONDS)
    finally:
        fault.heal(_world)
        experiment.status = ended


def _alarmed() -> bool:
    with _world.lock:
        alarm = _world.backend("cloudwatch", _world.regions[0]).alarms.get(ALARM)
        return alarm is not None and alarm.state_value == "ALARM"


# ---- a part of the world -------------------------------------------------------------------------------------------


def install(world: World) -> None:
    global _world
    _world = world
    world.handlers[SERVICE] = answer


def seed(world: World) -> None:
    _experiments.clear()
    world.client("cloudwatch", world.regions[0]).put_metric_alarm(
        AlarmName=ALARM,
        Namespace="regami",
        MetricName="OrdersLost",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )
    world.state["drill_experiments"] = [
        {"name": "db_failover", "kind": "database", "template": TEMPLATE, "mended_by": ["db_failover"]}
    ]
