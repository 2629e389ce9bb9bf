# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy pipeline does to a service: a new revision with another image, and an update of the service to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import builds, ecr
from ..faults import Fault

if TYPE_CHECKING:
    from ..world import World

# What DescribeTaskDefinition answers and RegisterTaskDefinition does not take.
_READ_ONLY = ("taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities")
_TIMES = ("registeredAt", "registeredBy", "deregisteredAt")


def release(world: World, region: str, running: str, build: str) -> str:
    """ARN of a new revision of the task definition `running` with the image of `build`. Raises ValueError for an unknown
    build.
    """
    if build not in builds.BUILDS:
        raise ValueError(f"unknown build {build!r}: one of {', '.join(builds.BUILDS)}")
    tag = [tag for tag in ecr.TAGS if builds.build_of(f"{ecr.REPOSITORY}:{tag}") == build][-1]
    ecs = world.client("ecs", region)
    definition = definition_of(ecs, running)
    definition["containerDefinitions"][0]["image"] = ecr.uri(region, tag)
    made = ecs.register_task_definition(**definition)
    return made["taskDefinition"]["taskDefinitionArn"]


def definition_of(ecs: Any, name: str) -> dict[str, Any]:
    """A task definition as RegisterTaskDefinition takes it."""
    known = ecs.describe_task_definition(taskDefinition=name, include=["TAGS"])
    definition = {key: value for key, value in known["taskDefinition"].items() if key not in _READ_ONLY + _TIMES}
    return definition | {"tags": known.get("tags", [])}


def deploy(world: World, build: str, region: str | None = None) -> None:
    """Returns when the deployment has begun. Raises ValueError for an unknown build or region."""
    region = region or world.regions[0]
    if region not in world.regions:
        raise ValueError(f"unknown region {region!r}: one of {', '.join(world.regions)}")
    ecs, facts = world.client("ecs", region), world.state["regions"][region]
    names = {"cluster": facts["cluster"], "service": facts["service"]}
    service = ecs.describe_services(cluster=names["cluster"], services=[names["service"]])["services"][0]
    ecs.update_service(**names, taskDefinition=release(world, region, service["taskDefinition"], build))


faults = {
    "bad-build": Fault(
        f"a pipeline deploys BUILD ({', '.join(builds.BUILDS)}) to the service of the first region (or of --region)",
        deploy,
        lambda world: None,  # what was deployed stays: going back is what is practised
        ("build",),
        ("region",),
    )
}
