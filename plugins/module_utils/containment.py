# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An instance under suspicion: what it was before it was taken out of everything, kept in its own tags, and what it is now."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import elbv2
from .aws import code_of, together
from .errors import Refusal
from .security_groups import all_groups

PREFIX = "sre.runbooks:isolation"
REPLACEMENT = f"{PREFIX}-replacement"
# What each snapshot says: of which isolation of which instance.
SNAPSHOT_TAG, INSTANCE_TAG = PREFIX, "sre.runbooks:instance"
# A tag's value has 256 characters, a security group's id 20.
GROUPS_A_TAG = 10
# How AWS names what keeps an instance from being stopped and terminated, in DescribeInstanceAttribute and
# ModifyInstanceAttribute, and the values that keep it. A shutdown from within terminates it in spite of the first two.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_ChangingDisableAPITermination.html
ATTRIBUTES = {
    "termination": ("disableApiTermination", "DisableApiTermination"),
    "stop": ("disableApiStop", "DisableApiStop"),
    "shutdown": ("instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior"),
}
PROTECTED = {"termination": True, "stop": True, "shutdown": "stop"}


@dataclass(frozen=True)
class Target:
    """A registration in a target group, and its state there; a draining one is gone already."""

    arn: str
    id: str
    port: int
    state: str = ""

    def words(self):
        return f"{self.arn} {self.id} {self.port}"

    def shown(self):
        return f"{elbv2.short(self.arn)} ({self.id}:{self.port})"


@dataclass(frozen=True)
class Memory:
    """What an instance was before its isolation.

    Attributes:
        since: when that began, which also names it.
        is_done: whether its connections were cut: a mere look at its groups does not tell.
        interfaces: {network interface: its security groups}.
        protections: as PROTECTED.
        group: its Auto Scaling group, None for none; scale_in: whether it was protected from scale-in there.
        targets: of load balancers.
        replacement: at its release: the instance that goes in its place, "none" for none, None while nobody has looked.
    """

    since: str
    is_done: bool = False
    interfaces: tuple = ()
    protections: tuple = ()
    group: str | None = None
    scale_in: bool = False
    targets: tuple = ()
    replacement: str | None = None

    def tags(self):
        """Pure: {key: value}, in the characters that EC2 takes."""
        found = {PREFIX: f"{self.since} {'isolated' if self.is_done else 'begun'}"}
        protections = " ".join(f"{name}={str(value).lower()}" for name, value in self.protections)
        found[f"{PREFIX}-protections"] = protections
        chunks = [
            " ".join([interface, *groups[first : first + GROUPS_A_TAG]])
            for interface, groups in self.interfaces
            for first in range(0, len(groups), GROUPS_A_TAG)
        ]
        found |= {f"{PREFIX}-interface-{number:02}": value for number, value in enumerate(chunks, 1)}
        found |= {f"{PREFIX}-target-{number:02}": each.words() for number, each in enumerate(self.targets, 1)}
        if self.group:
            found |= {f"{PREFIX}-group": self.group, f"{PREFIX}-scale-in": str(self.scale_in).lower()}
        if self.replacement:
            found[REPLACEMENT] = self.replacement
        return found


def remembered(tags):
    """Pure: the Memory in an instance's tags {key: value}, None where it is not isolated."""
    if PREFIX not in tags:
        return None
    since, _gap, state = tags[PREFIX].partition(" ")
    interfaces = {}
    for key in sorted(tags):
        if key.startswith(f"{PREFIX}-interface-"):
            interface, *groups = tags[key].split()
            interfaces.setdefault(interface, []).extend(groups)
    pairs = [pair.partition("=") for pair in tags.get(f"{PREFIX}-protections", "").split()]
    words = [tags[key].split() for key in sorted(tags) if key.startswith(f"{PREFIX}-target-")]
    return Memory(
        since,
        state == "isolated",
        tuple((name, tuple(groups)) for name, groups in interfaces.items()),
        tuple((name, {"true": True, "false": False}.get(value, value)) for name, _equals, value in pairs),
        tags.get(f"{PREFIX}-group"),
        tags.get(f"{PREFIX}-scale-in") == "true",
        tuple(Target(arn, name, int(port)) for arn, name, port in words),
        tags.get(REPLACEMENT),
    )


@dataclass(frozen=True)
class Suspect:
    """An instance as it is now.

    Attributes:
        instance: its entry of DescribeInstances.
        tags: its own, without those of AWS.
        interfaces, protections, targets: as in Memory; `targets` are those that are not draining.
        membership: its entry of DescribeAutoScalingInstances, None where it is in no group.
        snapshots: those of its isolation, entries of DescribeSnapshots.
        untracking: the id of the security group through which its connections are cut, None where there is none.
    """

    instance: dict
    tags: dict
    interfaces: tuple
    protections: tuple
    targets: tuple = ()
    membership: dict | None = None
    snapshots: tuple = ()
    untracking: str | None = None

    @property
    def id(self):
        return self.instance["InstanceId"]

    @property
    def volumes(self):
        return [each["Ebs"]["VolumeId"] for each in self.instance.get("BlockDeviceMappings", []) if "Ebs" in each]

    @property
    def memory(self):
        return remembered(self.tags)

    def as_it_is(self, since):
        """Pure: what to remember of it."""
        group = self.membership
        return Memory(
            since,
            interfaces=self.interfaces,
            protections=self.protections,
            group=group and group["AutoScalingGroupName"],
            scale_in=bool(group and group["ProtectedFromScaleIn"]),
            targets=tuple(replace(each, state="") for each in self.targets),
        )

    def unsaved(self):
        """Pure: its volumes that no snapshot of its isolation is of."""
        saved = {each["VolumeId"] for each in self.snapshots if each["State"] != "error"}
        return [volume for volume in self.volumes if volume not in saved]


def untracking_name(instance_id):
    return f"sre-runbooks-untrack-{instance_id}"


def look(aws, instance_id):
    """The Suspect. Raises Refusal where there is no such instance, or it is terminated."""
    instance = describe(aws, instance_id)
    tags = {each["Key"]: each["Value"] for each in instance.get("Tags", []) if not each["Key"].startswith("aws:")}
    memory, cards = remembered(tags), instance.get("NetworkInterfaces", [])
    addresses = {address["PrivateIpAddress"] for card in cards for address in card["PrivateIpAddresses"]}
    vpc = instance.get("VpcId")
    seen = together(
        protections=lambda: _protections(aws, instance_id),
        targets=lambda: _targets(aws, vpc, {instance_id, *addresses}),
        group=lambda: membership(aws, instance_id),
        snapshots=lambda: _snapshots(aws, instance_id, memory.since) if memory else (),
        untracking=lambda: all_groups(aws, {"group-name": untracking_name(instance_id), "vpc-id": vpc}),
    )
    return Suspect(
        instance,
        tags,
        tuple(
            (card["NetworkInterfaceId"], tuple(sorted(group["GroupId"] for group in card["Groups"]))) for card in cards
        ),
        seen["protections"],
        seen["targets"],
        seen["group"],
        seen["snapshots"],
        next((group["GroupId"] for group in seen["untracking"]), None),
    )


def describe(aws, instance_id):
    """Its entry of DescribeInstances. Raises Refusal where there is none, or where it is terminated."""
    try:
        found = aws.read("ec2", "describe_instances", InstanceIds=[instance_id])["Reservations"]
    except Exception as error:
        if code_of(error) not in ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"):
            raise
        found = []
    instance = next((each for reservation in found for each in reservation["Instances"]), None)
    if instance is None:
        raise Refusal(f"there is no instance {instance_id} in {aws.region}: check instance_id and the region")
    if instance["State"]["Name"] in ("shutting-down", "terminated"):
        raise Refusal(f"{instance_id} is {instance['State']['Name']}: there is nothing left to isolate, or to release")
    return instance


def _protections(aws, instance_id):
    """As PROTECTED, of now."""
    asked = {
        name: lambda attribute=attribute: aws.read(
            "ec2", "describe_instance_attribute", InstanceId=instance_id, Attribute=attribute
        )
        for name, (attribute, _name) in ATTRIBUTES.items()
    }
    found = together(**asked)
    return tuple((name, found[name][ATTRIBUTES[name][1]]["Value"]) for name in ATTRIBUTES)


def _targets(aws, vpc, ids):
    registered = elbv2.registered(aws, vpc, ids)
    return tuple(Target(*each) for each in sorted(registered) if each[-1] != "draining")


def membership(aws, instance_id):
    """Its entry of DescribeAutoScalingInstances, None where it is in no group."""
    found = aws.read("autoscaling", "describe_auto_scaling_instances", InstanceIds=[instance_id])
    return next(iter(found["AutoScalingInstances"]), None)


def _snapshots(aws, instance_id, since):
    filters = [
        {"Name": f"tag:{SNAPSHOT_TAG}", "Values": [since]},
        {"Name": f"tag:{INSTANCE_TAG}", "Values": [instance_id]},
    ]
    return tuple(aws.read("ec2", "describe_snapshots", OwnerIds=["self"], Filters=filters)["Snapshots"])


def quarantine(aws, group_id, vpc):
    """The security group to isolate in.

    Raises:
        Refusal: there is none, it is of another VPC, or it lets anybody in or out.
    """
    group = next(iter(all_groups(aws, {"group-id": group_id})), None)
    if group is None:
        raise Refusal(f"there is no security group {group_id} in {aws.region}: check security_group")
    if group["VpcId"] != vpc:
        raise Refusal(f"security group {group_id} is of {group['VpcId']}, the instance of {vpc}: name one of {vpc}")
    rules = [*group["IpPermissions"], *group["IpPermissionsEgress"]]
    ranges = [each for rule in rules for each in (*rule.get("IpRanges", []), *rule.get("Ipv6Ranges", []))]
    if any(each.get("CidrIp") == "0.0.0.0/0" or each.get("CidrIpv6") == "::/0" for each in ranges):
        raise Refusal(
            f"security group {group_id} lets traffic to or from everybody through (each new group lets all out): take these "
            f"rules away, or name another security_group"
        )
    return group
