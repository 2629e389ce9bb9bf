# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One ECS service in one region, in memory: it takes the place of `Aws` and writes down each call."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, verb, waiting
from ansible_collections.sre.runbooks.plugins.module_utils.aws import explain
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.patience import Patience

REGION = "us-west-2"
CLUSTER, SERVICE, FAMILY = "regami-cluster-secondary", "regami-service-secondary", "regami-api"
ARN = f"arn:aws:ecs:{REGION}:123456789012:"
GROUP = f"arn:aws:elasticloadbalancing:{REGION}:123456789012:targetgroup/regami-tg-secondary/1a2b3c"
OLD = "postgresql://regami:hunter2@old.example:5432/regami?sslmode=require"


def revision(number: int) -> str:
    return f"{ARN}task-definition/{FAMILY}:{number}"


def definition(number: int, **changes: Any) -> dict[str, Any]:
    """What DescribeTaskDefinition answers for a revision with all that a careless copy would lose."""
    answer = {
        "taskDefinitionArn": revision(number),
        "family": FAMILY,
        "revision": number,
        "status": "ACTIVE",
        "requiresAttributes": [{"name": "ecs.capability.task-eni"}],
        "compatibilities": ["EC2", "FARGATE"],
        "registeredBy": "arn:aws:iam::123456789012:role/ci",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "pidMode": "task",
        "runtimePlatform": {"cpuArchitecture": "ARM64"},
        "ephemeralStorage": {"sizeInGiB": 30},
        "volumes": [{"name": "scratch", "host": {}}],
        "placementConstraints": [],
        "containerDefinitions": [
            {
                "name": "app",
                "image": "regami-api:1.0.0",
                "environment": [
                    {"name": "DATABASE_URL", "value": OLD},
                    {"name": "API_KEY", "value": "do-not-show-me"},
                ],
                "secrets": [{"name": "DATABASE_PASSWORD", "valueFrom": f"{ARN}secret:regami/db"}],
                "healthCheck": {"command": ["CMD", "true"], "interval": 10},
            },
        ],
    }
    return answer | changes


class Region:
    """The API of one region. Fields are set by tests; `later` holds what to do to it before each further look."""

    region = REGION

    def do_without(self, error: Exception) -> None:
        self.missed.append(explain(error))

    def __init__(self, desired: int = 0, running: int | None = None) -> None:
        self.silent: set[str] = set()
        self.missed: list[str] = []
        self.patience = Patience()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.changes: list[tuple[str, dict[str, Any]]] = []
        self.revisions = {3: definition(3)}
        self.tags = {3: [{"key": "team", "value": "regami"}]}
        running = desired if running is None else running
        self.service = {
            "serviceName": SERVICE,
            "serviceArn": f"{ARN}service/{CLUSTER}/{SERVICE}",
            "status": "ACTIVE",
            "desiredCount": desired,
            "runningCount": running,
            "pendingCount": 0,
            "taskDefinition": revision(3),
            "schedulingStrategy": "REPLICA",
            "loadBalancers": [{"targetGroupArn": GROUP, "containerName": "app", "containerPort": 8080}],
            "deployments": [deployment(1, 3)],
            "events": [{"id": "1", "message": "(service regami-service-secondary) has reached a steady state."}],
        }
        self.scalable: dict[str, Any] | None = {"MinCapacity": 0, "MaxCapacity": 10}
        self.service_tags: dict[str, str] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.targets = ["healthy"] * running
        self.tasks: list[dict[str, Any]] = []
        self.later: list[Callable[[Region], None]] = []
        self.lose: Counter[str] = Counter()  # answers to lose, after or before the change was applied
        self.drop: Counter[str] = Counter()
        self.cut = False

    def read(self, service: str, operation: str, /, **arguments: Any) -> dict[str, Any]:
        return self._call(operation, arguments)

    def change(self, service: str, operation: str, /, **arguments: Any) -> dict[str, Any]:
        self.changes.append((operation, arguments))
        if self.drop[operation]:
            self.drop[operation] -= 1
            raise LostAnswer(f"{service}:{operation} got no answer")
        answer = self._call(operation, arguments)
        if self.lose[operation]:
            self.lose[operation] -= 1
            raise LostAnswer(f"{service}:{operation} got no answer")
        return answer

    def _call(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((operation, arguments))
        if self.cut:
            raise Unreachable(f"{operation} in {REGION} got no answer")
        return copy.deepcopy(getattr(self, operation)(**arguments))

    def asked(self) -> Counter[str]:
        return Counter(operation for operation, _arguments in self.calls)

    # --- ECS ---

    def describe_services(self, cluster: str, services: list[str], include: Sequence[str] = ()) -> dict[str, Any]:
        if cluster != CLUSTER:
            raise refusal("ClusterNotFoundException", "Cluster not found.")
        if self.later and self.changes:
            self.later.pop(0)(self)
        found = services == [SERVICE] and self.service
        tags = [{"key": key, "value": value} for key, value in self.service_tags.items()]
        service = dict(self.service, **({"tags": tags} if "TAGS" in include else {}))
        return {"services": [service] if found else [], "failures": []}

    def tag_resource(self, resourceArn: str, tags: list[dict[str, str]]) -> dict[str, Any]:
        assert resourceArn == self.service["serviceArn"]
        self.service_tags |= {tag["key"]: tag["value"] for tag in tags}
        return {}

    def untag_resource(self, resourceArn: str, tagKeys: list[str]) -> dict[str, Any]:
        assert resourceArn == self.service["serviceArn"]
        for key in tagKeys:
            self.service_tags.pop(key, None)
        return {}

    def list_clusters(self) -> dict[str, Any]:
        return {"clusterArns": [f"{ARN}cluster/{CLUSTER}", f"{ARN}cluster/other"]}

    def list_services(self, cluster: str, maxResults: int) -> dict[str, Any]:
        return {"serviceArns": [f"{ARN}service/{CLUSTER}/{SERVICE}", f"{ARN}service/{CLUSTER}/mailer"]}

    def describe_task_definition(self, taskDefinition: str, include: Sequence[str] = ()) -> dict[str, Any]:
        name = taskDefinition.rpartition("/")[2]
        active = [number for number, each in self.revisions.items() if each["status"] == "ACTIVE"]
        number = int(name.partition(":")[2] or (max(active) if active else 0))
        if number not in self.revisions:
            raise refusal("ClientException", "Unable to describe task definition.")
        return {"taskDefinition": self.revisions[number], "tags": self.tags.get(number, [])}

    def register_task_definition(self, tags: list[dict[str, str]], **request: Any) -> dict[str, Any]:
        number = max(self.revisions) + 1
        self.revisions[number] = definition(number, **request)
        self.tags[number] = tags
        return {"taskDefinition": self.revisions[number]}

    def update_service(
        self,
        cluster: str,
        service: str,
        taskDefinition: str | None = None,
        desiredCount: int | None = None,
        forceNewDeployment: bool = False,
    ) -> dict[str, Any]:
        if desiredCount is not None:
            self.service["desiredCount"] = desiredCount
        if taskDefinition is not None:
            self.service["taskDefinition"] = taskDefinition
        if taskDefinition is not None or forceNewDeployment:
            number = int(self.service["taskDefinition"].rpartition(":")[2])
            state = "IN_PROGRESS" if self.service["desiredCount"] else "COMPLETED"
            self.service["deployments"] = [deployment(2, number, rolloutState=state)]
        return {"service": self.service}

    def list_tasks(self, cluster: str, serviceName: str, desiredStatus: str) -> dict[str, Any]:
        return {"taskArns": [task["taskArn"] for task in self.tasks if task["desiredStatus"] == desiredStatus]}

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:
        return {"tasks": [task for task in self.tasks if task["taskArn"] in tasks]}

    # --- load balancer and scaling ---

    def describe_target_health(self, TargetGroupArn: str, region: str = REGION) -> dict[str, Any]:
        return {
            "TargetHealthDescriptions": [
                {"Target": {"Id": f"10.0.0.{number}", "Port": 8080}, "TargetHealth": {"State": state}}
                for number, state in enumerate(self.targets, 1)
            ]
        }

    def describe_scalable_targets(self, **arguments: Any) -> dict[str, Any]:
        assert arguments["ResourceIds"] == [f"service/{CLUSTER}/{SERVICE}"]
        return {"ScalableTargets": [self.scalable] if self.scalable else []}

    def register_scalable_target(self, **arguments: Any) -> dict[str, Any]:
        assert self.scalable is not None
        self.scalable |= {key: arguments[key] for key in ("MinCapacity", "MaxCapacity", "SuspendedState")}
        return {}

    def describe_scheduled_actions(self, **arguments: Any) -> dict[str, Any]:
        return {"ScheduledActions": list(self.schedules.values())}

    def put_scheduled_action(self, **arguments: Any) -> dict[str, Any]:
        self.schedules[arguments["ScheduledActionName"]] = arguments
        return {}

    def delete_scheduled_action(self, **arguments: Any) -> dict[str, Any]:
        if self.schedules.pop(arguments["ScheduledActionName"], None) is None:
            raise refusal("ObjectNotFoundException", "No scheduled action found.")
        return {}


def deployment(number: int, revision_number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"ecs-svc/{number}",
        "status": "PRIMARY",
        "taskDefinition": revision(revision_number),
        "rolloutState": "COMPLETED",
    } | changes


def stopped_task(number: int, started_by: str = "ecs-svc/2", **changes: Any) -> dict[str, Any]:
    return {
        "taskArn": f"{ARN}task/{CLUSTER}/{number}",
        "desiredStatus": "STOPPED",
        "lastStatus": "STOPPED",
        "startedBy": started_by,
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "containers": [{"name": "app", "exitCode": 3}],
    } | changes


def refusal(code: str, message: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "Ask"
    )


class _Exit(Exception):
    pass


def carry_out(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    verb_class: type[verb.Verb],
    region: Region,
    check: bool = False,
    wait_timeout: float = 5,
    **given: Any,
) -> dict[str, Any]:
    """Run a verb against `region`; returns what the module exits with."""
    for place in (verb, module):
        monkeypatch.setattr(place, "Aws", lambda _connection, **_options: region, raising=False)
        monkeypatch.setattr(place, "get_aws_connection_info", lambda _module: (REGION, None, {}), raising=False)
    monkeypatch.setattr(ecs, "CLOSER_LOOK_SECONDS", 0)
    monkeypatch.setattr(waiting, "QUICK", waiting.Pace(first=0.001, longest=0.01, growth=1.4))
    monkeypatch.setattr(verb.time, "sleep", lambda _seconds: None)
    params = {name: spec.get("default") for name, spec in module.ARGUMENTS.items()}
    params |= {"lease": None, "wait_timeout": wait_timeout, "cluster": CLUSTER, "service": SERVICE} | given
    result: dict[str, Any] = {}

    def leave(**answer: Any) -> None:
        result.update(answer)
        raise _Exit

    fake = SimpleNamespace(
        params=params,
        argument_spec=module.ARGUMENTS,
        check_mode=check,
        exit_json=lambda **answer: leave(failed=False, **answer),
        fail_json=lambda **answer: leave(failed=True, **answer),
    )
    with pytest.raises(_Exit):
        verb.run(fake, verb_class)
    return result
