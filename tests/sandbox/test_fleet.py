# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Auto Scaling group: instances are processes, and an instance refresh ends as AWS documents.

Nobody else uses the fleet, so each test goes on from the version that the one before has left in service.
"""

from __future__ import annotations

import http.client
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from compute_helpers import dig
from core_helpers import wait_until

from sandbox.client import Sandbox


class Fleet:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.facts = sandbox, sandbox.state["fleet"]
        self.api = sandbox.boto("autoscaling")
        self.name = {"AutoScalingGroupName": self.facts["auto_scaling_group"]}

    def group(self) -> dict:
        names = [self.facts["auto_scaling_group"]]
        return self.api.describe_auto_scaling_groups(AutoScalingGroupNames=names)["AutoScalingGroups"][0]

    def version(self) -> str:
        return self.group()["LaunchTemplate"]["Version"]

    def in_service(self) -> list[str]:
        """The version of each instance that a load balancer may send requests to."""
        there = [each for each in self.group()["Instances"] if each["LifecycleState"] == "InService"]
        return [each["LaunchTemplate"]["Version"] for each in there]

    def refresh(self) -> dict:
        return self.api.describe_instance_refreshes(**self.name)["InstanceRefreshes"][0]

    def await_refresh(self, status: str) -> dict:
        wait_until(lambda: self.refresh()["Status"] == status, f"a refresh that is {status}")
        return self.refresh()

    def start(self, version: str, **preferences: Any) -> str:
        template = {"LaunchTemplateId": self.facts["launch_template_id"], "Version": version}
        return self.api.start_instance_refresh(
            **self.name, DesiredConfiguration={"LaunchTemplate": template}, Preferences=preferences
        )["InstanceRefreshId"]

    def served_version(self) -> str:
        (address,) = dig(self.sandbox, self.facts["public_name"])
        connection = http.client.HTTPConnection(address, self.sandbox.state["http_port"], timeout=10)
        try:
            connection.request("GET", "/health", headers={"Host": self.facts["public_name"]})
            return connection.getresponse().headers["X-App-Version"]
        finally:
            connection.close()


@pytest.fixture
def fleet(sandbox: Sandbox) -> Fleet:
    """In service, which it is from the first question on."""
    there = Fleet(sandbox)
    wait_until(lambda: len(there.in_service()) == 2, "two instances in service")
    return there


def refused(call: Any, *args: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(*args, **arguments)
    return error.value.response["Error"]["Code"]


def test_a_refresh_brings_another_version_and_there_is_one_at_a_time(fleet: Fleet) -> None:
    goal = "1" if fleet.version() != "1" else "2"
    before = {each["InstanceId"] for each in fleet.group()["Instances"]}
    started = fleet.start(goal, MinHealthyPercentage=100)
    assert refused(fleet.start, "2") == "InstanceRefreshInProgress"
    ended = fleet.await_refresh("Successful")
    assert (ended["InstanceRefreshId"], ended["PercentageComplete"]) == (started, 100)
    assert (fleet.version(), fleet.in_service()) == (goal, [goal, goal])
    # The last ones may still be terminating.
    wait_until(
        lambda: not before & {each["InstanceId"] for each in fleet.group()["Instances"]}, "the old instances are gone"
    )
    assert fleet.served_version() == f"v{goal}"
    # What has the right version stays, where that is wanted.
    kept = {each["InstanceId"] for each in fleet.group()["Instances"]}
    fleet.start(goal, SkipMatching=True)
    fleet.await_refresh("Successful")
    assert {each["InstanceId"] for each in fleet.group()["Instances"]} == kept
    assert refused(fleet.api.cancel_instance_refresh, **fleet.name) == "ActiveInstanceRefreshNotFound"
    assert refused(fleet.start, "77") == "ValidationError"


def test_a_refresh_in_progress_is_rolled_back_if_it_says_what_it_brings(fleet: Fleet) -> None:
    version = fleet.version()
    fleet.sandbox.fault("bad-fleet", build="slow")
    fleet.await_refresh("InProgress")
    fleet.api.rollback_instance_refresh(**fleet.name)
    ended = fleet.await_refresh("RollbackSuccessful")
    assert ended["RollbackDetails"]["RollbackReason"]
    assert (fleet.version(), fleet.in_service()) == (version, [version, version])
    fleet.api.start_instance_refresh(**fleet.name)
    assert refused(fleet.api.rollback_instance_refresh, **fleet.name) == "IrreversibleInstanceRefresh"
    fleet.api.cancel_instance_refresh(**fleet.name)
    fleet.await_refresh("Cancelled")


def test_a_build_that_does_not_serve_fails_its_refresh_and_the_group_keeps_its_version(fleet: Fleet) -> None:
    version = fleet.version()
    fleet.sandbox.fault("bad-fleet", build="crashing")
    assert fleet.await_refresh("Failed")["StatusReason"]
    assert fleet.version() == version
    fleet.start(version, SkipMatching=True)
    fleet.await_refresh("Successful")
    assert fleet.in_service() == [version, version]


def test_a_scheduled_action_runs_once_at_its_time(fleet: Fleet) -> None:
    action = {**fleet.name, "ScheduledActionName": "more", "MinSize": 3, "MaxSize": 5}
    with pytest.raises(ClientError, match="in the past"):
        fleet.api.put_scheduled_update_group_action(**action, StartTime=datetime.now(UTC) - timedelta(minutes=1))
    fleet.api.put_scheduled_update_group_action(**action, StartTime=datetime.now(UTC) + timedelta(seconds=2))
    assert fleet.group()["DesiredCapacity"] == 2
    wait_until(lambda: fleet.group()["DesiredCapacity"] == 3, "its time")
    assert (fleet.group()["MinSize"], fleet.group()["MaxSize"]) == (3, 5)
    assert fleet.api.describe_scheduled_actions(**fleet.name)["ScheduledUpdateGroupActions"] == []
    fleet.api.update_auto_scaling_group(**fleet.name, MinSize=2, MaxSize=6, DesiredCapacity=2)


def test_a_launch_beyond_the_quota_is_an_activity_that_failed(fleet: Fleet) -> None:
    fleet.sandbox.fault("quota", service="ec2", value=4)
    fleet.api.set_desired_capacity(**fleet.name, DesiredCapacity=6)

    def failed() -> list[str]:
        return [each["StatusMessage"] for each in fleet.api.describe_scaling_activities(**fleet.name)["Activities"]]

    wait_until(failed, "a failed launch")
    assert "VcpuLimitExceeded" in failed()[0]
    fleet.api.set_desired_capacity(**fleet.name, DesiredCapacity=2)
    fleet.sandbox.heal()
