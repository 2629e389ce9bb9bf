# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Incidents of known cause: each shows what the service and AWS show of it, and nothing else says what it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from sandbox.client import Sandbox, SandboxError
from sandbox.incidents.causes import CAUSES

EAST = "us-east-1"


@pytest.fixture(scope="module")
def service(sandbox: Sandbox) -> Iterator[Sandbox]:
    """With all that it depends on, and users."""
    sandbox.reset()
    sandbox.control("incidents", action="ready")
    yield sandbox
    sandbox.reset()


@pytest.fixture
def calm(service: Sandbox) -> Iterator[Sandbox]:
    yield service
    service.heal()


def suffer(sandbox: Sandbox, cause: str, seed: int = 1, seconds: float = 1.5) -> dict:
    """What users felt of it."""
    before = sandbox.control("load", action="report")
    sandbox.fault("incident", cause=cause, seed=seed, seconds=seconds)
    after = sandbox.control("load", action="report")
    return {name: after[name] - before[name] for name in ("requests", "failed_requests")}


def errors(sandbox: Sandbox, minutes: float = 30) -> list[str]:
    group = sandbox.state["regions"][EAST]["log_group"]
    begin = int((time.time() - 60 * minutes) * 1000)
    found = sandbox.boto("logs").filter_log_events(logGroupName=group, startTime=begin, filterPattern="ERROR")
    return [each["message"] for each in found["events"]]


def changes(sandbox: Sandbox) -> list[dict]:
    """Newest first."""
    return sandbox.boto("cloudtrail").lookup_events(MaxResults=50)["Events"]


def test_a_cache_that_is_gone(calm):
    felt = suffer(calm, "redis_down")
    cache = calm.boto("elasticache")
    (group,) = cache.describe_replication_groups()["ReplicationGroups"]
    (shard,) = group["NodeGroups"]
    where = "{Address}:{Port}".format(**shard["PrimaryEndpoint"])
    said = f"redis.exceptions.ConnectionError: Error 111 connecting to {where}. Connection refused."
    assert sum(said in each for each in errors(calm)) >= 3
    assert felt["failed_requests"] >= 3
    (event,) = cache.describe_events()["Events"]
    primary = next(each for each in shard["NodeGroupMembers"] if each["CurrentRole"] == "primary")
    assert event["SourceIdentifier"] == primary["CacheClusterId"]


@pytest.mark.parametrize(
    ("seed", "done", "why"),
    [
        (1, "DeleteRolePolicy", "because no identity-based policy allows the s3:PutObject action"),
        (2, "PutBucketPolicy", "with an explicit deny in a resource-based policy"),
    ],
)
def test_a_bucket_that_denies(calm, seed, done, why):
    felt = suffer(calm, "s3_denied", seed)
    said = "An error occurred (AccessDenied) when calling the PutObject operation: User: arn:aws:sts::123456789012:assumed-role/"
    denied = [each for each in errors(calm) if said in each]
    assert len(denied) >= 3 and all(each.endswith(why) for each in denied)
    assert felt["failed_requests"] >= 3
    assert done in [each["EventName"] for each in changes(calm) if each["Username"] != "pipeline"]


def test_a_rule_that_is_gone(calm):
    felt = suffer(calm, "network_rule", seconds=5)
    assert any(
        "OperationalError: connection to server at " in each and "timeout expired" in each for each in errors(calm)
    )
    assert felt["failed_requests"] >= 1
    (revoked,) = [each for each in changes(calm) if calm.state["regions"][EAST]["db_security_group"] in str(each)]
    assert revoked["EventName"] == "RevokeSecurityGroupIngress" and revoked["Username"] != "sandbox"
    (flow_log,) = calm.boto("ec2").describe_flow_logs()["FlowLogs"]
    port = calm.boto("rds").describe_db_instances()["DBInstances"][0]["Endpoint"]["Port"]
    lines = calm.boto("logs").filter_log_events(logGroupName=flow_log["LogGroupName"], filterPattern="REJECT")["events"]
    records = [dict(zip(flow_log["LogFormat"].split(), each["message"].split(), strict=True)) for each in lines]
    came = [each for each in records if each["${dstport}"] == str(port)]
    assert came and all(each["${srcaddr}"].startswith("127.0.1.") for each in came)
    assert {(each["${version}"], each["${protocol}"], each["${action}"]) for each in came} == {("2", "6", "REJECT")}


@pytest.mark.soak
def test_memory_that_grows_until_the_task_is_killed(calm):
    felt = suffer(calm, "memory_leak", seconds=0.5)
    ecs, names = calm.boto("ecs"), calm.state["regions"][EAST]
    where = {"cluster": names["cluster"]}
    arns = ecs.list_tasks(**where, serviceName=names["service"], desiredStatus="STOPPED")["taskArns"]
    stopped = ecs.describe_tasks(**where, tasks=arns)["tasks"]
    killed = [each for each in stopped if each["stopCode"] == "EssentialContainerExited"]
    assert {each["stoppedReason"] for each in killed} == {"Essential container in task exited"}
    told = {(each["containers"][0]["reason"], each["containers"][0]["exitCode"]) for each in killed}
    assert told == {("OutOfMemoryError: Container killed due to memory usage", 137)}
    assert felt["requests"] > 5
    # Nobody is told by the name of the image what is in it.
    service = ecs.describe_services(**where, services=[names["service"]])["services"][0]
    definition = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])
    assert "bloating" not in json.dumps(definition, default=str)


def test_a_disk_that_is_full(calm):
    felt = suffer(calm, "disk_full")
    assert sum("OSError: [Errno 28] No space left on device" in each for each in errors(calm)) >= 3
    assert felt["failed_requests"] >= 3


def test_two_days_with_the_same_cause_are_not_alike(calm):
    seen = []
    for seed in (1, 3):
        suffer(calm, "certificate_expired", seed, 0.5)
        seen.append([(each["EventName"], each["Username"]) for each in changes(calm)])
        calm.heal("incident")
    assert seen[0] != seen[1]
    assert min(map(len, seen)) > 5


def test_what_cannot_be(calm):
    with pytest.raises(SandboxError, match="unknown cause 'gremlins': one of bad_deployment, "):
        calm.fault("incident", cause="gremlins")
    calm.fault("incident", cause="certificate_expired", seconds=0)
    with pytest.raises(SandboxError, match="heal incident"):
        calm.fault("incident", cause="redis_down")


def test_all_causes_are_there():
    assert len(CAUSES) == 12
