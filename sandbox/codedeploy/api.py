# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of CodeDeploy, as far as blue/green deployments to ECS need it.

moto records deployments and carries none out, so this replaces its backend. Shapes and error codes:
https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import hashlib
import secrets
import string
import time
from typing import TYPE_CHECKING, Any

from ..wire import ApiError, Call
from . import traffic
from .deployment import Deployment

if TYPE_CHECKING:
    from ..world import World

# https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-configurations.html#deployment-configurations-predefined-ecs
CONFIGS: dict[str, dict] = {"CodeDeployDefault.ECSAllAtOnce": {"type": "AllAtOnce"}} | {
    f"CodeDeployDefault.ECS{name}": routing
    for minutes in (1, 3)
    for name, routing in (
        (
            f"Linear10PercentEvery{minutes}Minutes",
            {"type": "TimeBasedLinear", "timeBasedLinear": {"linearPercentage": 10, "linearInterval": minutes}},
        ),
        (
            f"Canary10Percent{5 * minutes}Minutes",
            {"type": "TimeBasedCanary", "timeBasedCanary": {"canaryPercentage": 10, "canaryInterval": 5 * minutes}},
        ),
    )
}
ROLLBACK_CONFIG = "CodeDeployDefault.ECSAllAtOnce"
STATUSES = ("Created", "Queued", "InProgress", "Baking", "Succeeded", "Failed", "Stopped", "Ready")
PAGE = 100
BATCH = 25


class Group:
    """A deployment group: `settings` are the arguments that it was created with."""

    configs = CONFIGS

    def __init__(self, api: Region, settings: dict) -> None:
        self._api, self.settings = api, settings
        self.application, self.name = settings["applicationName"], settings["deploymentGroupName"]
        self.region = api.region
        self.id = f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-{secrets.token_hex(6)}"
        self.last_revision: dict | None = None

    @property
    def service(self) -> Any:
        """moto's service. Raises ApiError."""
        named = self.settings["ecsServices"][0]
        services = self._api.world.backend("ecs", self.region).services
        service = services.get(f"{named['clusterName']}:{named['serviceName']}")
        if service is None or service.deployment_controller["type"] != "CODE_DEPLOY":
            raise ApiError(
                "InvalidECSServiceException",
                f"Deployment group's ECS service must be configured for a CODE_DEPLOY deployment controller: "
                f"{named['clusterName']}:{named['serviceName']}",
            )
        return service

    @property
    def _pair(self) -> dict:
        return self.settings["loadBalancerInfo"]["targetGroupPairInfoList"][0]

    @property
    def target_groups(self) -> list[str]:
        names = [each["name"] for each in self._pair["targetGroups"]]
        known = self._api.world.backend("elbv2", self.region).target_groups
        return [arn for name in names for arn, group in known.items() if group.name == name]

    @property
    def prod_listeners(self) -> list[str]:
        return self._pair["prodTrafficRoute"]["listenerArns"]

    @property
    def test_listeners(self) -> list[str]:
        return self._pair.get("testTrafficRoute", {}).get("listenerArns", [])

    @property
    def blue_green(self) -> dict:
        return self.settings.get("blueGreenDeploymentConfiguration", {})

    @property
    def deployments(self) -> list[Deployment]:
        return [each for each in self._api.deployments.values() if each.group is self]

    def traffic_now(self) -> str:
        """For people."""
        shares = traffic.weights(self._api.world, self.region, self.prod_listeners)
        return ", ".join(f"{weight} % to {arn.split('/')[1]}" for arn, weight in shares.items() if weight)

    def appspec(self, revision: dict | None) -> str:
        """Text of the AppSpec. Raises LookupError where S3 has none."""
        if revision and revision["revisionType"] == "AppSpecContent":
            return revision["appSpecContent"]["content"]
        at = (revision or {}).get("s3Location", {})
        found = self._api.world.backend("s3", "aws").get_object(at.get("bucket", ""), at.get("key", ""))
        if found is None:
            raise LookupError(f"s3://{at.get('bucket')}/{at.get('key')}")
        return found.value.decode()

    def remember(self, revision: dict, created: float) -> Deployment:
        """A deployment of the past, which succeeded: its task set is the service's primary one."""
        past = self._api.add(
            self, self._api.register(self.application, revision), self.settings["deploymentConfigName"]
        )
        past.created = past.started = past.completed = created
        past.status, self.last_revision = "Succeeded", past.revision
        for event in past.events:
            event |= {"status": "Succeeded", "startTime": created, "endTime": created}
        return past

    def roll_back(self, stopped: Deployment) -> Deployment:
        rollback = self._api.add(self, self.last_revision, ROLLBACK_CONFIG, creator="codeDeployRollback")
        rollback.begin_rollback_of(stopped)
        return rollback

    def describe(self) -> dict:
        ended = [each for each in self.deployments if each.status == "Succeeded"]
        last = {"lastSuccessfulDeployment": ended, "lastAttemptedDeployment": self.deployments}
        return {
            **self.settings,
            "deploymentGroupId": self.id,
            "computePlatform": "ECS",
            "outdatedInstancesStrategy": "UPDATE",
            **{name: _last(found[-1]) for name, found in last.items() if found},
        }


class Region:
    """CodeDeploy in one region."""

    def __init__(self, world: World, region: str) -> None:
        self.world, self.region = world, region
        self.applications: dict[str, dict] = {}
        self.groups: dict[tuple[str, str], Group] = {}
        self.deployments: dict[str, Deployment] = {}  # oldest first
        self.revisions: dict[tuple[str, str], dict] = {}  # by application and SHA-256

    def answer(self, call: Call) -> dict:
        operation = getattr(self, f"do_{call.action}", None)
        if operation is None:
            raise ApiError("SandboxUnsupported", f"the sandbox does not know codedeploy {call.action}")
        return operation(call.params) or {}

    def add(self, group: Group, revision: dict | None, config: str, **asked: Any) -> Deployment:
        made = Deployment(self.world, group, f"d-{_random_id()}", revision, config, **asked)
        self.deployments[made.id] = made
        return made

    # ---- applications and deployment groups --------------------------------------------------------------------------

    def do_CreateApplication(self, asked: dict) -> dict:
        name = _named(asked, "applicationName", "ApplicationNameRequiredException")
        if name in self.applications:
            raise ApiError("ApplicationAlreadyExistsException", f"Application {name} already exists.")
        if asked.get("computePlatform") != "ECS":
            raise ApiError("SandboxUnsupported", "the sandbox deploys to the compute platform ECS only")
        self.applications[name] = {
            "applicationId": _random_id().lower(),
            "applicationName": name,
            "createTime": time.time(),
            "linkedToGitHub": False,
            "computePlatform": "ECS",
        }
        return {"applicationId": self.applications[name]["applicationId"]}

    def do_GetApplication(self, asked: dict) -> dict:
        return {"application": self.applications[self._application(asked)]}

    def do_ListApplications(self, _asked: dict) -> dict:
        return {"applications": list(self.applications)}

    def do_CreateDeploymentGroup(self, asked: dict) -> dict:
        application = self._application(asked)
        name = _named(asked, "deploymentGroupName", "DeploymentGroupNameRequiredException")
        if (application, name) in self.groups:
            raise ApiError("DeploymentGroupAlreadyExistsException", f"Deployment group {name} already exists.")
        asked = {"deploymentConfigName": ROLLBACK_CONFIG, **asked}
        self._config(asked["deploymentConfigName"])
        group = Group(self, asked)
        # From here on the rule forwards by weight to both.
        blue = group.service.load_balancers[0]["targetGroupArn"]
        weights = {arn: 100 if arn == blue else 0 for arn in group.target_groups}
        traffic.route(self.world, self.region, group.prod_listeners, group.target_groups, weights)
        self.groups[application, name] = group
        return {"deploymentGroupId": group.id}

    def do_UpdateDeploymentGroup(self, asked: dict) -> None:
        """What is not given stays."""
        group = self._group(dict(asked, deploymentGroupName=asked.get("currentDeploymentGroupName")))
        changes = {key: value for key, value in asked.items() if key in group.settings and key != "deploymentGroupName"}
        self._config(changes.get("deploymentConfigName", ROLLBACK_CONFIG))
        group.settings |= changes

    def do_GetDeploymentGroup(self, asked: dict) -> dict:
        return {"deploymentGroupInfo": self._group(asked).describe()}

    def do_ListDeploymentGroups(self, asked: dict) -> dict:
        application = self._application(asked)
        names = [name for owner, name in self.groups if owner == application]
        return {"applicationName": application, "deploymentGroups": names}

    def do_ListDeploymentConfigs(self, _asked: dict) -> dict:
        return {"deploymentConfigsList": sorted(CONFIGS)}

    def do_GetDeploymentConfig(self, asked: dict) -> dict:
        name = _named(asked, "deploymentConfigName", "DeploymentConfigNameRequiredException")
        config = {"deploymentConfigName": name, "computePlatform": "ECS", "trafficRoutingConfig": self._config(name)}
        return {"deploymentConfigInfo": config}

    # ---- revisions ---------------------------------------------------------------------------------------------------

    def do_GetApplicationRevision(self, asked: dict) -> dict:
        application, revision = self._application(asked), asked.get("revision") or {}
        if revision.get("revisionType") != "AppSpecContent":
            return {"applicationName": application, "revision": revision, "revisionInfo": {}}
        known = self.revisions.get((application, revision["appSpecContent"].get("sha256", "")))
        if known is None:
            raise ApiError("RevisionDoesNotExistException", "The named revision does not exist.")
        return {"applicationName": application, "revision": known, "revisionInfo": {}}

    def register(self, application: str, revision: dict | None) -> dict:
        if not revision:
            raise ApiError("RevisionRequiredException", "The revision ID was not specified.")
        kind = revision.get("revisionType")
        if kind == "S3" and revision.get("s3Location", {}).get("key"):
            return revision
        content = (revision.get("appSpecContent") or {}).get("content")
        if kind != "AppSpecContent" or not content:
            raise ApiError("InvalidRevisionException", "The revision was specified in an invalid format.")
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        if revision["appSpecContent"].get("sha256", sha256) != sha256:
            raise ApiError(
                "InvalidRevisionException", "The SHA256 hash does not match the content of the AppSpec file."
            )
        registered = {"revisionType": kind, "appSpecContent": {"content": content, "sha256": sha256}}
        self.revisions[application, sha256] = registered
        return registered

    # ---- deployments -------------------------------------------------------------------------------------------------

    def do_CreateDeployment(self, asked: dict) -> dict:
        group = self._group(asked)
        if len(asked.get("description") or "") > 10_000:
            raise ApiError("DescriptionTooLongException", "The description is too long.")
        config = asked.get("deploymentConfigName") or group.settings["deploymentConfigName"]
        self._config(config)
        revision = self.register(group.application, asked.get("revision"))
        _ = group.service  # it is there, and ours
        active = next((each for each in group.deployments if each.is_active), None)
        if active:
            raise ApiError(
                "DeploymentLimitExceededException",
                f"The Deployment Group '{group.name}' already has an active Deployment '{active.id}'",
            )
        made = self.add(
            group,
            revision,
            config,
            description=asked.get("description"),
            auto_rollback=asked.get("autoRollbackConfiguration"),
            alarms=asked.get("overrideAlarmConfiguration"),
        )
        made.begin()
        return {"deploymentId": made.id}

    def do_GetDeployment(self, asked: dict) -> dict:
        return {"deploymentInfo": self._deployment(asked).describe()}

    def do_BatchGetDeployments(self, asked: dict) -> dict:
        ids = asked.get("deploymentIds") or []
        if len(ids) > BATCH:
            raise ApiError("BatchLimitExceededException", f"The maximum number of names or IDs is {BATCH}.")
        return {"deploymentsInfo": [self.deployments[each].describe() for each in ids if each in self.deployments]}

    def do_ListDeployments(self, asked: dict) -> dict:
        found = list(self.deployments.values())
        if asked.get("applicationName") or asked.get("deploymentGroupName"):
            group = self._group(asked)
            found = [each for each in found if each.group is group]
        statuses = asked.get("includeOnlyStatuses") or STATUSES
        if unknown := set(statuses) - set(STATUSES):
            raise ApiError("InvalidDeploymentStatusException", f"unknown deployment status: {', '.join(unknown)}")
        span = asked.get("createTimeRange") or {}
        start, end = span.get("start", 0), span.get("end", float("inf"))
        if start > end:
            raise ApiError("InvalidTimeRangeException", "The specified time range was specified in an invalid format.")
        found = [each.id for each in found if each.status in statuses and start <= each.created <= end]
        return _page("deployments", found[::-1], asked)

    def do_StopDeployment(self, asked: dict) -> dict:
        deployment = self._active(asked)
        deployment.stop(asked.get("autoRollbackEnabled"))
        return {"status": "Pending", "statusMessage": "The deployment is being stopped."}

    def do_ContinueDeployment(self, asked: dict) -> None:
        deployment, kind = self._active(asked), asked.get("deploymentWaitType", "READY_WAIT")
        if kind not in ("READY_WAIT", "TERMINATION_WAIT"):
            raise ApiError("InvalidDeploymentWaitTypeException", "The wait type is invalid.")
        if deployment.wait != kind:
            message = f"The deployment {deployment.id} is not waiting for {kind}."
            raise ApiError("DeploymentIsNotInReadyStateException", message)
        deployment.go_on()

    def do_ListDeploymentTargets(self, asked: dict) -> dict:
        deployment = self._begun(asked)
        return _page("targetIds", [deployment.target()["ecsTarget"]["targetId"]], asked)

    def do_GetDeploymentTarget(self, asked: dict) -> dict:
        target = self._begun(asked).target()
        wanted = _named(asked, "targetId", "DeploymentTargetIdRequiredException")
        if wanted != target["ecsTarget"]["targetId"]:
            raise ApiError("DeploymentTargetDoesNotExistException", f"There is no target {wanted} in this deployment.")
        return {"deploymentTarget": target}

    def do_BatchGetDeploymentTargets(self, asked: dict) -> dict:
        ids = asked.get("targetIds") or []
        return {
            "deploymentTargets": [
                self.do_GetDeploymentTarget({**asked, "targetId": each})["deploymentTarget"] for each in ids
            ]
        }

    # ---- what is named -----------------------------------------------------------------------------------------------

    def _application(self, asked: dict) -> str:
        name = _named(asked, "applicationName", "ApplicationNameRequiredException")
        if name not in self.applications:
            raise ApiError("ApplicationDoesNotExistException", f"No application found for name: {name}")
        return name

    def _group(self, asked: dict) -> Group:
        name = _named(asked, "deploymentGroupName", "DeploymentGroupNameRequiredException")
        group = self.groups.get((self._application(asked), name))
        if group is None:
            raise ApiError("DeploymentGroupDoesNotExistException", f"No Deployment Group found for name: {name}")
        return group

    def _deployment(self, asked: dict) -> Deployment:
        wanted = _named(asked, "deploymentId", "DeploymentIdRequiredException")
        if not wanted.startswith("d-"):
            raise ApiError("InvalidDeploymentIdException", f"The specified deployment ID is invalid: {wanted}")
        if wanted not in self.deployments:
            raise ApiError("DeploymentDoesNotExistException", f"The deployment {wanted} could not be found")
        return self.deployments[wanted]

    def _active(self, asked: dict) -> Deployment:
        deployment = self._deployment(asked)
        if not deployment.is_active:
            raise ApiError("DeploymentAlreadyCompletedException", "The deployment is already complete.")
        return deployment

    def _begun(self, asked: dict) -> Deployment:
        deployment = self._deployment(asked)
        if deployment.started is None:
            raise ApiError("DeploymentNotStartedException", "The specified deployment has not started.")
        return deployment

    @staticmethod
    def _config(name: str) -> dict:
        if name not in CONFIGS:
            raise ApiError(
                "DeploymentConfigDoesNotExistException", f"No Deployment Configuration found for name: {name}"
            )
        return CONFIGS[name]


def _named(asked: dict, field: str, code: str) -> str:
    if not asked.get(field):
        raise ApiError(code, f"{field} must be specified.")
    return asked[field]


def _page(name: str, found: list[str], asked: dict) -> dict:
    """A page of a listing; its token is where the next one begins."""
    token = asked.get("nextToken") or "0"
    if not token.isdigit():
        raise ApiError("InvalidNextTokenException", "The next token was specified in an invalid format.")
    after = int(token) + PAGE
    return {name: found[int(token) : after]} | ({"nextToken": str(after)} if len(found) > after else {})


def _last(deployment: Deployment) -> dict:
    last = {"deploymentId": deployment.id, "status": deployment.status, "createTime": deployment.created}
    return last | ({"endTime": deployment.completed} if deployment.completed else {})


def _random_id() -> str:
    return "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(9))
