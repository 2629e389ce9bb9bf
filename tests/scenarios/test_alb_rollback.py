# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two versions behind one load balancer: back and forth between them, as users feel it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from runbook import Result, Running
from world import EAST, World, wait_until

ALB = {"strategy": "alb"}


@pytest.fixture(scope="module")
def pair(any_world: World) -> World:
    """The first day with the version before (v1) still running in a target group of its own."""
    any_world.begin()
    any_world.sandbox.control("green")
    return any_world


@pytest.fixture(scope="module")
def groups(pair: World) -> tuple[str, str]:
    facts = pair.sandbox.state["regions"][EAST]
    return facts["target_group_arn"], facts["green_target_group_arn"]


@pytest.fixture
def at_blue(pair: World, groups: tuple[str, str]) -> Iterator[World]:
    """Requests go to the service's own group, those of the test listener to the other; each test leaves it so."""
    lead_to(pair, groups[0])
    yield pair
    pair.sandbox.heal()
    lead_to(pair, groups[0])


def lead_to(world: World, group: str) -> None:
    """Both are referred to, so that both stay checked."""
    facts, elbv2 = world.sandbox.state["regions"][EAST], world.aws("elbv2")
    both = (facts["target_group_arn"], facts["green_target_group_arn"])
    config = {"TargetGroups": [{"TargetGroupArn": each, "Weight": int(each == group)} for each in both]}
    elbv2.modify_listener(
        ListenerArn=facts["listener_arn"], DefaultActions=[{"Type": "forward", "ForwardConfig": config}]
    )
    elbv2.modify_listener(
        ListenerArn=facts["test_listener_arn"], DefaultActions=[{"Type": "forward", "TargetGroupArn": both[1]}]
    )


def weights(world: World) -> dict[str, int]:
    listener = world.sandbox.state["regions"][EAST]["listener_arn"]
    (action,) = world.aws("elbv2").describe_listeners(ListenerArns=[listener])["Listeners"][0]["DefaultActions"]
    return {each["TargetGroupArn"].split("/")[1]: each["Weight"] for each in action["ForwardConfig"]["TargetGroups"]}


def forward_again(groups: tuple[str, str], **variables: object) -> dict:
    """From the other group to the service's own."""
    return {**ALB, "from_target_group_arn": groups[1], "to_target_group_arn": groups[0], **variables}


def rollback(world: World, *flags: str, **variables: object) -> Result:
    return world.runbook.run("rollback_deployment", *flags, **(ALB | variables))


def changes(run: Result) -> list[str]:
    return [name for name in run.mutations if name.startswith("elbv2:")]


def test_plan_changes_nothing(at_blue: World) -> None:
    run = rollback(at_blue, "--check", "--diff", steps=[10, 100])
    assert run.returncode == 0 and run.mutations == [], run.output
    assert "send 10 % of the requests for regami-tg to regami-tg-green" in run.output
    assert "watch regami-tg-green for 120 s at 10 %" in run.output
    assert weights(at_blue) == {"regami-tg": 1, "regami-tg-green": 0}


def test_no_request_fails_at_once_nor_in_steps(at_blue: World, groups: tuple[str, str]) -> None:
    at_blue.start_users(rate=30, reads=30)
    back = rollback(at_blue)
    assert back.returncode == 0, back.output
    assert changes(back) == ["elbv2:ModifyListener us-east-1"]
    assert weights(at_blue) == {"regami-tg": 0, "regami-tg-green": 1}
    assert back.report["outcome"] == "recovered" and back.report["verification"]
    again = rollback(at_blue)
    assert (again.returncode, again.mutations, again.recap["changed"]) == (0, [], 0)
    forth = at_blue.runbook.run("rollback_deployment", **forward_again(groups, steps=[10, 50, 100], step_seconds=1))
    assert forth.returncode == 0, forth.output
    # In each step the test listener too: it leads to the other group as well.
    assert changes(forth) == ["elbv2:ModifyListener us-east-1"] * 6
    users = at_blue.stop_users()
    assert (users["failed_requests"], users["errors"]) == (0, {})
    assert users["requests"] > 100 and users["versions"].keys() == {"v1", "v2"} and users["last_version"] == "v2"
    # The record says how to get back to exactly what each run found.
    (undo,) = back.report["undo"]
    (restored,) = undo["arguments"]["restore"]
    found = restored["actions"][0]["ForwardConfig"]["TargetGroups"]
    assert [each["Weight"] for each in found] == [1, 0]


def test_group_that_no_listener_refers_to_is_checked_first(at_blue: World, groups: tuple[str, str]) -> None:
    facts, elbv2 = at_blue.sandbox.state["regions"][EAST], at_blue.aws("elbv2")
    plain = [{"Type": "forward", "TargetGroupArn": groups[0]}]
    elbv2.modify_listener(ListenerArn=facts["listener_arn"], DefaultActions=plain)
    elbv2.modify_listener(ListenerArn=facts["test_listener_arn"], DefaultActions=plain)
    at_blue.start_users(rate=30, reads=30)
    run = rollback(at_blue, detach_old=True)
    assert run.returncode == 0, run.output
    # Weight 0 on one rule, then both listeners.
    assert changes(run) == ["elbv2:ModifyListener us-east-1"] * 3
    assert at_blue.stop_users()["failed_requests"] == 0
    assert weights(at_blue) == {"regami-tg-green": 1}


def killed_at_ten_percent(run: Running) -> bool:
    return any((call["action"], call["status"]) == ("ModifyListener", 200) for call in run.calls)


def test_killed_in_a_step_goes_on_from_there(at_blue: World) -> None:
    steps = {"steps": [10, 100], "step_seconds": 1}
    run = at_blue.runbook.start("rollback_deployment", **ALB, **(steps | {"step_seconds": 60}))
    run.until(killed_at_ten_percent)
    run.kill()
    assert weights(at_blue) == {"regami-tg": 9, "regami-tg-green": 1}
    again = rollback(at_blue, **steps)
    assert again.returncode == 0, again.output
    assert changes(again) == ["elbv2:ModifyListener us-east-1"]
    assert weights(at_blue) == {"regami-tg": 0, "regami-tg-green": 10}
    # It looked at the step that the dead run could not watch to its end.
    assert "watch regami-tg-green for 1 s at 10 %" in again.output


def test_two_at_once_make_one_change(at_blue: World) -> None:
    runs = [at_blue.runbook.start("rollback_deployment", **ALB) for _ in range(2)]
    results = sorted((run.wait() for run in runs), key=lambda run: run.returncode)
    assert weights(at_blue) == {"regami-tg": 0, "regami-tg-green": 1}
    # Who comes too late either meets the lease or, after its return, finds it all done.
    if results[1].returncode:
        (complaint,) = results[1].complaints
        assert "has held the lease regami-api since 20" in complaint
    assert changes(results[0]).count("elbv2:ModifyListener us-east-1") == 1


def test_bad_build(at_blue: World, groups: tuple[str, str]) -> None:
    """A deployment under way is not interfered with; its bad build is left, and does not get back in."""
    world = at_blue
    world.sandbox.fault("bad-build", build="slow")
    refused = rollback(world)
    assert refused.returncode == 2 and changes(refused) == []
    assert "ECS is deploying regami-service" in refused.complaints[0]
    assert "accept_deployment=true" in refused.complaints[0]
    world.sandbox.fault("bad-build", build="erroring")
    wait_until(lambda: world.service(EAST)["deployments"][0]["rolloutState"] == "COMPLETED", "the bad build is out")

    world.start_users(rate=30, reads=30)
    suffering = time.time()
    run = rollback(world)
    assert run.returncode == 0, run.output
    good = time.time()
    world.await_users(30)
    users = world.sandbox.control("load", action="report")
    assert suffering - 2 < users["first_error"] and users["last_error"] < good
    assert users["last_version"] == "v1"

    # The same bad build as the new version of a canary.
    canary = world.runbook.run(
        "rollback_deployment", **forward_again(groups, steps=[20, 100], step_seconds=30, max_error_percent=5)
    )
    assert canary.returncode == 2
    (complaint,) = canary.complaints
    assert "regami-tg does not serve at 20 %" in complaint and "failed with a 5xx" in complaint
    assert "Every rule is back at regami-tg-green" in complaint
    assert changes(canary) == ["elbv2:ModifyListener us-east-1"] * 4
    assert weights(world) == {"regami-tg": 0, "regami-tg-green": 1}
    assert canary.report["undo"] == [] and canary.seconds < 25
    back = time.time()
    world.await_users(30)
    users = world.stop_users()
    assert users["last_error"] < back and users["last_version"] == "v1"
