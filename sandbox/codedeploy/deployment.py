# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One blue/green deployment of CodeDeploy to an ECS service, from its creation to the end of its rollback.

https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-steps-ecs.html
A rollback is a deployment of its own. It makes no task set: it gives the traffic back to the original one and drains
the other. https://docs.aws.amazon.com/codedeploy/latest/userguide/deployments-rollback-and-redeploy.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from ..ecs import definitions, task_sets
from . import traffic

if TYPE_CHECKING:
    from ..world import World

# https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html#appspec-hooks-ecs
EVENTS = (
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "AllowTestTraffic",
    "AfterAllowTestTraffic",
    "BeforeAllowTraffic",
    "AllowTraffic",
    "AfterAllowTraffic",
)
ENDED = ("Succeeded", "Failed", "Stopped")
# https://docs.aws.amazon.com/codedeploy/latest/userguide/troubleshooting-ecs.html
HEALTHY_MINUTES = 60
# Stopping took less than half a minute, the rollback included, in a recorded deployment.
ROLLBACK_MINUTES = 0.1
LOOK_SECONDS = 0.05


class Interrupted(Exception):
    """The deployment goes no further: `status` is how it ends, `cause` the event that an automatic rollback is set for."""

    def __init__(self, status: str, cause: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.cause, self.code, self.message = status, cause, code, message


class Deployment:
    """`group` is the deployment group (codedeploy.Group), `revision` a RevisionLocation with its content, `routing` the
    trafficRoutingConfig. Methods that start with an underscore run in the deployment's own thread, without the lock.
    """

    def __init__(self, world: World, group: Any, deployment_id: str, revision: dict | None, config: str, **asked: Any):
        self._world, self.group, self.id = world, group, deployment_id
        self.revision, self.previous_revision = revision, group.last_revision
        self.config_name, self.routing = config, group.configs[config]
        self.description, self.creator = asked.get("description"), asked.get("creator", "user")
        self.auto_rollback = asked.get("auto_rollback") or group.settings.get("autoRollbackConfiguration") or {}
        self.alarms = asked.get("alarms") or group.settings.get("alarmConfiguration") or {}
        self.status = "Created"
        self.created, self.started, self.completed = time.time(), None, None
        self.error: dict | None = None
        self.rollback: dict | None = None
        self.events = [{"lifecycleEventName": name, "status": "Pending"} for name in EVENTS]
        self.wait: str | None = None  # READY_WAIT or TERMINATION_WAIT, while it waits
        self.terminating = False
        self._go_on = False
        self._stop: bool | None = None  # asked to: with a rollback?
        self.original: Any = None  # task sets
        self.replacement: Any = None

    # ---- what is asked of it, with the world's lock held -----------------------------------------------------------

    @property
    def is_active(self) -> bool:
        return self.status not in ENDED

    def stop(self, roll_back: bool | None) -> None:
        """`roll_back` None: as the deployment is configured for DEPLOYMENT_STOP_ON_REQUEST."""
        self._stop = self._rolls_back("DEPLOYMENT_STOP_ON_REQUEST") if roll_back is None else roll_back

    def go_on(self) -> None:
        self._go_on = True

    def begin(self) -> None:
        self._world.background(self._live)

    def begin_rollback_of(self, stopped: Deployment) -> None:
        """This deployment is the rollback of `stopped`."""
        self.original, self.replacement = stopped.original, stopped.replacement
        self.rollback = {
            "rollbackTriggeringDeploymentId": stopped.id,
            "rollbackMessage": f"Deployment {self.id} is triggered to roll back deployment {stopped.id}.",
        }
        self._world.background(self._return)

    # ---- its life ---------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        self._world.pause(LOOK_SECONDS)
        with self._world.lock:
            self.status, self.started = "InProgress", time.time()
        try:
            self._deploy()
            self._succeed()
        except Interrupted as end:
            with self._world.lock:
                self._interrupt(end)

    def _deploy(self) -> None:
        definition = self._task_definition()
        for name in EVENTS:
            with self._event(name):
                if name == "Install":
                    self._install(definition)
                elif name == "AllowTestTraffic":
                    self._route(self.group.test_listeners, {self._green: 1})
                elif name == "BeforeAllowTraffic":
                    self._await_ready()
                elif name == "AllowTraffic":
                    self._shift()
        self._retire()

    def _task_definition(self) -> str:
        """What the AppSpec names. Raises Interrupted."""
        try:
            (resource,) = yaml.safe_load(self.group.appspec(self.revision))["Resources"]
            return resource["TargetService"]["Properties"]["TaskDefinition"]
        except LookupError as error:
            raise Interrupted(
                "Failed", "DEPLOYMENT_FAILURE", "REVISION_MISSING", f"no such revision: {error}"
            ) from error
        except (ValueError, TypeError, yaml.YAMLError) as error:
            message = "The AppSpec file must name exactly one AWS::ECS::Service with its TaskDefinition."
            raise Interrupted("Failed", "DEPLOYMENT_FAILURE", "INVALID_REVISION", message) from error

    def _install(self, definition: str) -> None:
        from moto.core.exceptions import ServiceException

        with self._world.lock:
            service = self.group.service
            self.original = task_sets.primary(service)
            for left in service.task_sets:  # by a deployment that was stopped without a rollback
                if left is not self.original:
                    task_sets.delete(left)
            behind = traffic.weights(self._world, self.group.region, self.group.prod_listeners)
            if self._blue not in behind:
                message = "Primary taskset target group must be behind listener"
                raise _failed("ELASTIC_LOAD_BALANCING_INVALID", f"The ELB could not be updated: {message}")
            self._green = next(arn for arn in self.group.target_groups if arn != self._blue)
            # At weight 0 it is checked, and gets nothing.
            self._route(self.group.prod_listeners, {self._blue: 100, self._green: 0})
            try:
                arn = definitions.usable(service._backend, definition).arn
            except ServiceException as error:
                message = f"The ECS service cannot be updated due to an unexpected error: {error.message}"
                raise _failed("ECS_UPDATE_ERROR", message) from error
            balancers = [dict(each, targetGroupArn=self._green) for each in service.load_balancers]
            self.replacement = task_sets.create(service, arn, balancers, self.id)
        self._await(
            lambda: task_sets.is_steady(self.replacement),
            HEALTHY_MINUTES,
            _failed(
                "TIMEOUT",
                "The deployment timed out while waiting for the replacement task set to become healthy. "
                f"This time out period is {HEALTHY_MINUTES} minutes.",
            ),
        )

    def _await_ready(self) -> None:
        option = self.group.blue_green.get("deploymentReadyOption", {})
        if option.get("actionOnTimeout") != "STOP_DEPLOYMENT":
            return
        minutes = option.get("waitTimeInMinutes", 0)
        message = f"The deployment timed out while waiting for a notification to continue. This time out period is {minutes} minutes."
        with self._waiting("READY_WAIT", "Ready"):
            self._await(lambda: self._go_on, minutes, Interrupted("Stopped", "DEPLOYMENT_FAILURE", "TIMEOUT", message))

    def _shift(self) -> None:
        for percent, minutes in _increments(self.routing):
            with self._world.lock:
                self._route(self.group.prod_listeners, {self._blue: 100 - percent, self._green: percent})
            self._await(lambda: False, minutes)
        with self._world.lock:
            task_sets.make_primary(self.group.service, self.replacement)

    def _retire(self) -> None:
        option = self.group.blue_green.get("terminateBlueInstancesOnDeploymentSuccess", {})
        if option.get("action") == "KEEP_ALIVE":
            return
        self.terminating = True
        with self._waiting("TERMINATION_WAIT", "InProgress"):
            self._await(lambda: self._go_on, option.get("terminationWaitTimeInMinutes", 0))
        with self._world.lock:
            task_sets.delete(self.original)

    def _return(self) -> None:
        """The life of a rollback."""
        self._world.pause(LOOK_SECONDS)
        with self._world.lock:
            self.status, self.started = "InProgress", time.time()
        self._world.pause(ROLLBACK_MINUTES * self._world.settings.deployment_minute)
        with self._world.lock:
            if self.original is not None:
                weights = {arn: 100 if arn == self._blue else 0 for arn in self.group.target_groups}
                self._route(self.group.prod_listeners, weights)
                self._route(self.group.test_listeners, {self._blue: 1})
                task_sets.make_primary(self.group.service, self.original)
            if self.replacement is not None:
                task_sets.delete(self.replacement)
            for event in self.events:
                event |= {"status": "Succeeded", "startTime": self.started, "endTime": time.time()}
            self._succeed()

    # ---- its ends ---------------------------------------------------------------------------------------------------

    def _succeed(self) -> None:
        with self._world.lock:
            self.status, self.completed = "Succeeded", time.time()
            if self.creator != "codeDeployRollback":
                self.group.last_revision = self.revision

    def _interrupt(self, end: Interrupted) -> None:
        self.status, self.completed, self.wait = end.status, time.time(), None
        self.error = {"code": end.code, "message": end.message}
        for event in self.events:
            if event["status"] == "Pending":
                event["status"] = "Skipped"
        if self._stop if end.code == "MANUAL_STOP" else self._rolls_back(end.cause):
            rollback = self.group.roll_back(self)
            self.rollback = {
                "rollbackDeploymentId": rollback.id,
                "rollbackMessage": f"Deployment {self.id} terminated. Automatic rollback is triggered with a DeploymentId "
                f"{rollback.id}.",
            }

    def _rolls_back(self, cause: str) -> bool:
        return bool(self.auto_rollback.get("enabled")) and cause in self.auto_rollback.get("events", ())

    # ---- its means --------------------------------------------------------------------------------------------------

    @property
    def _blue(self) -> str:
        return task_sets.group_of(self.original)

    def _await(self, done: Callable[[], Any], minutes: float, late: Interrupted | None = None) -> None:
        """Until `done`, or so many minutes of CodeDeploy have passed: then raise `late`, or go on."""
        deadline = time.monotonic() + minutes * self._world.settings.deployment_minute
        while not done():
            self._look_around()
            if time.monotonic() >= deadline:
                if late:
                    raise late
                return
            self._world.pause(LOOK_SECONDS)

    def _look_around(self) -> None:
        """Raises Interrupted where somebody stopped the deployment, or an alarm did."""
        if self._stop is not None:
            message = "The deployment was stopped by a user."
            raise Interrupted("Stopped", "DEPLOYMENT_STOP_ON_REQUEST", "MANUAL_STOP", message)
        if not self.alarms.get("enabled"):
            return
        with self._world.lock:
            known = self._world.backend("cloudwatch", self.group.region).alarms
            names = [each["name"] for each in self.alarms.get("alarms", ())]
            ringing = [name for name in names if name in known and known[name].state_value == "ALARM"]
        if ringing:
            message = (
                "One or more alarms have been activated according to the Amazon CloudWatch metrics you selected, and the "
                f"affected deployments have been stopped. Activated alarms: <{' '.join(ringing)}>"
            )
            raise Interrupted("Stopped", "DEPLOYMENT_STOP_ON_ALARM", "ALARM_ACTIVE", message)

    @contextmanager
    def _event(self, name: str) -> Iterator[None]:
        event = next(each for each in self.events if each["lifecycleEventName"] == name)
        event |= {"status": "InProgress", "startTime": time.time()}
        try:
            self._look_around()
            yield
            event["status"] = "Succeeded"
        except Interrupted as end:
            event |= {"status": "Failed", "diagnostics": {"errorCode": "UnknownError", "message": end.message}}
            raise
        finally:
            event["endTime"] = time.time()

    @contextmanager
    def _waiting(self, kind: str, status: str) -> Iterator[None]:
        self.wait, self._go_on, self.status = kind, False, status
        yield
        self.wait, self.status = None, "InProgress"

    def _route(self, listeners: list[str], weights: dict[str, int]) -> None:
        with self._world.lock:
            traffic.route(self._world, self.group.region, listeners, self.group.target_groups, weights)

    # ---- what AWS shows of it ---------------------------------------------------------------------------------------

    def describe(self) -> dict:
        """DeploymentInfo. The overview is left out, as AWS does for ECS; the AppSpec's content always is."""
        described = {
            "applicationName": self.group.application,
            "deploymentGroupName": self.group.name,
            "deploymentConfigName": self.config_name,
            "deploymentId": self.id,
            "previousRevision": _without_content(self.previous_revision),
            "revision": _without_content(self.revision),
            "status": self.status,
            "errorInformation": self.error,
            "createTime": self.created,
            "startTime": self.started,
            "completeTime": self.completed,
            "description": self.description,
            "creator": self.creator,
            "autoRollbackConfiguration": self.auto_rollback or None,
            "rollbackInfo": self.rollback,
            "deploymentStyle": self.group.settings.get("deploymentStyle"),
            "ignoreApplicationStopFailures": False,
            "updateOutdatedInstancesOnly": False,
            "instanceTerminationWaitTimeStarted": self.terminating,
            "blueGreenDeploymentConfiguration": self.group.blue_green,
            "loadBalancerInfo": self.group.settings.get("loadBalancerInfo"),
            "fileExistsBehavior": "DISALLOW",
            "deploymentStatusMessages": [],
            "computePlatform": "ECS",
        }
        return {name: value for name, value in described.items() if value is not None}

    def target(self) -> dict:
        """DeploymentTarget: the service."""
        service = self.group.service
        status = "InProgress" if self.is_active else {"Succeeded": "Succeeded"}.get(self.status, "Failed")
        sets = [("Blue", self.original), ("Green", self.replacement)]
        return {
            "deploymentTargetType": "ECSTarget",
            "ecsTarget": {
                "deploymentId": self.id,
                "targetId": f"{service.cluster_name}:{service.name}",
                "targetArn": service.arn,
                "lastUpdatedAt": self.completed or time.time(),
                "lifecycleEvents": [dict(event) for event in self.events],
                "status": status,
                "taskSetsInfo": [self._task_set(label, each) for label, each in sets if each is not None],
            },
        }

    def _task_set(self, label: str, task_set: Any) -> dict:
        arn = task_sets.group_of(task_set)
        routed = traffic.weights(self._world, self.group.region, self.group.prod_listeners)
        return {
            "identifer": task_set.id,
            "desiredCount": task_set.computed_desired_count,
            "pendingCount": task_set.pending_count,
            "runningCount": task_set.running_count,
            "status": task_set.status,
            "trafficWeight": float(routed.get(arn, 0)),
            "targetGroup": {"name": arn.split("/")[1]},
            "taskSetLabel": label,
        }


def _failed(code: str, message: str) -> Interrupted:
    return Interrupted("Failed", "DEPLOYMENT_FAILURE", code, message)


def _increments(routing: dict) -> list[tuple[int, int]]:
    """(percent of the traffic, minutes to stay there), in order; the last one stays.

    https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-configurations.html#deployment-configuration-ecs
    """
    if canary := routing.get("timeBasedCanary"):
        return [(canary["canaryPercentage"], canary["canaryInterval"]), (100, 0)]
    if linear := routing.get("timeBasedLinear"):
        step = linear["linearPercentage"]
        return [(percent, linear["linearInterval"]) for percent in range(step, 100, step)] + [(100, 0)]
    return [(100, 0)]


def _without_content(revision: dict | None) -> dict | None:
    if revision is None or "appSpecContent" not in revision:
        return revision
    return dict(revision, appSpecContent={"sha256": revision["appSpecContent"]["sha256"]})
