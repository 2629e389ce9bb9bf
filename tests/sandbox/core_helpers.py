# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the core's tests do again and again."""

from __future__ import annotations

import time
from typing import Any

import psycopg2

from sandbox.client import Sandbox
from sandbox.patience import wait_until

PRIMARY = ("us-east-1", "regami-db-primary")
REPLICA = ("us-west-2", "regami-db-replica")


def instance(sandbox: Sandbox, region: str, name: str) -> dict:
    found = sandbox.boto("rds", region).describe_db_instances(DBInstanceIdentifier=name)
    return found["DBInstances"][0]


def wait_status(sandbox: Sandbox, database: tuple[str, str], status: str) -> dict:
    wait_until(lambda: instance(sandbox, *database)["DBInstanceStatus"] == status, f"{database} {status}")
    return instance(sandbox, *database)


def connect(sandbox: Sandbox, region: str, name: str, seconds: int = 2) -> Any:
    """As the administrator, to the endpoint that the API names."""
    state, endpoint = sandbox.state, instance(sandbox, region, name)["Endpoint"]
    with open(state["db_admin_password_file"]) as file:
        password = file.read()
    connection = psycopg2.connect(
        host=endpoint["Address"],
        port=endpoint["Port"],
        dbname=state["db_name"],
        user=state["db_admin_user"],
        password=password,
        connect_timeout=seconds,
    )
    connection.autocommit = True
    return connection


def query(connection: Any, sql: str, *values: Any) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


def write_row(connection: Any, number: int) -> None:
    query(connection, "INSERT INTO rows (id, payload, written_by) VALUES (%s, 'x', 'test')", number)


def row_numbers(connection: Any) -> list[int]:
    return [number for (number,) in query(connection, "SELECT id FROM rows ORDER BY id")]


def lag_points(sandbox: Sandbox, database: tuple[str, str]) -> list[float]:
    """ReplicaLag as CloudWatch tells it, newest last."""
    region, name = database
    now = time.time()
    answer = sandbox.boto("cloudwatch", region).get_metric_data(
        StartTime=now - 600,
        EndTime=now + 60,
        ScanBy="TimestampAscending",
        MetricDataQueries=[
            {
                "Id": "lag",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/RDS",
                        "MetricName": "ReplicaLag",
                        "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": name}],
                    },
                    "Period": 1,
                    "Stat": "Maximum",
                },
            }
        ],
    )
    return answer["MetricDataResults"][0]["Values"]
