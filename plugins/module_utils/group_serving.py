# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An Auto Scaling group that comes to serve with so many instances, or never will."""

from __future__ import annotations

from . import elbv2, instance_refresh
from .aws import together
from .errors import Stop

# Seconds that an instance usually takes to boot and to pass its health checks.
USUAL = 180
# Suspended, these keep more instances, or fewer, from coming to serve.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
UP = ("Launch", "AddToLoadBalancer")
DOWN = ("Terminate",)
# So many launches that failed, or instances that went again, mean that the next ones do so too.
FAILED_TOO_OFTEN = 3
# What no further launch will overcome.
FINAL = ("LimitExceeded", "InsufficientFreeAddresses")


def activities(aws, name):
    """The last scaling activities of a group, the newest first."""
    return aws.read("autoscaling", "describe_scaling_activities", AutoScalingGroupName=name, MaxRecords=20)[
        "Activities"
    ]


def in_service(group):
    """Pure: ids of the instances that serve, as the group sees it."""
    return {
        each["InstanceId"]
        for each in group["Instances"]
        if each["LifecycleState"] == "InService" and each["HealthStatus"] == "Healthy"
    }


def serving(seen):
    """Pure: ids of those that each target group finds healthy, too, of {group, targets}."""
    found = in_service(seen["group"])
    for targets in seen["targets"].values():
        found &= {target["target"].partition(":")[0] for target in targets if target["state"] == "healthy"}
    return found


def targets(aws, group):
    """{arn: targets} of the target groups of a group."""
    arns = group.get("TargetGroupARNs", [])
    return together(**{arn: lambda arn=arn: elbv2.target_health(aws, arn, aws.region) for arn in arns})


def settle(wait, aws, group, count, known, without=()):
    """Wait until a group serves with `count` instances.

    Args:
        wait: `Verb.wait`.
        aws: the Aws to ask.
        group: instance_refresh.Group.
        count: how many, which the group wants already.
        known: ids of the scaling activities of before.
        without: ids of instances that are to be gone.

    Raises:
        Stop: it never will.
    """
    name, there_before, gone, grows = group.name, set(), set(), None

    def look():
        seen = together(group=group.describe, activities=lambda: activities(aws, name))
        return dict(seen, targets=targets(aws, seen["group"]))

    def done(seen):
        nonlocal grows
        there = {each["InstanceId"] for each in instance_refresh.staying(seen["group"])}
        if seen["group"]["DesiredCapacity"] != count:
            raise Stop(f"something else set the capacity of {name} to {seen['group']['DesiredCapacity']}")
        if len(there) == count and len(serving(seen)) == count and not there & set(without):
            return True
        grows = len(there) <= count if grows is None else grows
        if grows:  # an instance that goes then was found unhealthy
            gone.update(there_before - there - set(without))
            there_before.update(there)
        why = _why_never(seen, gone, known)
        if why:
            raise Stop(f"{name} does not come to {count} instances that serve: {why}")
        return False

    wait(
        look,
        done,
        f"{name} serves with {count} instances",
        usual=USUAL,
        state=lambda seen: f"{len(serving(seen))} of {seen['group']['DesiredCapacity']} serve",
    )


def _why_never(seen, gone, known):
    """Why more instances would fail too, or None while they may not."""
    failed = [
        " ".join((each.get("StatusMessage") or each.get("Cause") or "no reason given").split())
        for each in seen["activities"]
        if each["StatusCode"] == "Failed" and each["ActivityId"] not in known
    ]
    final = [why for why in failed if any(word in why for word in FINAL)]
    if final or len(failed) >= FAILED_TOO_OFTEN:
        return f"{len(failed)} launches failed: {(final or failed)[0]}"
    if len(gone) >= FAILED_TOO_OFTEN:
        troubles = [line for found in seen["targets"].values() for line in elbv2.troubles(found)]
        return f"{len(gone)} instances went again, one after the other: {'; '.join(troubles) or 'see its activities'}"
    return None
