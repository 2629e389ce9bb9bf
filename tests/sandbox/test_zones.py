# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A zone that fails, a load balancer that is shifted away from one, and a group that is moved out of one."""

from __future__ import annotations

import itertools
import json
import urllib.request

import psycopg2
import pytest
from botocore.exceptions import ClientError
from core_helpers import connect, wait_until

from sandbox.client import Sandbox

EAST = "us-east-1"


@pytest.mark.soak
def test_zones(fresh_sandbox: Sandbox) -> None:
    sandbox, names = fresh_sandbox, fresh_sandbox.state["regions"][EAST]
    ecs, elb, shift = (sandbox.boto(service, EAST) for service in ("ecs", "elbv2", "arc-zonal-shift"))
    zones = sandbox.boto("ec2", EAST).describe_availability_zones()["AvailabilityZones"]
    ids = {each["ZoneName"]: each["ZoneId"] for each in zones}
    balancer = names["load_balancer_arn"]

    def tasks() -> dict[str, str]:
        """{zone: id of the task there}."""
        arns = ecs.list_tasks(cluster=names["cluster"], serviceName=names["service"])["taskArns"]
        found = ecs.describe_tasks(cluster=names["cluster"], tasks=arns)["tasks"]
        return {task["availabilityZone"]: task["taskArn"].rpartition("/")[2] for task in found}

    numbers = itertools.count(100, 10)

    def writers() -> set[str]:
        """The tasks that took some rows of users, on connections of their own."""
        number = next(numbers)
        for row in range(number, number + 6):
            body = json.dumps({"id": row, "payload": "x"}).encode()
            urllib.request.urlopen(urllib.request.Request(f"{names['alb_url']}/v1/rows", body), timeout=3).close()
        with urllib.request.urlopen(f"{names['alb_url']}/v1/audit/search", timeout=3) as answer:
            rows = json.load(answer)["rows"]
        return {row["by"] for row in rows if number <= row["id"] < number + 6}

    there = tasks()
    assert sorted(there) == ["us-east-1a", "us-east-1b"] and writers() == set(there.values())

    # Shifted away from a zone, no request goes there, and its targets say why.
    started = shift.start_zonal_shift(
        resourceIdentifier=balancer, awayFrom=ids["us-east-1a"], expiresIn="1h", comment="test"
    )
    wait_until(lambda: writers() == {there["us-east-1b"]}, "requests in the other zone only")
    health = elb.describe_target_health(TargetGroupArn=names["target_group_arn"])["TargetHealthDescriptions"]
    overridden = [each for each in health if "AdministrativeOverride" in each]
    assert [each["AdministrativeOverride"]["State"] for each in overridden] == ["zonal_shift_active"]
    managed = shift.get_managed_resource(resourceIdentifier=balancer)
    assert managed["appliedWeights"] == {ids["us-east-1a"]: 0.0, ids["us-east-1b"]: 1.0}
    with pytest.raises(ClientError, match="ConflictException"):
        shift.start_zonal_shift(
            resourceIdentifier=balancer, awayFrom=ids["us-east-1b"], expiresIn="1h", comment="second"
        )
    longer = shift.update_zonal_shift(zonalShiftId=started["zonalShiftId"], expiresIn="2h")
    assert (longer["expiryTime"] - started["expiryTime"]).total_seconds() > 3500
    assert shift.cancel_zonal_shift(zonalShiftId=started["zonalShiftId"])["status"] == "CANCELED"
    with pytest.raises(ClientError, match="ConflictException"):
        shift.cancel_zonal_shift(zonalShiftId=started["zonalShiftId"])
    wait_until(lambda: writers() == set(there.values()), "requests in both zones")

    # It must be turned on, and the zone be one of the balancer's.
    other = sandbox.state["fleet"]["load_balancer_arn"]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        shift.get_managed_resource(resourceIdentifier=other)
    with pytest.raises(ClientError, match="ValidationException"):
        shift.start_zonal_shift(resourceIdentifier=balancer, awayFrom=ids["us-east-1c"], expiresIn="1h", comment="x")
    with pytest.raises(ClientError, match="ValidationException"):
        shift.start_zonal_shift(resourceIdentifier=balancer, awayFrom=ids["us-east-1a"], expiresIn="73h", comment="x")

    # A database in the zone does not answer; told to fail over it does, from the other one.
    rds, primary = sandbox.boto("rds", EAST), names["db_instance"]

    def database() -> tuple:
        (found,) = rds.describe_db_instances(DBInstanceIdentifier=primary)["DBInstances"]
        return found["DBInstanceStatus"], found["AvailabilityZone"], found.get("SecondaryAvailabilityZone")

    def answers() -> bool:
        try:
            connect(sandbox, EAST, primary, 1).close()
        except psycopg2.OperationalError:
            return False
        return True

    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        rds.reboot_db_instance(DBInstanceIdentifier=primary, ForceFailover=True)
    rds.modify_db_instance(DBInstanceIdentifier=primary, MultiAZ=True, ApplyImmediately=True)
    wait_until(lambda: database() == ("available", "us-east-1a", "us-east-1b"), "two zones")
    sandbox.fault("zone-fails", zone="us-east-1a")
    assert not answers()
    rds.reboot_db_instance(DBInstanceIdentifier=primary, ForceFailover=True)
    wait_until(lambda: database() == ("available", "us-east-1b", "us-east-1a"), "failed over")
    assert answers()
    sandbox.heal()

    # A zone fails: a group taken out of it has all its instances elsewhere, and comes back into balance.
    scaling, group = sandbox.boto("autoscaling", EAST), sandbox.state["fleet"]["auto_scaling_group"]

    def fleet() -> list[str]:
        (found,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
        return sorted(each["AvailabilityZone"] for each in found["Instances"] if each["LifecycleState"] == "InService")

    wait_until(lambda: fleet() == ["us-east-1a", "us-east-1b"], "an instance in each zone")
    (found,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    both = found["VPCZoneIdentifier"]
    sandbox.fault("zone-fails", zone="us-east-1b")
    scaling.update_auto_scaling_group(AutoScalingGroupName=group, VPCZoneIdentifier=both.split(",")[0])
    wait_until(lambda: fleet() == ["us-east-1a", "us-east-1a"], "all instances in the zone that is left")
    sandbox.heal()
    scaling.update_auto_scaling_group(AutoScalingGroupName=group, VPCZoneIdentifier=both)
    wait_until(lambda: fleet() == ["us-east-1a", "us-east-1b"], "an instance in each zone again")
