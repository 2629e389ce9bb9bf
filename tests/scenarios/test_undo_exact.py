# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each playbook that changes something, taken back: every resource is what it was, but for what stays and is named here."""

from __future__ import annotations

import json
import time

import pytest
from cases import CASES, REFUSED, ZONE, Case
from resources import everything, left, steady
from world import EAST, World


@pytest.mark.parametrize(
    "case",
    [pytest.param(each, marks=() if each.is_short else pytest.mark.soak, id=each.id) for each in CASES],
)
def test_taken_back_all_is_what_it_was(world: World, case: Case) -> None:
    said = case.said | (case.prepare(world) or {})
    before = steady(world)
    run = world.runbook.run(case.playbook, *case.flags, **said)
    assert (run.returncode, run.recap["changed"] > 0) == (0, True), run.output
    back = world.runbook.run("undo", env=said.get("env", "sandbox"), **case.accepted)
    assert back.returncode == (2 if case.was_bad else 0), back.output
    assert not [each["step"] for each in back.timeline if "Left alone" in each.get("step", "")], back.output
    # Tasks and targets that go take a moment.
    deadline = time.monotonic() + 20
    while (found := left(before, everything(world), case.stays)) and time.monotonic() < deadline:
        time.sleep(1)
    assert found == [], json.dumps(found, indent=1)


@pytest.mark.soak
@pytest.mark.parametrize(("case", "instead"), [pytest.param(*each, id=each[0].id) for each in REFUSED])
def test_what_nothing_takes_back_is_refused_with_what_to_do_instead(world: World, case: Case, instead: str) -> None:
    said = case.said | (case.prepare(world) or {})
    run = world.runbook.run(case.playbook, *case.flags, **said)
    assert (run.returncode, run.recap["changed"] > 0) == (0, True), run.output
    back = world.runbook.run("undo")
    assert (back.returncode, back.mutations) == (2, []), back.output
    assert instead in back.complaints[0]


def subnets(world: World) -> set[str]:
    return set(world.service(EAST)["networkConfiguration"]["awsvpcConfiguration"]["subnets"])


@pytest.mark.soak
def test_what_somebody_changed_since_is_named_and_the_rest_is_taken_back(world: World) -> None:
    """And an answer that is lost on the way is none."""
    before = subnets(world)
    assert world.runbook.run("zone_outage", **ZONE).returncode == 0
    assert subnets(world) < before
    shifting = world.aws("arc-zonal-shift")
    (shift,) = shifting.list_zonal_shifts(status="ACTIVE")["items"]
    shifting.cancel_zonal_shift(zonalShiftId=shift["zonalShiftId"])
    world.sandbox.fault("api", service="ecs", action="UpdateService", kind="lost-answer", count=1)
    back = world.runbook.run("undo")
    # The tag by which the service knew where it had been.
    changes = [f"ecs:UpdateService {EAST}", f"ecs:UntagResource {EAST}"]
    assert (back.returncode, back.mutations) == (0, changes), back.output
    (alone,) = [each["step"] for each in back.timeline if "Left alone" in each.get("step", "")]
    assert alone.startswith("2. ") and subnets(world) == before
