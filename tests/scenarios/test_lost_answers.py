# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API is as ill as everything else that night: answers get lost, connections break, calls are throttled."""

from __future__ import annotations

import pytest
from ill_api import applied, spoil
from world import World


def test_every_change_fails_twice(switchover, world: World) -> None:
    """First it is not applied, then it is, and nobody hears of it."""
    kinds = ("reset", "lost-answer")
    for kind in kinds:
        spoil(world, switchover.run, kind, mutations=True)
    run = world.runbook.run()
    assert run.returncode == 0, run.output
    for kind in kinds:
        hit = [call for call in run.calls if call["fault"] == kind]
        assert {call["action"] for call in hit} == {call["action"] for call in switchover.run.calls if call["mutation"]}
        assert len(hit) >= len(switchover.run.mutations)
    assert applied(run) == applied(switchover.run)
    assert world.snapshot() == switchover.state
    assert (run.report["mode"], run.report["unfenced"]) == ("switchover", False)
    assert run.report["outcome"] == "recovered"


@pytest.mark.soak
def test_every_call_throttled(switchover, world: World) -> None:
    spoil(world, switchover.run, "throttle", mutations=False)
    spoil(world, switchover.run, "throttle", mutations=False)
    run = world.runbook.run()
    assert run.returncode == 0, run.output
    assert [call["fault"] for call in run.calls].count("throttle") > 50
    assert applied(run) == applied(switchover.run)
    assert world.snapshot() == switchover.state
