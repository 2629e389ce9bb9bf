# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""secret_rotate: which labels its plan moves, and what it refuses."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.secret_rotate import SecretRotate, new_text, version_of

NEW = "new"


def seen(deleted=None, **versions):
    return {"name": "db", "deleted": deleted, "versions": versions, "version": NEW}


def plan(observed, state="current", values=({"length": 40},)):
    return SecretRotate.plan(observed, {"state": state, "rotation": "r1", "values": list(values)})


def refusal(*arguments, **more):
    with pytest.raises(Refusal) as caught:
        plan(*arguments, **more)
    return str(caught.value)


def moves(found):
    return [
        (step.arguments["label"], step.arguments["target"], step.arguments["source"])
        for step in found.steps
        if step.arguments
    ]


FIRST = seen(a=["AWSCURRENT"])


def test_put_then_made_current():
    found = plan(FIRST)
    assert [step.do for step in found.steps] == ["put", "label", "label"]
    assert moves(found) == [("AWSCURRENT", NEW, "a"), ("AWSPENDING", None, NEW)]
    assert found.after == {"new": ["AWSCURRENT"], "others": {"a": ["AWSPREVIOUS"]}}
    assert [step.do for step in plan(FIRST, "staged").steps] == ["put"]


def test_the_rest_after_a_run_that_was_killed():
    assert moves(plan(seen(a=["AWSCURRENT"], new=["AWSPENDING"]))) == [
        ("AWSCURRENT", NEW, "a"),
        ("AWSPENDING", None, NEW),
    ]
    assert moves(plan(seen(a=["AWSPREVIOUS"], new=["AWSCURRENT", "AWSPENDING"]))) == [("AWSPENDING", None, NEW)]
    assert plan(seen(a=["AWSPREVIOUS"], new=["AWSCURRENT"])).steps == ()


def test_the_same_rotation_has_the_same_version():
    assert version_of("arn", "r1") == version_of("arn", "r1") != version_of("arn", "r2")
    assert 32 <= len(version_of("arn", "r1")) <= 64


def test_back_and_gone():
    done = seen(a=["AWSPREVIOUS"], new=["AWSCURRENT"])
    assert moves(plan(done, "former")) == [("AWSCURRENT", "a", NEW)]
    assert moves(plan(done, "retired")) == [("AWSPREVIOUS", None, "a")]
    retired = seen(a=[], new=["AWSCURRENT"])
    assert plan(retired, "retired").steps == ()
    assert "was retired" in refusal(retired, "former")


def test_what_it_refuses():
    assert "being rotated already" in refusal(seen(a=["AWSCURRENT"], b=["AWSPENDING"]))
    assert "was taken back" in refusal(seen(a=["AWSCURRENT"], new=["AWSPREVIOUS"]))
    assert "to be deleted" in refusal(seen(deleted="now"))
    assert "give values" in refusal(FIRST, values=())
    assert "state=current comes first" in refusal(FIRST, "retired")


def test_one_value_or_fields():
    assert new_text("old", [{"value": "new"}]) == "new"
    text = json.dumps({"username": "app", "password": "old"})
    assert json.loads(new_text(text, [{"key": "password", "value": "new"}])) == {"username": "app", "password": "new"}
    for former, values, why in (
        ("old", [{"key": "password", "value": "x"}], "no JSON"),
        ("old", [{"value": "x"}, {"key": "password", "value": "x"}], "whole secret"),
        ("old", [{"value": "old"}], "the former one"),
    ):
        with pytest.raises(Refusal, match=why) as caught:
            new_text(former, values)
        assert "old" not in str(caught.value).replace("former", "")
