# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""readiness.yml: what would refuse tonight is said this morning, and nothing is changed by asking."""

from __future__ import annotations

import pytest
import readiness
from readiness import Way, look, refuses
from world import World


def test_a_healthy_environment_is_ready(world: World) -> None:
    readiness.begin(world)
    before = world.snapshot()
    seen = look(world)
    assert seen.run.returncode == 0 and seen.flagged == {}, seen.run.output
    assert len(seen.verdicts) >= 6
    assert seen.run.recap["changed"] == 0
    assert [call for call in seen.run.calls if call["mutation"]] == []
    assert world.snapshot() == before


@pytest.mark.soak
def test_a_revision_that_is_gone(world: World) -> None:
    """As on the first day, where the revision that was good is deregistered."""
    way = Way(
        "the revision before was deregistered",
        spoil=lambda world: world.aws("ecs").deregister_task_definition(taskDefinition="regami-api:3"),
        flagged={"rollback_deployment": "not_ready"},
        check="ecs_rollback",
        resource="regami-service",
        because="regami-api:3 was deregistered (INACTIVE)",
        prove=refuses("rollback_deployment", "regami-api:3 was deregistered (INACTIVE)"),
        scenario="db_failover,rollback_deployment",
    )
    way.show(world)


@pytest.mark.soak
def test_a_region_that_does_not_answer_cannot_be_told(world: World) -> None:
    readiness.begin(world)
    world.sandbox.fault("region-cut", region="us-east-1")
    seen = look(world, scenario="rollback_deployment")
    assert seen.run.returncode == 4, seen.run.output
    assert seen.flagged == {"rollback_deployment": "cannot_tell"}
