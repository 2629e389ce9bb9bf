# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One deployment group of CodeDeploy with its ECS service, in memory: what AWS would answer, one look at a time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.sre.runbooks.tests.unit import ecs_region
from ansible_collections.sre.runbooks.tests.unit.ecs_region import refusal

APPLICATION, GROUP, SERVICE, FAMILY = "regami-codedeploy", "regami-deployment-group", "regami-web", "regami-web"
BLUE, GREEN = (
    f"arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/regami-web-{color}-tg/1a2b3c"
    for color in ("blue", "green")
)
CANARY = "CodeDeployDefault.ECSCanary10Percent5Minutes"
LISTENER = "arn:aws:elasticloadbalancing:us-west-2:123456789012:listener/app/regami-web-alb/1a/2b"
NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
EVENTS = ("BeforeInstall", "Install", "AfterInstall", "BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic")
ACTIVE = ("Created", "Queued", "InProgress", "Baking", "Ready")


def revision(number: int) -> str:
    return f"{ecs_region.ARN}task-definition/{FAMILY}:{number}"


def appspec(number: int) -> str:
    properties = {"TaskDefinition": revision(number), "LoadBalancerInfo": {"ContainerName": "app", "ContainerPort": 80}}
    service = {"TargetService": {"Type": "AWS::ECS::Service", "Properties": properties}}
    return json.dumps({"version": 0.0, "Resources": [service]})


def task_set(number: int, group: str, deployment: str, status: str = "PRIMARY", **more: Any) -> dict[str, Any]:
    return {
        "id": f"ecs-svc/{number}",
        "status": status,
        "taskDefinition": revision(number),
        "externalId": deployment,
        "loadBalancers": [{"targetGroupArn": group, "containerName": "app", "containerPort": 80}],
        "stabilityStatus": "STEADY_STATE",
        "runningCount": 2,
    } | more


def deployment(number: int, revision_number: int, status: str = "Succeeded", **more: Any) -> dict[str, Any]:
    """The deployment d-`number`, which was created `number` hours after midnight."""
    return {
        "deploymentId": f"d-{number}",
        "applicationName": APPLICATION,
        "deploymentGroupName": GROUP,
        "status": status,
        "creator": "user",
        "deploymentConfigName": CANARY,
        "createTime": NOW.replace(hour=number),
        "startTime": NOW.replace(hour=number),
        "revision": {"revisionType": "AppSpecContent", "appSpecContent": {"sha256": f"sha256 of {revision_number}"}},
    } | more


class Web(ecs_region.Region):
    """A good revision 1, then 2, which is bad; all traffic goes to it. `step` is what happens between two looks."""

    def __init__(self, *deployments: dict[str, Any]) -> None:
        super().__init__(2)
        self.deployments = list(deployments) or [deployment(1, 1), deployment(2, 2)]
        self.weights = {BLUE: 0, GREEN: 100}
        self.service |= {
            "serviceName": SERVICE,
            "taskDefinition": revision(2),
            "deploymentController": {"type": "CODE_DEPLOY"},
            "deployments": [],
            "taskSets": [task_set(2, GREEN, "d-2")],
            "events": [],
        }
        self.inactive: set[int] = set()
        self.kept = 60
        self.platform = "ECS"
        self.fails = ""  # how the next deployment ends, where it does not succeed

    def shift(self, percent: int) -> None:
        """d-2 goes on, and has so much of the traffic."""
        self.deployments[-1]["status"] = "InProgress"
        self.weights = {BLUE: 100 - percent, GREEN: percent}
        states = ("PRIMARY", "ACTIVE") if percent < 100 else ("ACTIVE", "PRIMARY")
        self.service["taskSets"] = [task_set(1, BLUE, "d-1", states[0]), task_set(2, GREEN, "d-2", states[1])]

    # ---- CodeDeploy ----

    def get_deployment_group(self, applicationName: str, deploymentGroupName: str) -> dict[str, Any]:
        if applicationName != APPLICATION:
            raise refusal("ApplicationDoesNotExistException", "no")
        if deploymentGroupName != GROUP:
            raise refusal("DeploymentGroupDoesNotExistException", "no")
        info = {
            "computePlatform": self.platform,
            "ecsServices": [{"clusterName": ecs_region.CLUSTER, "serviceName": SERVICE}],
            "blueGreenDeploymentConfiguration": {
                "terminateBlueInstancesOnDeploymentSuccess": {
                    "action": "TERMINATE",
                    "terminationWaitTimeInMinutes": self.kept,
                }
            },
            "loadBalancerInfo": {
                "targetGroupPairInfoList": [
                    {
                        "targetGroups": [{"name": "regami-web-blue-tg"}, {"name": "regami-web-green-tg"}],
                        "prodTrafficRoute": {"listenerArns": [LISTENER]},
                    }
                ]
            },
        }
        if self.deployments:
            info["lastAttemptedDeployment"] = {"deploymentId": self.deployments[-1]["deploymentId"]}
        return {"deploymentGroupInfo": info}

    def list_applications(self) -> dict[str, Any]:
        return {"applications": [APPLICATION]}

    def list_deployment_groups(self, applicationName: str) -> dict[str, Any]:
        return {"deploymentGroups": [GROUP]}

    def list_deployments(self, includeOnlyStatuses: list[str], **asked: Any) -> dict[str, Any]:
        span = asked.get("createTimeRange") or {"start": NOW - timedelta(days=999), "end": NOW + timedelta(days=999)}
        return {
            "deployments": [
                each["deploymentId"]
                for each in self.deployments
                if each["status"] in includeOnlyStatuses and span["start"] <= each["createTime"] <= span["end"]
            ]
        }

    def batch_get_deployments(self, deploymentIds: list[str]) -> dict[str, Any]:
        assert 0 < len(deploymentIds) <= 25
        return {"deploymentsInfo": [each for each in self.deployments if each["deploymentId"] in deploymentIds]}

    def get_deployment(self, deploymentId: str) -> dict[str, Any]:
        for each in self.deployments:
            if each["deploymentId"] == deploymentId:
                seen = dict(each)
                if each["creator"] == "codeDeployRollback" and each["status"] == "InProgress":
                    each["status"] = "Succeeded"  # at the next look
                return {"deploymentInfo": seen}
        raise refusal("DeploymentDoesNotExistException", "no")

    def get_application_revision(self, applicationName: str, revision: dict[str, Any]) -> dict[str, Any]:
        sha256 = revision["appSpecContent"]["sha256"]
        content = {"content": appspec(int(sha256.rpartition(" ")[2])), "sha256": sha256}
        return {"revision": {"revisionType": "AppSpecContent", "appSpecContent": content}}

    def get_deployment_target(self, deploymentId: str, targetId: str) -> dict[str, Any]:
        assert targetId == f"{ecs_region.CLUSTER}:{SERVICE}"
        status = self.get_deployment(deploymentId)["deploymentInfo"]["status"]
        if status == "Created":
            raise refusal("DeploymentNotStartedException", "no")
        states = {"Failed": "Failed", "Succeeded": "Succeeded"}
        event = {"status": states.get(status, "Succeeded"), "diagnostics": {"message": "the hook said no"}}
        return {
            "deploymentTarget": {
                "ecsTarget": {"lifecycleEvents": [dict(event, lifecycleEventName=name) for name in EVENTS]}
            }
        }

    def stop_deployment(self, deploymentId: str, autoRollbackEnabled: bool) -> dict[str, Any]:
        assert autoRollbackEnabled
        stopped = next(each for each in self.deployments if each["deploymentId"] == deploymentId)
        if stopped["status"] not in ACTIVE:
            raise refusal("DeploymentAlreadyCompletedException", "no")
        rollback = deployment(
            len(self.deployments) + 1,
            1,
            "InProgress",
            creator="codeDeployRollback",
            rollbackInfo={"rollbackTriggeringDeploymentId": deploymentId},
        )
        stopped |= {"status": "Stopped", "rollbackInfo": {"rollbackDeploymentId": rollback["deploymentId"]}}
        self.deployments.append(rollback)
        self.weights = {BLUE: 100, GREEN: 0}
        self.service["taskSets"] = [task_set(1, BLUE, "d-1"), task_set(2, GREEN, deploymentId, "DRAINING")]
        return {"status": "Pending"}

    def create_deployment(self, revision: dict[str, Any], description: str, **asked: Any) -> dict[str, Any]:
        active = [each for each in self.deployments if each["status"] in ACTIVE]
        if active:
            raise refusal("DeploymentLimitExceededException", "no")
        number = int(revision["appSpecContent"]["sha256"].rpartition(" ")[2])
        made = deployment(len(self.deployments) + 1, number, "InProgress", description=description)
        self.deployments.append(made)
        if self.fails:
            made |= {"status": self.fails, "errorInformation": {"code": "HOOK_EXECUTION_FAILURE", "message": "a hook"}}
        else:
            here = next(each for each in self.service["taskSets"] if each["status"] == "PRIMARY")
            group = BLUE if here["loadBalancers"][0]["targetGroupArn"] == GREEN else GREEN
            self.weights = {BLUE: 0, GREEN: 0, group: 100}
            replaced = dict(here, status="ACTIVE")
            self.service["taskSets"] = [task_set(number, group, made["deploymentId"]), replaced]
        return {"deploymentId": made["deploymentId"]}

    # ---- what it stands on ----

    def describe_services(self, cluster: str, services: list[str]) -> dict[str, Any]:
        assert (cluster, services) == (ecs_region.CLUSTER, [SERVICE])
        return {"services": [self.service]}

    def describe_rules(self, ListenerArn: str) -> dict[str, Any]:
        groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in self.weights.items()]
        return {"Rules": [{"Actions": [{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}]}]}

    def describe_task_definition(self, taskDefinition: str) -> dict[str, Any]:
        number = int(taskDefinition.rpartition(":")[2])
        status = "INACTIVE" if number in self.inactive else "ACTIVE"
        found = ecs_region.definition(number, status=status)
        for container in found["containerDefinitions"]:
            container["image"] = f"registry.example/regami-web:v{number}"
        return {"taskDefinition": found}
