#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ebs_volume_grow
version_added: 0.1.0
short_description: Give a full file system of an EC2 instance more room, volume, partition and file system
description:
  - Finds the EBS volume that a path of an instance is on, NVMe names included, and grows what is needed until
    O(target_free_percent) is free, or until the volume has O(size).
  - Room that the disk has already, since somebody grew the volume and forgot the partition or the file system, is used first.
  - Then the volume is modified, waited for until it is V(optimizing), when the new size is there, and the partition
    (C(growpart)) and the file system (C(resize2fs), C(xfs_growfs)) are grown over SSM, which is verified with C(df).
    Nothing is unmounted or restarted.
  - "AWS allows a modification when the one before is completed, and six hours after it, or four in a day as it is documented of
    late. A volume that is still optimizing is refused; one that was modified within six hours needs O(accept_recent_modification)."
  - Run again, after a kill for example, it goes on from what is true then, and does not grow a volume twice.
  - B(Risk:) a volume never becomes smaller again, and costs what it is large.
options:
  instance_id:
    description: The instance, in O(region).
    type: str
    required: true
  path:
    description: A path in the file system that is full.
    type: str
    default: /
  target_free_percent:
    description: How much of the file system shall be free, as C(df) counts it, in percent, 1 to 90. Not used with O(size).
    type: int
    default: 20
  size:
    description: GiB that the volume shall have at least.
    type: int
  accept_recent_modification:
    description: Try although the volume was modified within six hours. AWS refuses if it does not allow it.
    type: bool
    default: false
  accept_no_agent:
    description:
      - Grow the root volume to O(size) although the SSM agent does not answer, which a full disk can be the reason for.
        The file system follows when the instance boots, by cloud-init, which this verb leaves to a person.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ec2:DescribeInstances), C(ec2:DescribeVolumes), C(ec2:DescribeVolumesModifications), C(ec2:ModifyVolume),
    C(ssm:DescribeInstanceInformation), C(ssm:SendCommand), C(ssm:ListCommands), C(ssm:ListCommandInvocations) and
    C(ssm:GetCommandInvocation).
  - Instances need Linux with util-linux, and growpart where the file system is on a partition. ext2, ext3, ext4 and xfs are grown;
    LVM, RAID and other file systems are refused.
  - Check mode sends a script to the instance that only looks.
seealso:
  - module: sre.runbooks.ssm_disk_cleanup
"""

EXAMPLES = r"""
- name: More room, after the cleaning was not enough
  sre.runbooks.ebs_volume_grow:
    instance_id: i-0123456789abcdef0
    region: us-east-1
    target_free_percent: 30
    lease: "{{ lock.lease }}"

- name: The size that the runbook says
  sre.runbooks.ebs_volume_grow:
    instance_id: i-0123456789abcdef0
    region: us-east-1
    size: 100
"""

RETURN = r"""
volume_id:
  description: The volume that the path is on.
  returned: unless refused
  type: str
  sample: vol-0123456789abcdef0
command_ids:
  description: The commands of SSM that looked and grew, in order.
  returned: unless refused
  type: list
  elements: str
  sample: [2a9d7bdf-9c0a-4d0e-8a9c-5c3f5a7c2f11]
before:
  description: The volume in GiB, and its file system as C(df) shows it; null where no script can run.
  returned: unless refused
  type: dict
  sample: {volume_gib: 8, filesystem_bytes: 8573157376, free_bytes: 0, free_percent: 0.0}
after:
  description: The same at the end; in check mode as far as it is known before.
  returned: success
  type: dict
  sample: {volume_gib: 12, filesystem_bytes: 12868124672, free_bytes: 4294967296, free_percent: 33.4}
steps:
  description: What was done, in order; in check mode what would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: modify, what: grow vol-0123456789abcdef0 to 12 GiB, before: 8 GiB, after: 12 GiB}
    - {do: settle, what: wait until vol-0123456789abcdef0 is optimizing, before: null, after: null}
    - {do: grow, what: grow ext4 / of i-0123456789abcdef0 to what /dev/nvme0n1 has, before: null, after: null}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "grow vol-0123456789abcdef0 to 12 GiB"
      instead: "no volume becomes smaller: where that matters, copy its files to a new one by hand"
notes:
  description: What it costs, and overrides that were used.
  returned: unless refused
  type: list
  elements: str
  sample: ["vol-0123456789abcdef0 (gp3) grows by 4 GiB, which are billed from now on and can never be taken back"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 21.4
"""

import datetime

from ansible_collections.sre.runbooks.plugins.module_utils import volume_growth
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.ssm import Limits, RunCommand, Selection
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds until a volume is optimizing, usually.
USUAL = 30
# Seconds that the script may take.
EXECUTION = 300

SERVICES = ("ec2", "ssm", "dynamodb")
ARGUMENTS = dict(
    instance_id=dict(type="str", required=True),
    path=dict(type="str", default="/"),
    target_free_percent=dict(type="int", default=20),
    size=dict(type="int"),
    accept_recent_modification=dict(type="bool", default=False),
    accept_no_agent=dict(type="bool", default=False),
)


class EbsVolumeGrow(Verb):
    """One volume, its partition and its file system."""

    INSTEAD = "no volume becomes smaller: where that matters, copy its files to a new one by hand"

    plan = staticmethod(volume_growth.plan)

    def __init__(self, module):
        super().__init__(module)
        self.id, self.path = self.params["instance_id"], self.params["path"]
        target, size = self.params["target_free_percent"], self.params["size"]
        if not 1 <= target <= 90 or (size is not None and size < 1):
            raise Refusal(f"target_free_percent={target}, size={size} cannot be: give 1 to 90 percent, or GiB")
        self.selection = Selection((self.id,))
        self.looking, self.growing = RunCommand(self.aws, "volume-look"), RunCommand(self.aws, "volume-grow")
        self.volume_id, self.grown, self.seen = None, False, None

    # ---- looking --------------------------------------------------------------------------------------------------

    def observe(self):
        instance = self._instance()
        seen, trouble = self._look()
        attached = {
            each["DeviceName"]: each["Ebs"]["VolumeId"]
            for each in instance.get("BlockDeviceMappings", [])
            if "Ebs" in each
        }
        self.volume_id = self._volume_of(instance, seen, attached)
        modification = self._modification()
        if volume_growth.may_have_grown(modification, seen):
            seen, trouble = self._look()
        self.seen = {
            "instance_id": self.id,
            "volume": self.aws.read("ec2", "describe_volumes", VolumeIds=[self.volume_id])["Volumes"][0],
            "modification": modification,
            "seen": seen,
            "trouble": trouble,
            "grown": self.grown,
            "now": datetime.datetime.now(datetime.UTC),
        }
        return self.seen

    def observe_end(self):
        # The last step looks again by itself, but for an instance that cannot be asked.
        return self.seen if self.grown else self.observe()

    def _instance(self):
        try:
            answer = self.aws.read("ec2", "describe_instances", InstanceIds=[self.id])
        except Exception as error:
            if code_of(error) in ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"):
                raise Refusal(
                    f"there is no instance {self.id} in {self.aws.region}: check instance_id and region"
                ) from error
            raise
        return answer["Reservations"][0]["Instances"][0]

    def _look(self):
        """(what the script sees, None), or (None, why it cannot run)."""
        trouble = self.looking.nodes(self.selection)[self.id].trouble()
        if trouble:
            return None, trouble
        result = self._run(self.looking, volume_growth.script("look", self.path), f"{self.id} tells of its disk")
        if result.trouble() and "no room" in result.trouble():
            return None, result.trouble()
        return self._told(result), None

    def _run(self, commands, script, what):
        limits = Limits(execution_timeout=EXECUTION)
        return commands.run(script, self.selection, [self.id], self.wait, what, limits)[self.id]

    def _told(self, result):
        if result.trouble():
            raise Stop(f"{self.id}: {result.trouble()}")
        return volume_growth.look(result.output)

    def _volume_of(self, instance, seen, attached):
        if seen is not None:
            found = volume_growth.volume_of(seen, attached)
            where = f"{self.path} of {self.id} is on {seen['disk']}"
        else:
            found = attached.get(instance.get("RootDeviceName")) if self.path == "/" else None
            where = f"the agent of {self.id} does not say what {self.path} is on"
        if found is None:
            there = ", ".join(f"{device} {volume}" for device, volume in attached.items()) or "none"
            raise Refusal(f"{where}, which is none of its EBS volumes ({there}): grow it by hand")
        return found

    def _modification(self):
        try:
            found = self.aws.read("ec2", "describe_volumes_modifications", VolumeIds=[self.volume_id])
        except Exception as error:
            if code_of(error) == "InvalidVolumeModification.NotFound":
                return None
            raise
        return next(iter(found["VolumesModifications"]), None)

    # ---- doing ----------------------------------------------------------------------------------------------------

    def modify(self, volume, size):
        self.grown = False
        self.aws.change("ec2", "modify_volume", VolumeId=volume, Size=size)

    def settle(self):
        def done(seen):
            if seen and seen["ModificationState"] == "failed":
                raise Stop(
                    f"the modification of {self.volume_id} failed: {seen.get('StatusMessage') or 'AWS gives no reason'}"
                )
            return bool(seen) and seen["ModificationState"] in volume_growth.USABLE

        self.wait(
            self._modification,
            done,
            f"{self.volume_id} grows",
            usual=USUAL,
            state=lambda seen: seen["ModificationState"] if seen else "not begun",
        )

    def grow(self, size):
        what = f"{self.id} grows {self.path}"
        # Of a run that was killed: two at a time would be in each other's way.
        running = self.growing.running(self.selection)
        if running:
            self.growing.finish(running, self.wait, what)
        self._told(self._run(self.growing, volume_growth.script("grow", self.path, size), what))
        self.grown = True

    def view(self, observed):
        seen = observed["seen"]
        return {
            "volume_gib": observed["volume"]["Size"],
            "filesystem_bytes": seen["total"] if seen else None,
            "free_bytes": seen["free"] if seen else None,
            "free_percent": volume_growth.free_percent(seen) if seen else None,
        }

    def returned(self):
        return {"volume_id": self.volume_id, "command_ids": self.looking.sent + self.growing.sent}


def main():
    run(verb_module(ARGUMENTS), EbsVolumeGrow)


if __name__ == "__main__":
    main()
