# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a service is where it should be, and when it never will be."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, scaling
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, WaitTimeout
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    CLUSTER,
    GROUP,
    SERVICE,
    Region,
    deployment,
    stopped_task,
)


def seen(region, **changes):
    targets = [("regami-tg", [{"target": "10.0.0.1:80", "state": state, "reason": ""} for state in region.targets])]
    return {"service": region.service, "targets": targets, "stops": [], "unfinished": []} | changes


def serving(desired=2, running=2, targets=None, **service):
    region = Region(desired, running)
    region.service |= service
    region.targets = region.targets if targets is None else targets
    return seen(region)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (serving(), True),
        (serving(desired=3, running=3), True),
        (serving(running=1), False),
        (serving(desired=1, running=1), False),
        (serving(running=3), False),
        (serving(targets=["healthy", "initial"]), False),
        (serving(targets=["healthy", "healthy", "draining"]), True),
        (serving(deployments=[deployment(1, 3, rolloutState="IN_PROGRESS")]), False),
        (serving(deployments=[]), True),
    ],
)
def test_serving(state, expected):
    assert ecs.is_serving(state, 2) is expected


def test_a_service_without_a_load_balancer_serves_when_its_tasks_run():
    assert ecs.is_serving(dict(serving(), targets=[]), 2)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (serving(0, 0), True),
        (serving(0, 1, targets=[]), False),
        (serving(0, 0, targets=["draining"]), False),
        (serving(0, 0, pendingCount=1), False),
        (serving(1, 0), False),
    ],
)
def test_idle(state, expected):
    assert ecs.is_idle(state) is expected


def test_without_a_rollout_state_one_deployment_with_all_its_tasks_is_rolled_out():
    plain = {key: value for key, value in deployment(1, 3).items() if key != "rolloutState"}
    service = {"deployments": [plain], "runningCount": 2, "desiredCount": 2}
    assert ecs.is_rolled_out(service, plain)
    assert not ecs.is_rolled_out(service | {"runningCount": 1}, plain)
    assert not ecs.is_rolled_out(service | {"deployments": [plain, deployment(0, 2, status="ACTIVE")]}, plain)
    assert not ecs.is_rolled_out(service, dict(plain, status="ACTIVE"))
    assert not ecs.is_rolled_out(service, None)


def test_the_rollout_of_another_deployment_is_not_ours():
    assert ecs.rollout_failure(serving(), "ecs-svc/1") is None
    assert "was replaced: regami-service-secondary now goes to regami-api:3" in ecs.rollout_failure(
        serving(), "ecs-svc/9"
    )
    older = serving(deployments=[deployment(1, 3), deployment(9, 4, status="ACTIVE")])
    assert "was replaced" in ecs.rollout_failure(older, "ecs-svc/9")


def test_a_circuit_breaker_that_rolled_back_is_a_failure():
    broken = deployment(
        9, 4, status="ACTIVE", rolloutState="FAILED", rolloutStateReason="circuit breaker: rolling back"
    )
    why = ecs.rollout_failure(serving(deployments=[deployment(10, 3), broken]), "ecs-svc/9")
    assert why == "the rollout of regami-api:4 failed: circuit breaker: rolling back"


def test_three_failed_tasks_end_a_wait():
    assert ecs.rollout_failure(dict(serving(), stops=["x"] * 2), "ecs-svc/1") is None
    assert "3 of its tasks failed" in ecs.rollout_failure(dict(serving(), stops=["x"] * 3), "ecs-svc/1")
    assert "3 of its tasks failed" in ecs.scaling_failure(dict(serving(), stops=["x"] * 3), 2)


def test_a_count_that_something_else_changed_ends_a_wait():
    assert ecs.scaling_failure(serving(), 2) is None
    assert ecs.scaling_failure(serving(desired=5), 2) is None
    assert ecs.scaling_failure(serving(desired=1), 2) == "something else set its desired count to 1"
    assert ecs.scaling_failure(serving(desired=1), 0) == "something else set its desired count to 1"
    assert ecs.scaling_failure(serving(desired=0, deployments=[deployment(1, 3, rolloutState="FAILED")]), 0) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"stopCode": "TaskFailedToStart", "stoppedReason": "CannotPullContainerError: no such image"}, True),
        ({"stopCode": "ServiceSchedulerInitiated", "stoppedReason": "Task failed ELB health checks in (tg)"}, True),
        (
            {"stopCode": "ServiceSchedulerInitiated", "stoppedReason": "Scaling activity initiated by (ecs-svc/2)"},
            False,
        ),
        ({"stopCode": "UserInitiated", "stoppedReason": "moved away"}, False),
    ],
)
def test_which_stopped_tasks_failed(changes, expected):
    assert ecs.failed(stopped_task(1, **changes)) is expected


def test_a_stop_is_told_with_what_the_container_says():
    assert ecs.stop_reason(stopped_task(1)) == "Essential container in task exited (app: exit code 3)"
    reason = "OutOfMemoryError: Container killed due to memory usage"
    killed = stopped_task(1, containers=[{"name": "app", "exitCode": 137, "reason": reason}])
    assert ecs.stop_reason(killed).endswith(f"(app: exit code 137, {reason})")
    reason = "CannotPullContainerError: regami-api:v9: not found"
    assert ecs.stop_reason({"stoppedReason": reason, "containers": [{"name": "app", "reason": reason}]}) == reason
    assert ecs.stop_reason({}) == "no reason given"


def test_each_stopped_task_is_described_once():
    region = Region()
    region.tasks = [stopped_task(1), stopped_task(2, stopCode="UserInitiated")]
    service = ecs.Service(region, CLUSTER, SERVICE)
    assert [started_by for started_by, _why in service.stops().values()] == ["ecs-svc/2"]
    region.tasks.append(stopped_task(3))
    assert len(service.stops()) == 2
    asked = [arguments["tasks"] for operation, arguments in region.calls if operation == "describe_tasks"]
    assert [len(arns) for arns in asked] == [2, 1]


def test_failures_are_told_with_their_time_and_wishes_are_none():
    def at(second):
        return datetime.datetime.fromtimestamp(second, datetime.UTC)

    region = Region()
    region.tasks = [
        stopped_task(1, stoppedAt=at(100)),
        stopped_task(2, stoppingAt=at(150), stoppedAt=at(160)),
        stopped_task(3, stopCode="UserInitiated", stoppedAt=at(170)),
    ]
    assert [when for when, _why, _deployment in ecs.Service(region, CLUSTER, SERVICE).failures()] == [150, 100]


def test_a_task_that_is_stopping_may_still_write():
    region = Region()
    region.tasks = [stopped_task(1), stopped_task(2, lastStatus="STOPPING"), stopped_task(3, lastStatus="DEACTIVATING")]
    unfinished = ecs.Service(region, CLUSTER, SERVICE).unfinished()
    assert [arn.rpartition("/")[2] for arn in unfinished] == ["2", "3"]


@pytest.mark.parametrize(
    ("cluster", "name", "expected"),
    [
        (CLUSTER, "regami-servce-secondary", f"no ECS service regami-servce-secondary .*there are: {SERVICE}"),
        (CLUSTER, "zzz", f"there are: mailer, {SERVICE}"),
        ("regami-cluster", SERVICE, f"no ECS cluster regami-cluster in us-west-2 .there are: {CLUSTER}"),
    ],
)
def test_what_is_not_there_names_what_is(cluster, name, expected):
    with pytest.raises(Refusal, match=expected):
        ecs.Service(Region(), cluster, name).describe()


def test_a_deleted_service_is_none():
    region = Region()
    region.service["status"] = "INACTIVE"
    with pytest.raises(Refusal, match="was deleted from cluster"):
        ecs.Service(region, CLUSTER, SERVICE).describe()


def test_target_groups_of_each_kind_of_controller():
    pair = {"targetGroupArn": "blue", "advancedConfiguration": {"alternateTargetGroupArn": "green"}}
    assert ecs.target_groups({"loadBalancers": [pair]}) == [("blue", "green")]
    assert ecs.target_groups({"loadBalancers": [{"loadBalancerName": "classic"}]}) == []
    sets = [
        {"status": "ACTIVE", "loadBalancers": [pair]},
        {"status": "PRIMARY", "loadBalancers": [{"targetGroupArn": "green"}]},
    ]
    assert ecs.target_groups({"loadBalancers": [pair], "taskSets": sets}) == [("green",)]


def test_targets_are_read_by_load_balancer():
    region = Region(2)
    service = ecs.Service(region, CLUSTER, SERVICE)
    ((name, targets),) = service.targets([(GROUP,)])
    assert (name, len(targets), ecs.healthy(targets)) == ("regami-tg-secondary", 2, 2)
    assert service.targets([]) == []


def watch(states, failure=lambda _seen: None):
    """`ecs.watch` over `states`, with a wait that runs out of time after the last one."""
    looks = iter(states)

    def wait(look, done, what, usual, state, pace):
        for _state in states:
            if done(look()):
                return
        raise WaitTimeout(f"{what}: still {state(look.__closure__[0].cell_contents)}")

    ecs.watch(wait, lambda: next(looks), lambda seen: ecs.is_serving(seen, 2), failure, "the service serves", 1)


def test_a_wait_that_runs_out_or_fails_tells_reasons_events_and_targets():
    late = dict(serving(running=1, targets=["healthy", "unhealthy"]), stops=["out of memory", "out of memory"])
    events = "last events: (service regami-service-secondary) has reached a steady state"
    with pytest.raises(Stop) as stopped:
        watch([late], lambda _seen: "it will not")
    assert str(stopped.value) == (
        f"the service serves: it will not. stopped tasks: out of memory. targets: 10.0.0.1:80 is unhealthy. {events}"
    )
    watch([late, serving()])


def test_scaling_bounds_that_let_a_count_last():
    bounds = {"floor": 2, "ceiling": 10, "suspended": []}
    assert scaling.fitting(bounds, 4, at_least=False)["floor"] == 4
    assert scaling.fitting(bounds, 1, at_least=False)["floor"] == 1
    assert scaling.fitting(bounds, 1, at_least=True) == bounds
    assert scaling.fitting(bounds, 12, at_least=False) == {"floor": 12, "ceiling": 12, "suspended": []}
    drained = scaling.fitting(dict(bounds, suspended=["dynamic_in"]), 0, at_least=False)
    assert drained == {"floor": 0, "ceiling": 10, "suspended": ["dynamic_in", "dynamic_out", "scheduled"]}
    assert scaling.fitting(drained, 2, at_least=True) == {"floor": 2, "ceiling": 10, "suspended": ["dynamic_in"]}
    assert scaling.text(drained) == "0 to 10 tasks, dynamic_in and dynamic_out and scheduled suspended"
