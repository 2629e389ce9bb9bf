# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_restart: its plan, and that it restarts once whatever becomes of the answers."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.modules import ecs_restart
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    CLUSTER,
    SERVICE,
    Region,
    carry_out,
    deployment,
    stopped_task,
)

RESTART = ("update_service", {"cluster": CLUSTER, "service": SERVICE, "forceNewDeployment": True})


@pytest.fixture
def restart(monkeypatch):
    def run(region, **given):
        return carry_out(monkeypatch, ecs_restart, ecs_restart.EcsRestart, region, **given)

    return run


def complete(region):
    region.service["deployments"][0]["rolloutState"] = "COMPLETED"


def test_sends_one_update_and_waits_for_its_own_deployment(restart):
    region = Region(desired=2)
    region.later = [lambda region: None, lambda region: None, complete]
    result = restart(region)
    assert region.changes == [RESTART]
    assert (result["changed"], result["before"]["deployment"], result["after"]["deployment"]) == (
        True,
        "ecs-svc/1",
        "ecs-svc/2",
    )


def test_check_mode_plans_and_sends_nothing(restart):
    region = Region(desired=2)
    result = restart(region, check=True)
    assert region.changes == []
    assert [step["do"] for step in result["steps"]] == ["restart", "settle"]


def test_a_restart_under_way_is_waited_for(restart):
    region = Region(desired=2)
    under_way = [deployment(2, 3, rolloutState="IN_PROGRESS"), deployment(1, 3, status="ACTIVE")]
    looks, describe = iter([under_way, under_way]), region.describe_services

    def describe_services(**arguments):
        region.service["deployments"] = next(looks, [deployment(2, 3)])
        return describe(**arguments)

    region.describe_services = describe_services
    result = restart(region)
    assert (region.changes, result["changed"]) == ([], False)
    assert [step["do"] for step in result["steps"]] == ["settle"]


@pytest.mark.parametrize("fate", ["lose", "drop"])
def test_a_lost_answer_restarts_once(restart, fate):
    region = Region(desired=2)
    getattr(region, fate)["update_service"] = 1
    region.later = [lambda region: None] * 3 + [complete]
    result = restart(region)
    assert not result["failed"]
    assert region.asked()["update_service"] == 1


def test_new_tasks_that_fail_too_end_it_with_their_reasons(restart):
    region = Region(desired=2)
    region.tasks = [stopped_task(number) for number in range(3)]
    result = restart(region)
    assert result["failed"]
    assert "exit code 3" in result["msg"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"deploymentController": {"type": "CODE_DEPLOY"}}, "deployed by CODE_DEPLOY"),
        ({"desiredCount": 0}, "told to have no task"),
    ],
)
def test_refuses_what_it_cannot_restart(restart, changes, says):
    region = Region(desired=2)
    region.service |= changes
    result = restart(region)
    assert says in result["msg"]
    assert region.changes == []
