# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""regami-web as the first day finds it: v1 was deployed forty days ago, v2 ten days ago, which runs.

regami-web:1  v1
regami-web:2  v2
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .. import ecr, elbv2, route53
from ..ecs import first_day as api_service
from ..ecs import task_sets
from . import pipeline

if TYPE_CHECKING:
    from ..world import World
    from .api import Region

FAMILY = SERVICE = "regami-web"
APPLICATION, GROUP = "regami-codedeploy", "regami-deployment-group"
NAME = f"web.{route53.ZONE}"
TEST_PORT = 8080
CONFIG = "CodeDeployDefault.ECSCanary10Percent5Minutes"
KEPT_MINUTES = 5
DAY = 86_400


def seed(world: World, codedeploy: Region) -> None:
    region = codedeploy.region
    facts = world.state["regions"][region]
    front = _load_balancer(world, region)
    for tag in ("v1", "v2"):
        definition = api_service.task_definition(world, region, ecr.uri(region, tag))
        world.client("ecs", region).register_task_definition(**definition | {"family": FAMILY})
    _service(world, region, facts["cluster"], front["target_group_arns"][0])
    client = world.client("codedeploy", region)
    client.create_application(applicationName=APPLICATION, computePlatform="ECS")
    client.create_deployment_group(
        applicationName=APPLICATION,
        deploymentGroupName=GROUP,
        deploymentConfigName=CONFIG,
        serviceRoleArn=f"arn:aws:iam::{world.account_id}:role/regami-codedeploy",
        ecsServices=[{"serviceName": SERVICE, "clusterName": facts["cluster"]}],
        deploymentStyle={"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
        autoRollbackConfiguration={"enabled": True, "events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"]},
        blueGreenDeploymentConfiguration={
            "terminateBlueInstancesOnDeploymentSuccess": {
                "action": "TERMINATE",
                "terminationWaitTimeInMinutes": KEPT_MINUTES,
            },
            "deploymentReadyOption": {"actionOnTimeout": "CONTINUE_DEPLOYMENT", "waitTimeInMinutes": 0},
        },
        loadBalancerInfo={
            "targetGroupPairInfoList": [
                {
                    "targetGroups": [{"name": arn.split("/")[1]} for arn in front["target_group_arns"]],
                    "prodTrafficRoute": {"listenerArns": [front["listener_arn"]]},
                    "testTrafficRoute": {"listenerArns": [front["test_listener_arn"]]},
                }
            ]
        },
    )
    with world.lock:
        service = world.backend("ecs", region)._get_service(facts["cluster"], SERVICE)
        group, definitions = (
            codedeploy.groups[APPLICATION, GROUP],
            world.backend("ecs", region).task_definitions[FAMILY],
        )
        oldest, last = (
            group.remember(pipeline.revision(definitions[number].arn), time.time() - days * DAY)
            for number, days in ((1, 40), (2, 10))
        )
        task_set = task_sets.create(service, service.task_definition, service.load_balancers, last.id)
        task_sets.make_primary(service, task_set)
        task_sets.asleep.add(service.arn)
    alias = route53.alias_of(front, evaluate=False)
    route53.create(world, [{"Name": NAME, "Type": "A", **alias}])
    world.state["codedeploy"] = front | {
        "region": region,
        "cluster": facts["cluster"],
        "service": SERVICE,
        "task_family": FAMILY,
        "application": APPLICATION,
        "deployment_group": GROUP,
        "first_deployment": oldest.id,
        "public_name": NAME,
    }


def _load_balancer(world: World, region: str) -> dict[str, Any]:
    client = world.client("elbv2", region)
    with world.lock:
        ec2 = world.backend("ec2", region)
        vpc, subnets = ec2.default_vpc.id, [subnet.id for subnet in ec2.get_default_subnets().values()][:2]
    security = [world.state["regions"][region]["balancer_security_group"]]
    balancer = client.create_load_balancer(Name="regami-web-alb", Subnets=subnets, SecurityGroups=security)[
        "LoadBalancers"
    ][0]
    groups = []
    for color in ("blue", "green"):
        arn = elbv2.make_target_group(client, vpc, f"regami-web-{color}-tg", drain_seconds=10)
        groups.append(arn)
    listeners = [
        client.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"],
            Protocol="HTTP",
            Port=port,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": groups[0]}],
        )["Listeners"][0]["ListenerArn"]
        for port in (80, TEST_PORT)
    ]
    return {
        "load_balancer_arn": balancer["LoadBalancerArn"],
        "listener_arn": listeners[0],
        "test_listener_arn": listeners[1],
        "target_group_arns": groups,
        "alb_dns_name": balancer["DNSName"],
        "alb_zone_id": balancer["CanonicalHostedZoneId"],
        "alb_url": f"http://{elbv2.named(balancer['DNSName']).address}:{elbv2.http_port()}",
    }


def _service(world: World, region: str, cluster: str, target_group: str) -> None:
    with world.lock:
        ec2 = world.backend("ec2", region)
        subnets = [subnet.id for subnet in ec2.get_default_subnets().values()][:2]
    group = world.state["regions"][region]["app_security_group"]
    world.client("ecs", region).create_service(
        cluster=cluster,
        serviceName=SERVICE,
        taskDefinition=f"{FAMILY}:2",
        desiredCount=2,
        launchType="FARGATE",
        platformVersion="1.4.0",
        deploymentController={"type": task_sets.CONTROLLER},
        loadBalancers=[{"targetGroupArn": target_group, "containerName": "app", "containerPort": elbv2.APP_PORT}],
        networkConfiguration={
            "awsvpcConfiguration": {"subnets": subnets, "securityGroups": [group], "assignPublicIp": "ENABLED"}
        },
        healthCheckGracePeriodSeconds=30,
    )
