# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy pipeline does to the fleet: a new version of the launch template, and an instance refresh to it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from .. import builds
from ..faults import Fault
from ..patience import wait_until
from . import groups

if TYPE_CHECKING:
    from ..world import World


def user_data(database_url: str, tag: str) -> str:
    script = f"#!/bin/sh\nexport APP_VERSION={tag}\nexport DATABASE_URL={database_url}\nsystemctl restart application\n"
    return base64.b64encode(script.encode()).decode()


def deploy(world: World, build: str, latest: str = "no") -> None:
    """Returns when the refresh has begun. `latest`: yes for a team whose group follows $Latest.

    Raises ValueError for an unknown build.
    """
    if build not in builds.BUILDS:
        raise ValueError(f"unknown build {build!r}: one of {', '.join(builds.BUILDS)}")
    facts = world.state["fleet"]
    await_steady(world, facts)
    ec2, autoscaling = world.client("ec2", facts["region"]), world.client("autoscaling", facts["region"])
    known = ec2.describe_launch_template_versions(LaunchTemplateId=facts["launch_template_id"])[
        "LaunchTemplateVersions"
    ]
    number = max(each["VersionNumber"] for each in known) + 1
    tag = f"v{number}" if build == "good" else f"v{number}-{build}"
    made = ec2.create_launch_template_version(
        LaunchTemplateId=facts["launch_template_id"],
        VersionDescription=tag,
        LaunchTemplateData=known[0]["LaunchTemplateData"] | {"UserData": user_data(facts["database_url"], tag)},
    )["LaunchTemplateVersion"]
    template = {"LaunchTemplateId": facts["launch_template_id"], "Version": str(made["VersionNumber"])}
    group = {"AutoScalingGroupName": facts["auto_scaling_group"]}
    if latest == "yes":
        autoscaling.update_auto_scaling_group(**group, LaunchTemplate=template | {"Version": "$Latest"})
        autoscaling.start_instance_refresh(**group)
    else:
        desired = {"LaunchTemplate": template}
        autoscaling.start_instance_refresh(
            **group, DesiredConfiguration=desired, Preferences={"MinHealthyPercentage": 50, "InstanceWarmup": 0}
        )


def await_steady(world: World, facts: dict) -> None:
    """A fleet that nobody asked about yet starts first: there is something to replace."""
    groups.wake()
    group = world.backend("autoscaling", facts["region"]).autoscaling_groups[facts["auto_scaling_group"]]
    wait_until(
        lambda: sum(machine.is_healthy for machine in groups.of(group)) >= group.desired_capacity,
        f"{group.name} is healthy",
    )


faults = {
    "bad-fleet": Fault(
        f"a pipeline refreshes the Auto Scaling group with BUILD ({', '.join(builds.BUILDS)}); --latest yes: by $Latest",
        deploy,
        lambda world: None,  # what was deployed stays: going back is what is practised
        ("build",),
        ("latest",),
    )
}
