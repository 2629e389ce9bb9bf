# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_rollback: its gates, the exact changes it makes, and how many calls it takes."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import timedelta

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import waiting
from ansible_collections.sre.runbooks.plugins.module_utils.releases import COMPLETED, Release, choose
from ansible_collections.sre.runbooks.plugins.modules import ecs_rollback
from ansible_collections.sre.runbooks.tests.unit.ecs_past import NOW, REGISTRY, Past, digest, image
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    ARN,
    CLUSTER,
    REGION,
    SERVICE,
    carry_out,
    deployment,
    refusal,
    revision,
    stopped_task,
)

STOP = "stop_service_deployment"
BAD = ((40, "SUCCESSFUL"), (41, "SUCCESSFUL"), (42, "SUCCESSFUL"))
ON_ITS_WAY = ((40, "SUCCESSFUL"), (41, "SUCCESSFUL"), (42, "IN_PROGRESS"))


@pytest.fixture
def rollback(monkeypatch):
    monkeypatch.setattr(ecs_rollback, "PACE", waiting.Pace(first=0.001, longest=0.01, growth=1.4))

    def run(region, **given):
        return carry_out(monkeypatch, ecs_rollback, ecs_rollback.EcsRollback, region, **given)

    return run


def update(number, **more):
    return ("update_service", {"cluster": CLUSTER, "service": SERVICE, "taskDefinition": revision(number)} | more)


def at_once(*deployed):
    """A region in which what is begun is complete at the next look."""
    region = Past(*deployed)
    region.later = [Past.comes_to_rest] * 9
    return region


def shown(number):
    return {"app": f"{image(number)}@{digest(number)}"}


def test_updates_the_service_to_the_last_good_revision_and_nothing_else(rollback):
    region = at_once(*BAD)
    result = rollback(region)
    assert region.changes == [update(41)]
    assert result["changed"] and not result["failed"]
    assert result["before"] == {"desired": 2, "running": 2, "task_definition": "regami-api:42", "images": shown(42)}
    assert result["after"] == result["before"] | {"task_definition": "regami-api:41", "images": shown(41)}
    assert (result["task_definition_arn"], result["leaving"]) == (revision(41), "regami-api:42")
    assert [step["what"] for step in result["steps"]] == [
        f"roll {SERVICE} back to regami-api:41",
        f"wait until {SERVICE} runs regami-api:41",
    ]
    assert result["notes"] == [
        "regami-api:41 is the last revision that completed a deployment on 2026-11-21 at 05:05 before regami-api:42"
    ]
    names = {"cluster": CLUSTER, "service": SERVICE, "region": REGION}
    assert result["undo"] == [
        {"verb": "sre.runbooks.ecs_rollback", "arguments": names | {"task_definition": "regami-api:42"}}
    ]


def test_few_calls(rollback):
    region = at_once(*BAD)
    rollback(region)
    assert region.asked() == Counter(
        describe_services=3,  # before, once in the wait, after
        list_service_deployments=1,
        describe_service_revisions=1,
        describe_task_definition=1,
        describe_images=1,
        update_service=1,
    )


def test_stops_a_deployment_in_progress_and_waits_for_the_way_back(rollback):
    region = at_once(*ON_ITS_WAY)
    result = rollback(region)
    arn = f"{ARN}service-deployment/3"
    assert region.changes == [(STOP, {"serviceDeploymentArn": arn, "stopType": "ROLLBACK"})]
    assert result["after"]["task_definition"] == "regami-api:41" and not result["failed"]
    assert result["undo"][0]["arguments"]["task_definition"] == "regami-api:42"


def test_check_mode_shows_the_plan_and_changes_nothing(rollback):
    region = Past(*BAD)
    result = rollback(region, check=True)
    assert region.changes == [] and result["changed"]
    assert result["after"]["task_definition"] == "regami-api:41"
    assert f"-  images: {shown(42)}\n+  images: {shown(41)}\n" in result["diff"]["prepared"]


@pytest.mark.parametrize("deployed", [BAD, ON_ITS_WAY])
def test_the_second_run_finds_it_done(rollback, deployed):
    region = at_once(*deployed)
    rollback(region)
    region.changes.clear()
    result = rollback(region)
    assert (region.changes, result["changed"], result["steps"], result["undo"]) == ([], False, [], [])
    assert result["leaving"] == "regami-api:42" and result["after"]["task_definition"] == "regami-api:41"


def test_a_circuit_breaker_that_went_back_leaves_nothing_to_do(rollback):
    region = Past(*BAD[:2], (42, "ROLLBACK_SUCCESSFUL"))
    result = rollback(region)
    assert (region.changes, result["changed"]) == ([], False)
    assert "ECS went back to regami-api:41" in result["notes"][0]


def test_waits_while_ecs_goes_back_by_itself(rollback):
    region = Past(*BAD[:2], (42, "ROLLBACK_IN_PROGRESS"))
    region.service["deployments"] = [deployment(1, 41, rolloutState="IN_PROGRESS")]
    describe, looks = region.describe_services, []

    def then(**arguments):
        looks.append(1)
        if len(looks) == 3:
            region.comes_to_rest()
        return describe(**arguments)

    region.describe_services = then
    result = rollback(region)
    assert not result["failed"] and not result["changed"] and region.changes == []
    # How the service deployment stands is asked when the service's own deployment has ended, and not before.
    assert (len(looks), region.asked()["describe_service_deployments"]) == (4, 1)


def test_the_undo_brings_back_what_was_left(rollback):
    region = at_once(*BAD)
    (undo,) = rollback(region)["undo"]
    region.changes.clear()
    result = rollback(region, task_definition=undo["arguments"]["task_definition"])
    assert region.changes == [update(42)] and result["after"]["task_definition"] == "regami-api:42"


def test_a_failed_deployment_of_the_goal_is_begun_anew(rollback):
    region = at_once((41, "SUCCESSFUL"), (42, "SUCCESSFUL"), (41, "STOPPED"))
    assert "was the way back from regami-api:42" in rollback(region)["msg"]
    assert rollback(region, task_definition="regami-api:41")["changed"]
    assert region.changes == [update(41, forceNewDeployment=True)]


def test_the_plan_is_pure():
    region = Past(*BAD)
    past = [Release(revision(42), COMPLETED), Release(revision(41), COMPLETED)]
    observed = {
        "service": region.service,
        "releases": past,
        "choice": choose(past, revision(42)),
        "definition": region.revisions[41],
        "images": {},
        "may_stop": True,
    }
    wanted = {"migrations": [], "accept_migrations": []}
    plan = ecs_rollback.EcsRollback.plan
    assert [step.do for step in plan(observed, wanted).steps] == ["update", "settle"]
    region.service |= {"taskDefinition": revision(41), "deployments": [deployment(4, 41)]}
    assert plan(observed, wanted).steps == ()
    region.service["deployments"][0]["rolloutState"] = "IN_PROGRESS"
    assert [(step.do, step.waits) for step in plan(observed, wanted).steps] == [("settle", True)]


# --- gates ---


@pytest.mark.parametrize(
    ("controller", "instead"), [("CODE_DEPLOY", "sre.runbooks.codedeploy_rollback"), ("EXTERNAL", "task sets")]
)
def test_other_deployment_controllers_are_refused(rollback, controller, instead):
    region = Past(*BAD)
    region.service["deploymentController"] = {"type": controller}
    result = rollback(region)
    assert result["failed"] and instead in result["msg"]
    assert [name for name, _arguments in region.calls if name.startswith("describe")] == ["describe_services"]


def deregistered(region):
    region.revisions[41]["status"] = "INACTIVE"


def deleted(region):
    del region.revisions[41]


def image_gone(region):
    del region.registry[41]


def tag_moved(region):
    # Pushed anew under the same tag; what ran is still there under its digest.
    region.registry |= {41: {"imageDigest": digest(99), "imagePushedAt": NOW}, "old": {"imageDigest": digest(41)}}


def tag_moved_and_purged(region):
    region.registry[41] = {"imageDigest": digest(99), "imagePushedAt": NOW}


def elsewhere(region):
    region.revisions[41]["containerDefinitions"][0]["image"] = "ghcr.io/regami/api:v41"


def denied(region):
    def describe_images(**_arguments):
        raise refusal("AccessDeniedException", "is not authorized to perform: ecr:DescribeImages")

    region.describe_images = describe_images


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (deregistered, ["regami-api:41 was deregistered (INACTIVE)", "register it again", "regami-api:40"]),
        (deleted, ["regami-api:41 does not exist any more", "regami-api:40"]),
        (image_gone, [f"{image(41)} of container app", "cannot be pulled", "push it again"]),
        (tag_moved, [image(41), "is not what ran", f"@{digest(41)}", "accept_moved_image=true"]),
        (tag_moved_and_purged, ["is not what ran", "accept_moved_image=true"]),
        (elsewhere, ["ghcr.io/regami/api:v41", "not Amazon ECR", "accept_unknown_image=true"]),
        (denied, ["ecr:DescribeImages", "accept_unknown_image=true"]),
    ],
)
def test_a_revision_that_cannot_run_is_refused(rollback, damage, parts):
    region = Past(*BAD)
    damage(region)
    result = rollback(region)
    assert result["failed"] and region.changes == [] and "\n" not in result["msg"]
    assert [part for part in parts if part not in result["msg"]] == [], result["msg"]


@pytest.mark.parametrize(
    ("damage", "override"),
    [(tag_moved, "accept_moved_image"), (elsewhere, "accept_unknown_image"), (denied, "accept_unknown_image")],
)
def test_overrides_are_recorded(rollback, damage, override):
    region = at_once(*BAD)
    damage(region)
    result = rollback(region, **{override: True})
    assert region.changes == [update(41)]
    assert any(note.startswith(f"override {override}: ") for note in result["notes"])


def test_what_ecs_itself_goes_back_to_is_the_digest(rollback):
    region = at_once(*ON_ITS_WAY)
    tag_moved(region)
    assert not rollback(region)["failed"]
    region = Past(*ON_ITS_WAY)
    tag_moved_and_purged(region)
    assert "is not what ran" in rollback(region)["msg"]


def test_a_side_car_of_another_registry_that_runs_now_is_no_obstacle(rollback):
    region = at_once(*BAD)
    for each in region.revisions.values():
        each["containerDefinitions"].append({"name": "agent", "image": "public.ecr.aws/agent:7"})
    for each in (41, 42):
        images = [{"containerName": "app", "image": image(each), "imageDigest": digest(each)}]
        images.append({"containerName": "agent", "image": "public.ecr.aws/agent:7"})
        region.revisions[each]["images"] = images
    described = region.describe_service_revisions
    region.describe_service_revisions = lambda **arguments: {
        "serviceRevisions": [
            each | {"containerImages": region.revisions[number]["images"]}
            for each in described(**arguments)["serviceRevisions"]
            if (number := int(each["taskDefinition"].rpartition(":")[2])) > 40
        ]
    }
    result = rollback(region)
    assert region.changes == [update(41)]
    assert "the present revision uses it too" in result["notes"][1]
    assert result["after"]["images"] == shown(41) | {"agent": "public.ecr.aws/agent:7"}


MIGRATIONS = [{"name": "0042_drop_email", "revision": 42}, {"name": "0030_split_users", "revision": 30}]


@pytest.mark.parametrize("deployed", [BAD, ON_ITS_WAY])
def test_a_migration_between_the_revisions_closes_the_gate(rollback, deployed):
    region = Past(*deployed)
    result = rollback(region, migrations=MIGRATIONS)
    assert region.changes == []
    assert "migration 0042_drop_email came with revision 42" in result["msg"]
    assert "accept_migrations=0042_drop_email" in result["msg"] and "0030" not in result["msg"]


def test_an_accepted_migration_is_recorded(rollback):
    region = at_once(*BAD)
    result = rollback(region, migrations=MIGRATIONS, accept_migrations=["0042_drop_email"])
    assert region.changes == [update(41)]
    assert "override accept_migrations: regami-api:41 runs on a schema that has had 0042_drop_email" in result["notes"]


def test_going_forward_crosses_no_migration(rollback):
    region = at_once(*BAD, (41, "SUCCESSFUL"))
    assert rollback(region, migrations=MIGRATIONS, task_definition="regami-api:42")["changed"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"task_definition": "other:3"}, "other:3 is of another family than regami-api"),
        ({"task_definition": "regami-api"}, "names no revision"),
        ({"task_definition": "regami-api:LATEST"}, "names no revision"),
        ({"task_definition": "regami-api:39"}, "regami-api:39 does not exist"),
        ({"leaving": "regami-api:41"}, "somebody has deployed regami-api:42"),
        ({"service": "regami-service"}, f"there is no ECS service regami-service in .*there are: {SERVICE}"),
    ],
)
def test_bad_input_gets_one_line_and_changes_nothing(rollback, given, expected):
    region = Past(*BAD)
    result = rollback(region, **given)
    assert result["failed"] and region.changes == [] and "\n" not in result["msg"]
    assert re.search(expected, result["msg"]), result["msg"]


def test_nothing_before_it(rollback):
    region = Past((40, "ROLLBACK_SUCCESSFUL"), (42, "SUCCESSFUL"))
    region.describe_service_deployments = lambda **_arguments: {"serviceDeployments": [{"sourceServiceRevisions": []}]}
    result = rollback(region)
    assert "give the one that was good as task_definition (ACTIVE before it: regami-api:40)" in result["msg"]


def test_what_ran_before_the_oldest_deployment_that_ecs_remembers(rollback):
    region = at_once(*BAD)
    forgotten, region.deployed = region.deployed[:2], region.deployed[2:]
    numbers = {each["targetServiceRevisionArn"]: each["number"] for each in forgotten + region.deployed}
    region.number_at = numbers.__getitem__
    source = {"arn": forgotten[1]["targetServiceRevisionArn"]}
    region.describe_service_deployments = lambda **_arguments: {
        "serviceDeployments": [{"sourceServiceRevisions": [source]}]
    }
    rollback(region)
    assert region.changes == [update(41)]


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnsupportedFeatureException"])
def test_without_the_api_of_service_deployments(rollback, code):
    region = at_once(*ON_ITS_WAY)
    old = deployment(2, 41, status="ACTIVE")
    region.service["deployments"] = [deployment(3, 42, rolloutState="IN_PROGRESS"), old]

    def list_service_deployments(**_arguments):
        raise refusal(code, "no")

    region.list_service_deployments = list_service_deployments
    result = rollback(region)
    assert region.changes == [update(41)] and not result["failed"]
    assert result["before"]["images"] == {"app": image(42)}
    assert any(f"history of deployments was not to be had ({code})" in note for note in result["notes"])


# --- the night goes on ---


@pytest.mark.parametrize("way", ["lose", "drop"])
@pytest.mark.parametrize(("operation", "deployed"), [("update_service", BAD), (STOP, ON_ITS_WAY)])
def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(rollback, way, operation, deployed):
    region = at_once(*deployed)
    region.later.insert(0, lambda _region: None)  # nothing has happened yet at the next look
    getattr(region, way)[operation] = 1
    result = rollback(region)
    assert [name for name, _arguments in region.changes] == [operation] * (1 if way == "lose" else 2)
    assert not result["failed"] and result["after"]["task_definition"] == "regami-api:41"
    assert result["undo"][0]["arguments"]["task_definition"] == "regami-api:42"
    assert result["notes"][0].startswith("regami-api:41 is the last revision")


def test_a_deployment_that_ends_before_it_is_stopped_is_rolled_back_all_the_same(rollback):
    region = Past(*ON_ITS_WAY)
    stop = region.stop_service_deployment

    def too_late(**arguments):
        region.comes_to_rest()
        region.later = [Past.comes_to_rest] * 9
        return stop(**arguments)

    region.stop_service_deployment = too_late
    result = rollback(region)
    assert [name for name, _arguments in region.changes] == [STOP, "update_service"]
    assert [step["do"] for step in result["steps"]] == ["update", "settle"]


def test_a_role_that_may_not_stop_replaces_the_deployment(rollback):
    region = at_once(*ON_ITS_WAY)

    def denied(**_arguments):
        raise refusal("AccessDeniedException", "is not authorized to perform: ecs:StopServiceDeployment")

    region.stop_service_deployment = denied
    result = rollback(region)
    assert region.changes[-1] == update(41) and not result["failed"]
    assert "could not be stopped (missing permission ecs:StopServiceDeployment" in result["notes"][-1]


def test_a_deployment_of_somebody_else_in_between_is_told(rollback):
    region = at_once(*BAD)
    change = region.update_service

    def after_somebody(**arguments):
        answer = change(**arguments)
        region.service["deployments"].append(deployment(77, 43, status="ACTIVE"))
        return answer

    region.update_service = after_somebody
    result = rollback(region)
    assert not result["failed"]
    assert "somebody began to deploy regami-api:43 while this run looked" in result["notes"][-1]


def test_a_deployment_that_replaces_ours_ends_the_wait(rollback):
    def somebody(region):
        region.service["taskDefinition"] = revision(43)
        region.service["deployments"] = [deployment(78, 43, rolloutState="IN_PROGRESS")]

    region = Past(*BAD)
    region.later = [lambda _region: None, somebody]
    result = rollback(region, wait_timeout=60)
    assert "the deployment of this run was replaced" in result["msg"] and "regami-api:43" in result["msg"]
    assert result["undo"]


def test_a_circuit_breaker_that_gives_the_way_back_up_is_a_failure(rollback):
    def give_up(region):
        ours = region.service["deployments"][0]
        ours |= {
            "rolloutState": "FAILED",
            "rolloutStateReason": "ECS deployment circuit breaker: tasks failed to start.",
        }
        region.tasks = [stopped_task(7, started_by=ours["id"])]

    region = Past(*BAD)
    region.later = [lambda _region: None, give_up]
    result = rollback(region, wait_timeout=60)
    assert result["failed"]
    for part in ("the rollout of regami-api:41 failed: ECS deployment circuit breaker", "exit code 3", "last events"):
        assert part in result["msg"]


def test_tasks_that_fail_again_and_again_end_the_wait(rollback):
    def fail(region):
        region.tasks += [stopped_task(number, started_by="ecs-svc/4") for number in (1, 2, 3)]

    region = Past(*BAD)
    region.tasks = [stopped_task(number, started_by="ecs-svc/3") for number in (11, 12, 13)]  # of the bad revision
    region.targets = ["healthy", "unhealthy"]
    region.later = [lambda _region: None, fail]
    result = rollback(region, wait_timeout=60)
    assert "3 of its tasks failed" in result["msg"] and "10.0.0.2:8080 is unhealthy" in result["msg"]


def test_a_way_back_of_ecs_that_fails_says_so(rollback):
    def fail(region):
        region.deployed[-1]["status"] = "ROLLBACK_FAILED"
        region.service["deployments"][0]["rolloutState"] = "FAILED"

    region = Past(*ON_ITS_WAY)
    region.later = [lambda _region: None, fail]
    result = rollback(region, wait_timeout=60)
    assert "ECS could not go back (ROLLBACK_FAILED: so it goes)" in result["msg"]


def test_no_secret_leaves_the_verb(rollback):
    for given in ({}, {"check": True}):
        text = json.dumps(rollback(at_once(*BAD), **given))
        assert "hunter2" not in text and "do-not-show-me" not in text


# --- quotas ---


def test_fifty_at_once_stay_within_the_quotas_of_ecs():
    """DescribeServices: a bucket of 100 calls that refills by 20 a second, for all services of an account and region.

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
    """
    looks = []

    class Clock:
        now = 0.0

    def sleep(seconds):
        Clock.now += seconds

    waiting.wait_until(
        lambda: looks.append(Clock.now),
        lambda _seen: Clock.now > 600,
        "the services",
        900,
        pace=ecs_rollback.PACE,
        clock=lambda: Clock.now,
        sleep=sleep,
    )
    # One call to see how it stands, half a second before the wait at the least.
    tokens, last = 100.0, -0.5
    for at in (-0.5, *looks):
        tokens, last = min(100.0, tokens + 20 * (at - last)) - 50, at
        assert tokens >= 0, f"throttled {at} s after the update"
    a_minute = [at for at in looks if 300 <= at < 360]
    assert 50 * len(a_minute) / 60 <= 20 / 2  # half is left for whoever else asks


def test_a_noted_time_is_enough_to_see_that_a_tag_moved(rollback):
    region = Past(*BAD)
    described = region.describe_service_revisions
    region.describe_service_revisions = lambda **arguments: {
        "serviceRevisions": [each | {"containerImages": []} for each in described(**arguments)["serviceRevisions"]]
    }
    region.registry[41]["imagePushedAt"] = NOW + timedelta(days=1)
    assert "its tag means another image since 2026-11-22" in rollback(region)["msg"]
    assert REGISTRY in rollback(region)["msg"]
