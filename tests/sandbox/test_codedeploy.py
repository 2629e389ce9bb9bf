# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeDeploy, blue/green, against a real client: what a deployment does to tasks and traffic, and how it is undone."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from compute_helpers import http_call
from core_helpers import wait_until

from sandbox.client import Sandbox

EVENTS = [
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "AllowTestTraffic",
    "AfterAllowTestTraffic",
    "BeforeAllowTraffic",
    "AllowTraffic",
    "AfterAllowTraffic",
]
ACTIVE = ["Created", "Queued", "InProgress", "Baking", "Ready"]


class Web:
    """regami-web and its deployment group, through the API alone."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.facts = sandbox, sandbox.state["codedeploy"]
        self.codedeploy, self.ecs, self.elbv2 = (sandbox.boto(name) for name in ("codedeploy", "ecs", "elbv2"))
        self.names = {
            "applicationName": self.facts["application"],
            "deploymentGroupName": self.facts["deployment_group"],
        }

    def service(self) -> dict:
        names = {"cluster": self.facts["cluster"], "services": [self.facts["service"]]}
        return self.ecs.describe_services(**names)["services"][0]

    def idle(self) -> None:
        """No deployment goes on, and one task set serves."""
        for each in self.ids(ACTIVE):
            if self.get(each)["instanceTerminationWaitTimeStarted"]:
                self.codedeploy.continue_deployment(deploymentId=each, deploymentWaitType="TERMINATION_WAIT")
        wait_until(lambda: not self.ids(ACTIVE), "no active deployment")
        wait_until(
            lambda: [each["stabilityStatus"] for each in self.service()["taskSets"]] == ["STEADY_STATE"], "one task set"
        )

    def ids(self, statuses: list[str], **filters: Any) -> list[str]:
        return self.codedeploy.list_deployments(**self.names, includeOnlyStatuses=statuses, **filters)["deployments"]

    def ship(self, build: str = "good", stage: str = "begun") -> str:
        """A pipeline's deployment of a build; its id."""
        self.sandbox.fault("bad-blue-green", build=build, stage=stage)
        return self.codedeploy.get_deployment_group(**self.names)["deploymentGroupInfo"]["lastAttemptedDeployment"][
            "deploymentId"
        ]

    def create(self, task_definition: str, **more: Any) -> str:
        properties = {
            "TaskDefinition": task_definition,
            "LoadBalancerInfo": {"ContainerName": "app", "ContainerPort": 8000},
        }
        service = {"TargetService": {"Type": "AWS::ECS::Service", "Properties": properties}}
        content = json.dumps({"version": 0.0, "Resources": [service]})
        revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
        return self.codedeploy.create_deployment(**self.names, revision=revision, **more)["deploymentId"]

    def at_once(self, task_definition: str | None = None) -> str:
        """A deployment of this revision, or of the present one again, that has moved all traffic."""
        named = task_definition or self.service()["taskDefinition"]
        made = self.create(named, deploymentConfigName="CodeDeployDefault.ECSAllAtOnce")
        wait_until(lambda: self.get(made)["instanceTerminationWaitTimeStarted"], "waits to terminate")
        return made

    def get(self, deployment: str) -> dict:
        return self.codedeploy.get_deployment(deploymentId=deployment)["deploymentInfo"]

    def wait(self, deployment: str, status: str) -> dict:
        wait_until(lambda: self.get(deployment)["status"] == status, f"{deployment} {status}")
        return self.get(deployment)

    def target(self, deployment: str) -> dict:
        (target,) = self.codedeploy.list_deployment_targets(deploymentId=deployment)["targetIds"]
        found = self.codedeploy.get_deployment_target(deploymentId=deployment, targetId=target)
        return found["deploymentTarget"]["ecsTarget"]

    def events(self, deployment: str) -> dict[str, str]:
        return {each["lifecycleEventName"]: each["status"] for each in self.target(deployment)["lifecycleEvents"]}

    def weights(self, listener: str = "listener_arn") -> dict[str, int]:
        (found,) = self.elbv2.describe_listeners(ListenerArns=[self.facts[listener]])["Listeners"]
        groups = found["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
        return {each["TargetGroupArn"]: each["Weight"] for each in groups}

    def task_sets(self) -> dict[str, str]:
        """{revision: status}."""
        return {each["taskDefinition"].rpartition(":")[2]: each["status"] for each in self.service()["taskSets"]}

    def primary(self) -> str:
        return self.service()["taskDefinition"].rpartition(":")[2]


@pytest.fixture
def web(sandbox: Sandbox) -> Iterator[Web]:
    """Whatever the tests before have deployed: it serves, and nothing goes on."""
    found = Web(sandbox)
    found.idle()
    yield found
    for each in found.ids(ACTIVE):
        found.codedeploy.stop_deployment(deploymentId=each, autoRollbackEnabled=True)


def refused(call: Callable, *args: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(*args, **arguments)
    return error.value.response["Error"]["Code"]


def test_a_deployment_moves_the_traffic_and_ends_the_old_tasks(web: Web) -> None:
    before, (blue, green) = web.primary(), web.facts["target_group_arns"]
    old = next(arn for arn, weight in web.weights().items() if weight)
    new = green if old == blue else blue
    deployment = web.ship(stage="shifting")
    assert web.weights() == {old: 90, new: 10}
    assert web.weights("test_listener_arn") == {new: 1}
    assert web.task_sets()[before] == "PRIMARY" and list(web.task_sets().values()) == ["PRIMARY", "ACTIVE"]
    assert web.events(deployment) | {"AllowTraffic": "?"} == dict.fromkeys(EVENTS, "Succeeded") | {
        "AllowTraffic": "?",
        "AfterAllowTraffic": "Pending",
    }
    assert refused(web.create, web.service()["taskDefinition"]) == "DeploymentLimitExceededException"
    wait_until(lambda: web.weights() == {old: 0, new: 100}, "all traffic moved")
    wait_until(lambda: web.get(deployment)["instanceTerminationWaitTimeStarted"], "waits to terminate")
    assert (web.get(deployment)["status"], web.task_sets()[before]) == ("InProgress", "ACTIVE")
    web.idle()
    found = web.get(deployment)
    assert found["startTime"] < found["completeTime"]
    assert found["status"] == "Succeeded" and "deploymentOverview" not in found
    assert list(web.task_sets().values()) == ["PRIMARY"] and web.primary() != before
    status, _ = http_call(web.facts["alb_url"], "/health")
    assert status == 200
    assert refused(web.codedeploy.stop_deployment, deploymentId=deployment) == "DeploymentAlreadyCompletedException"


def test_the_appspec_is_told_by_its_revision_only(web: Web) -> None:
    (deployment, *_) = web.ids(["Succeeded"])
    revision = web.get(deployment)["revision"]
    assert "content" not in revision["appSpecContent"]
    known = web.codedeploy.get_application_revision(applicationName=web.names["applicationName"], revision=revision)
    (resource,) = json.loads(known["revision"]["appSpecContent"]["content"])["Resources"]
    assert resource["TargetService"]["Properties"]["TaskDefinition"] == web.service()["taskDefinition"]


@pytest.mark.parametrize("stage", ["shifting", "shifted"])
def test_stopped_with_rollback_the_old_tasks_have_all_traffic_again(web: Web, stage: str) -> None:
    before, weights = web.service()["taskSets"], web.weights()
    deployment = web.ship("erroring", "shifting") if stage == "shifting" else web.at_once()
    answer = web.codedeploy.stop_deployment(deploymentId=deployment, autoRollbackEnabled=True)
    assert answer["status"] == "Pending"
    stopped = web.wait(deployment, "Stopped")
    assert stopped["errorInformation"]["code"] == "MANUAL_STOP"
    rollback = web.wait(stopped["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert (rollback["creator"], rollback["deploymentConfigName"]) == (
        "codeDeployRollback",
        "CodeDeployDefault.ECSAllAtOnce",
    )
    assert rollback["rollbackInfo"]["rollbackTriggeringDeploymentId"] == deployment
    web.idle()
    # No new task set: the original was there all the time.
    assert [each["id"] for each in web.service()["taskSets"]] == [each["id"] for each in before]
    assert web.weights() == weights
    events = web.events(deployment)
    assert events["AllowTraffic"] == ("Failed" if stage == "shifting" else "Succeeded")
    assert events["AfterAllowTraffic"] == ("Skipped" if stage == "shifting" else "Succeeded")


def test_stopped_without_rollback_the_traffic_stays_divided_until_the_next_deployment(web: Web) -> None:
    before = web.primary()
    deployment = web.ship("erroring", "shifting")
    web.codedeploy.stop_deployment(deploymentId=deployment, autoRollbackEnabled=False)
    assert "rollbackInfo" not in web.wait(deployment, "Stopped")
    assert sorted(web.weights().values()) == [10, 90]
    web.at_once(f"{web.facts['task_family']}:{before}")
    web.idle()
    assert web.primary() == before
    assert sorted(web.weights().values()) == [0, 100]


def test_one_that_cannot_install_fails_and_is_rolled_back_by_itself(web: Web) -> None:
    before = web.service()["taskSets"]
    known = web.ecs.describe_task_definition(taskDefinition=web.service()["taskDefinition"])["taskDefinition"]
    names = ("family", "networkMode", "cpu", "memory", "containerDefinitions")
    arn = web.ecs.register_task_definition(**{name: known[name] for name in names})["taskDefinition"][
        "taskDefinitionArn"
    ]
    web.ecs.deregister_task_definition(taskDefinition=arn)
    found = web.wait(web.create(arn), "Failed")
    assert found["errorInformation"]["code"] == "ECS_UPDATE_ERROR"
    assert "inactive" in found["errorInformation"]["message"]
    web.wait(found["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert web.events(found["deploymentId"])["Install"] == "Failed"
    assert [each["id"] for each in web.service()["taskSets"]] == [each["id"] for each in before]


def test_an_alarm_stops_it(web: Web) -> None:
    cloudwatch = web.sandbox.boto("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="web-5xx", ComparisonOperator="GreaterThanThreshold", EvaluationPeriods=1, Threshold=1.0
    )
    weights = web.weights()
    alarms = {"enabled": True, "alarms": [{"name": "web-5xx"}]}
    deployment = web.create(web.service()["taskDefinition"], overrideAlarmConfiguration=alarms)
    wait_until(lambda: 10 in web.weights().values(), "the traffic shifts")
    cloudwatch.set_alarm_state(AlarmName="web-5xx", StateValue="ALARM", StateReason="a test")
    found = web.wait(deployment, "Stopped")
    assert found["errorInformation"]["code"] == "ALARM_ACTIVE" and "<web-5xx>" in found["errorInformation"]["message"]
    web.wait(found["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert web.weights() == weights


def test_it_waits_to_be_continued_where_the_group_says_so(web: Web) -> None:
    info = web.codedeploy.get_deployment_group(**web.names)["deploymentGroupInfo"]
    update = {
        "applicationName": web.names["applicationName"],
        "currentDeploymentGroupName": web.names["deploymentGroupName"],
    }
    usual = info["blueGreenDeploymentConfiguration"]
    patient = {
        "terminateBlueInstancesOnDeploymentSuccess": {"action": "TERMINATE", "terminationWaitTimeInMinutes": 600},
        "deploymentReadyOption": {"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 600},
    }
    web.codedeploy.update_deployment_group(**update, blueGreenDeploymentConfiguration=patient)
    try:
        deployment = web.create(web.service()["taskDefinition"], deploymentConfigName="CodeDeployDefault.ECSAllAtOnce")
        go_on = web.codedeploy.continue_deployment
        assert refused(go_on, deploymentId=deployment) == "DeploymentIsNotInReadyStateException"
        web.wait(deployment, "Ready")
        assert web.events(deployment)["AllowTraffic"] == "Pending"
        go_on(deploymentId=deployment, deploymentWaitType="READY_WAIT")
        wait_until(lambda: web.get(deployment)["instanceTerminationWaitTimeStarted"], "waits to terminate")
        assert web.events(deployment) == dict.fromkeys(EVENTS, "Succeeded")
        go_on(deploymentId=deployment, deploymentWaitType="TERMINATION_WAIT")
        web.wait(deployment, "Succeeded")
    finally:
        web.codedeploy.update_deployment_group(**update, blueGreenDeploymentConfiguration=usual)


def test_deployments_are_listed_by_status_and_time(web: Web) -> None:
    everything = web.ids([])
    created = [each["createTime"] for each in map(web.get, everything)]
    assert all(newer >= older for newer, older in itertools.pairwise(created))
    now = datetime.datetime.now(datetime.UTC)
    month_ago = now - datetime.timedelta(days=30)
    (first,) = web.ids(["Succeeded"], createTimeRange={"start": now - datetime.timedelta(days=90), "end": month_ago})
    assert first == everything[-1]
    assert first not in web.ids(["Succeeded"], createTimeRange={"start": month_ago, "end": now})
    assert (
        web.ids(
            ["Failed", "Stopped"], createTimeRange={"start": month_ago - datetime.timedelta(days=60), "end": month_ago}
        )
        == []
    )
    found = web.codedeploy.batch_get_deployments(deploymentIds=everything[:25])["deploymentsInfo"]
    assert [each["deploymentId"] for each in found] == everything[:25]


def test_what_it_refuses(web: Web) -> None:
    codedeploy, application = web.codedeploy, web.names["applicationName"]
    get_group = codedeploy.get_deployment_group
    assert refused(get_group, applicationName="x", deploymentGroupName="y") == "ApplicationDoesNotExistException"
    assert (
        refused(get_group, applicationName=application, deploymentGroupName="y")
        == "DeploymentGroupDoesNotExistException"
    )
    assert refused(codedeploy.get_deployment, deploymentId="d-000000000") == "DeploymentDoesNotExistException"
    assert refused(codedeploy.get_deployment, deploymentId="x") == "InvalidDeploymentIdException"
    assert refused(codedeploy.create_deployment, **web.names) == "RevisionRequiredException"
    assert refused(web.create, "x", deploymentConfigName="y") == "DeploymentConfigDoesNotExistException"
    assert refused(codedeploy.list_deployments, applicationName=application) == "DeploymentGroupNameRequiredException"
    assert refused(codedeploy.batch_get_deployments, deploymentIds=["d-1"] * 26) == "BatchLimitExceededException"
    update = {"cluster": web.facts["cluster"], "service": web.facts["service"]}
    assert refused(web.ecs.update_service, **update, taskDefinition="regami-web:1") == "InvalidParameterException"
    assert refused(web.ecs.update_service, **update, forceNewDeployment=True) == "InvalidParameterException"
