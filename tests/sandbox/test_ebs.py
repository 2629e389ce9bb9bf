# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that grow as documented, and instances whose file systems follow only when they are told to."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from compute_helpers import EAST
from core_helpers import wait_until

from sandbox.ssm.machine import namespaces


def volume(sandbox, number):
    """(instance id, volume id) of one of the two."""
    instance = sandbox.state["batch"]["instance_ids"][number]
    found = sandbox.boto("ec2", EAST).describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return instance, found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]


def state(sandbox, name):
    found = sandbox.boto("ec2", EAST).describe_volumes_modifications(VolumeIds=[name])["VolumesModifications"]
    return found[0]["ModificationState"]


def refused(sandbox, code, **asked):
    with pytest.raises(ClientError) as caught:
        sandbox.boto("ec2", EAST).modify_volume(**asked)
    assert caught.value.response["Error"]["Code"] == code


def test_a_modification_takes_its_time_and_the_next_one_waits(fresh_sandbox):
    ec2, (_instance, name) = fresh_sandbox.boto("ec2", EAST), volume(fresh_sandbox, 0)
    with pytest.raises(ClientError, match=r"InvalidVolumeModification\.NotFound"):
        state(fresh_sandbox, name)
    refused(fresh_sandbox, "InvalidParameterValue", VolumeId=name, Size=4)
    begun = ec2.modify_volume(VolumeId=name, Size=12)["VolumeModification"]
    assert (begun["ModificationState"], begun["OriginalSize"], begun["TargetSize"]) == ("modifying", 8, 12)
    wait_until(lambda: state(fresh_sandbox, name) == "optimizing", "optimizing")
    assert wait_until(lambda: ec2.describe_volumes(VolumeIds=[name])["Volumes"][0]["Size"] == 12, "it is larger")
    refused(fresh_sandbox, "IncorrectModificationState", VolumeId=name, Size=16)
    wait_until(lambda: state(fresh_sandbox, name) == "completed", "completed")
    fresh_sandbox.fault("ebs-six-hours")
    refused(fresh_sandbox, "VolumeModificationRateExceeded", VolumeId=name, Size=16)
    fresh_sandbox.heal("ebs-six-hours")
    assert ec2.modify_volume(VolumeId=name, Size=16)["VolumeModification"]["OriginalSize"] == 12


@pytest.mark.skipif(namespaces() is None, reason="this machine allows no file systems of their own")
@pytest.mark.parametrize(("number", "grow"), [(0, "resize2fs /dev/nvme0n1p1"), (1, "xfs_growfs -d /")])
def test_what_is_on_it_grows_when_it_is_told(fresh_sandbox, number, grow):
    instance, name = volume(fresh_sandbox, number)

    def run(script):
        return fresh_sandbox.control("instance", instance=instance, script=script)

    def megabytes():
        return run("df -m --output=size / | tail -1")["stdout"].strip()

    disk = "/dev/nvme0n1" if number == 0 else "/dev/xvda"
    assert run(f"lsblk -bdnro SERIAL {disk}")["stdout"].strip() == (name.replace("-", "") if number == 0 else "")
    assert megabytes() == "16"
    fresh_sandbox.boto("ec2", EAST).modify_volume(VolumeId=name, Size=12)
    sized = f"lsblk -bdnro SIZE {disk}"
    wait_until(lambda: run(sized)["stdout"].strip() == str(12 << 30), "the instance sees it")
    run(grow)
    assert megabytes() == "16"  # the partition is as it was
    assert run(f"growpart {disk} 1")["stdout"].startswith("CHANGED")
    assert run(f"growpart {disk} 1")["code"] == 1
    assert run(grow)["code"] == 0 and megabytes() == "24"
