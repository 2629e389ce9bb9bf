# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes ECS give a deployment up: its circuit breaker, and CloudWatch alarms.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-alarm-failure.html
"""

from __future__ import annotations

import math
from typing import Any

from . import deployments, state

SMALLEST, LARGEST = 3, 200


def threshold(breaker: dict, desired: int) -> int:
    """So many failed tasks are too many: half of the desired count, rounded up, but 3 at least and 200 at most.

    `breaker`: a deploymentCircuitBreaker, whose thresholdConfiguration may say otherwise.
    """
    wanted = breaker.get("thresholdConfiguration") or {"type": "BOUNDED_PERCENT", "value": 50}
    if wanted["type"] == "COUNT":
        return wanted["value"]
    share = math.ceil(desired * wanted["value"] / 100)
    return max(SMALLEST, min(LARGEST, share)) if wanted["type"] == "BOUNDED_PERCENT" else share


def breaker_of(service: Any) -> dict:
    return (getattr(service, "deployment_configuration", None) or {}).get("deploymentCircuitBreaker") or {}


def alarms_of(service: Any) -> dict:
    return (getattr(service, "deployment_configuration", None) or {}).get("alarms") or {}


def count_failure(service: Any, deployment_id: str) -> None:
    """A task of a deployment failed: it did not start, ended by itself, or did not pass its health checks."""
    deployment = next((each for each in service.deployments if each.id == deployment_id), None)
    if deployment is None:
        return
    deployment.failed_tasks += 1
    if deployment.status != "PRIMARY" or deployment.rollout_state != "IN_PROGRESS":
        return
    if watched := deployments.current(service):
        watched.failures = deployment.failed_tasks
    breaker = breaker_of(service)
    if breaker.get("enable") and deployment.failed_tasks >= threshold(breaker, service.desired_count):
        deployments.fail(service, "circuit breaker", "tasks failed to start", bool(breaker.get("rollback")))


def count_success(service: Any) -> None:
    """A task of the primary deployment came to be healthy."""
    if breaker_of(service).get("resetOnHealthyTask", True):
        service.deployments[0].failed_tasks = 0


def watch_alarms(service: Any) -> None:
    wanted, watched = alarms_of(service), deployments.current(service)
    if not wanted.get("enable") or service.deployments[0].rollout_state != "IN_PROGRESS" or watched is None:
        return
    known = state.world.backend("cloudwatch", service.region_name).alarms
    watched.alarms = [name for name in wanted["alarmNames"] if name in known and known[name].state_value == "ALARM"]
    if watched.alarms and watched.status == "IN_PROGRESS":
        deployments.fail(service, "alarms", "alarm detected", bool(wanted.get("rollback")))
