# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runbook 1 as the shortest honest script: the same calls, quick polls, no gate, no lease, no record, no way back."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable

import boto3

POLL_SECONDS = 0.1
WAIT_SECONDS = 60.0


def main(env: dict[str, str]) -> None:
    here, there = boto3.Session(region_name=env["PRIMARY_REGION"]), boto3.Session(region_name=env["STANDBY_REGION"])
    rds, ecs, replica = there.client("rds"), there.client("ecs"), env["REPLICA_DB"]
    here.client("rds").describe_db_instances(DBInstanceIdentifier=env["PRIMARY_DB"])
    endpoint = rds.describe_db_instances(DBInstanceIdentifier=replica)["DBInstances"][0]["Endpoint"]
    here.client("ecs").update_service(cluster=env["PRIMARY_CLUSTER"], service=env["PRIMARY_SERVICE"], desiredCount=0)

    rds.promote_read_replica(DBInstanceIdentifier=replica, BackupRetentionPeriod=7)
    until(lambda: is_promoted(rds.describe_db_instances(DBInstanceIdentifier=replica)["DBInstances"][0]))

    with open("task-definition.json", encoding="utf-8") as file:
        definition = json.load(file)
    url = f"postgresql://regami@{endpoint['Address']}:{endpoint['Port']}/regami"
    for variable in definition["containerDefinitions"][0]["environment"]:
        if variable["name"] == "DATABASE_URL":
            variable["value"] = url
    revision = ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    service = {"cluster": env["STANDBY_CLUSTER"], "service": env["STANDBY_SERVICE"]}
    ecs.update_service(**service, desiredCount=2, taskDefinition=revision)
    names = {"cluster": service["cluster"], "services": [service["service"]]}
    until(lambda: is_stable(ecs.describe_services(**names)["services"][0]))

    with open("failover-to-secondary.json", encoding="utf-8") as file:
        batch = json.load(file)
    there.client("route53").change_resource_record_sets(HostedZoneId=env["HOSTED_ZONE_ID"], ChangeBatch=batch)
    until(lambda: ask(env, "GET", "/health?check=db"))
    until(lambda: ask(env, "POST", "/v1/auth/login", {"email": "test@example.com", "password": "test"}))
    there.client("logs").filter_log_events(logGroupName=env["LOG_GROUP"])


def is_promoted(instance: dict) -> bool:
    return instance["DBInstanceStatus"] == "available" and not instance.get("ReadReplicaSourceDBInstanceIdentifier")


def is_stable(service: dict) -> bool:
    return len(service["deployments"]) == 1 and service["runningCount"] == service["desiredCount"]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("it does not become what it should")
        time.sleep(POLL_SECONDS)


def ask(env: dict[str, str], method: str, path: str, body: dict | None = None) -> bool:
    connection = http.client.HTTPConnection(env["STANDBY_ALB_ADDRESS"], int(env["HTTP_PORT"]), timeout=5)
    content = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, content, {"Host": env["PUBLIC_NAME"]})
        return connection.getresponse().status == 200
    finally:
        connection.close()


if __name__ == "__main__":
    main(dict(os.environ))
