# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_repoint: its plan, and the exact changes it makes, in order."""

from __future__ import annotations

import json
import re

import pytest

from ansible_collections.sre.runbooks.plugins.modules import ecs_repoint
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    CLUSTER,
    OLD,
    REGION,
    SERVICE,
    Region,
    carry_out,
    definition,
    deployment,
    revision,
    stopped_task,
)

NEW = OLD.replace("old.example", "new.example")
UPDATE = ("update_service", {"cluster": CLUSTER, "service": SERVICE, "taskDefinition": revision(4)})


@pytest.fixture
def repoint(monkeypatch):
    def run(region, **given):
        if "task_definition" not in given:
            given = {"endpoint_host": "new.example"} | given
        return carry_out(monkeypatch, ecs_repoint, ecs_repoint.EcsRepoint, region, **given)

    return run


def repointed(number=4, **changes):
    answer = definition(number, **changes)
    answer["containerDefinitions"][0]["environment"][0]["value"] = NEW
    return answer


def register():
    """The one request that makes the new revision: all of the old one but what AWS adds in answers."""
    request = repointed()
    for key in ("taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredBy"):
        del request[key]
    return ("register_task_definition", request | {"tags": [{"key": "team", "value": "regami"}]})


def ends_well(region):
    region.service["deployments"][0]["rolloutState"] = "COMPLETED"


def test_registers_a_revision_and_rolls_the_service_out_without_a_count(repoint):
    region = Region()
    result = repoint(region)
    assert region.changes == [register(), UPDATE]
    assert result["changed"] and not result["failed"]
    assert [step["do"] for step in result["steps"]] == ["register", "update", "settle"]
    assert result["before"] == {
        "desired": 0,
        "running": 0,
        "task_definition": "regami-api:3",
        "endpoints": {"app.DATABASE_URL": "old.example:5432"},
    }
    assert result["after"] == result["before"] | {
        "task_definition": "regami-api:4",
        "endpoints": {"app.DATABASE_URL": "new.example:5432"},
    }
    assert (result["task_definition_arn"], result["registered"]) == (revision(4), "regami-api:4")
    assert result["undo"] == [
        {
            "verb": "sre.runbooks.ecs_repoint",
            "arguments": {
                "cluster": CLUSTER,
                "service": SERVICE,
                "region": REGION,
                "task_definition": "regami-api:3",
            },
        }
    ]


def test_the_second_run_finds_it_done(repoint):
    region = Region()
    repoint(region)
    region.changes.clear()
    result = repoint(region)
    assert (region.changes, result["changed"], result["steps"], result["undo"]) == ([], False, [], [])
    assert (result["task_definition_arn"], result["registered"]) == (revision(4), None)


def test_check_mode_shows_the_plan_and_changes_nothing(repoint):
    region = Region()
    result = repoint(region, check=True)
    assert region.changes == [] and result["changed"]
    assert [step["what"] for step in result["steps"]] == [
        "register a revision of regami-api with app.DATABASE_URL=new.example:5432",
        f"roll {SERVICE} out to a revision with app.DATABASE_URL=new.example:5432",
        f"wait until {SERVICE} has rolled out",
    ]
    assert result["after"]["task_definition"] == "regami-api:new"
    assert result["after"]["endpoints"] == {"app.DATABASE_URL": "new.example:5432"}
    assert "-  task_definition: regami-api:3\n+  task_definition: regami-api:new\n" in result["diff"]["prepared"]


def test_no_secret_leaves_the_verb(repoint):
    for region, given in ((Region(), {}), (Region(), {"check": True}), (Region(), {"variables": ["NOT_THERE"]})):
        text = json.dumps(repoint(region, **given))
        assert "hunter2" not in text and "do-not-show-me" not in text


def test_undo_brings_back_the_former_revision(repoint):
    region = Region()
    (undo,) = repoint(region)["undo"]
    region.changes.clear()
    arguments = {key: value for key, value in undo["arguments"].items() if key != "region"}
    assert repoint(region, **arguments)["after"]["task_definition"] == "regami-api:3"
    assert region.changes == [("update_service", UPDATE[1] | {"taskDefinition": revision(3)})]


def test_a_run_killed_after_registering_leaves_no_duplicate(repoint):
    region = Region()
    region.revisions[4], region.tags[4] = repointed(), region.tags[3]
    result = repoint(region)
    assert region.changes == [UPDATE]
    assert result["registered"] is None and result["after"]["task_definition"] == "regami-api:4"


def test_a_newer_revision_that_was_never_released_is_not_taken(repoint):
    region = Region()
    region.revisions[4] = repointed(cpu="4096")
    repoint(region)
    assert [operation for operation, _arguments in region.changes] == ["register_task_definition", "update_service"]
    assert region.revisions[5]["cpu"] == "256"


def test_a_run_killed_after_the_update_still_waits_for_the_rollout(repoint):
    region = Region(desired=2)
    region.revisions[4], region.tags[4] = repointed(), region.tags[3]
    region.update_service(CLUSTER, SERVICE, revision(4))
    looks = []
    region.describe_tasks = lambda **_arguments: looks.append(1) or ends_well(region) or {"tasks": []}
    region.tasks = [stopped_task(1)]
    result = repoint(region)
    assert region.changes == [] and not result["changed"] and not result["failed"]
    assert [step["do"] for step in result["steps"]] == ["settle"]
    assert looks


@pytest.mark.parametrize("way", ["lose", "drop"])
@pytest.mark.parametrize("operation", ["register_task_definition", "update_service"])
def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(repoint, way, operation):
    region = Region()
    getattr(region, way)[operation] = 1
    result = repoint(region)
    times = [name for name, _arguments in region.changes].count(operation)
    assert times == (1 if way == "lose" else 2)
    assert len(region.revisions) == 2 and not result["failed"]
    assert (result["registered"], region.service["taskDefinition"]) == ("regami-api:4", revision(4))
    looked_twice = way == "lose" and operation == "update_service"  # with no task wanted there is nothing to wait for
    assert [step["do"] for step in result["steps"]] == ["register", "update", "settle"][: 2 if looked_twice else 3]


def test_waits_for_the_deployment_that_it_started(repoint):
    region = Region(desired=2)
    region.later = [lambda _region: None, ends_well]
    assert not repoint(region)["failed"]
    assert region.asked()["describe_services"] == 4  # observe, two looks, after


def test_a_rollback_of_the_circuit_breaker_is_a_failure(repoint):
    def roll_back(region):
        region.service["taskDefinition"] = revision(3)
        region.service["deployments"] = [deployment(7, 3)]

    region = Region(desired=2)
    region.later = [roll_back]
    result = repoint(region)
    assert result["failed"] and "the deployment of this run was replaced" in result["msg"]
    assert "Done so far: register a revision" in result["msg"] and result["undo"]


def test_tasks_that_fail_again_and_again_end_the_wait(repoint):
    def fail(region):
        region.tasks += [stopped_task(number) for number in (1, 2, 3)]

    region = Region(desired=2)
    region.tasks = [stopped_task(number, started_by="ecs-svc/1") for number in (11, 12, 13)]  # of an older deployment
    region.later = [lambda _region: None, fail]
    result = repoint(region, wait_timeout=60)
    assert "3 of its tasks failed" in result["msg"]
    assert "stopped tasks: Essential container in task exited (app: exit code 3). last events:" in result["msg"]


@pytest.mark.parametrize(
    ("controller", "instead"), [("CODE_DEPLOY", "CodeDeploy deployment"), ("EXTERNAL", "owns its task sets")]
)
def test_other_deployment_controllers_are_refused(repoint, controller, instead):
    region = Region()
    region.service["deploymentController"] = {"type": controller}
    result = repoint(region)
    assert result["failed"] and instead in result["msg"] and region.changes == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"task_definition": "other:3"}, "other:3 is of another family than regami-api"),
        ({"task_definition": "regami-api:9"}, "regami-api:9 does not exist"),
        ({"task_definition": "regami-api:2"}, "regami-api:2 was deregistered"),
        ({"variables": ["DATABASE_PASSWORD"]}, "comes from the secret"),
        ({"service": "regami-service"}, f"there is no ECS service regami-service in .*there are: {SERVICE}"),
    ],
)
def test_bad_input_gets_one_line_and_changes_nothing(repoint, given, expected):
    region = Region()
    region.revisions[2] = definition(2, status="INACTIVE")
    result = repoint(region, **given)
    assert result["failed"] and region.changes == [] and "\n" not in result["msg"]
    assert re.search(expected, result["msg"])


def test_the_plan_is_pure(repoint):
    region = Region()
    wanted = {
        "service": SERVICE,
        "variables": ["DATABASE_URL"],
        "container": None,
        "endpoint_host": "old.example",
        "endpoint_port": None,
        "made_from": None,
        "task_definition": None,
    }
    current = {"arn": revision(3), "active": True, "request": {"family": "regami-api", **definition(3)}}
    observed = {"service": region.service, "current": current, "other": None}
    plan = ecs_repoint.EcsRepoint.plan
    assert plan(observed, wanted).steps == ()
    region.service["deployments"][0]["rolloutState"] = "IN_PROGRESS"
    assert [step.do for step in plan(observed, wanted).steps] == ["settle"]
