# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of services, load balancers and names do again and again."""

from __future__ import annotations

import http.client
import json
from typing import Any

import dns.message
import dns.query
from core_helpers import wait_until

from sandbox.client import Sandbox

EAST, WEST = "us-east-1", "us-west-2"


def facts(sandbox: Sandbox, region: str) -> dict:
    return sandbox.state["regions"][region]


def service(sandbox: Sandbox, region: str) -> dict:
    names = facts(sandbox, region)
    found = sandbox.boto("ecs", region).describe_services(cluster=names["cluster"], services=[names["service"]])
    return found["services"][0]


def update(sandbox: Sandbox, region: str, **changes: Any) -> dict:
    names = facts(sandbox, region)
    ecs = sandbox.boto("ecs", region)
    return ecs.update_service(cluster=names["cluster"], service=names["service"], **changes)["service"]


def tasks(sandbox: Sandbox, region: str, desired: str = "RUNNING") -> list[dict]:
    names, ecs = facts(sandbox, region), sandbox.boto("ecs", region)
    arns = ecs.list_tasks(cluster=names["cluster"], serviceName=names["service"], desiredStatus=desired)["taskArns"]
    return ecs.describe_tasks(cluster=names["cluster"], tasks=arns)["tasks"] if arns else []


def target_health(sandbox: Sandbox, region: str) -> list[dict]:
    arn = facts(sandbox, region)["target_group_arn"]
    answer = sandbox.boto("elbv2", region).describe_target_health(TargetGroupArn=arn)
    return [each["TargetHealth"] for each in answer["TargetHealthDescriptions"]]


def wait_healthy(sandbox: Sandbox, region: str, number: int) -> None:
    healthy = [{"State": "healthy"}] * number
    wait_until(lambda: target_health(sandbox, region) == healthy, f"{number} healthy targets in {region}")


def wait_steady(sandbox: Sandbox, region: str) -> dict:
    def is_steady() -> bool:
        found = service(sandbox, region)
        return found["deployments"][0]["rolloutState"] != "IN_PROGRESS" and "steady" in found["events"][0]["message"]

    wait_until(is_steady, f"a steady state in {region}")
    return service(sandbox, region)


def repoint(sandbox: Sandbox, region: str, database: str, **changes: Any) -> str:
    """A revision of the application with another DATABASE_URL (host:port); its ARN."""
    ecs, family = sandbox.boto("ecs", region), facts(sandbox, region)["task_family"]
    known = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
    names = ("family", "networkMode", "cpu", "memory", "containerDefinitions", "requiresCompatibilities")
    wanted = {name: known[name] for name in names} | changes
    for each in wanted["containerDefinitions"][0]["environment"]:
        if each["name"] == "DATABASE_URL":
            each["value"] = f"postgresql://regami@{database}/regami"
    return ecs.register_task_definition(**wanted)["taskDefinition"]["taskDefinitionArn"]


def http_call(url: str, path: str, body: Any = None, host: str | None = None) -> tuple[int, Any]:
    """Status and answer, JSON where it is."""
    address, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(address, int(port), timeout=15)
    try:
        headers = {"Content-Type": "application/json"} | ({"Host": host} if host else {})
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, headers)
        response = connection.getresponse()
        answer = response.read().decode()
        return response.status, json.loads(answer) if answer.startswith("{") else answer
    finally:
        connection.close()


def dig(sandbox: Sandbox, name: str, kind: str = "A", over: Any = dns.query.udp) -> list[str]:
    host, _, port = sandbox.state["dns"].partition(":")
    answer = over(dns.message.make_query(name, kind), host, port=int(port), timeout=3)
    return [item.to_text() for rrset in answer.answer for item in rrset]
