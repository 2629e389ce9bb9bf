# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event history has who changed what through the API; metrics of use are those of the processes; scaling is told of."""

from __future__ import annotations

import json
import time

import pytest
from botocore.exceptions import ClientError
from core_helpers import wait_until

WRITES = [{"AttributeKey": "ReadOnly", "AttributeValue": "false"}]


def writes(sandbox, **more):
    return sandbox.boto("cloudtrail").lookup_events(LookupAttributes=WRITES, **more)["Events"]


def test_a_write_is_in_the_history_and_a_read_and_an_item_are_not(fresh_sandbox):
    assert writes(fresh_sandbox) == []
    fresh_sandbox.boto("ecs").describe_clusters()
    fresh_sandbox.boto("cloudwatch").put_metric_data(Namespace="Mine", MetricData=[{"MetricName": "one", "Value": 1.0}])
    for name in ("a", "b"):
        fresh_sandbox.boto("logs").create_log_group(logGroupName=f"/mine/{name}")
    fresh_sandbox.boto("rds").modify_db_instance(
        DBInstanceIdentifier="regami-db-primary", MasterUserPassword="hunter2hunter2"
    )
    newest, second, first = writes(fresh_sandbox)
    assert [each["EventName"] for each in (newest, second, first)] == [
        "ModifyDBInstance",
        "CreateLogGroup",
        "CreateLogGroup",
    ]
    told = json.loads(second["CloudTrailEvent"])
    assert (told["requestParameters"], told["eventSource"]) == ({"logGroupName": "/mine/b"}, "logs.amazonaws.com")
    assert told["userIdentity"]["arn"].endswith(":user/sandbox")
    assert "hunter2" not in newest["CloudTrailEvent"]
    # Another region has a history of its own; a time and a page narrow it.
    assert fresh_sandbox.boto("cloudtrail", "us-west-2").lookup_events()["Events"] == []
    assert writes(fresh_sandbox, EndTime=time.time() - 60) == []
    page = fresh_sandbox.boto("cloudtrail").lookup_events(LookupAttributes=WRITES, MaxResults=2)
    assert len(page["Events"]) == 2
    (last,) = writes(fresh_sandbox, MaxResults=2, NextToken=page["NextToken"])
    assert last["EventId"] == first["EventId"]
    with pytest.raises(ClientError, match="InvalidLookupAttributes"):
        fresh_sandbox.boto("cloudtrail").lookup_events(LookupAttributes=WRITES * 2)


def test_scaling_is_told_of_with_its_cause(fresh_sandbox):
    names = fresh_sandbox.state["regions"]["us-east-1"]
    scaling = fresh_sandbox.boto("application-autoscaling")
    target = {
        "ServiceNamespace": "ecs",
        "ResourceId": f"service/{names['cluster']}/{names['service']}",
        "ScalableDimension": "ecs:service:DesiredCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=4)
    fresh_sandbox.fault("scale-in")
    (activity,) = scaling.describe_scaling_activities(ServiceNamespace="ecs", ResourceId=target["ResourceId"])[
        "ScalingActivities"
    ]
    assert (activity["Description"], activity["StatusCode"]) == ("Setting desired count to 1.", "Successful")
    assert "triggered policy" in activity["Cause"]


def test_a_service_and_a_database_have_metrics_of_what_they_use(sandbox):
    names = sandbox.state["regions"]["us-east-1"]
    service = {"ClusterName": names["cluster"], "ServiceName": names["service"]}
    database = {"DBInstanceIdentifier": names["db_instance"]}

    def newest(namespace, name, dimensions):
        metric = {
            "Namespace": namespace,
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        }
        (result,) = sandbox.boto("cloudwatch").get_metric_data(
            StartTime=time.time() - 300,
            EndTime=time.time() + 60,
            MetricDataQueries=[{"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}],
        )["MetricDataResults"]
        return next(iter(result["Values"]), None)

    for namespace, name, dimensions in (
        ("AWS/ECS", "MemoryUtilization", service),
        ("AWS/ECS", "CPUUtilization", service),
        ("AWS/RDS", "CPUUtilization", database),
    ):
        wait_until(lambda of=(namespace, name, dimensions): newest(*of) is not None, f"{namespace} {name}")
        assert 0 <= newest(namespace, name, dimensions) < 100
    assert newest("AWS/ECS", "MemoryUtilization", service) > 0
