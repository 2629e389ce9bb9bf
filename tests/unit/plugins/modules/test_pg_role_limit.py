# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_role_limit: what its plan does, costs and refuses."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.pg_role_limit import PgRoleLimit


def role(name, **more):
    return {"name": name, "connection_limit": -1, "superuser": False, "own": "admin", "connections": 91, **more}


ROLES = {each["name"]: each for each in (role("app"), role("admin"), role("root", superuser=True))}


def plan(limit, name="app", roles=ROLES):
    return PgRoleLimit.plan(roles, {"role": name, "connection_limit": limit, "db_instance": "db"})


def refusal(*arguments):
    with pytest.raises(Refusal) as caught:
        plan(*arguments)
    return str(caught.value)


def test_what_it_costs():
    (step,) = plan(60).steps
    assert (step.before, step.after) == (-1, 60)
    assert "31 of its 91 are over and stay" in step.what
    assert "what it asks for beyond is refused" in plan(100).steps[0].what
    limited = {"app": role("app", connection_limit=60)}
    assert "nobody is held back" in plan(-1, roles=limited).steps[0].what
    assert plan(60, roles=limited).steps == ()


def test_what_it_refuses():
    assert "there are: app" in refusal(60, "apq")
    assert "superuser" in refusal(60, "root")
    assert "could lock us out" in refusal(60, "admin")
    assert "give -1 for none" in refusal(-2)
