# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""emergency_scale.yml: more of a service while users are served, in whatever runs it, and what there was before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from killing import Point, answered, killed_at, said
from kube import Namespace
from runbook import Result
from world import EAST, World, wait_until

TARGET = {"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount"}
BOUND, UPDATE = f"application-autoscaling:RegisterScalableTarget {EAST}", f"ecs:UpdateService {EAST}"
ALL_OF_IT = [f"ecs:TagResource {EAST}", BOUND, UPDATE]
FIRST_DAY, HALF_AGAIN = (2, 2, 10), (3, 3, 10)


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def shop(first_world: World) -> Iterator[World]:
    """Two tasks in 2 to 10, before each test and after it."""
    yield first_world
    first_world.sandbox.heal()
    names, ecs = first_world.names(EAST), first_world.aws("ecs")
    first_world.aws("application-autoscaling").register_scalable_target(
        **TARGET, ResourceId=f"service/{names['cluster']}/{names['service']}", MinCapacity=2, MaxCapacity=10
    )
    ecs.update_service(cluster=names["cluster"], service=names["service"], desiredCount=2)
    ecs.untag_resource(resourceArn=first_world.service(EAST)["serviceArn"], tagKeys=["sre.runbooks/scaled"])
    wait_until(lambda: first_world.healthy_targets(EAST) == 2, "two tasks serve")


def size(world: World) -> tuple:
    """Desired count, bounds and what is written on the service."""
    names = world.names(EAST)
    found = world.aws("ecs").describe_services(cluster=names["cluster"], services=[names["service"]], include=["TAGS"])[
        "services"
    ][0]
    (target,) = world.aws("application-autoscaling").describe_scalable_targets(
        **TARGET, ResourceIds=[f"service/{names['cluster']}/{names['service']}"]
    )["ScalableTargets"]
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
    return found["desiredCount"], target["MinCapacity"], target["MaxCapacity"], tags.get("sre.runbooks/scaled")


def scale(world: World, *flags: str, capacity: str | None = None, **variables: Any) -> Result:
    given = {"capacity": capacity} if capacity else {}
    return world.runbook.run("emergency_scale", *flags, **given, **variables)


def writers(world: World) -> int:
    """How many tasks have written rows of the last ones."""
    with world.session(EAST) as query:
        return query("SELECT count(DISTINCT written_by) FROM (SELECT * FROM rows ORDER BY id DESC LIMIT 30) AS last")[
            0
        ][0]


def test_half_as_much_again_serves_users_lasts_and_is_given_back(shop: World) -> None:
    before = shop.snapshot()
    shop.start_users()
    planned = scale(shop, "--check", "--diff", capacity="+50%")
    assert (planned.returncode, planned.mutations, planned.report["outcome"]) == (0, [], "planned")
    assert "let scaling keep regami-service at 3 to 10 tasks" in planned.output
    assert shop.snapshot() == before

    run = scale(shop, capacity="+50%", give_back_after=60)
    assert run.returncode == 0, run.output
    assert run.mutations == [*ALL_OF_IT[:2], f"application-autoscaling:PutScheduledAction {EAST}", UPDATE]
    assert size(shop)[:3] == HALF_AGAIN and shop.healthy_targets(EAST) == 3
    wait_until(lambda: writers(shop) == 3, "users are served by the third task")
    (action,) = shop.aws("application-autoscaling").describe_scheduled_actions(ServiceNamespace="ecs")[
        "ScheduledActions"
    ]
    assert action["ScalableTargetAction"] == {"MinCapacity": 2, "MaxCapacity": 10}
    assert any("the bounds of regami-service are given back at 20" in note for note in run.report["notes"])
    assert not any(secret in run.output + str(run.report) for secret in shop.secrets())

    shop.sandbox.fault("scale-in")
    assert size(shop)[:3] == HALF_AGAIN
    again = scale(shop, capacity="+50%", give_back_after=60)
    assert (again.returncode, again.mutations, again.report["outcome"]) == (0, [], "noop")

    back = scale(shop, "--tags", "restore")
    assert back.returncode == 0, back.output
    assert size(shop) == (*FIRST_DAY, None)
    assert (
        shop.aws("application-autoscaling").describe_scheduled_actions(ServiceNamespace="ecs")["ScheduledActions"] == []
    )
    wait_until(lambda: shop.snapshot()[EAST]["service"] == before[EAST]["service"], "as on the first day")
    assert shop.stop_users()["failed_requests"] == 0
    once = scale(shop, "--tags", "restore")
    assert (once.returncode, once.mutations) == (0, [])
    assert any("there is nothing to give back" in note for note in once.report["notes"])


POINTS = (
    Point("written down, nothing changed", said("let scaling keep"), ("application-autoscaling", "Register*", EAST)),
    Point("floor lifted, not scaled", answered("RegisterScalableTarget", EAST), ("ecs", "UpdateService", EAST)),
)


@pytest.mark.soak
def test_killed_and_typed_again_it_is_not_half_as_much_again(shop: World) -> None:
    for point in POINTS:
        killed = killed_at(shop, point, "emergency_scale", capacity="+50%")
    again = scale(shop, capacity="+50%")
    assert again.returncode == 0, again.output
    assert size(shop) == (*HALF_AGAIN, "2 in 2-10 to 3 in 3-10")
    assert again.report["resumes"] == killed.folder.name


def test_every_change_fails_once(shop: World) -> None:
    for service, action, kind in (
        ("ecs", "TagResource", "reset"),
        ("application-autoscaling", "RegisterScalableTarget", "lost-answer"),
        ("ecs", "UpdateService", "lost-answer"),
    ):
        shop.sandbox.fault("api", service=service, action=action, kind=kind, count=1)
    run = scale(shop, capacity="+50%")
    assert run.returncode == 0, run.output
    assert len([call for call in run.calls if call["fault"]]) == 3
    assert size(shop) == (*HALF_AGAIN, "2 in 2-10 to 3 in 3-10")


def test_two_responders(shop: World) -> None:
    both = [shop.runbook.start("emergency_scale", capacity="+50%") for _ in range(2)]
    told, acted = sorted((run.wait() for run in both), key=lambda result: len(result.timeline))
    assert (acted.returncode, told.returncode) == (0, 2), acted.output + told.output
    assert "has held the lease regami-api since 20" in told.complaints[0]
    assert acted.mutations == ALL_OF_IT and size(shop)[:3] == HALF_AGAIN


def test_what_does_not_fit_refuses_and_says_what_would(shop: World) -> None:
    shop.sandbox.fault("quota", service="fargate", value=3)
    shop.sandbox.fault("subnets-full", left=1)
    refused = scale(shop, capacity="60")
    assert (refused.returncode, refused.mutations) == (2, [])
    (complaint,) = refused.complaints
    for short in (
        "29 vCPUs of Fargate On-Demand",
        "58 free addresses of its subnets",
        "116 connections of regami-db-primary",
    ):
        assert f"58 more tasks of regami-service take {short}, and " in complaint
    assert re.search(r"; \d would fit; accept_shortage=true goes on all the same", complaint)


def test_what_the_account_may_not_have_ends_the_wait_and_the_same_command_goes_on(shop: World) -> None:
    shop.sandbox.fault("quota", service="fargate", value=1.5)
    run = scale(shop, capacity="+100%", accept_shortage=True)
    assert run.returncode == 2
    assert "You've reached the limit on the number of vCPUs you can run concurrently" in run.complaints[0]
    assert any(note.startswith("ACCEPTED: 2 more tasks") for note in run.report["notes"])
    shop.sandbox.heal()
    again = scale(shop, capacity="+100%")
    assert (again.returncode, again.mutations) == (0, []), again.output
    assert shop.healthy_targets(EAST) == 4


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "say how much: -e capacity=N"),
        ({"capacity": "4", "ecs_service": "regami-servic"}, "there is no ECS service regami-servic"),
    ],
    ids=["how much", "typo"],
)
def test_what_is_mistyped_names_the_way_out(shop: World, variables: dict, told: str) -> None:
    refused = scale(shop, **variables)
    assert (refused.returncode, refused.mutations) == (2, [])
    assert told in " ".join(refused.complaints)


@pytest.mark.parametrize("kind", ["", "down"])
def test_the_recovery_api_scales_or_aws_does(shop: World, kind: str) -> None:
    if kind:
        shop.sandbox.fault("recovery-api", kind=kind)
    run = scale(shop, capacity="4", strategy="api")
    assert run.returncode == 0, run.output
    assert size(shop)[:3] == (4, 4, 10) and run.mutations.count(UPDATE) == 1
    through_aws = any("through AWS, since the recovery API did not do it" in note for note in run.report["notes"])
    assert through_aws == (kind == "down")


# ---- an Auto Scaling group ------------------------------------------------------------------------------------------


def fleet(world: World) -> tuple[int, int, int]:
    name = world.sandbox.state["fleet"]["auto_scaling_group"]
    found = world.aws("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    return found["DesiredCapacity"], found["MinSize"], found["MaxSize"]


@pytest.mark.soak
def test_a_fleet_grows_under_load_and_shrinks_again(shop: World) -> None:
    shop.start_users(name=shop.sandbox.state["fleet"]["public_name"])
    run = scale(shop, env="sandbox_fleet", capacity="+50%")
    assert run.returncode == 0, run.output
    assert fleet(shop) == (3, 3, 6)
    wait_until(lambda: writers(shop) == 3, "users are served by the third instance")
    shop.sandbox.fault("quota", service="ec2", value=6)
    early = scale(shop, env="sandbox_fleet", capacity="+100%", accept_shortage=True)
    assert "You have requested more vCPU capacity than your current vCPU limit allows" in early.complaints[0]
    back = scale(shop, "--tags", "restore", env="sandbox_fleet")
    assert back.returncode == 0, back.output
    assert fleet(shop) == (2, 2, 6)
    users = shop.stop_users()
    assert users["lost_writes"] == 0, users


# ---- a workload of Kubernetes ---------------------------------------------------------------------------------------


def test_pods_grow_with_the_floor_of_their_autoscaler(shop: World) -> None:
    known = shop.sandbox.state["kubernetes"]
    space = Namespace(known["kubeconfig"], known["context"], known["namespace"])

    def pods() -> tuple:
        scaler = space.call("GET", space.path("horizontalpodautoscalers", known["autoscaler"], "/apis/autoscaling/v2"))
        spec = scaler["spec"]
        return space.get(known["deployment"])["spec"]["replicas"], spec["minReplicas"], spec["maxReplicas"]

    assert pods() == (2, 2, 10)
    shop.start_users(name=known["public_name"])
    run = scale(shop, env="sandbox_kubernetes", capacity="+50%")
    assert run.returncode == 0, run.output
    assert pods() == (3, 3, 10)
    back = scale(shop, "--tags", "restore", env="sandbox_kubernetes")
    assert back.returncode == 0, back.output
    assert pods() == (2, 2, 10)
    users = shop.stop_users()
    assert users["lost_writes"] == 0, users
