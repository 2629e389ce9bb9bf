# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ECS services and load balancers, against the processes behind them."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from botocore.exceptions import ClientError
from compute_helpers import (
    EAST,
    WEST,
    facts,
    http_call,
    repoint,
    service,
    target_health,
    tasks,
    update,
    wait_healthy,
    wait_steady,
)
from core_helpers import connect, instance, row_numbers, wait_until


def messages(sandbox, region):
    return [event["message"] for event in service(sandbox, region)["events"]]


def endpoint(sandbox, region):
    found = instance(sandbox, region, facts(sandbox, region)["db_instance"])["Endpoint"]
    return f"{found['Address']}:{found['Port']}"


def test_seeded_services_are_as_configured(fresh_sandbox):
    primary, standby = service(fresh_sandbox, EAST), service(fresh_sandbox, WEST)
    assert (primary["desiredCount"], primary["runningCount"], standby["runningCount"]) == (2, 2, 0)
    assert primary["healthCheckGracePeriodSeconds"] == 30
    assert primary["deploymentConfiguration"]["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
    assert target_health(fresh_sandbox, EAST) == [{"State": "healthy"}] * 2
    assert target_health(fresh_sandbox, WEST) == []
    floors = {
        region: fresh_sandbox.boto("application-autoscaling", region).describe_scalable_targets(ServiceNamespace="ecs")[
            "ScalableTargets"
        ][0]["MinCapacity"]
        for region in (EAST, WEST)
    }
    assert floors == {EAST: 2, WEST: 0}


def test_application_writes_to_its_database(fresh_sandbox):
    url = facts(fresh_sandbox, EAST)["alb_url"]
    assert http_call(url, "/health?check=db")[1] == {"status": "ok", "database": "connected", "writable": True}
    assert http_call(url, "/v1/rows", {"id": 7, "payload": "x"}) == (
        201,
        {"id": 7, "database": endpoint(fresh_sandbox, EAST)},
    )
    assert http_call(url, "/v1/rows", {"id": 7, "payload": "x"})[0] == 201
    assert row_numbers(connect(fresh_sandbox, EAST, "regami-db-primary")) == [7]
    assert http_call(url, "/v1/rows/7")[1]["payload"] == "x"
    assert http_call(url, "/v1/rows/8")[0] == 404
    assert http_call(url, "/v1/auth/login", {"email": "test@example.com", "password": "wrong"})[0] == 401
    status, answer = http_call(url, "/v1/auth/login", {"email": "test@example.com", "password": "test"})
    assert (status, list(answer)) == (200, ["token"])


def test_dead_database_leaves_targets_healthy_and_writes_refused(fresh_sandbox):
    url = facts(fresh_sandbox, EAST)["alb_url"]
    assert http_call(url, "/v1/rows", {"id": 1, "payload": "x"})[0] == 201
    fresh_sandbox.fault("primary-killed")
    wait_until(lambda: http_call(url, "/v1/rows", {"id": 2, "payload": "x"})[0] == 503, "writes are refused")
    assert http_call(url, "/health?check=db")[0] == 503
    assert http_call(url, "/health")[0] == 200
    assert target_health(fresh_sandbox, EAST) == [{"State": "healthy"}] * 2
    logs = fresh_sandbox.boto("logs", EAST)

    def errors():
        found = logs.filter_log_events(logGroupName=facts(fresh_sandbox, EAST)["log_group"], filterPattern="ERROR")
        return [event for event in found["events"] if "/v1/rows" in event["message"]]

    event = wait_until(errors, "the application's error in CloudWatch Logs")[0]
    assert re.fullmatch(r"app/app/[0-9a-f]{32}", event["logStreamName"])


def test_standby_starts_within_seconds(fresh_sandbox):
    before = service(fresh_sandbox, WEST)
    update(fresh_sandbox, WEST, desiredCount=2)
    wait_healthy(fresh_sandbox, WEST, 2)
    after = wait_steady(fresh_sandbox, WEST)
    assert (after["runningCount"], after["pendingCount"]) == (2, 0)
    # Scaling is no deployment.
    assert [each["id"] for each in after["deployments"]] == [before["deployments"][0]["id"]]
    # The two targets come together or one after the other.
    steady, *registered, started = messages(fresh_sandbox, WEST)[: -len(before["events"])]
    assert steady == "(service regami-service-secondary) has reached a steady state."
    assert all(
        re.fullmatch(r"\(service \S+\) registered \d targets in \(target-group \S+\)", each) for each in registered
    )
    assert re.fullmatch(r"\(service \S+\) has started 2 tasks: \(task \w+\) \(task \w+\)\.", started)
    for task in tasks(fresh_sandbox, WEST):
        assert (task["lastStatus"], task["taskDefinitionArn"]) == ("RUNNING", after["taskDefinition"])


def test_scaling_to_zero_ends_every_process(fresh_sandbox):
    url, names = facts(fresh_sandbox, EAST)["alb_url"], facts(fresh_sandbox, EAST)
    http_call(url, "/v1/rows", {"id": 1, "payload": "x"})
    arns = [task["taskArn"] for task in tasks(fresh_sandbox, EAST)]
    update(fresh_sandbox, EAST, desiredCount=0)
    ecs = fresh_sandbox.boto("ecs", EAST)

    def all_stopped():
        found = ecs.describe_tasks(cluster=names["cluster"], tasks=arns)["tasks"]
        return all(task["lastStatus"] == "STOPPED" for task in found)

    wait_until(all_stopped, "both tasks STOPPED", seconds=20)
    assert service(fresh_sandbox, EAST)["runningCount"] == 0
    assert tasks(fresh_sandbox, EAST) == []
    assert [task["containers"][0]["exitCode"] for task in tasks(fresh_sandbox, EAST, "STOPPED")] == [0, 0]
    status, page = http_call(url, "/health")
    assert (status, "503 Service Temporarily Unavailable" in page) == (503, True)
    sessions = connect(fresh_sandbox, EAST, "regami-db-primary").cursor()
    sessions.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'regami-api'")
    assert sessions.fetchone() == (0,)


def test_tasks_drain_with_a_request_in_hand(fresh_sandbox):
    """A request that was being answered when its target was deregistered must not keep the task for ever."""
    url = facts(fresh_sandbox, EAST)["alb_url"]
    http_call(url, "/v1/rows", {"id": 1, "payload": "x"})
    fresh_sandbox.control("load", action="start")
    journal = fresh_sandbox.home / "load" / "acks.jsonl"
    wait_until(lambda: journal.exists() and journal.read_text(), "the load writes")
    update(fresh_sandbox, EAST, desiredCount=0)

    def all_stopped():
        return [task["lastStatus"] for task in tasks(fresh_sandbox, EAST, "STOPPED")] == ["STOPPED"] * 2

    wait_until(all_stopped, "both tasks STOPPED", seconds=20)


def test_deployment_replaces_tasks_without_a_failed_request(fresh_sandbox):
    url, before = facts(fresh_sandbox, EAST)["alb_url"], service(fresh_sandbox, EAST)
    arn = repoint(fresh_sandbox, EAST, endpoint(fresh_sandbox, EAST))
    during = update(fresh_sandbox, EAST, taskDefinition=arn)
    assert [(each["status"], each["rolloutState"]) for each in during["deployments"]] == [
        ("PRIMARY", "IN_PROGRESS"),
        ("ACTIVE", "COMPLETED"),
    ]
    new = during["deployments"][0]["id"]
    assert new != before["deployments"][0]["id"]
    answers = {http_call(url, "/health")[0]}
    while service(fresh_sandbox, EAST)["deployments"][0]["rolloutState"] == "IN_PROGRESS":
        answers.add(http_call(url, "/health")[0])
    after = wait_steady(fresh_sandbox, EAST)
    assert answers == {200}
    assert [(each["id"], each["runningCount"]) for each in after["deployments"]] == [(new, 2)]
    assert f"(service regami-service) (deployment {new}) deployment completed." in messages(fresh_sandbox, EAST)
    assert {task["taskDefinitionArn"] for task in tasks(fresh_sandbox, EAST)} == {arn}


def test_circuit_breaker_rolls_back(fresh_sandbox):
    before = service(fresh_sandbox, EAST)
    known = fresh_sandbox.boto("ecs", EAST).describe_task_definition(taskDefinition="regami-api")["taskDefinition"]
    container = known["containerDefinitions"][0]
    container["secrets"] = [{"name": "DATABASE_PASSWORD", "valueFrom": container["secrets"][0]["valueFrom"] + "x"}]
    arn = repoint(fresh_sandbox, EAST, endpoint(fresh_sandbox, EAST), containerDefinitions=[container])
    failed = update(fresh_sandbox, EAST, taskDefinition=arn)["deployments"][0]["id"]
    rolled_back = f"(service regami-service) (deployment {failed}) deployment failed: tasks failed to start."
    wait_until(lambda: rolled_back in messages(fresh_sandbox, EAST), "the circuit breaker")
    after = wait_steady(fresh_sandbox, EAST)
    assert after["taskDefinition"] == before["taskDefinition"]
    assert [each["id"] for each in after["deployments"]] == [before["deployments"][0]["id"]]
    reasons = {task["stoppedReason"].partition(":")[0] for task in tasks(fresh_sandbox, EAST, "STOPPED")}
    assert reasons == {"ResourceInitializationError"}


def test_killed_task_is_replaced(fresh_sandbox):
    victim = tasks(fresh_sandbox, EAST)[0]
    number = victim["taskArn"].rpartition("/")[2]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as environ:
                    if f"APP_TASK={number}".encode() in environ.read().split(b"\0"):
                        os.kill(int(entry), signal.SIGKILL)
            except OSError:
                continue
    wait_until(lambda: tasks(fresh_sandbox, EAST, "STOPPED"), "the task is STOPPED")
    stopped = tasks(fresh_sandbox, EAST, "STOPPED")[0]
    assert (stopped["stoppedReason"], stopped["containers"][0]["exitCode"]) == (
        "Essential container in task exited",
        137,
    )
    wait_healthy(fresh_sandbox, EAST, 2)


def test_stop_task(fresh_sandbox):
    names, ecs = facts(fresh_sandbox, EAST), fresh_sandbox.boto("ecs", EAST)
    victim = tasks(fresh_sandbox, EAST)[0]["taskArn"]
    assert ecs.stop_task(cluster=names["cluster"], task=victim, reason="drill")["task"]["desiredStatus"] == "STOPPED"
    wait_until(lambda: len(tasks(fresh_sandbox, EAST)) == 2, "a replacement")
    assert tasks(fresh_sandbox, EAST, "STOPPED")[0]["stoppedReason"] == "drill"
    missing = ecs.describe_tasks(cluster=names["cluster"], tasks=["0" * 32])
    assert (missing["tasks"], missing["failures"][0]["reason"]) == ([], "MISSING")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("regami-api:LATEST", "Invalid revision number. Number: LATEST"),
        ("regami-api:99", "TaskDefinition not found."),
        ("nothing", "TaskDefinition not found."),
    ],
)
def test_unknown_task_definition_is_refused(sandbox, definition, message):
    before = service(sandbox, WEST)["deployments"]
    with pytest.raises(ClientError, match=re.escape(message)) as caught:
        update(sandbox, WEST, taskDefinition=definition)
    assert caught.value.response["Error"]["Code"] == "ClientException"
    assert service(sandbox, WEST)["deployments"] == before


def test_task_definitions_are_listed_in_order(fresh_sandbox):
    ecs = fresh_sandbox.boto("ecs", EAST)
    arns = [repoint(fresh_sandbox, EAST, f"127.0.0.1:{port}") for port in range(10)]
    ecs.deregister_task_definition(taskDefinition=arns[-1])
    listed = ecs.list_task_definitions(familyPrefix="regami-api", sort="DESC", maxResults=3)
    assert [arn.rpartition(":")[2] for arn in listed["taskDefinitionArns"]] == ["13", "12", "11"]
    inactive = ecs.list_task_definitions(familyPrefix="regami-api", status="INACTIVE")["taskDefinitionArns"]
    assert [arn.rpartition(":")[2] for arn in inactive] == ["2", "14"]
    latest = ecs.describe_task_definition(taskDefinition="regami-api")["taskDefinition"]
    assert latest["revision"] == 13
    with pytest.raises(ClientError, match="TaskDefinition is inactive"):
        update(fresh_sandbox, EAST, taskDefinition=arns[-1])


def test_standby_unhealthy(fresh_sandbox):
    fresh_sandbox.fault("standby-unhealthy")
    arn = repoint(fresh_sandbox, WEST, endpoint(fresh_sandbox, WEST))
    update(fresh_sandbox, WEST, desiredCount=1, taskDefinition=arn)
    failed = {"State": "unhealthy", "Reason": "Target.FailedHealthChecks", "Description": "Health checks failed"}
    wait_until(lambda: target_health(fresh_sandbox, WEST) == [failed], "an unhealthy target")
    assert http_call(facts(fresh_sandbox, WEST)["alb_url"], "/health")[0] == 200  # with none healthy it fails open
    # Running is not enough: the rollout goes on until the target is healthy.
    during = service(fresh_sandbox, WEST)
    assert (during["runningCount"], len(during["deployments"])) == (1, 2)
    assert during["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    fresh_sandbox.heal("standby-unhealthy")
    wait_healthy(fresh_sandbox, WEST, 1)
    assert len(wait_steady(fresh_sandbox, WEST)["deployments"]) == 1


def test_region_cut_and_back(fresh_sandbox):
    url = facts(fresh_sandbox, EAST)["alb_url"]
    fresh_sandbox.fault("region-cut", region=EAST)
    with pytest.raises(OSError):
        http_call(url, "/health")
    fresh_sandbox.heal("region-cut")
    wait_healthy(fresh_sandbox, EAST, 2)
    assert http_call(url, "/health")[0] == 200


def test_listener_rules_weights_and_fixed_answers(fresh_sandbox):
    elb, names = fresh_sandbox.boto("elbv2", EAST), facts(fresh_sandbox, EAST)
    empty = elb.create_target_group(
        Name="empty", Protocol="HTTP", Port=8000, VpcId=target_group(elb, names)["VpcId"], TargetType="ip"
    )["TargetGroups"][0]["TargetGroupArn"]
    fixed = {"StatusCode": "418", "ContentType": "text/plain", "MessageBody": "closed"}
    elb.create_rule(
        ListenerArn=names["listener_arn"],
        Priority=10,
        Conditions=[{"Field": "path-pattern", "Values": ["/closed/*"]}],
        Actions=[{"Type": "fixed-response", "FixedResponseConfig": fixed}],
    )
    elb.create_rule(
        ListenerArn=names["listener_arn"],
        Priority=5,
        Conditions=[{"Field": "host-header", "Values": ["blue.regami.test"]}],
        Actions=[{"Type": "forward", "TargetGroupArn": empty}],
    )
    url = names["alb_url"]
    assert http_call(url, "/closed/now") == (418, "closed")
    assert http_call(url, "/health", host="blue.regami.test")[0] == 503
    assert http_call(url, "/closed/now", host="blue.regami.test")[0] == 503
    assert http_call(url, "/health")[0] == 200
    shares = [{"TargetGroupArn": names["target_group_arn"], "Weight": 0}, {"TargetGroupArn": empty, "Weight": 100}]
    action = {"Type": "forward", "ForwardConfig": {"TargetGroups": shares}}
    elb.modify_listener(ListenerArn=names["listener_arn"], DefaultActions=[action])
    assert {http_call(url, "/health")[0] for _ in range(5)} == {503}


def target_group(elb, names):
    return elb.describe_target_groups(TargetGroupArns=[names["target_group_arn"]])["TargetGroups"][0]


def test_balancer_metrics(fresh_sandbox):
    url, names = facts(fresh_sandbox, EAST)["alb_url"], facts(fresh_sandbox, EAST)
    fresh_sandbox.fault("primary-killed")
    wait_until(lambda: http_call(url, "/health?check=db")[0] == 503, "the database is gone")
    cloudwatch = fresh_sandbox.boto("cloudwatch", EAST)
    dimension = {"Name": "LoadBalancer", "Value": names["load_balancer_arn"].partition(":loadbalancer/")[2]}

    def total():
        now = time.time()
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/ApplicationELB",
            MetricName="HTTPCode_Target_5XX_Count",
            Dimensions=[dimension],
            StartTime=now - 300,
            EndTime=now + 60,
            Period=60,
            Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in points)

    wait_until(lambda: total() >= 1, "HTTPCode_Target_5XX_Count")
