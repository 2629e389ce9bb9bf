# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance under suspicion: what its security groups let through, what protects it, and its group without it."""

from __future__ import annotations

import socket

import pytest
from botocore.exceptions import ClientError
from compute_helpers import EAST
from core_helpers import wait_until

from sandbox.ssm.machine import namespaces

EVERYBODY = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


class Suspect:
    """The instance that an intruder is in, with the intruder's means."""

    def __init__(self, sandbox):
        sandbox.reset()
        sandbox.fault("intruder")
        known, facts = sandbox.state["intruder"], sandbox.state["regions"][EAST]
        self.id, self.source, self.place = known["instance"], known["address"], tuple(known["open"])
        self.ec2, self.autoscaling = sandbox.boto("ec2", EAST), sandbox.boto("autoscaling", EAST)
        self.app, self.quarantine = facts["app_security_group"], facts["quarantine_security_group"]
        found = self.ec2.describe_instances(InstanceIds=[self.id])["Reservations"][0]["Instances"][0]
        self.interface, vpc = found["NetworkInterfaces"][0]["NetworkInterfaceId"], found["VpcId"]
        self.open = self.ec2.create_security_group(GroupName="open", Description="all", VpcId=vpc)["GroupId"]
        self.ec2.authorize_security_group_ingress(GroupId=self.open, IpPermissions=EVERYBODY)

    def into(self, *groups):
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=self.interface, Groups=list(groups))

    def connect(self, source=None):
        connection = socket.socket()
        connection.settimeout(1)
        connection.bind((source or self.source, 0))
        connection.connect(self.place)
        return connection

    def members(self):
        group = self.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"][0]
        return group["DesiredCapacity"], {each["InstanceId"]: each["LifecycleState"] for each in group["Instances"]}


def answers(connection):
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except TimeoutError:
        return False


pytestmark = pytest.mark.skipif(namespaces() is None, reason="this machine allows no file systems of their own")


@pytest.fixture(scope="module")
def suspect(sandbox):
    yield Suspect(sandbox)
    sandbox.heal()
    sandbox.reset()  # there is one instance too many


def test_a_tracked_connection_outlives_its_rule_until_it_is_tracked_no_more(suspect):
    held = suspect.connect()
    assert answers(held)
    with pytest.raises(TimeoutError):
        suspect.connect("127.0.0.1")
    suspect.into(suspect.quarantine)
    assert answers(held)
    with pytest.raises(TimeoutError):
        suspect.connect()
    suspect.into(suspect.open)
    assert answers(held)
    suspect.into(suspect.quarantine)
    assert not answers(held)
    suspect.into(suspect.app)
    assert answers(suspect.connect())


def test_a_connection_by_a_rule_for_everybody_ends_with_its_rule(suspect):
    suspect.into(suspect.open)
    held = suspect.connect("127.0.0.1")
    assert answers(held)
    suspect.into(suspect.app)
    assert not answers(held)


def test_what_is_protected_is_neither_terminated_nor_stopped(suspect):
    for attribute in ("DisableApiTermination", "DisableApiStop"):
        suspect.ec2.modify_instance_attribute(InstanceId=suspect.id, **{attribute: {"Value": True}})
    for call in (suspect.ec2.terminate_instances, suspect.ec2.stop_instances):
        with pytest.raises(ClientError, match="OperationNotPermitted"):
            call(InstanceIds=[suspect.id])
    suspect.ec2.modify_instance_attribute(InstanceId=suspect.id, InstanceInitiatedShutdownBehavior={"Value": "stop"})
    groups = suspect.ec2.describe_instance_attribute(InstanceId=suspect.id, Attribute="groupSet")["Groups"]
    assert [each["GroupId"] for each in groups] == [suspect.app]
    with pytest.raises(ClientError, match="DependencyViolation"):
        suspect.ec2.delete_security_group(GroupId=suspect.app)


def test_detached_it_runs_on_and_another_takes_its_place(suspect):
    group = {"AutoScalingGroupName": "regami-fleet", "InstanceIds": [suspect.id]}
    suspect.autoscaling.detach_instances(**group, ShouldDecrementDesiredCapacity=False)
    wait_until(lambda: list(suspect.members()[1].values()) == ["InService"] * 2, "another one serves")
    desired, there = suspect.members()
    assert desired == 2 and suspect.id not in there and answers(suspect.connect())
    with pytest.raises(ClientError, match="not part of"):
        suspect.autoscaling.detach_instances(**group, ShouldDecrementDesiredCapacity=False)
    suspect.autoscaling.attach_instances(**group)
    wait_until(lambda: suspect.members()[1].get(suspect.id) == "InService", "it is back")
    assert suspect.members()[0] == 3


def test_a_snapshot_of_its_volumes_is_copied_after_it_was_taken(suspect):
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "incident", "Value": "breach"}]}]
    made = suspect.ec2.create_snapshots(InstanceSpecification={"InstanceId": suspect.id}, TagSpecifications=tags)

    def state():
        found = suspect.ec2.describe_snapshots(Filters=[{"Name": "tag:incident", "Values": ["breach"]}])["Snapshots"]
        assert [each["SnapshotId"] for each in found] == [each["SnapshotId"] for each in made["Snapshots"]]
        return found[0]["State"]

    assert state() == "pending"
    wait_until(lambda: state() == "completed", "it is copied")
