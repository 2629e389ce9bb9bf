# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ECS services that do what they are told: deployments, tasks that are real processes, events, a circuit breaker.

moto keeps clusters, task definitions and services; a reconciler brings each service's tasks to what it wants.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from . import elbv2
from .ecs_tasks import Task

if TYPE_CHECKING:
    from .world import World

FAMILY = "regami-api"
LOG_GROUP = "/ecs/regami-api"
TICK_SECONDS = 0.1
KEPT_STOPPED = 50  # stopped tasks that are still described, of each service
KEPT_EVENTS = 100
START_SECONDS = 15.0

tasks: dict[str, list[Task]] = {}  # by ARN of the service, oldest first

_world: World
_moto: dict[str, Any] = {}
_wake = threading.Event()
_pace: dict[str, tuple[int, float]] = {}  # deployment id -> (failed starts, not before)
_steady: set[str] = set()  # ARNs of services that said so


# ---- services ------------------------------------------------------------------------------------------------------


def _new_deployment(service: Any) -> dict:
    now = _now()
    deployment_id = f"ecs-svc/{secrets.randbelow(9 * 10**18) + 10**18}"
    return {
        "id": deployment_id,
        "status": "PRIMARY",
        "taskDefinition": service.task_definition,
        "desiredCount": service.desired_count,
        "runningCount": 0,
        "pendingCount": 0,
        "failedTasks": 0,
        "createdAt": now,
        "updatedAt": now,
        "launchType": service.launch_type,
        "platformVersion": service.platform_version,
        "platformFamily": "Linux",
        "networkConfiguration": service.network_configuration,
        "rolloutState": "IN_PROGRESS",
        "rolloutStateReason": f"ECS deployment {deployment_id} in progress.",
    }


def _deploy(service: Any, deployment: dict | None = None) -> dict:
    """Make a new deployment, or one that is still there, the primary one."""
    deployment = deployment or _new_deployment(service)
    others = [each for each in service.deployments if each is not deployment]
    for each in others:
        each["status"] = "ACTIVE"
    service.deployments = [deployment, *others]
    _steady.discard(service.arn)
    return deployment


def create_service(response: Any) -> Any:
    result = _moto["create_service"](response)
    service = result.result["service"]
    for name in ("deploymentConfiguration", "healthCheckGracePeriodSeconds", "enableExecuteCommand"):
        value = response._get_param(name)
        if value is not None:
            setattr(service, _underscored(name), value)
    service.running_count = service.pending_count = 0
    service.created_at = _now()
    service.deployments = []
    _deploy(service)
    _wake.set()
    return result


def update_service(backend: Any, properties: dict) -> Any:
    from moto.ecs.exceptions import ECSException

    service = backend._get_service(properties.pop("cluster", "default"), properties.pop("service").split("/")[-1])
    if service.status != "ACTIVE":
        raise ECSException("ServiceNotActiveException", "Service was not ACTIVE.")
    definition, force = properties.pop("task_definition", None), properties.pop("force_new_deployment", False)
    new = force or "network_configuration" in properties or "load_balancers" in properties
    if definition is not None:
        arn = _usable(backend, definition).arn
        new, service.task_definition = new or arn != service.task_definition, arn
    for name, value in properties.items():
        if value is not None:
            setattr(service, name, value)
    if new:
        _deploy(service)
    else:
        service.deployments[0]["desiredCount"] = service.desired_count
    _steady.discard(service.arn)
    _wake.set()
    return service


def delete_service(backend: Any, cluster_name: str, service_name: str, force: bool) -> Any:
    service = _moto["delete_service"](backend, cluster_name, service_name.split("/")[-1], force)
    service.desired_count = 0
    _wake.set()
    return service


def _usable(backend: Any, name: str) -> Any:
    """The task definition that a service is to run. Raises ClientException as AWS does."""
    from moto.ecs.exceptions import EcsClientException, TaskDefinitionNotFoundException

    try:
        definition = backend.describe_task_definition(name)
    except TaskDefinitionNotFoundException:
        raise EcsClientException("TaskDefinition not found.") from None
    if definition.status != "ACTIVE":
        raise EcsClientException("TaskDefinition is inactive")
    return definition


def describe_task_definition(backend: Any, task_definition_str: str) -> Any:
    """Also: a family means its latest ACTIVE revision, and a revision is a number."""
    from moto.ecs.exceptions import EcsClientException, TaskDefinitionNotFoundException

    family, _, revision = task_definition_str.split("/")[-1].partition(":")
    known = backend.task_definitions.get(family, {})
    if revision and not revision.isdigit():
        raise EcsClientException(f"Invalid revision number. Number: {revision}")
    if not revision:
        active = [number for number, each in known.items() if each.status == "ACTIVE"]
        revision = max(active, default=0)
    if int(revision) not in known:
        raise TaskDefinitionNotFoundException
    return known[int(revision)]


def list_task_definitions(response: Any) -> Any:
    from moto.core.responses import ActionResult

    prefix, status = response._get_param("familyPrefix"), response._get_param("status", "ACTIVE")
    revisions = [
        definition
        for family in sorted(response.ecs_backend.task_definitions)
        for _, definition in sorted(response.ecs_backend.task_definitions[family].items())
        if prefix in (None, family) and definition.status == status
    ]
    if response._get_param("sort") == "DESC":
        revisions.reverse()
    first, size = int(response._get_param("nextToken") or 0), int(response._get_param("maxResults") or 100)
    page = {"taskDefinitionArns": [each.arn for each in revisions[first : first + size]]}
    if len(revisions) > first + size:
        page["nextToken"] = str(first + size)
    return ActionResult(page)


# ---- tasks ---------------------------------------------------------------------------------------------------------


def _tasks_of(cluster: Any) -> list[Task]:
    return [task for each in tasks.values() for task in each if task.cluster_arn == cluster.arn]


def _find(cluster: Any, name: str) -> Task | None:
    return next((task for task in _tasks_of(cluster) if task.id == name.split("/")[-1]), None)


def list_tasks(response: Any) -> Any:
    from moto.core.responses import ActionResult

    backend, wanted = response.ecs_backend, response._get_param
    found = _tasks_of(backend._get_cluster(wanted("cluster") or "default"))
    if name := wanted("serviceName"):
        service = backend._get_service(wanted("cluster") or "default", name.split("/")[-1])
        found = [task for task in found if task.service_name == service.name]
    if family := wanted("family"):
        found = [task for task in found if task.definition.family == family]
    if started_by := wanted("startedBy"):
        found = [task for task in found if task.deployment_id == started_by]
    desired = wanted("desiredStatus") or "RUNNING"
    return ActionResult({"taskArns": [task.task_arn for task in found if task.desired == desired]})


def describe_tasks(response: Any) -> Any:
    from moto.core.responses import ActionResult
    from moto.ecs.exceptions import InvalidParameterException

    cluster = response.ecs_backend._get_cluster(response._get_param("cluster") or "default")
    names = response._get_param("tasks", [])
    if not names:
        raise InvalidParameterException("Tasks cannot be empty.")
    found = {name: _find(cluster, name) for name in names}
    missing = [
        {"arn": f"{cluster.arn.replace(':cluster/', ':task/')}/{name.split('/')[-1]}", "reason": "MISSING"}
        for name, task in found.items()
        if task is None
    ]
    return ActionResult({"tasks": [task.describe() for task in found.values() if task], "failures": missing})


def stop_task(response: Any) -> Any:
    from moto.core.responses import ActionResult
    from moto.ecs.exceptions import InvalidParameterException

    cluster = response.ecs_backend._get_cluster(response._get_param("cluster") or "default")
    task = _find(cluster, response._get_param("task"))
    if task is None:
        raise InvalidParameterException("The referenced task was not found.")
    task.stop("UserInitiated", response._get_param("reason") or "Task stopped by user")
    _wake.set()
    return ActionResult({"task": task.describe()})


# ---- the reconciler ------------------------------------------------------------------------------------------------


def _reconcile_all() -> None:
    while True:
        with _world.lock:
            for region in _world.regions:
                if region not in _world.cut_regions:
                    backend = _world.backend("ecs", region)
                    for service in list(backend.services.values()):
                        reconcile(backend, service)
        if not _wake.wait(TICK_SECONDS):
            _world.pause(0)
        _wake.clear()
        _world.pause(0.02)


def reconcile(backend: Any, service: Any) -> None:
    """One look at a service: move its tasks on, start and stop what is needed, say what happened."""
    own = tasks.setdefault(service.arn, [])
    moving = [task for task in own if task.status != "STOPPED"]
    for task in moving:
        task.advance()
    for task in moving:
        _note_failure(service, task)
        _log(task)
    primary = service.deployments[0]
    new = [task for task in moving if task.is_active and task.deployment_id == primary["id"]]
    old = [task for task in moving if task.is_active and task.deployment_id != primary["id"]]
    desired = service.desired_count
    if primary["rolloutState"] != "FAILED":
        _start(service, primary, min(desired - len(new), _maximum(service) - len(new) - len(old)))
    ready = sum(task.is_ready for task in new)
    surplus = sorted(new, key=lambda task: task.is_ready)[: max(0, len(new) - desired)]
    kept_old = max(0, _minimum(service) - ready) if desired else 0
    surplus += sorted(old, key=lambda task: task.is_ready)[: max(0, len(old) - kept_old)]
    _stop(service, surplus)
    _replace_unhealthy(service, new + old)
    del own[: max(0, sum(task.status == "STOPPED" for task in own) - KEPT_STOPPED)]
    _count(backend, service, own)
    _conclude(service, own)


def _configuration(service: Any, name: str, default: int) -> int:
    return int((getattr(service, "deployment_configuration", None) or {}).get(name, default))


def _maximum(service: Any) -> int:
    return math.floor(service.desired_count * _configuration(service, "maximumPercent", 200) / 100)


def _minimum(service: Any) -> int:
    return math.ceil(service.desired_count * _configuration(service, "minimumHealthyPercent", 100) / 100)


def _start(service: Any, deployment: dict, number: int) -> None:
    _, not_before = _pace.get(deployment["id"], (0, 0.0))
    if number <= 0 or time.monotonic() < not_before or _world.closed.is_set():
        return
    definition = describe_task_definition(service._backend, deployment["taskDefinition"])
    started = [Task(_world, service, deployment["id"], definition) for _ in range(number)]
    tasks[service.arn] += started
    _wake.set()  # the next look launches them, and sees it when that fails
    _say(service, f"has started {len(started)} tasks: {_names(started)}.")


def _stop(service: Any, surplus: list[Task]) -> None:
    if not surplus:
        return
    registered = [task for task in surplus if task.running_since and task.group_arn]
    for task in surplus:
        task.stop("ServiceSchedulerInitiated", f"Scaling activity initiated by (deployment {task.deployment_id})")
    if registered:
        _say(service, f"has begun draining connections on {len(registered)} tasks.")
        _say(service, f"deregistered {len(registered)} targets in (target-group {registered[0].group_arn})")
    _say(service, f"has stopped {len(surplus)} running tasks: {_names(surplus)}.")


def _replace_unhealthy(service: Any, running: list[Task]) -> None:
    grace = getattr(service, "health_check_grace_period_seconds", None) or 0
    for task in running:
        if task.is_active and task.target_state == "unhealthy" and time.monotonic() - task.running_since > grace:
            target = elbv2.target(task.group_arn, task.address)
            _say(
                service,
                f"(port {task.port}) is unhealthy in (target-group {task.group_arn}) "
                f"due to (reason {target.description})",
            )
            task.stop("ServiceSchedulerInitiated", f"Task failed ELB health checks in (target-group {task.group_arn})")
            _failed(service, task)


def _note_failure(service: Any, task: Task) -> None:
    if task.status == "STOPPED" and task.stop_code in ("EssentialContainerExited", "TaskFailedToStart"):
        _failed(service, task)
        _say(service, f"has stopped 1 running tasks: {_names([task])}.")


def _failed(service: Any, task: Task) -> None:
    """Start its replacement later and later, and give the deployment up when its circuit breaker says so.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
    """
    deployment = next((each for each in service.deployments if each["id"] == task.deployment_id), None)
    if deployment is None:
        return
    failures = _pace.get(task.deployment_id, (0, 0.0))[0] + 1
    _pace[task.deployment_id] = failures, time.monotonic() + min(10.0, 0.25 * 2**failures)
    deployment["failedTasks"] += 1
    _steady.discard(service.arn)
    breaker = (getattr(service, "deployment_configuration", None) or {}).get("deploymentCircuitBreaker") or {}
    threshold = max(3, math.ceil(service.desired_count / 2))
    if (
        not breaker.get("enable")
        or deployment["rolloutState"] != "IN_PROGRESS"
        or deployment["failedTasks"] < threshold
        or deployment["status"] != "PRIMARY"
    ):
        return
    reason = "ECS deployment circuit breaker: tasks failed to start."
    deployment |= {"rolloutState": "FAILED", "rolloutStateReason": reason, "updatedAt": _now()}
    _say(service, f"(deployment {deployment['id']}) deployment failed: tasks failed to start.")
    good = next((each for each in service.deployments if each["rolloutState"] == "COMPLETED"), None)
    if breaker.get("rollback") and good:
        service.task_definition = good["taskDefinition"]
        good |= {
            "status": "PRIMARY",
            "desiredCount": service.desired_count,
            "rolloutState": "IN_PROGRESS",
            "rolloutStateReason": f"ECS deployment circuit breaker: rolling back to deploymentId {good['id']}.",
            "updatedAt": _now(),
        }
        _deploy(service, good)
        _say(service, f"rolling back to (deployment {good['id']}).")


def _count(backend: Any, service: Any, own: list[Task]) -> None:
    for deployment in service.deployments:
        mine = [task for task in own if task.deployment_id == deployment["id"]]
        deployment["runningCount"] = sum(task.status == "RUNNING" for task in mine)
        deployment["pendingCount"] = sum(task.is_active and task.status in ("PROVISIONING", "PENDING") for task in mine)
        if deployment["status"] != "PRIMARY":
            deployment["desiredCount"] = sum(task.is_active for task in mine)
    service.running_count = sum(each["runningCount"] for each in service.deployments)
    service.pending_count = sum(each["pendingCount"] for each in service.deployments)
    cluster = backend.clusters[service.cluster_name]
    services = [each for each in backend.services.values() if each.cluster_name == cluster.name]
    cluster.running_tasks_count = sum(each.running_count for each in services)
    cluster.pending_tasks_count = sum(each.pending_count for each in services)


def _conclude(service: Any, own: list[Task]) -> None:
    """A rollout is complete, and a service steady, when exactly the wanted tasks are ready and no other is left."""
    primary = service.deployments[0]
    left = [task for task in own if task.status != "STOPPED"]
    done = (
        len(left) == service.desired_count
        and all(task.is_ready and task.deployment_id == primary["id"] for task in left)
        and primary["rolloutState"] != "FAILED"
    )
    if not done:
        _steady.discard(service.arn)
        return
    if primary["rolloutState"] == "IN_PROGRESS":
        primary |= {
            "rolloutState": "COMPLETED",
            "rolloutStateReason": f"ECS deployment {primary['id']} completed.",
            "updatedAt": _now(),
        }
        _say(service, f"(deployment {primary['id']}) deployment completed.")
    service.deployments = [primary]
    if service.arn not in _steady:
        _steady.add(service.arn)
        _say(service, "has reached a steady state.")


def _say(service: Any, text: str) -> None:
    event = {"id": str(uuid.uuid4()), "createdAt": _now(), "message": f"(service {service.name}) {text}"}
    service.events = [event, *service.events][:KEPT_EVENTS]


def _names(of: list[Task]) -> str:
    return " ".join(f"(task {task.id})" for task in of)


def _log(task: Task) -> None:
    """What it wrote to its log group, as the driver awslogs does."""
    if not (lines := task.new_log_lines()):
        return
    container = task.definition.container_definitions[0]
    options = (container.get("logConfiguration") or {}).get("options") or {}
    logs = _world.backend("logs", options.get("awslogs-region", task.region))
    group = logs.groups.get(options.get("awslogs-group"))
    if group is None:
        return
    stream = f"{options.get('awslogs-stream-prefix', 'ecs')}/{container['name']}/{task.id}"
    if stream not in group.streams:
        group.create_log_stream(stream)
    now = int(time.time() * 1000)
    group.put_log_events(stream, [{"timestamp": now, "message": line} for line in lines])


def _now() -> Any:
    from moto.core.utils import utcnow

    return utcnow()


def _underscored(name: str) -> str:
    from moto.core.utils import camelcase_to_underscores

    return camelcase_to_underscores(name)


# ---- a part of the world -------------------------------------------------------------------------------------------


def install(world: World) -> None:
    from moto.ecs.models import EC2ContainerServiceBackend
    from moto.ecs.responses import EC2ContainerServiceResponse

    global _world
    _world = world
    for owner, functions in (
        (EC2ContainerServiceBackend, (update_service, delete_service, describe_task_definition)),
        (
            EC2ContainerServiceResponse,
            (create_service, list_task_definitions, list_tasks, describe_tasks, stop_task),
        ),
    ):
        for function in functions:
            _moto[function.__name__] = getattr(owner, function.__name__)
            setattr(owner, function.__name__, function)


def seed(world: World) -> None:
    tasks.clear()
    _pace.clear()
    _steady.clear()
    for region, suffix, count in zip(world.regions, ("", "-secondary"), (2, 0), strict=True):
        _seed_region(world, region, suffix, count)


def _seed_region(world: World, region: str, suffix: str, count: int) -> None:
    ecs, facts = world.client("ecs", region), world.state["regions"][region]
    names = {"cluster": f"regami-cluster{suffix}", "service": f"regami-service{suffix}"}
    tags = [{"key": "service", "value": "regami"}]
    world.client("logs", region).create_log_group(logGroupName=LOG_GROUP)
    ecs.create_cluster(clusterName=names["cluster"], tags=tags)
    ecs.register_task_definition(**_task_definition(world, region), tags=tags)
    with world.lock:
        ec2 = world.backend("ec2", region)
        subnets = [subnet.id for subnet in ec2.get_default_subnets().values()][:2]
        group = next(each.id for each in ec2.describe_security_groups() if each.name == "default")
    ecs.create_service(
        cluster=names["cluster"],
        serviceName=names["service"],
        taskDefinition=FAMILY,
        desiredCount=count,
        launchType="FARGATE",
        platformVersion="1.4.0",
        loadBalancers=[
            {"targetGroupArn": facts["target_group_arn"], "containerName": "app", "containerPort": elbv2.APP_PORT}
        ],
        networkConfiguration={
            "awsvpcConfiguration": {"subnets": subnets, "securityGroups": [group], "assignPublicIp": "DISABLED"}
        },
        deploymentConfiguration={
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
        },
        healthCheckGracePeriodSeconds=30,
        tags=tags,
    )
    world.client("application-autoscaling", region).register_scalable_target(
        ServiceNamespace="ecs",
        ResourceId=f"service/{names['cluster']}/{names['service']}",
        ScalableDimension="ecs:service:DesiredCount",
        MinCapacity=count,
        MaxCapacity=10,
    )
    facts |= {**names, "task_family": FAMILY, "log_group": LOG_GROUP}


def _task_definition(world: World, region: str) -> dict:
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
                "image": "regami-api:1.0.0",
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


def start(world: World) -> None:
    world.background(_reconcile_all)
    deadline = time.monotonic() + START_SECONDS
    arns = [facts["load_balancer_arn"] for facts in world.state["regions"].values() if facts["role"] == "primary"]
    while not all(elbv2.is_healthy(elbv2.balancers[arn]) for arn in arns):
        if time.monotonic() > deadline:
            raise RuntimeError("the primary region's tasks do not become healthy")
        time.sleep(0.02)


def stop(world: World) -> None:
    with world.lock:
        for task in [task for each in tasks.values() for task in each]:
            task.kill()
        tasks.clear()


def status(world: World) -> list[dict]:
    rows = []
    with world.lock:
        for region in world.regions:
            for service in world.backend("ecs", region).services.values():
                primary = service.deployments[0]
                rows.append(
                    {
                        "region": region,
                        "kind": "service",
                        "name": service.name,
                        "state": primary["rolloutState"].lower(),
                        "detail": f"running {service.running_count} of {service.desired_count}  "
                        f"{service.task_definition.rpartition('/')[2]}",
                    }
                )
    return rows
