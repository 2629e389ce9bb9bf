# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services as the first day finds them, with a past in which the revision before is not the one to go back to.

    regami-api:1  v1, ran for a month
    regami-api:2  v2 with a setting that was taken back after an hour; deregistered since
    regami-api:3  v2, runs
    regami-api:4  v2 with more memory, never deployed: somebody's draft

What a pipeline deploys next is regami-api:5. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-revision.html
"""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .. import ecr, elbv2
from . import deployments

if TYPE_CHECKING:
    from ..world import World

FAMILY = "regami-api"
LOG_GROUP = "/ecs/regami-api"


def seed(world: World) -> None:
    for region, suffix, count in zip(world.regions, ("", "-secondary"), (2, 0), strict=True):
        _seed_region(world, region, suffix, count)


def _seed_region(world: World, region: str, suffix: str, count: int) -> None:
    ecs, facts = world.client("ecs", region), world.state["regions"][region]
    names = {"cluster": f"regami-cluster{suffix}", "service": f"regami-service{suffix}"}
    tags = [{"key": "service", "value": "regami"}]
    world.client("logs", region).create_log_group(logGroupName=LOG_GROUP)
    insights = [{"name": "containerInsights", "value": "enhanced"}]
    ecs.create_cluster(clusterName=names["cluster"], settings=insights, tags=tags)
    with world.lock:
        ec2 = world.backend("ec2", region)
        subnets = [subnet.id for subnet in ec2.get_default_subnets().values()][:2]
    group = facts["app_security_group"]
    ecs.register_task_definition(**task_definition(world, region, ecr.uri(region, "v1")), tags=tags)
    ecs.create_service(
        cluster=names["cluster"],
        serviceName=names["service"],
        taskDefinition=f"{FAMILY}:1",
        desiredCount=count,
        launchType="FARGATE",
        platformVersion="1.4.0",
        loadBalancers=[
            {"targetGroupArn": facts["target_group_arn"], "containerName": "app", "containerPort": elbv2.APP_PORT}
        ],
        networkConfiguration={
            "awsvpcConfiguration": {"subnets": subnets, "securityGroups": [group], "assignPublicIp": "ENABLED"}
        },
        deploymentConfiguration={
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
        },
        healthCheckGracePeriodSeconds=30,
        tags=tags,
    )
    _pass(world, region, names, timedelta(days=40))
    release = task_definition(world, region, ecr.uri(region, "v2"))
    chatty, larger = copy.deepcopy(release), release | {"cpu": "1024", "memory": "2048"}
    chatty["containerDefinitions"][0]["environment"][1]["value"] = "DEBUG"
    for definition in (chatty, release, larger):
        ecs.register_task_definition(**definition, tags=tags)
    update = {"cluster": names["cluster"], "service": names["service"]}
    ecs.update_service(**update, taskDefinition=f"{FAMILY}:2")
    _pass(world, region, names, timedelta(days=10))
    ecs.update_service(**update, taskDefinition=f"{FAMILY}:3")
    ecs.deregister_task_definition(taskDefinition=f"{FAMILY}:2")
    world.client("application-autoscaling", region).register_scalable_target(
        ServiceNamespace="ecs",
        ResourceId=f"service/{names['cluster']}/{names['service']}",
        ScalableDimension="ecs:service:DesiredCount",
        MinCapacity=count,
        MaxCapacity=10,
    )
    facts |= {**names, "task_family": FAMILY, "log_group": LOG_GROUP}


def _pass(world: World, region: str, names: dict, ago: timedelta) -> None:
    """Let the deployment that goes on have ended well, so long ago. No task has run for it."""
    with world.lock:
        backend = world.backend("ecs", region)
        service = backend._get_service(names["cluster"], names["service"])
        deployment, deployed = service.deployments[0], deployments.current(service)
        definition = backend.describe_task_definition(deployment.task_definition)
        container = definition.container_definitions[0]
        deployment.revision.images[container["name"]] = ecr.pull(container["image"]).digest
        deployment.running_count = deployment.desired_count
        deployments.advance(service)
        deployments.complete(service)
        for each in (definition, deployment.revision, deployment, deployed):
            for name, value in vars(each).items():
                if isinstance(value, datetime):
                    setattr(each, name, value - ago)
        service.created_at = min(service.created_at, deployment.created_at)
        service.events = []


def task_definition(world: World, region: str, image: str) -> dict:
    """As a team would have it: much that a careless copy of a revision loses."""
    facts = world.state["regions"][region]
    # Both regions write to the primary: runbook 1, step 5 is what points the standby elsewhere.
    primary = world.regions[0]
    with world.lock:
        instance = world.state["regions"][primary]["db_instance"]
        endpoint = world.backend("rds", primary).describe_db_instances(instance)[0].endpoint
    roles = f"arn:aws:iam::{world.account_id}:role"
    return {
        "family": FAMILY,
        "taskRoleArn": f"{roles}/regami-api",
        "executionRoleArn": f"{roles}/regami-api-execution",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "512",
        "memory": "1024",
        "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        "containerDefinitions": [
            {
                "name": "app",
                "image": image,
                "cpu": 512,
                "memory": 1024,
                "essential": True,
                "portMappings": [{"containerPort": elbv2.APP_PORT, "hostPort": elbv2.APP_PORT, "protocol": "tcp"}],
                "environment": [
                    {
                        "name": "DATABASE_URL",
                        "value": f"postgresql://regami@{endpoint['Address']}:{endpoint['Port']}/regami",
                    },
                    {"name": "LOG_LEVEL", "value": "INFO"},
                    {"name": "REGION", "value": region},
                ],
                "secrets": [{"name": "DATABASE_PASSWORD", "valueFrom": facts["database_secret_arn"]}],
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {
                        "awslogs-group": LOG_GROUP,
                        "awslogs-region": region,
                        "awslogs-stream-prefix": "app",
                    },
                },
                "healthCheck": {
                    "command": ["CMD-SHELL", "curl -f http://localhost:8000/health || exit 1"],
                    "interval": 10,
                    "timeout": 5,
                    "retries": 3,
                    "startPeriod": 15,
                },
                "ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}],
                "stopTimeout": 30,
                "dockerLabels": {"team": "regami"},
            }
        ],
    }
