# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of no service: their command really runs, in the service's image and with its secrets, and once for each token."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from compute_helpers import EAST, facts, http_call, service
from core_helpers import wait_until


def run(sandbox, *command, environment=(), **changes):
    """RunTask as a person would, with the network of the service; the task."""
    known = service(sandbox, EAST)
    override = {"name": "app", "command": list(command), "environment": list(environment)}
    request = {
        "cluster": known["clusterArn"],
        "taskDefinition": known["taskDefinition"],
        "launchType": "FARGATE",
        "networkConfiguration": known["networkConfiguration"],
        "overrides": {"containerOverrides": [override]},
    }
    request = {key: value for key, value in (request | changes).items() if value is not None}
    return sandbox.boto("ecs", EAST).run_task(**request)["tasks"][0]


def described(sandbox, task):
    ecs = sandbox.boto("ecs", EAST)
    return ecs.describe_tasks(cluster=task["clusterArn"], tasks=[task["taskArn"]])["tasks"][0]


def ended(sandbox, task):
    wait_until(lambda: described(sandbox, task)["lastStatus"] == "STOPPED", "the task ends")
    return described(sandbox, task)


def lines(sandbox, task):
    stream = f"app/app/{task['taskArn'].rpartition('/')[2]}"
    logs = sandbox.boto("logs", EAST)
    found = logs.get_log_events(logGroupName=facts(sandbox, EAST)["log_group"], logStreamName=stream)
    return [event["message"] for event in found["events"]]


def refused(sandbox, words, **changes):
    with pytest.raises(ClientError, match=words):
        run(sandbox, "true", **changes)


def test_a_command_runs_with_the_secrets_of_the_service_and_its_exit_code_is_told(fresh_sandbox):
    """Against the real database; the environment that is given wins over the task definition's."""
    script = (
        "import os, psycopg2; c = psycopg2.connect(os.environ['DATABASE_URL'], password=os.environ['DATABASE_PASSWORD'])"
        ".cursor(); c.execute('SELECT version_num FROM alembic_version'); print(*c.fetchone()); print(os.environ['LOG_LEVEL']);"
        "raise SystemExit(3)"
    )
    before = service(fresh_sandbox, EAST)
    task = run(fresh_sandbox, "python", "-c", script, environment=[{"name": "LOG_LEVEL", "value": "DEBUG"}])
    assert (task["lastStatus"], task["group"]) == ("PROVISIONING", "family:regami-api")
    end = ended(fresh_sandbox, task)
    assert (end["stopCode"], end["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert end["containers"][0]["exitCode"] == 3
    assert end["startedAt"] < end["stoppedAt"]
    wait_until(lambda: len(lines(fresh_sandbox, task)) == 2, "its lines are in the log")
    assert lines(fresh_sandbox, task) == ["8e2d4c6a1f37", "DEBUG"]
    after = service(fresh_sandbox, EAST)
    assert (after["runningCount"], after["taskDefinition"]) == (before["runningCount"], before["taskDefinition"])


def test_the_image_holds_the_migrations_that_the_database_has(fresh_sandbox):
    pytest.importorskip("alembic", reason="of requirements-dev.txt")
    task = run(fresh_sandbox, "python", "-m", "alembic", "current")
    assert ended(fresh_sandbox, task)["containers"][0]["exitCode"] == 0
    wait_until(lambda: "8e2d4c6a1f37 (head)" in lines(fresh_sandbox, task), "alembic says so")


def test_a_program_that_the_image_does_not_have(sandbox):
    end = ended(sandbox, run(sandbox, "pyhton"))
    assert end["stopCode"] == "TaskFailedToStart"
    assert end["containers"][0]["reason"].startswith("CannotStartContainerError") and "pyhton" in end["stoppedReason"]
    assert "exitCode" not in end["containers"][0]


def test_one_token_starts_one_task(sandbox):
    first = run(sandbox, "sleep", "600", startedBy="repair/1", clientToken="token-1")
    again = run(sandbox, "sleep", "600", startedBy="repair/1", clientToken="token-1")
    assert first["taskArn"] == again["taskArn"]
    with pytest.raises(ClientError) as caught:
        run(sandbox, "sleep", "0.3", startedBy="repair/1", clientToken="token-1")
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    ecs = sandbox.boto("ecs", EAST)
    assert ecs.list_tasks(cluster=first["clusterArn"], startedBy="repair/1")["taskArns"] == [first["taskArn"]]
    with pytest.raises(ClientError, match="another filter"):
        ecs.list_tasks(cluster=first["clusterArn"], startedBy="repair/1", desiredStatus="STOPPED")
    ecs.stop_task(cluster=first["clusterArn"], task=first["taskArn"])
    ended(sandbox, first)
    # It still answers for the task that has ended.
    assert run(sandbox, "sleep", "600", startedBy="repair/1", clientToken="token-1")["lastStatus"] == "STOPPED"
    stopped = ecs.list_tasks(cluster=first["clusterArn"], family="regami-api", desiredStatus="STOPPED")["taskArns"]
    assert first["taskArn"] in stopped


def test_what_ecs_refuses(sandbox):
    refused(sandbox, "Network Configuration must be provided", networkConfiguration=None)
    refused(sandbox, "startedBy", startedBy="sre.runbooks")
    refused(sandbox, "at most 8192", overrides={"containerOverrides": [{"name": "app", "command": ["x" * 8192]}]})
    refused(sandbox, "container named web", overrides={"containerOverrides": [{"name": "web"}]})
    refused(sandbox, "is inactive", taskDefinition="regami-api:2")


def test_one_that_is_stopped_ends_by_a_signal(sandbox):
    task = run(sandbox, "sleep", "60")
    wait_until(lambda: described(sandbox, task)["lastStatus"] == "RUNNING", "it runs")
    sandbox.boto("ecs", EAST).stop_task(cluster=task["clusterArn"], task=task["taskArn"], reason="enough")
    end = ended(sandbox, task)
    assert (end["stopCode"], end["stoppedReason"], end["containers"][0]["exitCode"]) == ("UserInitiated", "enough", 143)


def test_the_application_without_its_newest_migration(fresh_sandbox):
    url, host = facts(fresh_sandbox, EAST)["alb_url"], fresh_sandbox.state["public_name"]
    assert http_call(url, "/v1/audit/search", host=host)[0] == 200
    fresh_sandbox.fault("schema-drift")
    assert http_call(url, "/v1/audit/search", host=host)[0] == 400
    assert http_call(url, "/v1/rows", {"id": 7, "payload": "x"}, host=host)[0] == 201
    fresh_sandbox.heal("schema-drift")
    assert http_call(url, "/v1/audit/search", host=host)[0] == 200
