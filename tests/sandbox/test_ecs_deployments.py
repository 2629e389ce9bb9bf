# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments of good and bad builds, how they end, and what ECS remembers of them."""

from __future__ import annotations

import http.client
import time

import pytest
from botocore.exceptions import ClientError
from compute_helpers import EAST, WEST, facts, http_call, repoint, service, tasks, update, wait_steady
from core_helpers import connect, instance, query, wait_until

from sandbox.ecs.failure_detection import threshold

ENDED = ("SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")


def history(sandbox, region=EAST, **wanted):
    """Service deployments, newest first."""
    names, ecs = facts(sandbox, region), sandbox.boto("ecs", region)
    return ecs.list_service_deployments(cluster=names["cluster"], service=names["service"], **wanted)[
        "serviceDeployments"
    ]


def described(sandbox, brief):
    ecs = sandbox.boto("ecs", EAST)
    found = ecs.describe_service_deployments(serviceDeploymentArns=[brief["serviceDeploymentArn"]])
    return found["serviceDeployments"][0]


def revision(sandbox, arn):
    found = sandbox.boto("ecs", EAST).describe_service_revisions(serviceRevisionArns=[arn])
    return found["serviceRevisions"][0]


def number(definition):
    return definition.rpartition(":")[2]


def end_of(sandbox, arn=None, seconds=60):
    """The newest service deployment (or that one) when it has ended, described."""

    def ended():
        found = [each for each in history(sandbox) if arn in (None, each["serviceDeploymentArn"])]
        return found[0] if found[0]["status"] in ENDED else None

    return described(sandbox, wait_until(ended, "the end of the service deployment", seconds))


def ship(sandbox, build, **changes):
    """Deploy a build as the pipeline does; the id of its deployment."""
    if changes:
        update(sandbox, EAST, **changes)
    wait_steady(sandbox, EAST)
    sandbox.fault("bad-build", build=build)
    return service(sandbox, EAST)["deployments"][0]["id"]


def version(sandbox):
    address, _, port = facts(sandbox, EAST)["alb_url"].removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(address, int(port), timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().getheader("X-App-Version")
    finally:
        connection.close()


def refused(call, code, words=""):
    with pytest.raises(ClientError) as caught:
        call()
    assert (caught.value.response["Error"]["Code"], words in str(caught.value)) == (code, True)


@pytest.mark.parametrize(
    ("configured", "desired", "tasks"),
    [
        (None, 1, 3),
        (None, 25, 13),
        (None, 1000, 200),
        ({"type": "COUNT", "value": 1}, 25, 1),
        ({"type": "UNBOUNDED_PERCENT", "value": 10}, 20, 2),
        ({"type": "BOUNDED_PERCENT", "value": 100}, 5, 5),
    ],
)
def test_threshold_of_the_circuit_breaker(configured, desired, tasks):
    breaker = {"enable": True, "rollback": True} | ({"thresholdConfiguration": configured} if configured else {})
    assert threshold(breaker, desired) == tasks


def test_first_day_has_a_past(fresh_sandbox):
    ecs, steady = fresh_sandbox.boto("ecs", EAST), wait_steady(fresh_sandbox, EAST)
    listed = ecs.list_task_definitions(familyPrefix="regami-api", sort="DESC", maxResults=2)
    assert [number(arn) for arn in listed["taskDefinitionArns"]] == ["4", "3"]
    more = ecs.list_task_definitions(familyPrefix="regami-api", sort="DESC", nextToken=listed["nextToken"])
    assert [number(arn) for arn in more["taskDefinitionArns"]] == ["1"]
    inactive = ecs.list_task_definitions(familyPrefix="regami-api", status="INACTIVE")["taskDefinitionArns"]
    assert [number(arn) for arn in inactive] == ["2"]
    refused(lambda: update(fresh_sandbox, EAST, taskDefinition="regami-api:2"), "ClientException", "is inactive")

    past = history(fresh_sandbox)
    assert [each["status"] for each in past] == ["SUCCESSFUL"] * 3
    revisions = [revision(fresh_sandbox, each["targetServiceRevisionArn"]) for each in past]
    assert [number(each["taskDefinition"]) for each in revisions] == ["3", "2", "1"]
    v2, also_v2, v1 = [each["containerImages"][0]["imageDigest"] for each in revisions]
    assert v2 == also_v2 != v1
    assert steady["currentServiceDeployment"] == past[0]["serviceDeploymentArn"]
    assert steady["deployments"][0]["id"].rpartition("/")[2] == revisions[0]["serviceRevisionArn"].rpartition("/")[2]
    running = tasks(fresh_sandbox, EAST)[0]["containers"][0]
    assert (running["imageDigest"], version(fresh_sandbox)) == (v2, "v2")
    assert [number(each["taskDefinition"]) for each in (service(fresh_sandbox, WEST), steady)] == ["3", "3"]

    assert history(fresh_sandbox, status=["IN_PROGRESS"]) == []
    week = time.time() - 7 * 86400
    assert history(fresh_sandbox, createdAt={"after": week}) == past[:1]
    assert history(fresh_sandbox, createdAt={"before": week}, maxResults=1) == past[1:2]

    deleted = ecs.delete_task_definitions(taskDefinitions=["regami-api:2", "regami-api:3"])
    assert [each["status"] for each in deleted["taskDefinitions"]] == ["DELETE_IN_PROGRESS"]
    assert deleted["failures"][0]["arn"] == "regami-api:3"
    assert ecs.describe_task_definition(taskDefinition="regami-api:2")["taskDefinition"]["status"] == (
        "DELETE_IN_PROGRESS"
    )


def test_erroring_build_is_deployed_and_only_its_users_notice(fresh_sandbox):
    url = facts(fresh_sandbox, EAST)["alb_url"]
    ship(fresh_sandbox, "erroring")
    ended = end_of(fresh_sandbox)
    assert (ended["status"], version(fresh_sandbox)) == ("SUCCESSFUL", "v3-erroring")
    steady = wait_steady(fresh_sandbox, EAST)
    assert (number(steady["taskDefinition"]), steady["runningCount"]) == ("5", 2)
    answers = [http_call(url, "/v1/rows", {"id": each, "payload": "x"})[0] for each in range(8)]
    assert sorted(answers) == [201] * 4 + [500] * 4

    logs, cloudwatch = fresh_sandbox.boto("logs", EAST), fresh_sandbox.boto("cloudwatch", EAST)
    balancer = facts(fresh_sandbox, EAST)["load_balancer_arn"].partition(":loadbalancer/")[2]

    def lines():
        return logs.filter_log_events(logGroupName="/ecs/regami-api", filterPattern='"500" "POST"')["events"]

    def total():
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/ApplicationELB",
            MetricName="HTTPCode_Target_5XX_Count",
            Dimensions=[{"Name": "LoadBalancer", "Value": balancer}],
            StartTime=time.time() - 300,
            EndTime=time.time() + 60,
            Period=300,
            Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in points)

    wait_until(lambda: len(lines()) == 4, "the errors in the log")
    wait_until(lambda: total() == 4, "the errors in CloudWatch")

    # The way back, twice: the same task definition again is a deployment only when it is forced.
    before = history(fresh_sandbox)
    update(fresh_sandbox, EAST, taskDefinition="regami-api:3")
    assert end_of(fresh_sandbox)["status"] == "SUCCESSFUL"
    assert {version(fresh_sandbox) for _ in range(4)} == {"v2"}
    update(fresh_sandbox, EAST, taskDefinition="regami-api:3")
    assert len(history(fresh_sandbox)) == len(before) + 1
    update(fresh_sandbox, EAST, forceNewDeployment=True)
    assert len(history(fresh_sandbox)) == len(before) + 2


def test_crashing_build_is_rolled_back_by_the_circuit_breaker(fresh_sandbox):
    good, failed = service(fresh_sandbox, EAST)["deployments"][0]["id"], ship(fresh_sandbox, "crashing")
    ended = end_of(fresh_sandbox)
    reason = "ECS deployment circuit breaker: tasks failed to start."
    assert (ended["status"], ended["statusReason"]) == ("ROLLBACK_SUCCESSFUL", reason)
    breaker = ended["deploymentCircuitBreaker"]
    assert (breaker["status"], breaker["threshold"], breaker["failureCount"]) == ("TRIGGERED", 3, 3)
    assert number(revision(fresh_sandbox, ended["rollback"]["serviceRevisionArn"])["taskDefinition"]) == "3"
    steady = wait_steady(fresh_sandbox, EAST)
    assert [(each["id"], each["rolloutState"]) for each in steady["deployments"]] == [(good, "COMPLETED")]
    assert number(steady["taskDefinition"]) == "3"
    said = [event["message"].removeprefix("(service regami-service) ") for event in steady["events"]]
    for message in (
        f"(deployment {failed}) deployment failed: tasks failed to start.",
        f"rolling back to (deployment {good}).",
        f"(deployment {good}) deployment completed.",
    ):
        assert message in said
    # One more may have been on its way when the third had failed: that one was stopped.
    crashed = [each for each in tasks(fresh_sandbox, EAST, "STOPPED") if each["stopCode"] == "EssentialContainerExited"]
    assert len(crashed) >= 3
    for stopped in crashed:
        assert (stopped["startedBy"], stopped["containers"][0]["exitCode"]) == (failed, 1)
        assert stopped["stoppedReason"] == "Essential container in task exited"
    # The tasks of the good build have served all the time.
    assert {number(each["taskDefinitionArn"]) for each in tasks(fresh_sandbox, EAST)} == {"3"}
    assert all(each["startedBy"] == good for each in tasks(fresh_sandbox, EAST))


def test_deployment_that_nobody_gives_up_is_stopped_by_hand(fresh_sandbox):
    ecs = fresh_sandbox.boto("ecs", EAST)
    breaker = {"enable": False, "rollback": False}
    configuration = {"deploymentCircuitBreaker": breaker, "maximumPercent": 150, "minimumHealthyPercent": 50}
    stuck = ship(
        fresh_sandbox,
        "unhealthy",
        deploymentConfiguration=configuration,
        healthCheckGracePeriodSeconds=0,
        desiredCount=2,
    )
    wait_until(lambda: service(fresh_sandbox, EAST)["deployments"][0]["failedTasks"] >= 4, "tasks that fail")
    during, going_on = service(fresh_sandbox, EAST), history(fresh_sandbox, status=["IN_PROGRESS"])
    assert [(each["status"], each["rolloutState"]) for each in during["deployments"]] == [
        ("PRIMARY", "IN_PROGRESS"),
        ("ACTIVE", "COMPLETED"),
    ]
    # Half of two must serve, and there may be three: one of the old is left.
    assert [each["desiredCount"] for each in during["deployments"]] == [2, 1]
    failed = next(each for each in tasks(fresh_sandbox, EAST, "STOPPED") if each["startedBy"] == stuck)
    group = facts(fresh_sandbox, EAST)["target_group_arn"]
    assert (failed["stopCode"], failed["stoppedReason"]) == (
        "ServiceSchedulerInitiated",
        f"Task failed ELB health checks in (target-group {group})",
    )
    assert any(
        f"is unhealthy in (target-group {group}) due to (reason Health checks failed with these codes: [500])"
        in event["message"]
        for event in during["events"]
    )

    arn = going_on[0]["serviceDeploymentArn"]
    refused(
        lambda: ecs.stop_service_deployment(serviceDeploymentArn=arn, stopType="ABORT"), "InvalidParameterException"
    )
    # What is rolled back to is the image that ran, whatever its tag means by now: while that is gone, nothing starts.
    fresh_sandbox.fault("image-gone", tag="v2")
    assert ecs.stop_service_deployment(serviceDeploymentArn=arn)["serviceDeploymentArn"] == arn
    digest = revision(fresh_sandbox, history(fresh_sandbox)[1]["targetServiceRevisionArn"])["containerImages"][0]
    missing = f"/regami-api@{digest['imageDigest']}: not found"

    def cannot_be_pulled():
        return [each for each in tasks(fresh_sandbox, EAST, "STOPPED") if each["stoppedReason"].endswith(missing)]

    wait_until(cannot_be_pulled, "a task of the rollback that finds no image")
    assert history(fresh_sandbox)[0]["status"] == "ROLLBACK_IN_PROGRESS"
    assert ecs.stop_service_deployment(serviceDeploymentArn=arn)["serviceDeploymentArn"] == arn
    update(fresh_sandbox, EAST, healthCheckGracePeriodSeconds=30)  # the good build gets the time that it needs
    fresh_sandbox.heal("image-gone")
    ended = end_of(fresh_sandbox, arn)
    assert (ended["status"], ended["deploymentCircuitBreaker"]["status"]) == ("ROLLBACK_SUCCESSFUL", "DISABLED")
    assert number(wait_steady(fresh_sandbox, EAST)["taskDefinition"]) == "3"
    refused(lambda: ecs.stop_service_deployment(serviceDeploymentArn=arn), "ConflictException")
    refused(lambda: ecs.stop_service_deployment(serviceDeploymentArn=arn[:-1]), "ServiceDeploymentNotFoundException")


def test_image_that_is_gone_cannot_be_pulled(fresh_sandbox):
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    fresh_sandbox.fault("image-gone", tag="v1", region=EAST)
    update(fresh_sandbox, EAST, taskDefinition="regami-api:1", deploymentConfiguration=breaker)
    ended = end_of(fresh_sandbox)
    assert (ended["status"], "stoppedAt" in ended, "rollback" in ended) == ("STOPPED", True, False)
    after = service(fresh_sandbox, EAST)
    assert [(each["status"], each["rolloutState"]) for each in after["deployments"]] == [
        ("PRIMARY", "FAILED"),
        ("ACTIVE", "COMPLETED"),
    ]
    stopped = tasks(fresh_sandbox, EAST, "STOPPED")[-1]
    assert stopped["stopCode"] == "TaskFailedToStart"
    image = f"{fresh_sandbox.state['account_id']}.dkr.ecr.{EAST}.amazonaws.com/regami-api:v1"
    assert stopped["stoppedReason"] == (
        f"CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref {image}: "
        f"{image}: not found"
    )
    assert stopped["containers"][0]["reason"] == stopped["stoppedReason"]
    assert (version(fresh_sandbox), len(tasks(fresh_sandbox, EAST))) == ("v2", 2)


def test_newer_deployment_stops_the_one_that_goes_on(fresh_sandbox):
    update(fresh_sandbox, EAST, taskDefinition="regami-api:1")
    fresh_sandbox.fault("bad-build", build="leaking")
    newest, superseded = history(fresh_sandbox)[:2]
    assert end_of(fresh_sandbox, newest["serviceDeploymentArn"])["status"] == "SUCCESSFUL"
    assert end_of(fresh_sandbox, superseded["serviceDeploymentArn"])["status"] == "STOPPED"
    for each in range(6):
        assert http_call(facts(fresh_sandbox, EAST)["alb_url"], "/v1/rows", {"id": each, "payload": "x"})[0] == 201
    kept = query(
        connect(fresh_sandbox, EAST, "regami-db-primary"),
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'regami-api'",
    )
    assert kept[0][0] >= 6

    # An alarm is the other thing that ends one.
    alarm = {"alarmNames": ["errors"], "enable": True, "rollback": True}
    cloudwatch = fresh_sandbox.boto("cloudwatch", EAST)
    cloudwatch.put_metric_alarm(
        AlarmName="errors",
        Namespace="AWS/ApplicationELB",
        MetricName="HTTPCode_Target_5XX_Count",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        Period=60,
        Statistic="Sum",
        Threshold=1,
    )
    update(fresh_sandbox, EAST, deploymentConfiguration={"alarms": alarm})
    wait_steady(fresh_sandbox, EAST)
    cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="drill")
    update(fresh_sandbox, EAST, taskDefinition="regami-api:3")
    ended = end_of(fresh_sandbox)
    assert (ended["status"], ended["alarms"]) == (
        "ROLLBACK_SUCCESSFUL",
        {"status": "TRIGGERED", "alarmNames": ["errors"], "triggeredAlarmNames": ["errors"]},
    )
    assert number(service(fresh_sandbox, EAST)["taskDefinition"]) == "5"


@pytest.mark.parametrize("code", ["UnsupportedFeatureException", "UnknownOperationException"])
def test_region_without_service_deployments(sandbox, code):
    sandbox.fault("service-deployments-unknown", code=code)
    try:
        refused(lambda: history(sandbox), code)
        arns = ["arn:aws:ecs:us-east-1:123456789012:service-deployment/c/s/x"]
        ecs = sandbox.boto("ecs", EAST)
        refused(lambda: ecs.describe_service_deployments(serviceDeploymentArns=arns), code)
        refused(lambda: ecs.stop_service_deployment(serviceDeploymentArn=arns[0]), code)
        assert service(sandbox, EAST)["status"] == "ACTIVE"
    finally:
        sandbox.heal("service-deployments-unknown")
    missing = sandbox.boto("ecs", EAST).describe_service_deployments(serviceDeploymentArns=arns)
    assert missing["failures"] == [{"arn": arns[0], "reason": "MISSING"}]


def test_another_controller_owns_what_is_deployed(fresh_sandbox):
    ecs, cluster = fresh_sandbox.boto("ecs", EAST), facts(fresh_sandbox, EAST)["cluster"]
    for controller, instead in (("CODE_DEPLOY", "Use AWS CodeDeploy to"), ("EXTERNAL", "Create a new task set")):
        name = {"cluster": cluster, "service": controller.lower()}
        made = ecs.create_service(
            cluster=cluster,
            serviceName=name["service"],
            taskDefinition="regami-api:3",
            desiredCount=0,
            deploymentController={"type": controller},
        )["service"]
        assert (made["deployments"], made["deploymentController"]["type"]) == ([], controller)
        for change in ({"taskDefinition": "regami-api:1"}, {"forceNewDeployment": True}, {"platformVersion": "1.4.0"}):
            wanted = name | change
            refused(lambda wanted=wanted: ecs.update_service(**wanted), "InvalidParameterException", instead)
        assert (
            ecs.update_service(**name, healthCheckGracePeriodSeconds=7)["service"]["healthCheckGracePeriodSeconds"] == 7
        )


def test_slow_build_runs_before_it_serves(fresh_sandbox):
    ecs = fresh_sandbox.boto("ecs", EAST)
    known = ecs.describe_task_definition(taskDefinition="regami-api:3")["taskDefinition"]
    container = known["containerDefinitions"][0]
    container["image"] = container["image"].replace(":v2", ":v5-slow")
    container["environment"].append({"name": "APP_SLOW_SECONDS", "value": "3.5"})
    endpoint = instance(fresh_sandbox, EAST, "regami-db-primary")["Endpoint"]
    address = f"{endpoint['Address']}:{endpoint['Port']}"
    slow = repoint(fresh_sandbox, EAST, address, containerDefinitions=[container])
    # A container runs when its process does: with two wanted and none needed, the old ones end at once.
    configuration = {"maximumPercent": 100, "minimumHealthyPercent": 0}
    deployment = update(fresh_sandbox, EAST, taskDefinition=slow, deploymentConfiguration=configuration)
    new = deployment["deployments"][0]["id"]

    def waiting():
        seen = [each for each in tasks(fresh_sandbox, EAST) if each["startedBy"] == new]
        return len(seen) == 2 and {(each["lastStatus"], each["healthStatus"]) for each in seen} == {
            ("RUNNING", "UNHEALTHY")
        }

    wait_until(waiting, "two tasks that run and do not serve")
    assert service(fresh_sandbox, EAST)["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    # Within the grace period nobody replaces them.
    assert (end_of(fresh_sandbox)["status"], version(fresh_sandbox)) == ("SUCCESSFUL", "v5-slow")
    assert service(fresh_sandbox, EAST)["deployments"][0]["failedTasks"] == 0
