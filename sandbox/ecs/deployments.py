# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments of services that ECS itself rolls out, and their history: what was to run, and how that ended.

Three things are one event seen from three sides. A service revision is what was to run. A deployment, in DescribeServices,
is its tasks. A service deployment is the way from the revisions before to this one; a rollback is part of it, and leads
back to a deployment that had completed.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html

AWS gives no list of the words in statusReason and rolloutStateReason: those here are a person's, not a contract.
"""

from __future__ import annotations

import copy
import secrets
import string
from dataclasses import dataclass, field
from typing import Any

from . import state
from .events import say

# A service deployment in one of these goes on; in any other it has ended.
ONGOING = ("PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS")
_LETTERS = string.ascii_letters + string.digits
DEFAULTS = {"maximumPercent": 200, "minimumHealthyPercent": 100}

history: dict[str, list[ServiceDeployment]] = {}  # by ARN of the service, newest first


@dataclass(eq=False)
class Revision:
    """A service revision; `images` fills when its first task pulls: container name -> digest, for all later tasks.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html#deployment-container-image-stability
    """

    service: Any
    number: int = field(default_factory=lambda: secrets.randbelow(9 * 10**18) + 10**18)
    images: dict[str, str] = field(default_factory=dict)
    created_at: Any = field(default_factory=state.now)

    def __post_init__(self) -> None:
        self.task_definition = self.service.task_definition
        self.launch_type = self.service.launch_type
        self.platform_version = self.service.platform_version
        self.network_configuration = copy.deepcopy(self.service.network_configuration)
        self.load_balancers = copy.deepcopy(self.service.load_balancers)

    @property
    def arn(self) -> str:
        return f"{self.service.arn.replace(':service/', ':service-revision/')}/{self.number}"

    def restore(self) -> None:
        """Give the service back what it was then, its desired count aside."""
        self.service.task_definition = self.task_definition
        self.service.launch_type = self.launch_type
        self.service.platform_version = self.platform_version
        self.service.network_configuration = copy.deepcopy(self.network_configuration)
        self.service.load_balancers = copy.deepcopy(self.load_balancers)


@dataclass(eq=False)
class Deployment:
    """An entry of `deployments`: moto finds the fields of the answer by these names."""

    revision: Revision
    desired_count: int
    status: str = "PRIMARY"
    running_count: int = 0
    pending_count: int = 0
    failed_tasks: int = 0
    rollout_state: str = ""
    rollout_state_reason: str = ""
    created_at: Any = field(default_factory=state.now)
    updated_at: Any = field(default_factory=state.now)
    platform_family: str = "Linux"

    def __post_init__(self) -> None:
        self.id = f"ecs-svc/{self.revision.number}"
        self.become("IN_PROGRESS", f"ECS deployment {self.id} in progress.")

    @property
    def task_definition(self) -> str:
        return self.revision.task_definition

    @property
    def launch_type(self) -> str:
        return self.revision.launch_type

    @property
    def platform_version(self) -> str:
        return self.revision.platform_version

    @property
    def network_configuration(self) -> dict:
        return self.revision.network_configuration

    def become(self, rollout_state: str, reason: str) -> None:
        self.rollout_state, self.rollout_state_reason, self.updated_at = rollout_state, reason, state.now()

    def summary(self) -> dict:
        """A ServiceRevisionSummary."""
        return {
            "arn": self.revision.arn,
            "requestedTaskCount": self.desired_count,
            "runningTaskCount": self.running_count,
            "pendingTaskCount": self.pending_count,
        }


@dataclass(eq=False)
class ServiceDeployment:
    service: Any
    target: Deployment
    sources: list[Deployment]
    configuration: dict
    arn: str = ""
    status: str = "PENDING"
    reason: str = ""
    created_at: Any = field(default_factory=state.now)
    updated_at: Any = field(default_factory=state.now)
    started_at: Any = None
    stopped_at: Any = None
    finished_at: Any = None
    rollback: dict | None = None
    failures: int = 0  # failed tasks that the circuit breaker has counted
    triggered_by: str = ""  # circuit breaker or alarms
    alarms: list[str] = field(default_factory=list)  # those that went off
    end: dict | None = None  # the counts when it ended: {"target": summary, "sources": [summary]}

    def __post_init__(self) -> None:
        self.arn = f"{self.service.arn.replace(':service/', ':service-deployment/')}/{''.join(secrets.choice(_LETTERS) for _ in range(21))}"

    @property
    def is_ongoing(self) -> bool:
        return self.status in ONGOING

    def become(self, status: str, reason: str = "") -> None:
        self.status, self.reason, self.updated_at = status, reason or self.reason, state.now()
        if not self.is_ongoing:
            self.finished_at = self.updated_at
            self.end = {"target": self.target.summary(), "sources": [each.summary() for each in self.sources]}
        if status == "STOPPED":
            self.stopped_at = self.updated_at


# ---- what begins and ends ------------------------------------------------------------------------------------------


def current(service: Any) -> ServiceDeployment | None:
    """The service deployment that goes on, if one does."""
    newest = next(iter(history.get(service.arn, ())), None)
    return newest if newest and newest.is_ongoing else None


def begin(service: Any) -> Deployment:
    """Deploy the service as it is configured now. What was still going on stops for it."""
    for each in history.setdefault(service.arn, []):
        if each.is_ongoing:
            each.become("STOP_REQUESTED", "A newer service deployment was started.")
    deployment = Deployment(Revision(service), service.desired_count)
    configuration = DEFAULTS | copy.deepcopy(getattr(service, "deployment_configuration", None) or {})
    begun = ServiceDeployment(service, deployment, list(service.deployments), configuration)
    history[service.arn].insert(0, begun)
    service.current_service_deployment = begun.arn
    _make_primary(service, deployment)
    return deployment


def advance(service: Any) -> None:
    """What ECS does on its own a moment after it was asked."""
    for each in history.get(service.arn, ()):
        if each.status == "PENDING":
            each.started_at = state.now()
            each.become("IN_PROGRESS")
        elif each.status == "STOP_REQUESTED":
            each.become("STOPPED")
        elif each.status == "ROLLBACK_REQUESTED":
            service.deployments[0].become("FAILED", "StopServiceDeployment: the deployment was stopped.")
            _roll_back(service, each, "A rollback was requested with StopServiceDeployment.", "StopServiceDeployment")


def complete(service: Any) -> None:
    """The primary deployment has reached a steady state: no other is left."""
    primary = service.deployments[0]
    if primary.rollout_state == "IN_PROGRESS":
        primary.become("COMPLETED", f"ECS deployment {primary.id} completed.")
        say(service, f"(deployment {primary.id}) deployment completed.")
        if ended := current(service):
            ended.become("ROLLBACK_SUCCESSFUL" if ended.status == "ROLLBACK_IN_PROGRESS" else "SUCCESSFUL")
    service.deployments = [primary]


def fail(service: Any, monitor: str, why: str, rollback: bool) -> None:
    """Give the primary deployment up, and go back where that is wished.

    `monitor`: who noticed, "circuit breaker" or "alarms".
    """
    primary, failed = service.deployments[0], current(service)
    reason = f"ECS deployment {monitor}: {why}."
    primary.become("FAILED", reason)
    say(service, f"(deployment {primary.id}) deployment failed: {why}.")
    if failed is None:
        return
    failed.triggered_by = monitor
    if failed.status == "ROLLBACK_IN_PROGRESS":
        failed.become("ROLLBACK_FAILED", reason)
    elif rollback:
        _roll_back(service, failed, reason, f"ECS deployment {monitor}")
    else:
        failed.become("STOPPED", reason)


def _roll_back(service: Any, failed: ServiceDeployment, reason: str, who: str) -> None:
    """Back to the most recent deployment in state COMPLETED, which is IN_PROGRESS again until it has been reached."""
    good = next((each for each in service.deployments if each.rollout_state == "COMPLETED"), None)
    if good is None:
        failed.become("ROLLBACK_FAILED", "No rollback candidate was found to run the rollback.")
        return
    good.desired_count, good.failed_tasks = service.desired_count, 0
    good.become("IN_PROGRESS", f"{who}: rolling back to deploymentId {good.id}.")
    good.revision.restore()
    failed.rollback = {"reason": reason, "startedAt": state.now(), "serviceRevisionArn": good.revision.arn}
    failed.become("ROLLBACK_IN_PROGRESS", reason)
    say(service, f"rolling back to (deployment {good.id}).")
    _make_primary(service, good)


def _make_primary(service: Any, deployment: Deployment) -> None:
    others = [each for each in service.deployments if each is not deployment]
    for each in others:
        each.status = "ACTIVE"
    deployment.status = "PRIMARY"
    service.deployments = [deployment, *others]
    service.steady = False
    state.wake.set()
