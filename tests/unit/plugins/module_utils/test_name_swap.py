# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of rds_swap_names: forwards and backwards, from every state between."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import name_swap
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop

NAME, FRESH, KEPT = "regami-db-primary", "regami-db-restored", "regami-db-primary-old"
REPLICA = "arn:aws:rds:us-west-2:123456789012:db:regami-db-replica"
WANTED = {
    "db_instance": NAME,
    "restored_instance": FRESH,
    "kept_instance": KEPT,
    "state": "swapped",
    "accept_sessions": False,
}
BACK = WANTED | {"state": "original"}


def damaged(name=NAME, **changes):
    base = {"id": name, "resource_id": "db-OLD", "restored_from": None, "status": "available"}
    return {**base, "replicas": [REPLICA], "pending": {}, **changes}


def fresh(name=FRESH, **changes):
    base = {"id": name, "resource_id": "db-NEW", "restored_from": "db-OLD", "status": "available"}
    return {**base, "replicas": [], "pending": {}, **changes}


def planned(*instances, wanted=None, sessions=None):
    wanted = wanted or WANTED
    there = {each["id"]: each for each in instances}
    return name_swap.plan({"instances": there, "pair": name_swap.pair(there, wanted), "sessions": sessions}, wanted)


def moves(a_plan):
    return [(step.before, step.after) if step.do == "rename" else step.do for step in a_plan.steps]


START, HALF, END = (damaged(), fresh()), (damaged(KEPT), fresh()), (damaged(KEPT), fresh(NAME))


def test_forwards_from_every_state():
    assert moves(planned(*START)) == [(NAME, KEPT), (FRESH, NAME)]
    assert moves(planned(*HALF)) == [(FRESH, NAME)]
    assert moves(planned(*END)) == []


def test_backwards_from_every_state():
    assert moves(planned(*END, wanted=BACK)) == [(NAME, FRESH), (KEPT, NAME)]
    assert moves(planned(*HALF, wanted=BACK)) == [(KEPT, NAME)]
    assert moves(planned(*START, wanted=BACK)) == []


def test_a_rename_under_way_is_waited_for_and_planned_anew():
    found = planned(damaged(status="renaming"), fresh())
    assert moves(found)[0] == "settle" and found.steps[0].look_again and found.steps[0].waits
    assert moves(planned(damaged(KEPT), fresh(NAME, status="renaming"))) == ["settle"]


def test_a_database_that_is_ill_cannot_be_renamed():
    with pytest.raises(Refusal, match=r"is failed.*task definition"):
        planned(damaged(status="failed"), fresh())
    with pytest.raises(Stop, match="is failed"):
        planned(damaged(KEPT, status="failed"), fresh(NAME))


def test_nobody_loses_the_endpoint_while_writing():
    with pytest.raises(Refusal, match=f"3 sessions are open on {NAME}: stop the application.*accept_sessions=true"):
        planned(*START, sessions=3)
    assert moves(planned(*START, sessions=3, wanted=WANTED | {"accept_sessions": True}))
    assert moves(planned(*END, sessions=3)) == [], "it is done: who is there may stay"


def test_a_kept_one_of_an_earlier_time_is_not_touched():
    earlier = dict(damaged(KEPT), resource_id="db-OLDER")
    with pytest.raises(Refusal, match=f"{KEPT} already.*kept_instance=NAME"):
        planned(damaged(), fresh(), earlier)


def test_a_second_restore_takes_the_place_of_the_first():
    first = fresh(NAME)
    second = fresh(resource_id="db-NEWER", restored_from="db-NEW")
    found = planned(first, second, damaged(KEPT), wanted=WANTED | {"kept_instance": "other"})
    assert moves(found) == [(NAME, "other"), (FRESH, NAME)]


def test_strangers_are_refused():
    with pytest.raises(Refusal, match="nothing says that regami-db-restored was restored from"):
        planned(damaged(), fresh(restored_from=None))
    with pytest.raises(Refusal, match=r"there is no regami-db-restored.*restore beside first"):
        planned(damaged())
    with pytest.raises(Refusal, match="there is neither"):
        planned(dict(damaged(), id="another"))


def test_replicas_of_the_damaged_one_are_named():
    assert "regami-db-replica goes on following the damaged instance" in planned(*START).notes[0]
    assert "regami-db-replica" in planned(*END).notes[0], "also when all else is done"


def test_pending_changes_are_told_since_they_come_with_the_name():
    found = planned(damaged(pending={"DBInstanceClass": "db.r5.large"}), fresh())
    assert found.notes[0].startswith(f"DBInstanceClass of {NAME}")


def test_the_plan_of_what_is_still_to_be_restored():
    there = {NAME: damaged()}
    both = name_swap.pair(there, WANTED, restoring=True)
    assert moves(name_swap.plan({"instances": there, "pair": both, "sessions": None}, WANTED)) == [
        (NAME, KEPT),
        (FRESH, NAME),
    ]
    there = {each["id"]: each for each in END}
    assert name_swap.pair(there, WANTED, restoring=True) == name_swap.Pair(*END), "unless it is all done"
