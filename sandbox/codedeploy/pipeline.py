# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy pipeline does to a service under CodeDeploy: a revision with another image, and a deployment of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import elbv2
from ..ecs import pipeline as ecs_pipeline
from ..ecs import task_sets
from ..faults import Fault
from ..patience import wait_until

if TYPE_CHECKING:
    from ..world import World


def revision(task_definition: str) -> dict:
    """The RevisionLocation of a deployment that brings this task definition (an ARN)."""
    properties = {
        "TaskDefinition": task_definition,
        "LoadBalancerInfo": {"ContainerName": "app", "ContainerPort": elbv2.APP_PORT},
    }
    service = {"Type": "AWS::ECS::Service", "Properties": properties}
    content = json.dumps({"version": 0.0, "Resources": [{"TargetService": service}]})
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return {"revisionType": "AppSpecContent", "appSpecContent": {"content": content, "sha256": sha256}}


# How far a deployment is to have come: what is then true of its status and of its percentage of the traffic.
STAGES: dict[str, Callable[[str, float], bool]] = {
    "begun": lambda _status, _percent: True,
    "shifting": lambda _status, percent: percent > 0,
    "shifted": lambda _status, percent: percent == 100,
    "succeeded": lambda status, _percent: status == "Succeeded",
}


def deploy(world: World, build: str, stage: str = "begun") -> None:
    """Returns when the deployment has come to `stage`. Raises ValueError when it does not, or names are unknown."""
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}: one of {', '.join(STAGES)}")
    known = world.state["codedeploy"]
    region, names = known["region"], {"cluster": known["cluster"], "services": [known["service"]]}
    ecs, codedeploy = world.client("ecs", region), world.client("codedeploy", region)

    def service() -> dict:
        return ecs.describe_services(**names)["services"][0]

    task_sets.wake()
    # A pipeline deploys to a service that serves.
    wait_until(
        lambda: all(each["stabilityStatus"] == "STEADY_STATE" for each in service()["taskSets"]), "a steady service"
    )
    made = codedeploy.create_deployment(
        applicationName=known["application"],
        deploymentGroupName=known["deployment_group"],
        description=f"pipeline: {build}",
        revision=revision(ecs_pipeline.release(world, region, service()["taskDefinition"], build)),
    )["deploymentId"]

    def reached() -> bool:
        deployment = codedeploy.get_deployment(deploymentId=made)["deploymentInfo"]
        if deployment["status"] in ("Failed", "Stopped"):
            raise ValueError(f"{made} ended {deployment['status']}: {deployment.get('errorInformation')}")
        return STAGES[stage](deployment["status"], _percent(codedeploy, known, made))

    wait_until(reached, f"{made} {stage}")


def _percent(codedeploy: Any, known: dict, deployment: str) -> float:
    """Percentage of the traffic that the replacement has."""
    target = f"{known['cluster']}:{known['service']}"
    try:
        found = codedeploy.get_deployment_target(deploymentId=deployment, targetId=target)["deploymentTarget"]
    except codedeploy.exceptions.DeploymentNotStartedException:
        return 0.0
    sets = found["ecsTarget"]["taskSetsInfo"]
    return next((each["trafficWeight"] for each in sets if each["taskSetLabel"] == "Green"), 0.0)


faults = {
    "bad-blue-green": Fault(
        f"a pipeline deploys BUILD to regami-web by CodeDeploy; returns at --stage {', '.join(STAGES)}",
        deploy,
        lambda world: None,  # what was deployed stays: going back is what is practised
        ("build",),
        ("stage",),
    )
}
