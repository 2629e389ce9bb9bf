# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback_deployment.yml, strategy command: the team's own pipeline takes a bad build back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runbook import Result, Running
from world import EAST, World, wait_until

UPDATE = f"ecs:UpdateService {EAST}"
TOKEN = "pipeline-token-5d1f"
# Stands for a pipeline: it plans as `terraform plan -detailed-exitcode` does, and deploys and waits as `apply` does.
PIPELINE = """
import os, sys, time
import boto3

action, cluster, service, version = sys.argv[1:]
print("signed in with", os.environ["PIPELINE_TOKEN"])
ecs = boto3.client("ecs", "us-east-1", endpoint_url=os.environ["ENDPOINT"], aws_access_key_id="a", aws_secret_access_key="b")
definitions = ecs.list_task_definitions(familyPrefix="regami-api", status="ACTIVE")["taskDefinitionArns"]
images = {arn: ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]["containerDefinitions"][0]["image"]
          for arn in definitions}
wanted = [arn for arn, image in images.items() if image.endswith(":" + version)]
if not wanted:
    sys.exit(f"Error: no such version: {version}")
look = lambda: ecs.describe_services(cluster=cluster, services=[service])["services"][0]
if look()["taskDefinition"] == wanted[-1] and len(look()["deployments"]) == 1:
    print("No changes.")
    sys.exit(0)
if action == "plan":
    print(f"Plan: {service} to {version}")
    sys.exit(2)
ecs.update_service(cluster=cluster, service=service, taskDefinition=wanted[-1])
while [each["rolloutState"] for each in look()["deployments"]] != ["COMPLETED"]:
    time.sleep(0.2)
print(f"Apply complete: {version}")
"""


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def bad(first_world: World) -> Iterator[World]:
    """A world whose last deployment fails half of the requests."""
    first_world.sandbox.fault("bad-build", build="erroring")
    wait_until(lambda: first_world.is_settled(EAST), "the bad build is rolled out")
    yield first_world
    first_world.sandbox.heal()


@pytest.fixture
def way(bad: World, tmp_path: Path) -> dict[str, Any]:
    """What the team wrote into its inventory."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    names = bad.names(EAST)
    target = [names["cluster"], names["service"], "{version}"]
    command = {
        "argv": [sys.executable, "pipeline.py", "apply", *target],
        "check_argv": [sys.executable, "pipeline.py", "plan", *target],
        "changed_codes": [2],
        "unchanged_codes": [0],
        "chdir": str(tmp_path),
        "environment": {"PIPELINE_TOKEN": TOKEN, "ENDPOINT": bad.sandbox.state["endpoint_url"]},
    }
    return {"strategy": "command", "rollback_command": command, "rollback_version": "v2"}


def roll_back(world: World, way: dict[str, Any], *flags: str) -> Result:
    return world.runbook.run("rollback_deployment", *flags, **way)


def test_users_are_served_again_and_a_plan_changes_nothing(bad: World, way: dict[str, Any]) -> None:
    before = bad.service(EAST)["taskDefinition"]
    bad.start_users()
    planned = roll_back(bad, way, "--check", "--diff")
    assert (planned.returncode, planned.mutations) == (0, [])
    assert "Plan: regami-service to v2" in planned.output
    assert bad.service(EAST)["taskDefinition"] == before
    run = roll_back(bad, way)
    assert (run.returncode, run.mutations) == (0, [UPDATE]), run.output
    failed = bad.sandbox.control("load", action="report")["failed_requests"]
    assert failed and bad.stop_users(more=20)["failed_requests"] == failed
    assert (bad.version(EAST), run.report["outcome"]) == ("v2", "recovered")
    # What the pipeline said stands in the record, what it signed in with does not.
    record = (run.folder / "timeline.jsonl").read_text()
    assert "Apply complete: v2" in record
    assert not any(TOKEN in text for text in (record, run.output, str(run.report), planned.output))
    again = roll_back(bad, way)
    assert (again.returncode, again.mutations, again.report["outcome"]) == (0, [], "noop")


@pytest.mark.soak
def test_a_run_that_was_killed_goes_on(bad: World, way: dict[str, Any]) -> None:
    def has_begun(run: Running) -> bool:
        return any(call["action"] == "UpdateService" for call in run.calls)

    running = bad.runbook.start("rollback_deployment", **way)
    running.until(has_begun)
    running.kill()
    again = roll_back(bad, way)
    assert again.returncode == 0, again.output
    assert (bad.version(EAST), bad.is_settled(EAST)) == ("v2", True)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("v9", "the dry run"),
        ("v2 --force", "version: v2 --force does not match"),
        ("", "the command needs a value for {version}"),
    ],
)
def test_a_version_that_cannot_be_is_refused(bad: World, way: dict[str, Any], version: str, said: str) -> None:
    run = roll_back(bad, way | {"rollback_version": version})
    assert (run.returncode, run.mutations) == (2, [])
    (complaint,) = run.complaints
    assert said in complaint and "nothing was" in complaint
