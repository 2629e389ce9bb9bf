# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at readiness leaves for others: how long a recovery takes beside what is promised, a page, a metric, tickets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import readiness
from readiness import look
from runbook import Runbook
from world import WEST, World

from ansible_collections.sre.runbooks.plugins.module_utils import record
from ansible_collections.sre.runbooks.tests.unit.notifier_services import SECRETS, Services

NAMESPACE = "sre.runbooks.test"
DAY = 86400
SCENARIO = "kill_queries"


@pytest.fixture
def runbook(untouched: World, tmp_path: Path) -> Runbook:
    """With records of its own: what other tests recovered tells nothing here."""
    return Runbook(untouched.sandbox, tmp_path / "incidents")


def remember(runbook: Runbook, *seconds: float) -> None:
    """Recoveries of the last days that took so long, as their runs left them."""
    for days, each in enumerate(seconds, 1):
        at = record.now(time.time() - days * DAY)
        folder = runbook.incidents / f"{at[:10]}T060000Z-{SCENARIO}-sandbox"
        folder.mkdir(parents=True)
        told = {"playbook": SCENARIO, "env": "sandbox", "started": at, "outcome": "recovered", "recovery_seconds": each}
        (folder / "report.json").write_text(json.dumps(told | {"hosts": ["api-sandbox"]}))


def metric(world: World, scenario: str) -> list[float]:
    """What CloudWatch has of it, in the region of the peer."""
    named = {"environment": "sandbox", "host": "api-sandbox", "scenario": scenario}
    found = world.aws("cloudwatch", WEST).get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName="readiness",
        Dimensions=[{"Name": name, "Value": value} for name, value in named.items()],
        StartTime=time.time() - 3600,
        EndTime=time.time() + 60,
        Period=3600,
        Statistics=["Maximum"],
    )
    return [point["Maximum"] for point in found["Datapoints"]]


def test_a_recovery_that_takes_longer_than_promised(untouched: World, runbook: Runbook) -> None:
    """Named with the figures and the drill to hold, as a value of the metric, which is all that is written, and on the page."""
    remember(runbook, 1000, 950, 1100)
    run = runbook.run("readiness", scenario=SCENARIO, fail_on="risk", readiness_metric_namespace=NAMESPACE)
    assert run.returncode == 2, run.output
    (said,) = json.loads((run.folder / "readiness.json").read_text())["verdicts"]
    (slow,) = said["findings"]
    assert slow["because"] == "takes 17 min (median of the last 3, the slowest 18 min), and 15 min are promised"
    assert "make drill SCENARIO=connections" in slow["fix"]
    assert "takes 17 min, 18 min at most, 15 min promised" in run.output
    assert "takes 17 min" in (run.folder / "readiness.html").read_text()
    assert metric(untouched, SCENARIO) == [1.0]
    assert [each for each in run.mutations if "PutMetricData" not in each] == []


@pytest.fixture
def services() -> Iterator[Services]:
    there = Services()
    yield there
    there.close()


@pytest.mark.soak
def test_a_ticket_from_not_ready_to_ready(world: World, services: Services) -> None:
    """One for the service, however often it is looked at; none of it in AWS, and no secret anywhere."""
    readiness.begin(world)
    who: dict[str, Any] = {"notify_jira": services.inventory["notify_jira"], "tickets": True}
    world.aws("ecs").deregister_task_definition(taskDefinition="regami-api:3")
    for _look in range(2):
        seen = look(world, "-vvv", **who)
        assert seen.flagged == {"rollback_deployment": "not_ready"} and seen.run.mutations == [], seen.run.output
        assert SECRETS["jira"] not in seen.run.output
    (issue,) = services.jira.issues
    assert issue["summary"] == "api-sandbox in sandbox is not ready for rollback_deployment"
    assert "regami-api:3 was deregistered" in issue["description"] and issue["comments"] == []
    readiness.begin(world)
    seen = look(world, **who)
    assert seen.run.returncode == 0 and issue["status"] == "Done", seen.run.output
    assert issue["comments"] == ["It is ready again."]
