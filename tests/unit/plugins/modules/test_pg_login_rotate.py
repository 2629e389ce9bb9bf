# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_login_rotate: when its plan makes a login, when it closes one, and what it refuses."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.pg_login_rotate import PgLoginRotate


def role(name, login=True, sessions=0, member_of=(), superuser=False, own=False):
    return {
        "name": name,
        "login": login,
        "sessions": sessions,
        "member_of": list(member_of),
        "superuser": superuser,
        "own": own,
    }


def plan(*roles, state="created", old="app", new="app_2", shut_out=None):
    wanted = {"db_instance": "db", "role": old, "new_role": new, "state": state}
    return PgLoginRotate.plan({"roles": {each["name"]: each for each in roles}, "shut_out": shut_out}, wanted)


def refusal(*arguments, **more):
    with pytest.raises(Refusal) as caught:
        plan(*arguments, **more)
    return str(caught.value)


WRONG = "the database lives but lets app_2 not in: FATAL: password authentication failed"
SECOND = role("app_2", member_of=["app"])


def test_a_second_login_that_acts_as_the_first():
    (step,) = plan(role("app")).steps
    assert step.arguments == {"fresh": True} and "acts as app" in step.what
    assert plan(role("app"), SECOND, shut_out=WRONG).steps[0].arguments == {"fresh": False}
    assert plan(role("app"), SECOND).steps == ()


def test_the_first_is_closed_before_its_sessions_end():
    found = plan(role("app", sessions=3), SECOND, state="retired")
    assert [step.do for step in found.steps] == ["close", "end", "empty"]
    assert plan(role("app", login=False), SECOND, state="retired").steps == ()


def test_what_it_refuses():
    assert "there is no role app in db (there are: app_2): check role" in refusal(SECOND)
    closing = refusal(role("app"), SECOND, state="retired", shut_out=WRONG)
    assert "app is not closed: state=created gives it that password" in closing and WRONG in closing
    assert plan(role("app", login=False), SECOND, state="retired", shut_out=WRONG).steps == ()
    assert "comes first" in refusal(role("app"), state="retired")
    assert "comes first" in refusal(role("app"), role("app_2", login=False, member_of=["app"]), state="retired")
    assert "does not act as app" in refusal(role("app"), role("app_2"))
    assert "a superuser" in refusal(role("app", superuser=True))
    assert "who logs in here" in refusal(role("app", own=True))
    assert "are the same" in refusal(role("app"), new="app")
