# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""codedeploy_rollback: what it takes back and how, its gates, the exact changes it makes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import waiting
from ansible_collections.sre.runbooks.plugins.modules import codedeploy_rollback
from ansible_collections.sre.runbooks.tests.unit.codedeploy_region import (
    APPLICATION,
    BLUE,
    CANARY,
    GREEN,
    GROUP,
    NOW,
    Web,
    appspec,
    deployment,
    task_set,
)
from ansible_collections.sre.runbooks.tests.unit.ecs_region import REGION, carry_out, stopped_task


@pytest.fixture
def rollback(monkeypatch):
    monkeypatch.setattr(codedeploy_rollback, "PACE", waiting.Pace(first=0.001, longest=0.01, growth=1.4))
    monkeypatch.setattr(codedeploy_rollback, "ROLLBACK_WITHIN", 0.05)

    def run(region, accept_unknown_image=True, **given):
        names = {"application": APPLICATION, "deployment_group": GROUP}
        return carry_out(
            monkeypatch,
            codedeploy_rollback,
            codedeploy_rollback.CodedeployRollback,
            region,
            **names | {"accept_unknown_image": accept_unknown_image} | given,
        )

    return run


def stopped(number):
    return ("stop_deployment", {"deploymentId": f"d-{number}", "autoRollbackEnabled": True})


def deployed(number, description, **more):
    content = {"content": appspec(number), "sha256": f"sha256 of {number}"}
    return (
        "create_deployment",
        {
            "applicationName": APPLICATION,
            "deploymentGroupName": GROUP,
            "deploymentConfigName": "CodeDeployDefault.ECSAllAtOnce",
            "revision": {"revisionType": "AppSpecContent", "appSpecContent": content},
            "description": f"sre.runbooks rolls back {description}",
            "overrideAlarmConfiguration": {"enabled": False},
        }
        | more,
    )


@pytest.mark.parametrize("percent", [0, 10, 100])
def test_a_deployment_that_goes_on_is_stopped_with_rollback(rollback, percent):
    region = Web()
    region.shift(percent)
    result = rollback(region)
    assert not result["failed"], result
    assert region.changes == [stopped(2)]
    assert result["changed"] and (result["rolled_back"], result["deployment_id"]) == ("d-2", "d-3")
    assert result["before"]["deployment"] == "d-2" and result["before"]["status"] == "InProgress"
    assert result["after"] == {
        "deployment": "d-3",
        "status": "Succeeded",
        "task_definition": "regami-web:1",
        "traffic": {"regami-web:1": 100},
    }
    assert [step["do"] for step in result["steps"]] == ["stop", "settle"]
    names = {"application": APPLICATION, "deployment_group": GROUP, "region": REGION}
    # Not to all users at once what had not come to them.
    slowly = {"deployment_config": CANARY, "ignore_alarms": False} if percent < 100 else {}
    back = names | {"deployment": "d-2"} | slowly
    assert result["undo"] == [{"verb": "sre.runbooks.codedeploy_rollback", "arguments": back}]
    assert "d-2 was created by user at 2026-11-21 02:00:00 UTC" in result["notes"]


def test_one_that_has_succeeded_is_replaced_by_the_last_good_one(rollback):
    region = Web()
    result = rollback(region)
    assert region.changes == [deployed(1, "d-2 to d-1")]
    assert (result["rolled_back"], result["deployment_id"]) == ("d-2", "d-3")
    assert result["after"]["traffic"] == {"regami-web:1": 100}
    # The rollback itself only waits to terminate what it replaced.
    assert result["after"]["status"] == "InProgress"
    assert any("stay 60 more minutes" in note for note in result["notes"])


def test_check_mode_plans_and_changes_nothing(rollback):
    for prepare, steps in ((lambda web: web.shift(10), ["stop", "settle"]), (lambda web: None, ["deploy", "settle"])):
        region = Web()
        prepare(region)
        result = rollback(region, check=True)
        assert region.changes == [] and result["changed"]
        assert [step["do"] for step in result["steps"]] == steps
        assert result["after"]["traffic"] == {"regami-web:1": 100}
        assert result["diff"]["prepared"].startswith("1. ")


def test_the_last_good_one_has_another_revision_and_succeeded(rollback):
    region = Web(
        deployment(1, 1),
        deployment(2, 7, "Failed"),
        deployment(3, 2),
        deployment(4, 2),
    )
    region.service["taskSets"] = [task_set(2, GREEN, "d-4")]
    rollback(region)
    assert region.changes == [deployed(1, "d-4 to d-1")]


def test_it_is_looked_for_no_further_back_than_needed(rollback):
    region = Web(
        deployment(1, 5, createTime=NOW - timedelta(days=300)),
        deployment(2, 1, createTime=NOW - timedelta(days=20)),
        deployment(3, 2),
    )
    rollback(region)
    assert region.changes[0][1]["description"].endswith("d-3 to d-2")
    spans = [arguments["createTimeRange"] for name, arguments in region.calls if "createTimeRange" in arguments]
    assert [round((span["end"] - span["start"]).total_seconds() / 86400) for span in spans] == [1, 7, 30]


def test_a_deployment_may_be_given(rollback):
    region = Web(deployment(1, 5), deployment(2, 1), deployment(3, 2))
    region.service["taskSets"] = [task_set(2, GREEN, "d-3")]
    assert rollback(region, deployment="d-1")["rolled_back"] == "d-3"
    assert region.changes == [deployed(5, "d-3 to d-1")]


def test_a_given_one_that_is_not_the_original_is_deployed_after_the_stop(rollback):
    region = Web(deployment(1, 1), deployment(2, 2))
    region.deployments.insert(0, deployment(0, 5))
    region.shift(10)
    plan = rollback(region, deployment="d-0", check=True)
    assert [step["do"] for step in plan["steps"]] == ["stop", "settle", "deploy", "settle"]
    result = rollback(region, deployment="d-0", leaving="d-2")
    assert [change[0] for change in region.changes] == ["stop_deployment", "create_deployment"]
    assert region.changes[1] == deployed(5, "d-4 to d-0")
    assert result["after"]["traffic"] == {"regami-web:5": 100}


def test_a_given_one_that_serves_already_is_left_alone(rollback):
    region = Web()
    result = rollback(region, deployment="d-2")
    assert (region.changes, result["changed"]) == ([], False)
    assert result["notes"] == ["regami-web serves regami-web:2, which d-2 deployed, already"]


def test_what_was_taken_back_is_not_rolled_forward(rollback):
    region = Web()
    region.shift(10)
    rollback(region)
    region.changes.clear()
    result = rollback(region)
    assert (region.changes, result["changed"], result["rolled_back"]) == ([], False, None)
    assert result["notes"][0].startswith("d-3 has rolled d-2 back already, and regami-web serves regami-web:1")


def test_a_rollback_of_ours_that_goes_on_is_waited_for(rollback):
    """As after a kill: it only waits to terminate what it replaced."""
    region = Web()
    rollback(region)
    region.changes.clear()
    for given in ({}, {"deployment": "d-1"}):
        result = rollback(region, **given)
        assert (region.changes, result["changed"], result["failed"]) == ([], False, False)
        assert (result["rolled_back"], result["deployment_id"]) == ("d-2", "d-3")


def test_undo_of_a_rollback_that_goes_on_stops_that(rollback):
    region = Web()
    (undo,) = rollback(region)["undo"]
    region.changes.clear()
    rollback(region, deployment=undo["arguments"]["deployment"])
    assert region.changes[0] == stopped(3)


@pytest.mark.parametrize("has_ended", [True, False])
def test_what_was_taken_back_and_deployed_again_is_taken_back_again(rollback, has_ended):
    """A rollback, its undo, and the rollback once more, be it that the undo only waits to terminate what it replaced."""
    region = Web()
    (undo,) = rollback(region)["undo"]
    region.deployments[-1]["status"] = "Succeeded"
    assert rollback(region, deployment=undo["arguments"]["deployment"])["after"]["traffic"] == {"regami-web:2": 100}
    if has_ended:
        region.deployments[-1]["status"] = "Succeeded"
    region.changes.clear()
    once_more = rollback(region)
    assert once_more["after"]["traffic"] == {"regami-web:1": 100}
    assert region.changes == ([deployed(1, "d-4 to d-3")] if has_ended else [stopped(4)])
    region.changes.clear()
    # That is the rollback, and no third deployment to be taken back.
    assert (rollback(region)["changed"], region.changes) == (False, [])


def test_a_rollback_of_ours_that_somebody_stopped_with_rollback_leaves_the_bad_one(rollback):
    """Which is known once the rollback of CodeDeploy is over."""
    region = Web()
    rollback(region)
    region.stop_deployment("d-3", True)
    region.deployments[-1]["revision"] = region.deployments[1]["revision"]
    region.service["taskSets"], region.weights = [task_set(2, GREEN, "d-2")], {BLUE: 0, GREEN: 100}
    region.changes.clear()
    assert rollback(region)["after"]["traffic"] == {"regami-web:1": 100}
    assert region.changes == [deployed(1, "d-4 to d-1")]


def test_a_failed_rollback_is_tried_again(rollback):
    region = Web()
    region.deployments.append(deployment(3, 1, "Failed", description="sre.runbooks rolls back d-2 to d-1"))
    rollback(region)
    assert region.changes == [deployed(1, "d-2 to d-1")]


def test_a_rollback_that_was_itself_rolled_back_leaves_the_bad_one(rollback):
    region = Web()
    region.deployments += [
        deployment(3, 1, "Failed", description="sre.runbooks rolls back d-2 to d-1"),
        deployment(4, 2, creator="codeDeployRollback", rollbackInfo={"rollbackTriggeringDeploymentId": "d-3"}),
    ]
    rollback(region)
    assert region.changes == [deployed(1, "d-4 to d-1")]


def test_one_that_ended_without_traffic_is_nothing_to_take_back(rollback):
    region = Web(deployment(1, 1), deployment(2, 2), deployment(3, 3, "Failed"))
    result = rollback(region)
    assert region.changes == []
    assert result["notes"] == [
        "d-3 ended Failed and gets no traffic, and regami-web serves regami-web:2: to go further back, give deployment"
    ]


def test_one_that_was_stopped_without_rollback_and_has_traffic_is_taken_back(rollback):
    region = Web()
    region.shift(10)
    region.deployments[-1]["status"] = "Stopped"
    rollback(region)
    assert region.changes == [deployed(1, "d-2 to d-1")]


def test_a_stop_without_a_rollback_of_its_own_is_followed_by_a_deployment(rollback, monkeypatch):
    region = Web()
    region.shift(10)
    monkeypatch.setattr(region, "stop_deployment", lambda **_: region.deployments[-1].update(status="Stopped"))
    rollback(region)
    assert [change[0] for change in region.changes] == ["stop_deployment", "create_deployment"]


@pytest.mark.parametrize("kind", ["lose", "drop"])
@pytest.mark.parametrize("operation", ["stop_deployment", "create_deployment"])
def test_a_lost_answer_is_looked_into(rollback, kind, operation):
    """lose: applied, and nobody hears of it; drop: never applied."""
    region = Web()
    if operation == "stop_deployment":
        region.shift(10)
    getattr(region, kind)[operation] = 1
    result = rollback(region)
    assert not result["failed"], result
    assert [change[0] for change in region.changes] == [operation] * (1 if kind == "lose" else 2)
    assert result["after"]["traffic"] == {"regami-web:1": 100}
    assert result["changed"] and result["deployment_id"] == "d-3"


def test_a_deployment_of_ours_that_is_in_the_way_of_itself(rollback, monkeypatch):
    """Made by a call whose answer was lost, and not listed at once."""
    region = Web()
    region.lose["create_deployment"] = 1
    listed = region.get_deployment_group

    def old_news(**names):
        answer = listed(**names)
        answer["deploymentGroupInfo"]["lastAttemptedDeployment"] = {"deploymentId": "d-2"}
        return answer

    ids = region.list_deployments
    calls = iter([True, True, False, False, False, False])
    monkeypatch.setattr(region, "get_deployment_group", old_news)
    monkeypatch.setattr(
        region,
        "list_deployments",
        lambda **asked: (
            {"deployments": []} if "InProgress" in asked["includeOnlyStatuses"] and next(calls, False) else ids(**asked)
        ),
    )
    result = rollback(region)
    assert not result["failed"], result
    assert len([each for each in region.deployments if each["deploymentId"] == "d-3"]) == 1


def test_one_that_ends_before_it_is_stopped_is_replaced(rollback, monkeypatch):
    region = Web()
    region.shift(100)
    stop = region.stop_deployment

    def too_late(**asked):
        region.deployments[1]["status"] = "Succeeded"
        return stop(**asked)

    monkeypatch.setattr(region, "stop_deployment", too_late)
    result = rollback(region)
    assert [change[0] for change in region.changes] == ["stop_deployment", "create_deployment"]
    assert not result["failed"] and [step["do"] for step in result["steps"]] == ["deploy", "settle"]


def test_a_pipeline_that_was_quicker_is_noticed(rollback, monkeypatch):
    region = Web()
    create = region.create_deployment

    def overtaken(**asked):
        region.deployments.append(deployment(3, 9, "InProgress"))
        return create(**asked)

    monkeypatch.setattr(region, "create_deployment", overtaken)
    result = rollback(region)
    assert result["failed"]
    assert "another deployment of regami-deployment-group began meanwhile (d-3 was created by user" in result["msg"]


def test_leaving_says_what_may_be_taken_back(rollback):
    region = Web()
    result = rollback(region, leaving="d-1")
    assert result["failed"] and region.changes == []
    assert result["msg"].startswith("d-2 would be taken back, and not d-1: somebody has deployed meanwhile (d-2 was")
    assert not rollback(region, leaving="d-2")["failed"]


def test_a_deployment_that_fails_says_why(rollback):
    region = Web()
    region.fails = "Failed"
    result = rollback(region)
    assert result["failed"]
    assert (
        "it ended Failed: HOOK_EXECUTION_FAILURE: a hook; lifecycle event BeforeInstall failed: the hook said no"
        in (result["msg"])
    )
    assert result["undo"] and result["changed"]


def test_tasks_that_fail_one_after_the_other_end_the_wait(rollback, monkeypatch):
    region = Web()
    create = region.create_deployment

    def crashes(**asked):
        answer = create(**asked)
        region.weights = {BLUE: 0, GREEN: 100}
        ours = region.service["taskSets"][0] | {"status": "ACTIVE", "stabilityStatus": "STABILIZING"}
        region.service["taskSets"] = [ours, task_set(2, GREEN, "d-2")]
        region.tasks = [stopped_task(number, "ecs-svc/1") for number in (1, 2, 3)]
        return answer

    # Those of the bad build, of which there may be many, do not count.
    region.tasks = [stopped_task(number, "ecs-svc/2") for number in (7, 8, 9)]
    monkeypatch.setattr(region, "create_deployment", crashes)
    result = rollback(region)
    assert result["failed"]
    assert "3 of its tasks failed one after the other" in result["msg"]
    assert "stopped tasks: Essential container in task exited (app: exit code 3)" in result["msg"]


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        (
            {"controller": "ECS"},
            {},
            "regami-web is deployed by ECS, not by CodeDeploy: roll it back with sre.runbooks.ecs_",
        ),
        ({"controller": "EXTERNAL"}, {}, "is deployed by EXTERNAL, not by CodeDeploy: let the system"),
        ({"platform": "Server"}, {}, "regami-deployment-group deploys to Server, and this verb serves ECS only"),
        ({"deployments": []}, {}, "regami-deployment-group has never deployed anything"),
        ({"deployments": [deployment(2, 2)]}, {}, "no deployment of another revision succeeded before d-2"),
        ({"inactive": {1}}, {}, "regami-web:1, which d-1 deployed, was deregistered (INACTIVE)"),
        (
            {},
            {"application": "regami"},
            "there is no CodeDeploy application regami in us-west-2 (there are: regami-code",
        ),
        (
            {},
            {"deployment_group": "regami"},
            "there is no CodeDeploy deployment group regami in us-west-2 (there are: ",
        ),
        ({}, {"deployment": "d-9"}, "there is no CodeDeploy deployment d-9 in us-west-2"),
        ({}, {"accept_unknown_image": False}, "nothing tells whether registry.example/regami-web:v1 of container app"),
    ],
)
def test_refused_before_any_change(rollback, change, given, said):
    region = Web()
    for name, value in change.items():
        if name == "controller":
            region.service["deploymentController"] = {"type": value}
        else:
            setattr(region, name, value)
    result = rollback(region, **given)
    assert result["failed"] and said in result["msg"], result
    assert region.changes == []


def test_an_active_deployment_needs_no_older_one(rollback):
    """The original task set still runs, whatever its definition or image has become."""
    region = Web(deployment(2, 2))
    region.shift(10)
    region.inactive = {1}
    assert not rollback(region, accept_unknown_image=False)["failed"]


def test_alarms_may_be_obeyed_and_traffic_moved_slowly(rollback):
    region = Web()
    rollback(region, ignore_alarms=False, deployment_config="CodeDeployDefault.ECSCanary10Percent5Minutes")
    operation, sent = region.changes[0]
    assert operation == "create_deployment"
    assert "overrideAlarmConfiguration" not in sent
    assert sent["deploymentConfigName"] == "CodeDeployDefault.ECSCanary10Percent5Minutes"
