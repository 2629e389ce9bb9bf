# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas, subnets' free addresses and scheduled actions: what they say, and what they keep from happening."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from compute_helpers import EAST, service, tasks, update
from core_helpers import wait_until

from sandbox.client import Sandbox

TARGET = {
    "ServiceNamespace": "ecs",
    "ResourceId": "service/regami-cluster/regami-service",
    "ScalableDimension": "ecs:service:DesiredCount",
}


@pytest.fixture(scope="module")
def first_day(sandbox: Sandbox) -> Sandbox:
    sandbox.reset()
    return sandbox


@pytest.fixture
def running(first_day: Sandbox) -> Iterator[Sandbox]:
    """Two tasks, as on the first day, before each test and after it."""
    yield first_day
    first_day.heal()
    first_day.boto("application-autoscaling", EAST).register_scalable_target(**TARGET, MinCapacity=2, MaxCapacity=10)
    update(first_day, EAST, desiredCount=2)
    wait_until(lambda: service(first_day, EAST)["runningCount"] == 2, "two tasks")
    # One that still stops has its address.
    wait_until(
        lambda: {task["lastStatus"] for task in tasks(first_day, EAST, "STOPPED")} <= {"STOPPED"}, "the others are gone"
    )


def in_seconds(seconds: float) -> str:
    return f"at({datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S})"


def test_the_quota_of_fargate_names_the_metric_of_its_usage(running: Sandbox) -> None:
    quota = running.boto("service-quotas", EAST).get_service_quota(ServiceCode="fargate", QuotaCode="L-3032A538")[
        "Quota"
    ]
    metric = quota["UsageMetric"]
    dimensions = [{"Name": name, "Value": value} for name, value in metric["MetricDimensions"].items()]

    def usage() -> float | None:
        now = datetime.now(UTC)
        points = running.boto("cloudwatch", EAST).get_metric_statistics(
            Namespace=metric["MetricNamespace"],
            MetricName=metric["MetricName"],
            Dimensions=dimensions,
            Period=300,
            Statistics=["Maximum"],
            StartTime=now - timedelta(minutes=15),
            EndTime=now + timedelta(minutes=1),
        )["Datapoints"]
        return max((point["Maximum"] for point in points), default=None)

    wait_until(lambda: usage() == 1.0, "two tasks of half a vCPU are counted")


def test_tasks_beyond_the_quota_are_not_started_and_an_event_says_so(running: Sandbox) -> None:
    running.fault("quota", service="fargate", value=1.5)
    update(running, EAST, desiredCount=6)
    wait_until(lambda: service(running, EAST)["runningCount"] == 3, "one more fits")
    wait_until(
        lambda: any(
            "You've reached the limit on the number of vCPUs" in event["message"]
            for event in service(running, EAST)["events"]
        ),
        "the event",
    )
    running.heal()
    wait_until(lambda: service(running, EAST)["runningCount"] == 6, "the rest, once there is room")


def test_each_task_takes_an_address_and_a_full_subnet_fails_it(running: Sandbox) -> None:
    subnets = service(running, EAST)["networkConfiguration"]["awsvpcConfiguration"]["subnets"]

    def free() -> list[int]:
        found = running.boto("ec2", EAST).describe_subnets(SubnetIds=subnets)["Subnets"]
        return [each["AvailableIpAddressCount"] for each in found]

    running.fault("subnets-full", left=1)
    assert free() == [1, 1]
    update(running, EAST, desiredCount=4)
    wait_until(lambda: service(running, EAST)["runningCount"] == 4, "the last two addresses")
    assert free() == [0, 0]
    update(running, EAST, desiredCount=5)
    wait_until(
        lambda: any(
            "InsufficientFreeAddressesInSubnet" in task["stoppedReason"] for task in tasks(running, EAST, "STOPPED")
        ),
        "the reason",
    )


def test_a_scheduled_action_sets_the_bounds_at_its_time_and_the_count_into_them(running: Sandbox) -> None:
    scaling = running.boto("application-autoscaling", EAST)
    due = int(time.time() + 1.5)
    scaling.put_scheduled_action(
        **TARGET,
        ScheduledActionName="more",
        Schedule=in_seconds(1.5),
        ScalableTargetAction={"MinCapacity": 3, "MaxCapacity": 5},
    )
    wait_until(lambda: service(running, EAST)["desiredCount"] == 3, "its time")
    assert time.time() >= due
    target = scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"][0]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (3, 5)
    scaling.delete_scheduled_action(**TARGET, ScheduledActionName="more")
    with pytest.raises(scaling.exceptions.ObjectNotFoundException):
        scaling.delete_scheduled_action(**TARGET, ScheduledActionName="more")


def test_a_time_that_is_over_is_refused(running: Sandbox) -> None:
    scaling = running.boto("application-autoscaling", EAST)
    with pytest.raises(scaling.exceptions.ValidationException, match="in the future"):
        scaling.put_scheduled_action(
            **TARGET, ScheduledActionName="late", Schedule=in_seconds(-5), ScalableTargetAction={"MinCapacity": 3}
        )


def test_a_policy_scales_in_as_far_as_the_floor(running: Sandbox) -> None:
    scaling = running.boto("application-autoscaling", EAST)
    update(running, EAST, desiredCount=5)
    scaling.register_scalable_target(**TARGET, MinCapacity=4, MaxCapacity=10)
    running.fault("scale-in")
    assert service(running, EAST)["desiredCount"] == 4
