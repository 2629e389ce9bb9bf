# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of route53_failover."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import name_move
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Unreachable

GROUP = "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/regami-tg-secondary/50dc6c495c0c9188"
OLD, NEW = frozenset({"192.0.2.10"}), frozenset({"198.51.100.20", "198.51.100.21"})
WANTED = {
    "record": "api.regami.test",
    "type": "A",
    "hosted_zone_id": "Z1234567890ABC",
    "set_identifier": "secondary",
    "alias_target": None,
    "routing_controls": None,
    "min_healthy_targets": 1,
    "allow_unhealthy_target": False,
}
BY_CONTROLS = dict(WANTED, set_identifier=None, routing_controls={"turn_on": "west", "turn_off": "east"})


def record(identifier, role):
    return {
        "Name": "api.regami.test.",
        "Type": "A",
        "SetIdentifier": identifier,
        "Failover": role,
        "AliasTarget": {"HostedZoneId": "Z", "DNSName": f"{identifier}.elb.test.", "EvaluateTargetHealth": True},
    }


def observed(served_by="primary", targets=("healthy",), answers=(OLD,), expected=NEW, **more):
    seen = [
        {"target": "10.0.0.1:8000", "state": state, "reason": "Target.Timeout" * (state != "healthy")}
        for state in targets
    ]
    return {
        "sets": [record(name, "PRIMARY" if name == served_by else "SECONDARY") for name in ("primary", "secondary")],
        "names": [],
        "controls": {
            "east": "On" if served_by == "primary" else "Off",
            "west": "Off" if served_by == "primary" else "On",
        },
        "targets": [{"arn": GROUP, "region": "us-west-2", "seen": seen}],
        "answers": list(answers) if isinstance(answers, tuple) else answers,
        "cached": False,
        "ttl": 20,
        "expected": expected,
        **more,
    }


def test_the_move_is_one_step_with_its_whole_outcome() -> None:
    plan = name_move.plan(observed(), WANTED)
    step, follow = plan.steps
    assert follow.what == (
        "wait until the name servers answer for api.regami.test with 198.51.100.20, 198.51.100.21 "
        "and resolvers have forgotten the old answer (20 s)"
    )
    assert step.what == "move api.regami.test from primary to secondary in one change batch"
    assert (step.before, step.after) == (
        {"primary": "PRIMARY primary.elb.test", "secondary": "SECONDARY secondary.elb.test"},
        {"primary": "SECONDARY primary.elb.test", "secondary": "PRIMARY secondary.elb.test"},
    )
    assert [there["Failover"] for there in step.arguments["new"]] == ["SECONDARY", "PRIMARY"]
    assert plan.after == {"serves": "secondary", "sets": step.after, "answers": sorted(NEW)}
    assert plan.notes == ()


def test_routing_controls_are_used_instead_of_records() -> None:
    plan = name_move.plan(observed(), BY_CONTROLS)
    assert [step.do for step in plan.steps] == ["move_controls", "follow"]
    assert plan.after == {"controls": {"west": "On", "east": "Off"}, "answers": sorted(NEW)}


@pytest.mark.parametrize("wanted", [WANTED, BY_CONTROLS])
def test_a_move_that_is_done_leaves_nothing_to_do(wanted: dict) -> None:
    assert name_move.plan(observed("secondary", targets=(), answers=(NEW,)), wanted).steps == ()


@pytest.mark.parametrize("wanted", [WANTED, BY_CONTROLS])
def test_a_run_killed_before_the_name_servers_followed_waits_for_them(wanted: dict) -> None:
    (step,) = name_move.plan(observed("secondary", targets=(), answers=(NEW, OLD)), wanted).steps
    assert (step.do, step.arguments) == ("follow", {})
    assert step.what == "wait until the name servers answer for api.regami.test with 198.51.100.20, 198.51.100.21"


def test_the_name_stays_where_the_target_does_not_serve() -> None:
    with pytest.raises(Refusal) as refused:
        name_move.plan(observed(targets=("unhealthy", "initial")), WANTED)
    assert str(refused.value) == (
        "api.regami.test stays where it is: target group regami-tg-secondary in us-west-2 has 0 healthy targets, 1 needed "
        "(10.0.0.1:8000 unhealthy Target.Timeout, 10.0.0.1:8000 initial Target.Timeout). Start the service there first, or "
        "set allow_unhealthy_target to move the name all the same"
    )


def test_a_target_group_without_targets_or_without_an_answer_is_not_healthy() -> None:
    with pytest.raises(Refusal, match=r"0 healthy targets, 1 needed \(it has no others\)"):
        name_move.plan(observed(targets=()), WANTED)
    silent = [{"arn": GROUP, "region": "us-west-2", "seen": Unreachable("no answer")}]
    with pytest.raises(Refusal, match="us-west-2 cannot be asked: no answer"):
        name_move.plan(dict(observed(), targets=silent), WANTED)


@given(st.lists(st.sampled_from(["healthy", "unhealthy", "initial", "draining"])), st.integers(1, 4))
def test_the_gate_opens_with_enough_healthy_targets_or_on_record(states: list, needed: int) -> None:
    wanted = dict(WANTED, min_healthy_targets=needed)
    if states.count("healthy") >= needed:
        assert name_move.plan(observed(targets=states), wanted).notes == ()
        return
    with pytest.raises(Refusal):
        name_move.plan(observed(targets=states), wanted)
    (note,) = name_move.plan(observed(targets=states), dict(wanted, allow_unhealthy_target=True)).notes
    assert note.startswith("allow_unhealthy_target: target group regami-tg-secondary in us-west-2 has")


@pytest.mark.parametrize(
    ("seen", "note"),
    [
        ({"answers": Unreachable("DNS server ns-1 gave no answer")}, "nobody saw the new answer: DNS server ns-1"),
        ({"expected": frozenset()}, "nothing names the addresses"),
        ({"cached": True}, "only a resolver that caches"),
        ({"targets": []}, "nothing checked that the target serves"),
    ],
)
def test_what_could_not_be_seen_is_noted_and_does_not_stop_the_move(seen: dict, note: str) -> None:
    plan = name_move.plan(dict(observed(), **seen), WANTED)
    assert [step.do for step in plan.steps] == ["move_records", "follow"]
    assert note in plan.notes[0]


def test_a_done_move_is_not_waited_for_where_it_cannot_be_seen() -> None:
    assert name_move.plan(observed("secondary", answers=Unreachable("no answer")), WANTED).steps == ()
    assert name_move.plan(observed("secondary", expected=frozenset()), WANTED).steps == ()
