# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""iam_revoke: what its plan takes away, gives back and refuses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import principals
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.iam_revoke import MARK, IamRevoke, document

ACCOUNT = "123456789012"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPERATOR = f"arn:aws:sts::{ACCOUNT}:assumed-role/operator/me"


def seen(principal=None, keys=None, policy=None, profile=None, caller=OPERATOR, moment=NOON):
    found = {"Path": "/", "MaxSessionDuration": 3600} if principal is None else principal
    who = {"Account": ACCOUNT, "Arn": caller}
    return {
        "principal": found or None,
        "keys": keys or {},
        "policy": policy,
        "profile": profile,
        "caller": who,
        "moment": moment,
    }


def plan(observed, principal="role/app", **more):
    wanted = {"principal": principal, "state": "revoked", "renew": False, "accept_live_sessions": False, **more}
    return IamRevoke.plan(observed, wanted)


def refusal(*arguments, **more):
    with pytest.raises(Refusal) as caught:
        plan(*arguments, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/app/6c1f", "role/app"),
        (f"arn:aws:iam::{ACCOUNT}:role/service/team/app", "role/app"),
        (f"arn:aws-cn:iam::{ACCOUNT}:user/deploy", "user/deploy"),
        ("user/deploy", "user/deploy"),
    ],
)
def test_a_principal_is_known_however_it_is_written(text, plain):
    assert principals.parse(text).plain == plain


def test_what_is_no_principal():
    for text in (f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:sts::{ACCOUNT}:federated-user/me", "app"):
        assert "neither a role nor a user" in refusal(seen(), text)


def test_a_role_loses_its_sessions_alone():
    (step,) = plan(seen()).steps
    assert (step.do, step.after) == ("deny", "2026-03-01T12:00:00Z")
    condition = document(step.after)["Statement"][0]["Condition"]
    assert condition == {"DateLessThan": {"aws:TokenIssueTime": "2026-03-01T12:00:00Z"}}


def test_a_user_loses_its_keys_too_and_which_were_active_is_kept_first():
    found = plan(seen(keys={"B": "Active", "A": "Inactive"}, profile={}), "user/deploy")
    assert [step.do for step in found.steps] == ["keep", "deny", "turn"]
    assert found.steps[0].arguments == {"ids": ["B"]}
    assert found.after["keys"] == {"A": "Inactive", "B": "Inactive"}
    assert any("console password" in note for note in found.notes)


def test_what_an_earlier_run_kept_is_not_forgotten():
    tags = {"Path": "/", "Tags": [{"Key": MARK, "Value": "A"}]}
    found = plan(seen(tags, {"A": "Inactive", "B": "Active"}, document("2026-03-01T11:00:00Z")), "user/deploy")
    assert [(step.do, step.after) for step in found.steps] == [("keep", ["A", "B"]), ("turn", "Inactive")]


def test_a_revocation_stands_until_it_is_renewed():
    old = seen(policy=document("2026-03-01T11:00:00Z"))
    found = plan(old)
    assert found.steps == () and "renew=true" in found.notes[0]
    assert plan(old, renew=True).steps[0].after == "2026-03-01T12:00:00Z"


def test_who_runs_it_is_not_shut_out():
    assert "shut itself out" in refusal(seen(), "role/operator")
    assert "is of account 999999999999" in refusal(seen(), "arn:aws:iam::999999999999:role/app")


def test_what_nobody_may_change():
    assert "service-linked" in refusal(seen({"Path": "/aws-service-role/ecs.amazonaws.com/"}))
    assert "Identity Center" in refusal(seen({"Path": "/aws-reserved/sso.amazonaws.com/"}))
    assert "there is no role app" in refusal(seen({}))


def test_stolen_sessions_must_be_over_before_it_is_given_back():
    policy = document("2026-03-01T11:30:00Z")
    assert "last until 2026-03-01T12:30:00Z" in refusal(seen(policy=policy), state="restored")
    accepted = plan(seen(policy=policy), state="restored", accept_live_sessions=True)
    assert [step.do for step in accepted.steps] == ["allow"] and "override" in accepted.notes[0]
    late = NOON.replace(hour=13)
    assert plan(seen(policy=policy, moment=late), state="restored").notes == ()
    # A user's may last for 36 hours.
    assert "2026-03-02T23:30:00Z" in refusal(seen({"Path": "/"}, policy=policy), "user/deploy", state="restored")


def test_only_keys_that_it_took_are_given_back():
    tags = {"Path": "/", "Tags": [{"Key": MARK, "Value": "A gone"}]}
    observed = seen(tags, {"A": "Inactive", "B": "Inactive"}, document("2026-01-01T00:00:00Z"))
    found = plan(observed, "user/deploy", state="restored")
    assert [(step.do, step.what.rpartition(" of ")[0]) for step in found.steps[:1]] == [("turn", "set key A")]
    assert [step.do for step in found.steps] == ["turn", "allow", "forget"]
    assert found.after["keys"] == {"A": "Active", "B": "Inactive"}
    assert plan(seen(), state="restored").steps == ()
