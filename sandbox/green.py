# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another version of the service beside the one that runs, brought up on demand: blue/green with two target groups.

Its own ECS service runs it in the target group `regami-tg-green` behind the same load balancer, on a test listener
(port 8080), as a team has it between two releases. Everything is made through the AWS API.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

NAME = "regami-tg-green"
SERVICE = "regami-service-green"
FAMILY = "regami-api-green"
TEST_PORT = 8080
PATIENCE = 20.0  # seconds until its targets are as they will be
COPIED_GROUP = (
    "Protocol",
    "Port",
    "VpcId",
    "TargetType",
    "HealthCheckPath",
    "HealthCheckIntervalSeconds",
    "HealthCheckTimeoutSeconds",
    "HealthyThresholdCount",
    "UnhealthyThresholdCount",
    "Matcher",
)
COPIED_DEFINITION = (
    "taskRoleArn",
    "executionRoleArn",
    "networkMode",
    "requiresCompatibilities",
    "cpu",
    "memory",
    "containerDefinitions",
)


def bring_up(
    world: World, tag: str = "v1", tasks: int = 2, attached: bool = True, region: str | None = None
) -> dict[str, Any]:
    """Run `tasks` tasks of the image `tag` (which says how it behaves: builds.py) in a target group of their own.

    `attached` keeps the test listener, so that the group is checked already; without it no listener refers to the group
    and its targets are `unused`. Returns the facts that it adds to those of the region.
    """
    region = region or world.regions[0]
    facts = world.state["regions"][region]
    if "green_target_group_arn" in facts:
        raise ValueError("the second version is up already: `reset` ends it")
    elbv2, ecs = world.client("elbv2", region), world.client("ecs", region)
    (first,) = elbv2.describe_target_groups(TargetGroupArns=[facts["target_group_arn"]])["TargetGroups"]
    group = elbv2.create_target_group(Name=NAME, **{name: first[name] for name in COPIED_GROUP})["TargetGroups"][0]
    arn = group["TargetGroupArn"]
    elbv2.modify_target_group_attributes(
        TargetGroupArn=arn, Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "10"}]
    )
    listener = elbv2.create_listener(
        LoadBalancerArn=facts["load_balancer_arn"],
        Protocol="HTTP",
        Port=TEST_PORT,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
    )["Listeners"][0]["ListenerArn"]
    _run(ecs, facts, arn, tag, int(tasks))
    _settle(elbv2, arn, int(tasks))
    made = {"green_target_group_arn": arn, "green_service": SERVICE}
    if attached:
        address = facts["alb_url"].removeprefix("http://").partition(":")[0]
        made |= {
            "test_listener_arn": listener,
            "test_url": f"http://{address}:{world.state['ports'][str(TEST_PORT)]}",
        }
    else:
        elbv2.delete_listener(ListenerArn=listener)
    facts |= made
    world.save_state()
    return made


def _run(ecs: Any, facts: dict, group_arn: str, tag: str, tasks: int) -> None:
    (first,) = ecs.describe_services(cluster=facts["cluster"], services=[facts["service"]])["services"]
    known = ecs.describe_task_definition(taskDefinition=first["taskDefinition"])["taskDefinition"]
    definition = {name: known[name] for name in COPIED_DEFINITION}
    (container,) = definition["containerDefinitions"]
    container["image"] = f"{container['image'].rpartition(':')[0]}:{tag}"
    revision = ecs.register_task_definition(family=FAMILY, **definition)["taskDefinition"]["taskDefinitionArn"]
    ecs.create_service(
        cluster=facts["cluster"],
        serviceName=SERVICE,
        taskDefinition=revision,
        desiredCount=tasks,
        launchType="FARGATE",
        loadBalancers=[dict(first["loadBalancers"][0], targetGroupArn=group_arn)],
        networkConfiguration=first["networkConfiguration"],
        healthCheckGracePeriodSeconds=30,
    )


def _settle(elbv2: Any, arn: str, tasks: int) -> None:
    """Until each target is found healthy or not; a build that never starts has none to wait for."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        health = elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        states = [each["TargetHealth"]["State"] for each in health]
        if len(states) == tasks and not {"initial", "unused"} & set(states):
            return
        time.sleep(0.05)


control = {"green": lambda world, arguments: bring_up(world, **arguments)}
