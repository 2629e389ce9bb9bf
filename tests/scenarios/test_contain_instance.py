# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An intruder is in an instance of the fleet and holds a connection open: it is kept, cut off, and put back as it was."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from runbook import Result
from world import EAST, World, wait_until

from ansible_collections.sre.runbooks.plugins.module_utils.aws import Aws
from ansible_collections.sre.runbooks.plugins.modules import ec2_isolate
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from sandbox.ssm.machine import namespaces

pytestmark = pytest.mark.skipif(namespaces() is None, reason="this machine allows no file systems of their own")
# Seconds that an answer may take; the application is next door.
PATIENCE = 0.5
PROTECTIONS = {
    "disableApiTermination": "DisableApiTermination",
    "disableApiStop": "DisableApiStop",
    "instanceInitiatedShutdownBehavior": "InstanceInitiatedShutdownBehavior",
}


class Killed(BaseException):
    """The run ends between two calls, without a word."""


class Suspect:
    """The instance that an intruder is in."""

    def __init__(self, world: World) -> None:
        world.begin()
        world.sandbox.fault("intruder")
        state = world.sandbox.state
        known = state["intruder"]
        self.world, self.id = world, known["instance"]
        self._source, self._place = known["address"], tuple(known["open"])
        self.ec2, self._group = world.aws("ec2"), state["fleet"]["target_group_arn"]
        self.quarantine = state["regions"][EAST]["quarantine_security_group"]
        self._to_aws = {
            "region": EAST,
            "endpoint_url": state["endpoint_url"],
            "access_key": "sandbox",
            "secret_key": "sandbox",
        }

    def connect(self) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        connection.bind((self._source, 0))
        connection.connect(self._place)
        return connection

    def run(self, state: str, check: bool = False) -> dict[str, Any]:
        asked = {"instance_id": self.id, "security_group": self.quarantine, "state": state}
        return run_main(ec2_isolate.main, check, **asked, **self._to_aws)

    def killed_after(self, changes: int, state: str) -> bool:
        """Kill a run when AWS has applied so many changes; False where it ended before."""
        left, original = iter(range(changes - 1, -1, -1)), Aws.change

        def change(aws: Aws, *named: Any, **arguments: Any) -> Any:
            answer = original(aws, *named, **arguments)
            if not next(left):
                raise Killed
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Aws, "change", change)
            try:
                self.run(state)
            except Killed:
                return True
        return False

    @property
    def found(self) -> dict:
        return self.ec2.describe_instances(InstanceIds=[self.id])["Reservations"][0]["Instances"][0]

    def snapshots(self) -> set[str]:
        filters = [{"Name": "tag:sre.runbooks:instance", "Values": [self.id]}]
        return {each["SnapshotId"] for each in self.ec2.describe_snapshots(Filters=filters)["Snapshots"]}

    def picture(self) -> dict:
        """All that an isolation changes, resource by resource."""
        found = self.found
        group = self.world.aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"][0]
        health = self.world.aws("elbv2").describe_target_health(TargetGroupArn=self._group)["TargetHealthDescriptions"]
        return {
            "state": found["State"]["Name"],
            "groups": {each["NetworkInterfaceId"]: each["Groups"] for each in found["NetworkInterfaces"]},
            "tags": {each["Key"]: each["Value"] for each in found["Tags"]},
            "protections": {
                name: self.ec2.describe_instance_attribute(InstanceId=self.id, Attribute=name)[key]["Value"]
                for name, key in PROTECTIONS.items()
            },
            "member": [
                (each["LifecycleState"], each["HealthStatus"], each["ProtectedFromScaleIn"])
                for each in group["Instances"]
                if each["InstanceId"] == self.id
            ],
            "capacity": [group[key] for key in ("MinSize", "DesiredCapacity", "MaxSize")] + [len(group["Instances"])],
            "target": [
                (each["Target"], each["TargetHealth"]["State"]) for each in health if each["Target"]["Id"] == self.id
            ],
            "security_groups": sorted(
                each["GroupId"] for each in self.ec2.describe_security_groups()["SecurityGroups"]
            ),
        }


def answers(connection: socket.socket) -> bool:
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except TimeoutError:
        return False


@pytest.fixture(scope="module")
def suspect(any_world: World) -> Iterator[Suspect]:
    yield Suspect(any_world)
    any_world.sandbox.heal()


def contain(suspect: Suspect, *flags: str, **variables: Any) -> Result:
    asked = {"env": "sandbox_fleet", "instance": suspect.id, "incident": "breach", **variables}
    return suspect.world.runbook.run("contain_instance", *flags, **asked)


def test_the_intruder_is_cut_off_and_what_he_did_is_kept(suspect: Suspect) -> None:
    before, held = suspect.picture(), suspect.connect()
    folder = suspect.world.runbook.incidents / "evidence" / "breach"
    assert answers(held)

    planned = contain(suspect, "--check", "--diff")
    assert (planned.returncode, planned.mutations) == (0, [])
    assert "cut its connections, and isolate it in" in planned.output and not folder.exists()
    unnamed = contain(suspect, instance="i-everything")
    assert (unnamed.returncode, unnamed.mutations) == (2, []) and "-e instance=i-..." in unnamed.complaints[0]

    for service, action in (("ec2", "CreateSnapshots"), ("autoscaling", "DetachInstances"), ("s3", "PutObject")):
        suspect.world.sandbox.fault("api", service=service, action=action, kind="lost-answer", region=EAST, count=1)
    run = contain(suspect, taken_by="R. Engineer")
    assert run.returncode == 0, run.output
    assert not answers(held)
    seen = suspect.picture()
    assert (seen["state"], seen["member"], seen["target"]) == ("running", [], [])
    assert seen["capacity"][1] == before["capacity"][1]
    assert len(suspect.snapshots()) == 1  # of its one volume, though no answer came
    order = [name.partition(" ")[0].partition(":")[2] for name in run.mutations]
    # What is in memory is locked away before anything is done to the instance, and it is kept before it is cut off.
    first = {name: order.index(name) for name in ("SendCommand", "PutObject", "CreateTags", "CreateSnapshots")}
    assert list(first.values()) == sorted(first.values())
    assert (
        order.index("CreateSnapshots") < order.index("DetachInstances") < order.index("ModifyNetworkInterfaceAttribute")
    )

    newest = max(each.name for each in folder.glob("manifest-*"))
    assert verified(folder, newest)
    known = suspect.world.sandbox.state["intruder"]
    processes = json.loads((folder / f"{suspect.id}-processes.json").read_text())["processes"]
    (program,) = [each for each in processes if each["name"] == known["program"]]
    assert program["program"].endswith(" (deleted)") and len(program["sha256"]) == 64
    connections = json.loads((folder / f"{suspect.id}-connections.json").read_text())["connections"]
    assert any(each["remote"].startswith(known["address"] + ":") for each in connections)
    deleted = json.loads((folder / f"{suspect.id}-system.json").read_text())["deleted"]
    assert any(each["path"] == "/tmp/.x/loot (deleted)" for each in deleted)
    assert json.loads((folder / "custody-0001.json").read_text())["taken_by"] == "R. Engineer"
    assert known["address"] not in run.output
    locked_as_they_are(suspect, folder)

    again = contain(suspect)
    assert (again.returncode, again.mutations, again.report["outcome"]) == (0, [], "noop")
    released = contain(suspect, "--tags", "release")
    assert released.returncode == 0, released.output
    assert suspect.picture() == before
    assert verified(folder, newest)


def verified(folder: Path, manifest: str) -> bool:
    return subprocess.run(["sha256sum", "--quiet", "--strict", "-c", manifest], cwd=folder).returncode == 0


def locked_as_they_are(suspect: Suspect, folder: Path) -> None:
    """The bucket has the same, and gives nothing of it up."""
    s3, bucket = suspect.world.aws("s3"), suspect.world.sandbox.state["evidence_bucket"]
    stored = s3.list_object_versions(Bucket=bucket, Prefix="evidence/breach/")["Versions"]
    digests = {}
    for each in stored:
        version = {"Bucket": bucket, "Key": each["Key"], "VersionId": each["VersionId"]}
        checksum = s3.head_object(**version, ChecksumMode="ENABLED")["ChecksumSHA256"]
        digests[each["Key"].rpartition("/")[2]] = base64.b64decode(checksum).hex()
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.delete_object(**version)
    assert digests == {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir()}


@pytest.mark.soak
def test_killed_after_any_call_it_is_isolated_and_released_all_the_same(suspect: Suspect) -> None:
    before, kept = suspect.picture(), suspect.snapshots()
    assert not suspect.run("isolated", check=True)["failed"]
    assert suspect.picture() == before
    for number in count(1, 2):
        held = suspect.connect()
        assert answers(held)
        was_killed = suspect.killed_after(number, "isolated")
        # Whatever it had come to: nothing has taken the instance, and its volumes were kept before anything else was done.
        assert suspect.found["State"]["Name"] == "running"
        assert number < 2 or len(suspect.snapshots()) == len(kept) + 1
        again = suspect.run("isolated")
        assert not again["failed"], again
        assert not answers(held), "the intruder's connection is not cut"
        seen = suspect.picture()
        assert seen["groups"].popitem()[1] == [{"GroupId": suspect.quarantine, "GroupName": "regami-quarantine"}]
        assert seen["protections"] == dict(zip(PROTECTIONS, (True, True, "stop"), strict=True))
        assert (seen["member"], seen["target"]) == ([], [])
        assert len(suspect.snapshots()) == len(kept) + 1
        kept = suspect.snapshots()
        was_killed |= suspect.killed_after(number, "released")
        again = suspect.run("released")
        assert not again["failed"], again
        # The group ends the instance that stood in for it in its own time.
        wait_until(lambda: suspect.picture() == before, "all is as before")
        if not was_killed:
            break
    assert number > 10  # there were so many calls to be killed after
    assert suspect.snapshots() == kept
