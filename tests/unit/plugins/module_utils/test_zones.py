# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which zone is bad, and how something leaves it and comes back."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import zones
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.zone_health import Zone, judge
from ansible_collections.sre.runbooks.plugins.module_utils.zones import Left

WHERE = {"s-a": "a", "s-b": "b", "s-b2": "b"}
GOOD = Zone("a", healthy=1)
BAD = Zone("b", unhealthy=1)


def verdict(*seen, desired=2, left="", **wanted):
    usual = {"zone": None, "min_serving_percent": 50, "accept_healthy_zone": False, "accept_low_capacity": False}
    return judge(list(seen), desired, dict(usual, **wanted), left)


@pytest.mark.parametrize(
    "bad",
    [
        BAD,
        Zone("b", healthy=1, unhealthy=1),
        Zone("b", state="impaired", messages=("We are looking.",), healthy=1),
        Zone("b", failed=2, healthy=1),
        Zone("b", was_unhealthy=1),
    ],
)
def test_one_bad_zone_is_left(bad):
    found = verdict(GOOD, bad)
    assert (found.zone, found.why_not, found.serving_elsewhere) == ("b", "", 1)
    assert "b" in found.findings[0]


@pytest.mark.parametrize(
    "fair", [Zone("b", healthy=1), Zone("b", healthy=3, unhealthy=1, failed=1, was_unhealthy=1), Zone("b")]
)
def test_none_looks_bad(fair):
    assert "no zone looks bad" in verdict(GOOD, fair).why_not
    assert "does not look bad" in verdict(GOOD, fair, zone="b").why_not
    assert verdict(GOOD, fair, zone="b", accept_healthy_zone=True).why_not == ""


def test_two_bad_zones_are_none():
    found = verdict(Zone("a", unhealthy=1), BAD, Zone("c", healthy=5), accept_healthy_zone=True)
    assert found.zone == "" and found.why_not.startswith("2 zones look bad (a, b)")
    assert "2 zones look bad" in verdict(Zone("a", unhealthy=1), BAD, zone="b").why_not


def test_a_person_may_err():
    assert "there is no zone x" in verdict(GOOD, BAD, zone="x").why_not
    assert "not a looks bad but b" in verdict(GOOD, BAD, zone="a", accept_healthy_zone=True).why_not


def test_enough_must_be_left():
    assert "nothing serves outside of b" in verdict(Zone("a"), BAD, accept_low_capacity=True).why_not
    few = verdict(Zone("a", healthy=1), BAD, desired=4)
    assert "only 1 of 4 serve outside of b" in few.why_not and "accept_low_capacity=true" in few.why_not
    assert verdict(Zone("a", healthy=1), BAD, desired=4, accept_low_capacity=True).why_not == ""


def test_what_was_begun_is_gone_on_with():
    assert verdict(GOOD, Zone("b"), left="b").why_not == "" == verdict(GOOD, Zone("b"), left="b", zone="b").why_not
    assert verdict(GOOD, Zone("b"), left="b").zone == "b"
    assert "2 zones" in verdict(Zone("a", unhealthy=1), BAD, left="b").why_not


def plan(present, kept=None, state="left", zone="b", settled=True, where=None):
    return zones.plan("api", present, kept, WHERE if where is None else where, {"zone": zone, "state": state}, settled)


def does(found):
    return [step.do for step in found.steps]


def test_out_and_back():
    out = plan(["s-a", "s-b", "s-b2"])
    assert does(out) == ["keep", "move", "settle"]
    assert out.steps[0].arguments == {"line": "b s-b s-b2"} and out.steps[1].arguments == {"subnets": ["s-a"]}
    kept = zones.parse("b s-b s-b2")
    assert does(plan(["s-a"], kept)) == [] and does(plan(["s-a"], kept, settled=False)) == ["settle"]
    back = plan(["s-a"], kept, "back", None)
    assert does(back) == ["move", "settle", "forget"] and back.steps[0].arguments == {"subnets": ["s-a", "s-b", "s-b2"]}


def test_killed_at_each_step():
    kept = Left("b", ("s-b",))
    assert does(plan(["s-a", "s-b"], kept)) == ["move", "settle"]
    assert does(plan(["s-a", "s-b"], kept, "back", None)) == ["settle", "forget"]
    assert does(plan(["s-a"], None, "back", None)) == []


def test_what_somebody_changed_meanwhile_stays():
    kept = Left("b", ("s-b", "s-gone"))
    found = plan(["s-a", "s-c"], kept, "back", None, where={"s-a": "a", "s-c": "c", "s-b": "b"})
    assert found.steps[0].arguments == {"subnets": ["s-a", "s-c", "s-b"]} and "s-gone of api is gone" in found.notes[0]
    more = plan(["s-a", "s-b2"], Left("b", ("s-b",)))
    assert more.steps[0].arguments == {"line": "b s-b s-b2"}


def test_what_cannot_leave():
    with pytest.raises(Refusal, match="nowhere to go"):
        plan(["s-b", "s-b2"])
    with pytest.raises(Refusal, match="has left a already"):
        plan(["s-b", "s-c"], Left("a", ("s-a",)))
    assert "no subnet in b" in plan(["s-a"]).notes[0]


def test_the_line_is_one_that_tags_take():
    line = Left("us-gov-west-1a", tuple(f"subnet-{number:017x}" for number in range(9))).text()
    assert len(line) <= 256 and zones.parse(line).text() == line
    assert zones.parse(None) is None is zones.parse("b")
