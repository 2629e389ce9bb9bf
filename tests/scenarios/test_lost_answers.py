# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API is as ill as everything else that night: answers get lost, connections break, calls are throttled."""

from __future__ import annotations

from collections import Counter

import pytest
from runbook import Result
from world import World

# Sent again after a lost answer, applied or not: the same tag, the same record set. (Only the answer of the second names
# the change that is waited for.)
IDEMPOTENT = ("AddTagsToResource", "ChangeResourceRecordSets")


def spoil(world: World, run: Result, kind: str, mutations: bool) -> None:
    """Let every kind of call (or of change) of an undisturbed `run` fail once for each time it was sent there."""
    sent = Counter(
        (call["service"], call["action"], call["region"]) for call in run.calls if call["mutation"] or not mutations
    )
    for (service, action, region), count in sent.items():
        # Renewals of a lease come as often as time passes: one of them is enough.
        count = 1 if service == "dynamodb" or not mutations else count
        world.sandbox.fault("api", service=service, action=action, kind=kind, region=region, count=count)


def applied(run: Result) -> list[str]:
    """The changes that AWS carried out, the idempotent ones aside, in their order."""
    return [
        f"{call['action']} {call['region']}"
        for call in run.calls
        if call["mutation"]
        and call["status"] == 200
        and call["service"] != "dynamodb"
        and call["action"] not in IDEMPOTENT
    ]


@pytest.mark.parametrize("kind", ["lost-answer", "reset"])
def test_every_change_fails_once(switchover, world: World, kind: str) -> None:
    """lost-answer: applied, and nobody hears of it; reset: not applied."""
    spoil(world, switchover.run, kind, mutations=True)
    run = world.runbook.run()
    assert run.returncode == 0, run.output
    hit = [call for call in run.calls if call["fault"] == kind]
    assert {call["action"] for call in hit} == {call["action"] for call in switchover.run.calls if call["mutation"]}
    assert len(hit) >= len(switchover.run.mutations)
    assert applied(run) == applied(switchover.run)
    assert world.snapshot() == switchover.state
    assert (run.report["mode"], run.report["unfenced"]) == ("switchover", False)
    assert run.report["outcome"] == "recovered"


def test_every_call_throttled(switchover, world: World) -> None:
    spoil(world, switchover.run, "throttle", mutations=False)
    spoil(world, switchover.run, "throttle", mutations=False)
    run = world.runbook.run()
    assert run.returncode == 0, run.output
    assert [call["fault"] for call in run.calls].count("throttle") > 50
    assert applied(run) == applied(switchover.run)
    assert world.snapshot() == switchover.state
