# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service with all that it depends on, and users: a revision of its task definition that names a pool, a cache, a bucket,
a partner and a disk. Made when the first incident needs it, which most drills never do.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from .. import ecr, load
from ..ecs import deployments, tasks
from ..ecs.pipeline import definition_of
from ..patience import wait_until
from . import levels as quiet

if TYPE_CHECKING:
    from ..world import World

BUCKET, OTHER_BUCKET, ROLE, POLICY = "regami-documents", "regami-exports", "regami-api", "documents"
FLOW_LOG_GROUP = "/vpc/flow-logs"
TASKS, DISK = 3, "/mnt"
# Few users: what a drill does for seconds stands for hours of them.
WRITES, READS = 4.0, 2.0
# The first requests of a process take longer than those that follow.
WARM_SECONDS, QUIET_SECONDS = 3.0, 3.0

_staged: dict[str, Any] = {}


def forget() -> None:
    _staged.clear()


def service(world: World) -> Any:
    """moto's. Hold the world's lock."""
    facts = world.state["regions"][world.regions[0]]
    return world.backend("ecs", world.regions[0])._get_service(facts["cluster"], facts["service"])


def log_groups(world: World) -> list[str]:
    return [world.state["regions"][world.regions[0]]["log_group"], FLOW_LOG_GROUP]


def running(world: World) -> list[Any]:
    """Its tasks."""
    with world.lock:
        return [task for task in tasks.of_service[service(world).arn] if task.status == "RUNNING" and task.is_active]


def ready(world: World) -> None:
    """Returns when the service is steady, and users are about. Raises RuntimeError when it does not become so."""
    if "definition" not in _staged:
        _furnish(world)
        with world.lock:
            _staged["history"] = list(deployments.history[service(world).arn])
        _staged["definition"] = _register(world, ecr.uri(world.regions[0], "v2"))
    settle(world)
    if load.is_running():
        return
    load.begin(world, rate=WRITES, reads=READS, retry=load.WRITERS / WRITES)
    time.sleep(WARM_SECONDS)
    began = time.time()
    calm = max(QUIET_SECONDS, 3 * world.settings.metric_seconds)
    time.sleep(calm)
    _staged["levels"] = quiet.measured_since(world, began)


def good() -> str:
    """ARN of the revision that has nothing wrong with it."""
    return _staged["definition"]


def replaced() -> set[str]:
    """ARNs of what ran before that."""
    return {each.target.task_definition for each in _staged["history"]}


def levels(world: World) -> dict[tuple, quiet.Level]:
    """What its metrics are where nothing is wrong."""
    return _staged["levels"]


def settle(world: World) -> None:
    """Have the good revision run, with all its tasks, and be what was deployed last."""
    region = world.regions[0]
    facts = world.state["regions"][region]
    deploy(world, _staged["definition"], TASKS)
    wait_until(lambda: _is_steady(world), f"{facts['service']} is steady")
    with world.lock:
        own = service(world)
        present = deployments.history[own.arn][0]
        deployments.history[own.arn] = [present, *_staged["history"]]
        mine = tasks.of_service[own.arn]
        mine[:] = [task for task in mine if task.status != "STOPPED"]
        revisions = world.backend("ecs", region).task_definitions[facts["task_family"]]
        good = int(_staged["definition"].rpartition(":")[2])
        for number in [number for number in revisions if number > good]:
            del revisions[number]


def _is_steady(world: World) -> bool:
    with world.lock:
        own = service(world)
        return own.steady and own.running_count == TASKS and own.deployments[0].rollout_state == "COMPLETED"


def deploy(world: World, definition: str, number: int | None = None) -> None:
    """As the pipeline does it; nothing where that runs already."""
    region = world.regions[0]
    facts = world.state["regions"][region]
    with world.lock:
        own = service(world)
        same = own.task_definition == definition and own.desired_count == (number or own.desired_count)
        if same and own.deployments[0].rollout_state != "FAILED":
            return
        own.steady = False
    world.client("ecs", region).update_service(
        cluster=facts["cluster"],
        service=facts["service"],
        taskDefinition=definition,
        **({"desiredCount": number} if number else {}),
    )


def release(world: World, build: str, number: int) -> str:
    """ARN of a revision with another build of the application, whose tag says nothing of it."""
    region, tag = world.regions[0], f"v2.{number}"
    with world.lock:
        backend = world.backend("ecr", region)
        if not any(tag in each.image_tags for each in backend.repositories[ecr.REPOSITORY].images):
            backend.put_image(ecr.REPOSITORY, ecr.manifest(tag), tag)
    ecr.disguise(tag, build)
    return _register(world, ecr.uri(region, tag), _staged["definition"])


def _register(world: World, image: str, like: str | None = None) -> str:
    region = world.regions[0]
    facts = world.state["regions"][region]
    ecs = world.client("ecs", region)
    definition = definition_of(ecs, like or facts_running(world))
    (container,) = definition["containerDefinitions"]
    container["image"] = image
    if like is None:
        partner = world.state["partner"]
        container["environment"] += [
            {"name": name, "value": value}
            for name, value in {
                "DATABASE_POOL": "4+2",
                "REDIS_URL": f"redis://{facts['cache_host']}:{facts['cache_port']}/0",
                "DOCUMENTS_BUCKET": BUCKET,
                "PARTNER_URL": partner["url"],
                "REQUESTS_CA_BUNDLE": partner["ca_file"],
                "SPOOL_DIR": DISK,
                "WORKERS": "2",
            }.items()
        ]
        container["mountPoints"] = [{"sourceVolume": "spool", "containerPath": DISK, "readOnly": False}]
        container["cpu"], container["memory"] = 256, 512
        definition |= {"cpu": "256", "memory": "512", "volumes": [{"name": "spool", "host": {}}]}
    return ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]


def facts_running(world: World) -> str:
    """ARN of the task definition that the service has."""
    with world.lock:
        return service(world).task_definition


def _furnish(world: World) -> None:
    """The bucket, the role that may write to it, and flow logs of the network."""
    region = world.regions[0]
    facts, roles = world.state["regions"][region], world.client("iam", region)
    for bucket in (BUCKET, OTHER_BUCKET):
        world.client("s3", region).create_bucket(Bucket=bucket)
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    roles.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))
    grant(world)
    logs = world.client("logs", region)
    logs.create_log_group(logGroupName=FLOW_LOG_GROUP)
    with world.lock:
        vpc = world.backend("ec2", region).default_vpc.id
    world.client("ec2", region).create_flow_logs(
        ResourceIds=[vpc],
        ResourceType="VPC",
        TrafficType="ALL",
        LogGroupName=FLOW_LOG_GROUP,
        DeliverLogsPermissionArn=f"arn:aws:iam::{world.account_id}:role/flow-logs",
        MaxAggregationInterval=60,
    )
    facts |= {"documents_bucket": BUCKET, "flow_log_group": FLOW_LOG_GROUP, "task_role": ROLE}
    world.state["dependencies"] = [
        {"name": "cache", "kind": "redis", "host": facts["cache_host"], "port": facts["cache_port"]},
        {"name": "documents", "kind": "s3", "bucket": BUCKET, "region": region},
    ]
    world.save_state()


def grant(world: World) -> None:
    """The role may do what the application does."""
    allowed = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject"], "Resource": f"arn:aws:s3:::{BUCKET}/*"}
        ],
    }
    world.client("iam", world.regions[0]).put_role_policy(
        RoleName=ROLE, PolicyName=POLICY, PolicyDocument=json.dumps(allowed)
    )
