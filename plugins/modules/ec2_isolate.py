#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_isolate
version_added: 0.2.0
short_description: Take an EC2 instance out of everything without losing it, and put it back
description:
  - Isolated, it is preserved first and cut off afterwards. All volumes are snapshotted at one moment; termination, stop and a
    shutdown from within are kept from ending it; it is detached from its Auto Scaling group, which launches another in its
    place, and deregistered from every target group; then its security groups give way to O(security_group).
  - A change of security groups leaves connections alone that EC2 tracks. All interfaces therefore pass through a group that
    lets everything through, in which nothing is tracked, right before, so that the next change cuts them.
  - What the instance was before stands in its own tags (C(sre.runbooks:isolation*)), written before anything else is changed, so
    that whoever runs V(released) restores it exactly, from anywhere. Its capacity in the group stays as it is, since the
    youngest instance launched there since goes in its place. The snapshots stay.
  - Killed anywhere, the same task again goes on from there.
  - B(Risk:) what the instance works on is lost to its users at once, requests in hand included, and for the moment between two
    calls anybody may reach it. Sessions of its role go on elsewhere until they are revoked. Released, it takes
    requests again, and its group ends it when it does not pass the group's health checks.
  - Connections by way of a NAT gateway, a Network Load Balancer, a transit gateway or a VPC endpoint are tracked whatever the
    groups say. They may live on until they are idle; only a network ACL of the subnet, or stopping the instance, cuts those.
options:
  instance_id:
    description: The instance, in O(region).
    type: str
    required: true
  security_group:
    description: Id of the security group to isolate it in, of the same VPC. One that lets anybody in or out is refused.
    type: str
  state:
    description: Whether it is to be isolated, or to be what it was before.
    type: str
    choices: [isolated, released]
    default: isolated
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - An instance that its group is terminating already is refused, since it can no longer be detached.
  - SSM reaches an isolated instance only where O(security_group) lets it through. Read what runs there before.
seealso:
  - module: sre.runbooks.ec2_evidence
  - module: sre.runbooks.evidence_bundle
  - name: Connection tracking
    description: Which connections a change of security groups leaves alone.
    link: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html
  - name: AWSSupport-ContainEC2Instance
    description: Where AWS cuts tracked connections the same way.
    link: https://docs.aws.amazon.com/systems-manager-automation-runbooks/latest/userguide/automation-awssupport-containec2instance.html
"""

EXAMPLES = r"""
- name: Cut the instance off, and keep it
  sre.runbooks.ec2_isolate:
    instance_id: i-0123456789abcdef0
    security_group: sg-0quarantine
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Put it back
  sre.runbooks.ec2_isolate:
    instance_id: i-0123456789abcdef0
    state: released
    region: us-east-1
"""

RETURN = r"""
snapshots:
  description: Those of its isolation, as they were seen last.
  returned: unless refused
  type: list
  elements: dict
  sample: [{snapshot: snap-066877671789bd71b, volume: vol-1234567890abcdef0, state: pending}]
before:
  description:
    - What it was. C(isolation) is when that began, null where it is not isolated; C(groups) are those of each network interface,
      C(targets) what is registered.
  returned: unless refused
  type: dict
  sample:
    isolation: null
    groups: {eni-0a1b2c3d: [sg-0app]}
    protections: {termination: false, stop: false, shutdown: terminate}
    auto_scaling_group: regami-fleet
    targets: ["regami-fleet (i-0123456789abcdef0:8000)"]
after:
  description: The same at the end; in check mode as predicted.
  returned: success
  type: dict
  sample:
    isolation: "2026-11-21T23:05:00Z"
    groups: {eni-0a1b2c3d: [sg-0quarantine]}
    protections: {termination: true, stop: true, shutdown: stop}
    auto_scaling_group: null
    targets: []
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: snapshot, what: snapshot its volumes (vol-1234567890abcdef0), before: 0, after: 1}
undo:
  description: How to put it back, or for a release to isolate it again.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ec2_isolate
      arguments: {instance_id: i-0123456789abcdef0, security_group: sg-0quarantine, state: released, region: us-east-1}
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["credentials that were taken from role app go on to work elsewhere until its sessions are revoked"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 3.2
"""

import datetime

from ansible_collections.sre.runbooks.plugins.module_utils import (
    containment,
    group_serving,
    instance_refresh,
    isolation,
)
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of
from ansible_collections.sre.runbooks.plugins.module_utils.containment import ATTRIBUTES
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken
from ansible_collections.sre.runbooks.plugins.module_utils.security_groups import all_groups
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("ec2", "autoscaling", "elbv2", "dynamodb")
ARGUMENTS = dict(
    instance_id=dict(type="str", required=True),
    security_group=dict(type="str"),
    state=dict(type="str", choices=["isolated", "released"], default="isolated"),
)
# Everybody, in both families.
RANGES = {"IpRanges": {"CidrIp": "0.0.0.0/0"}, "Ipv6Ranges": {"CidrIpv6": "::/0"}}


class Ec2Isolate(Verb):
    """Preserve, take out, cut off; or all of it backwards."""

    def __init__(self, module):
        super().__init__(module)
        self.id, self.wanted_group = self.params["instance_id"], self.params["security_group"]
        # Names the isolation that this run begins, the same in each look.
        self.now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"

    def observe(self):
        suspect = containment.look(self.aws, self.id)
        found = {"suspect": suspect, "now": self.now, "group": None, "launched": {}}
        if self.params["state"] == "isolated":
            containment.quarantine(self.aws, self.wanted_group, suspect.instance.get("VpcId"))
        elif suspect.memory and suspect.memory.group:
            found |= isolation.look_at_group(self.aws, suspect.memory)
        return found

    @staticmethod
    def plan(observed, wanted):
        if wanted["state"] == "isolated":
            return isolation.plan(observed, wanted["security_group"])
        return isolation.plan_release(observed)

    # ---- steps: one call each, but for those that may be repeated without harm ---------------------------------------

    def remember(self, tags):
        made = [{"Key": key, "Value": value} for key, value in tags.items()]
        self.aws.change("ec2", "create_tags", Resources=[self.id], Tags=made)

    def snapshot(self, since, description):
        tags = {containment.SNAPSHOT_TAG: since, containment.INSTANCE_TAG: self.id}
        self.aws.change(
            "ec2",
            "create_snapshots",
            InstanceSpecification={"InstanceId": self.id},
            Description=description,
            CopyTagsFromSource="volume",
            TagSpecifications=[
                {"ResourceType": "snapshot", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        )

    def protect(self, protections):
        for name, value in protections.items():
            self.aws.change(
                "ec2", "modify_instance_attribute", InstanceId=self.id, **{ATTRIBUTES[name][1]: {"Value": value}}
            )

    def detach(self, group):
        self.aws.change(
            "autoscaling",
            "detach_instances",
            AutoScalingGroupName=group,
            InstanceIds=[self.id],
            ShouldDecrementDesiredCapacity=False,
        )

    def deregister(self, target):
        try:
            self.aws.change("elbv2", "deregister_targets", TargetGroupArn=target.arn, Targets=_targets(target))
        except Exception as error:
            # Its group takes it out of the target groups too, and may have been quicker.
            if code_of(error) not in ("InvalidTarget", "TargetGroupNotFound"):
                raise

    def cut(self, interfaces, vpc):
        """Nothing comes between the two changes: meanwhile anybody may come in."""
        through = self._untracking_group(vpc)
        self._into(dict.fromkeys(interfaces, (through,)))
        self._into(dict.fromkeys(interfaces, (self.wanted_group,)))

    def restore(self, interfaces):
        self._into(interfaces)

    def tidy(self):
        """It is in use for a moment after the last interface left it."""
        name = containment.untracking_name(self.id)

        def gone():
            found = all_groups(self.aws, {"group-name": name})
            try:
                for group in found:
                    self.aws.change("ec2", "delete_security_group", GroupId=group["GroupId"])
            except Exception as error:
                if code_of(error) not in ("DependencyViolation", "InvalidGroup.NotFound"):
                    raise
            return found

        self.wait(gone, lambda found: not found, f"security group {name} is gone", state=lambda found: "in use")

    def let_go(self):
        self.wait(
            lambda: containment.membership(self.aws, self.id),
            lambda member: member is None,
            f"{self.id} has left its group",
            usual=isolation.USUAL_DRAIN,
            state=lambda member: member["LifecycleState"] if member else "out of it",
        )

    def attach(self, group):
        self.aws.change("autoscaling", "attach_instances", AutoScalingGroupName=group, InstanceIds=[self.id])

    def register(self, target):
        self.aws.change("elbv2", "register_targets", TargetGroupArn=target.arn, Targets=_targets(target))

    def serve(self, group):
        """With the instance among those that serve, before another one goes."""
        group = instance_refresh.Group(self.aws, group)
        known = {each["ActivityId"] for each in group_serving.activities(self.aws, group.name)}
        group_serving.settle(self.wait, self.aws, group, group.describe()["DesiredCapacity"], known)

    def give_way(self, replacement):
        self.aws.change(
            "autoscaling",
            "terminate_instance_in_auto_scaling_group",
            InstanceId=replacement,
            ShouldDecrementDesiredCapacity=True,
        )

    def scale_in(self, group, protected):
        self.aws.change(
            "autoscaling",
            "set_instance_protection",
            AutoScalingGroupName=group,
            InstanceIds=[self.id],
            ProtectedFromScaleIn=protected,
        )

    def forget(self, keys):
        self.aws.change("ec2", "delete_tags", Resources=[self.id], Tags=[{"Key": key} for key in keys])

    def _into(self, interfaces):
        for interface, groups in interfaces.items():
            self.aws.change(
                "ec2", "modify_network_interface_attribute", NetworkInterfaceId=interface, Groups=list(groups)
            )

    def _untracking_group(self, vpc):
        """The id of a group that lets all through both ways, made where there is none."""
        name = containment.untracking_name(self.id)
        found = all_groups(self.aws, {"group-name": name, "vpc-id": vpc})
        group = found[0] if found else self._new_group(name, vpc)
        for direction, key in (("ingress", "IpPermissions"), ("egress", "IpPermissionsEgress")):
            there = [each for rule in group.get(key, []) for kind in RANGES for each in rule.get(kind, [])]
            missing = {kind: [everybody] for kind, everybody in RANGES.items() if everybody not in there}
            if missing:
                rule = {"IpProtocol": "-1", **missing}
                operation = f"authorize_security_group_{direction}"
                self.aws.change("ec2", operation, GroupId=group["GroupId"], IpPermissions=[rule])
        return group["GroupId"]

    def _new_group(self, name, vpc):
        what = "For a moment: connections through it are not tracked and can be cut"
        try:
            made = self.aws.change("ec2", "create_security_group", GroupName=name, VpcId=vpc, Description=what)
        except Exception as error:
            if code_of(error) == "InvalidGroup.Duplicate":
                raise Overtaken(f"another run made security group {name}") from error
            raise
        found = self.wait(
            lambda: all_groups(self.aws, {"group-id": made["GroupId"]}), bool, f"security group {name} is there"
        )
        return found[0]

    # ---- what it tells ------------------------------------------------------------------------------------------------

    def view(self, observed):
        self.seen = suspect = observed["suspect"]
        return {
            "isolation": suspect.memory and suspect.memory.since,
            "groups": {name: list(groups) for name, groups in suspect.interfaces},
            "protections": dict(suspect.protections),
            "auto_scaling_group": suspect.membership and suspect.membership["AutoScalingGroupName"],
            "targets": [each.shown() for each in suspect.targets],
        }

    def returned(self):
        return {
            "snapshots": [
                {"snapshot": each["SnapshotId"], "volume": each["VolumeId"], "state": each["State"]}
                for each in self.seen.snapshots
            ]
        }

    def undo(self, before, done):
        other = {"isolated": "released", "released": "isolated"}[self.params["state"]]
        group = self.wanted_group or next((groups[0] for groups in before["groups"].values() if groups), None)
        arguments = {"instance_id": self.id, "security_group": group, "state": other, "region": self.aws.region}
        arguments = {name: value for name, value in arguments.items() if value}
        return [{"verb": "sre.runbooks.ec2_isolate", "arguments": arguments}]


def _targets(target):
    return [{"Id": target.id, "Port": target.port}]


def main():
    run(
        verb_module(ARGUMENTS, required_if=[("state", "isolated", ("security_group",))]),
        Ec2Isolate,
    )


if __name__ == "__main__":
    main()
