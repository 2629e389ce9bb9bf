# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided about an outage: outage_assess takes its plan from here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.outage import Database, Observed, Workload, decide, findings

NOW = 1_700_000_000.0
MINUTE = 60.0
WORK = Workload("regami-service", wanted=2, running=2, serving=2, release="regami-api:7", released=NOW - 600 * MINUTE)
FINE = Observed(WORK, NOW, errors=0.1, database=Database("regami-db-primary", "available", True))
JUST_DEPLOYED = replace(WORK, released=NOW - 12 * MINUTE)
DOWN = ("health: answered 503",)


def seen(work=WORK, **more):
    return replace(FINE, workload=work, **more)


@pytest.mark.parametrize(
    ("observed", "act", "says"),
    [
        pytest.param(FINE, "none", "every check passes and 2 of 2 of regami-service serve", id="all-well"),
        pytest.param(seen(JUST_DEPLOYED), "none", "", id="well-right-after-a-deployment"),
        pytest.param(seen(JUST_DEPLOYED, errors=9.9), "none", "", id="few-errors"),
        pytest.param(
            seen(JUST_DEPLOYED, errors=45.0),
            "rollback",
            "regami-api:7 was deployed 12 min ago: 45 % of the requests end in an error",
            id="errors-after-a-deployment",
        ),
        pytest.param(
            seen(replace(JUST_DEPLOYED, running=0, serving=0, failures=("exit code 1",)), complaints=DOWN),
            "rollback",
            "regami-api:7 was deployed 12 min ago: exit code 1; health: answered 503",
            id="crashes-after-a-deployment",
        ),
        pytest.param(
            seen(replace(JUST_DEPLOYED, rollout="tasks failed to start")),
            "rollback",
            "tasks failed to start",
            id="rollout-failed-while-the-old-tasks-serve",
        ),
        pytest.param(
            seen(replace(JUST_DEPLOYED, rolling=True, failures=("exit code 1",))),
            "rollback",
            "exit code 1",
            id="tasks-of-a-deployment-crash-while-the-old-ones-serve",
        ),
        pytest.param(seen(replace(JUST_DEPLOYED, rolling=True)), "none", "", id="a-deployment-goes-on-and-well"),
        pytest.param(seen(replace(WORK, failures=("exit code 137",))), "none", "", id="a-task-failed-and-was-replaced"),
        pytest.param(seen(replace(WORK, serving=0), complaints=DOWN), "restart", "0 of 2", id="tasks-hang"),
        pytest.param(seen(errors=30.0), "restart", "30 % of the requests", id="errors-out-of-nowhere"),
        pytest.param(
            seen(replace(WORK, running=0, serving=0, failures=("exit code 1",)), complaints=DOWN),
            "unknown",
            "fails although nothing was deployed within 60 min: exit code 1",
            id="crashes-out-of-nowhere",
        ),
        pytest.param(
            seen(replace(WORK, running=0, serving=0, failures=("exit code 1",), restart_helps=True), complaints=DOWN),
            "restart",
            "nothing was deployed within 60 min, but exit code 1; health",
            id="pods-crash-out-of-nowhere",
        ),
        pytest.param(
            seen(replace(WORK, serving=1, waiting=("pod web-1: container app is not ready",))),
            "restart",
            "but pod web-1: container app is not ready; 1 of 2",
            id="a-pod-hangs",
        ),
        pytest.param(
            seen(replace(JUST_DEPLOYED, serving=1, rolling=True)), "none", "", id="a-deployment-takes-one-away-first"
        ),
        pytest.param(
            seen(replace(JUST_DEPLOYED, serving=0, rolling=True)), "rollback", "", id="a-deployment-takes-all-away"
        ),
        pytest.param(
            seen(replace(WORK, serving=0, starting=2), complaints=DOWN),
            "scale",
            "2 have only just begun",
            id="pods-start",
        ),
        pytest.param(
            seen(replace(WORK, serving=0, starting=1), complaints=DOWN), "restart", "", id="too-few-of-them-start"
        ),
        pytest.param(
            seen(replace(WORK, wanted=0, running=0, serving=0), complaints=DOWN),
            "scale",
            "is told to have 0, the inventory says 2",
            id="scaled-to-nothing",
        ),
        pytest.param(seen(complaints=DOWN), "unknown", "the way to them", id="tasks-serve-but-nobody-gets-there"),
        pytest.param(
            seen(replace(WORK, running=1, serving=1, rollout=None)), "unknown", "out of room", id="tasks-are-not-placed"
        ),
        pytest.param(
            seen(complaints=DOWN, database=Database("regami-db-primary", "available", False, "refused")),
            "failover",
            "the database regami-db-primary does not answer (refused)",
            id="database-does-not-answer",
        ),
        pytest.param(
            seen(JUST_DEPLOYED, complaints=DOWN, database=Database("regami-db-primary", "storage-full")),
            "failover",
            "the database regami-db-primary is storage-full",
            id="database-is-down-and-a-deployment-was",
        ),
        pytest.param(
            seen(complaints=DOWN, database=Database("regami-db-primary", "unknown (throttled)")),
            "unknown",
            "the way to them",
            id="rds-does-not-say",
        ),
        pytest.param(
            seen(database=Database("regami-db-primary", "stopped")), "none", "", id="database-is-down-but-nobody-minds"
        ),
    ],
)
def test_decides(observed, act, says):
    decision = decide(observed, count=2, recent_minutes=60, max_error_percent=10)
    assert decision.act == act
    assert says in decision.because


def test_a_deployment_is_the_cause_only_for_a_while():
    observed = seen(replace(JUST_DEPLOYED, serving=0), complaints=DOWN)
    assert decide(observed, 2, recent_minutes=12, max_error_percent=10).act == "rollback"
    assert decide(observed, 2, recent_minutes=11, max_error_percent=10).act == "restart"


def test_findings_tell_all_and_what_is_wrong_first():
    observed = seen(replace(JUST_DEPLOYED, serving=1, rollout="not over", failures=("exit code 1",)), complaints=DOWN)
    assert list(findings(observed)) == [
        "health: answered 503",
        "1 of 2 of regami-service serve, 2 run",
        "regami-api:7 was deployed 12 min ago",
        "regami-api:7: not over",
        "exit code 1",
        "0.1 % of the requests ended in an error",
        "the database regami-db-primary is available and answers",
    ]
