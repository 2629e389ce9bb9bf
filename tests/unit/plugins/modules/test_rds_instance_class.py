# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rds_instance_class: what its plan does, costs and refuses."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.rds_instance_class import RdsInstanceClass

GIB = 1 << 30
DEFAULT = "LEAST({DBInstanceClassMemory/9531392},5000)"
INSTANCE = {
    "id": "db",
    "region": "us-east-1",
    "status": "available",
    "instance_class": "db.t3.medium",
    "engine": "postgres",
    "engine_version": "16.4",
    "parameter_group": "mine",
    "pending": {},
    "multi_az": False,
}
WANTED = {"instance_class": "db.r5.large", "accept_pending": False, "accept_memory_risk": False}


def plan(wanted=None, value="100", new_memory=16 * GIB, offered=("db.r5.large",), **instance):
    observed = {
        "instance": {**INSTANCE, **instance},
        "value": value,
        "memory": 4 * GIB,
        "new_memory": new_memory,
        "offered": list(offered),
        "others": [] if offered else ["db.r5.large", "db.t3.micro"],
    }
    return RdsInstanceClass.plan(observed, {**WANTED, **(wanted or {})})


def does(found):
    return [step.do for step in found.steps]


def refusal(wanted=None, **seen):
    with pytest.raises(Refusal) as caught:
        plan(wanted, **seen)
    return str(caught.value)


def test_the_outage_is_said_and_that_a_number_stays():
    found = plan()
    assert does(found) == ["change", "settle"]
    assert "nobody is let in for some minutes" in found.steps[0].what and "billed" in found.steps[0].what
    assert "gives no connection more" in found.notes[0]
    assert found.after["max_connections"] == 100


def test_multi_az_fails_over_and_a_formula_follows_the_memory():
    found = plan(value=DEFAULT, multi_az=True)
    assert "by a failover" in found.steps[0].what
    assert found.notes == ("max_connections goes from 450 to 1802 with the memory",)


def test_the_class_that_it_has_needs_nothing_and_one_on_its_way_is_waited_for():
    assert plan({"instance_class": "db.t3.medium"}).steps == ()
    assert does(plan(status="modifying", pending={"DBInstanceClass": "db.r5.large"})) == ["settle"]
    assert does(plan(status="modifying", instance_class="db.r5.large")) == ["settle"]
    assert does(plan(status="backing-up")) == ["await_rest", "change", "settle"]


def test_one_that_waits_for_the_window_is_applied_now():
    assert does(plan(pending={"DBInstanceClass": "db.r5.large"})) == ["change", "settle"]


def test_what_else_is_pending_refuses_unless_accepted():
    assert "EngineVersion of db waits" in refusal(pending={"EngineVersion": "17.1"})
    assert "accepted: EngineVersion" in plan({"accept_pending": True}, pending={"EngineVersion": "17.1"}).notes[0]


def test_a_class_that_is_not_offered_names_those_near():
    assert "db.r5.large" in refusal({"instance_class": "db.r5.lagre"}, offered=())


def test_too_little_memory_refuses_unless_accepted():
    told = refusal(value="400", new_memory=GIB)
    assert "max_connections is 400" in told and "accept_memory_risk=true" in told
    assert "accepted: " in plan({"accept_memory_risk": True}, value="400", new_memory=GIB).notes[0]
    assert "is not known" in plan(new_memory=None).notes[0]


def test_a_broken_instance_refuses():
    assert "storage-full" in refusal(status="storage-full")
