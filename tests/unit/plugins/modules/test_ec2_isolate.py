# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ec2_isolate: what an instance remembers in its tags, and in which order it is taken out of everything and put back."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import containment
from ansible_collections.sre.runbooks.plugins.module_utils.containment import Memory, Suspect, Target, remembered
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.ec2_isolate import Ec2Isolate

SINCE = "2026-11-21T23:05:00Z"
LATER = datetime.datetime(2026, 11, 21, 23, 6, tzinfo=datetime.UTC)
FREE = (("termination", False), ("stop", False), ("shutdown", "terminate"))
TARGET = Target("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/app/1", "i-1", 8000)
BY_HAND = Target("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/admin/2", "10.0.0.4", 9000)
INSTANCE = {
    "InstanceId": "i-1",
    "VpcId": "vpc-1",
    "BlockDeviceMappings": [{"Ebs": {"VolumeId": "vol-1"}}, {"Ebs": {"VolumeId": "vol-2"}}],
}
MEMBER = {"AutoScalingGroupName": "fleet", "LifecycleState": "InService", "ProtectedFromScaleIn": True}
BEFORE = Suspect(
    INSTANCE,
    {"service": "api"},
    (("eni-1", ("sg-app", "sg-ssh")), ("eni-2", ("sg-app",))),
    FREE,
    (TARGET, BY_HAND),
    MEMBER,
)
MEMORY = BEFORE.as_it_is(SINCE)
GROUP = {
    "AutoScalingGroupName": "fleet",
    "MinSize": 1,
    "MaxSize": 6,
    "DesiredCapacity": 2,
    "TargetGroupARNs": [TARGET.arn],
    "Instances": [{"InstanceId": name, "LifecycleState": "InService"} for name in ("i-0", "i-7", "i-8")],
}


def snapshots(*volumes, state="pending"):
    return tuple({"VolumeId": each, "State": state} for each in volumes)


def isolated(**changes):
    """As the instance is when it is isolated."""
    tags = {"service": "api", **replace(MEMORY, is_done=True).tags()}
    found = replace(
        BEFORE,
        tags=tags,
        interfaces=(("eni-1", ("sg-q",)), ("eni-2", ("sg-q",))),
        protections=tuple(containment.PROTECTED.items()),
        targets=(),
        membership=None,
        snapshots=snapshots("vol-1", "vol-2"),
    )
    return replace(found, **changes)


def isolating(suspect):
    return [step.do for step in plan_of(suspect).steps]


def plan_of(suspect, now=SINCE):
    return Ec2Isolate.plan({"suspect": suspect, "now": now}, {"state": "isolated", "security_group": "sg-q"})


def releasing(suspect, launched=None, **group):
    """`group`: what is different about it."""
    launched = {"i-7": LATER, "i-8": LATER + datetime.timedelta(minutes=1)} if launched is None else launched
    return Ec2Isolate.plan({"suspect": suspect, "group": GROUP | group, "launched": launched}, {"state": "released"})


def test_what_it_was_is_read_from_its_tags_as_it_was_written():
    many = replace(MEMORY, interfaces=(("eni-1", tuple(f"sg-{number:017x}" for number in range(16))),))
    for memory in (MEMORY, many, replace(MEMORY, is_done=True, replacement="i-7"), Memory(SINCE)):
        assert remembered(memory.tags()) == memory
        assert all(len(value) <= 256 for value in memory.tags().values())
    assert remembered({"service": "api"}) is None


def test_it_is_preserved_before_it_leaves_and_leaves_before_it_is_cut_off():
    steps = isolating(BEFORE)
    assert steps == [
        *("remember", "snapshot", "protect", "detach", "deregister", "deregister", "cut"),
        *("remember", "tidy", "let_go"),
    ]


@pytest.mark.parametrize(
    ("suspect", "left"),
    [
        (replace(BEFORE, tags=MEMORY.tags()), ["snapshot", "protect", "detach", "deregister", "deregister", "cut"]),
        (isolated(snapshots=snapshots("vol-1")), ["snapshot"]),
        (isolated(snapshots=snapshots("vol-1", "vol-2", state="error")), ["snapshot"]),
        (isolated(protections=FREE), ["protect"]),
        (isolated(membership=dict(MEMBER, LifecycleState="Detaching")), ["let_go"]),
        # In quarantine, though it is not known how it came there: its connections may be tracked.
        (isolated(tags=MEMORY.tags()), ["cut", "remember", "tidy"]),
        (isolated(interfaces=(("eni-1", ("sg-q",)), ("eni-2", ("sg-untrack",)))), ["cut", "tidy"]),
        (isolated(untracking="sg-untrack"), ["tidy"]),
        (isolated(), []),
    ],
)
def test_begun_before_it_does_what_is_left(suspect, left):
    assert isolating(suspect)[: len(left)] == left
    assert isolating(suspect) == left or "detach" in left


def test_a_memory_is_never_written_over():
    plan = plan_of(isolated(tags=MEMORY.tags()), "2026-12-24T00:00:00Z")
    written = [step.arguments["tags"] for step in plan.steps if step.do == "remember"]
    assert [remembered(tags) for tags in written] == [replace(MEMORY, is_done=True)]


@pytest.mark.parametrize(
    ("lifecycle", "advice"), [("Terminating:Wait", "create-snapshots"), ("Pending", "in a moment")]
)
def test_what_its_group_does_not_let_go_is_refused(lifecycle, advice):
    with pytest.raises(Refusal, match=advice):
        isolating(replace(BEFORE, membership=dict(MEMBER, LifecycleState=lifecycle)))


def test_all_of_it_comes_back_and_the_youngest_goes_in_its_place():
    plan = releasing(isolated())
    assert [step.do for step in plan.steps] == [
        *("remember", "restore", "attach", "serve", "give_way", "serve", "scale_in"),
        *("register", "protect", "forget"),
    ]
    told = {step.do: step.arguments for step in plan.steps}
    assert told["restore"]["interfaces"] == {"eni-1": ["sg-app", "sg-ssh"], "eni-2": ["sg-app"]}
    assert told["give_way"] == {"replacement": "i-8"} and told["protect"] == {"protections": dict(FREE)}
    # The group registers it in its own target group.
    assert told["register"]["target"] == BY_HAND
    assert set(told["forget"]["keys"]) == set(replace(MEMORY, replacement="i-8").tags())


def test_who_goes_in_its_place_is_decided_once():
    chosen = isolated(tags=replace(MEMORY, is_done=True, replacement="i-7").tags())
    assert [step.arguments for step in releasing(chosen).steps if step.do == "give_way"] == [{"replacement": "i-7"}]
    gone = [{"InstanceId": "i-8", "LifecycleState": "InService"}]
    assert "give_way" not in [step.do for step in releasing(chosen, Instances=gone).steps]
    assert "forget" in isolating(chosen)
    assert "give_way" not in [step.do for step in releasing(isolated(), launched={}).steps]


def test_a_full_group_makes_room_first_or_is_asked_for_it():
    steps = [step.do for step in releasing(isolated(), DesiredCapacity=6).steps]
    assert steps.index("give_way") < steps.index("attach")
    with pytest.raises(Refusal, match="--max-size 7"):
        releasing(isolated(), DesiredCapacity=6, MinSize=6)


def test_a_group_that_is_gone_keeps_nobody_from_the_rest():
    plan = Ec2Isolate.plan({"suspect": isolated(), "group": None, "launched": {}}, {"state": "released"})
    assert "fleet is gone" in plan.notes[0]
    assert [step.do for step in plan.steps] == ["restore", "register", "register", "protect", "forget"]


def test_what_is_not_isolated_is_not_released():
    plan = releasing(BEFORE)
    assert not plan.steps and "not isolated" in plan.notes[0]


def test_another_isolation_waits_for_a_group_to_let_go():
    detaching = isolated(membership=dict(MEMBER, LifecycleState="Detaching"))
    assert [step.do for step in releasing(detaching).steps][2:4] == ["let_go", "attach"]
