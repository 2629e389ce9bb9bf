# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""alb_zonal_shift: whose shift goes on, and what is started, extended and ended."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.alb_zonal_shift import COMMENT, AlbZonalShift

NOW = 1_800_000_000.0
# The letters of names and the numbers of ids do not go together.
ZONES = {name: {"id": number, "state": "available"} for name, number in (("e1a", "z6"), ("e1b", "z1"), ("e1c", "z2"))}


def shift(away="z1", minutes=720, comment=COMMENT, kind="ZONAL_SHIFT", applied="APPLIED"):
    return {
        "zonalShiftId": "id",
        "awayFrom": away,
        "expiryTime": datetime.datetime.fromtimestamp(NOW + 60 * minutes, datetime.UTC),
        "comment": comment,
        "shiftType": kind,
        "appliedStatus": applied,
    }


def plan(*shifts, managed=True, weights=("z6", "z1"), autoshifts=(), **wanted):
    resource = {"zonalShifts": shifts, "appliedWeights": dict.fromkeys(weights, 1.0), "autoshifts": autoshifts}
    observed = {"name": "alb", "zones": ZONES, "resource": resource if managed else None, "now": NOW}
    return AlbZonalShift.plan(observed, {"zone": "e1b", "state": "away", "minutes": 720, **wanted})


def does(found):
    return [(step.do, step.arguments) for step in found.steps]


def test_it_starts_away_from_the_id_of_the_zone():
    assert does(plan()) == [("start", {"zone_id": "z1", "expires_in": "720m"})]
    assert does(plan(minutes=4320)) == [("start", {"zone_id": "z1", "expires_in": "72h"})]
    assert plan().after["shifted_from"] == "e1b"


def test_one_that_goes_on_is_left_alone_or_made_longer():
    assert does(plan(shift())) == [] == does(plan(shift(minutes=400)))
    assert does(plan(shift(minutes=20))) == [("extend", {"shift_id": "id", "expires_in": "720m"})]


def test_a_practice_run_is_overruled():
    found = plan(shift("z6", kind="PRACTICE_RUN"))
    assert does(found)[0][0] == "start" and "practice run away from e1a" in found.notes[1]


def test_two_zones_are_not_left():
    for other in ({"shifts": (shift("z6"),)}, {"autoshifts": ({"awayFrom": "z6"},)}):
        with pytest.raises(Refusal, match="shifted away from e1a already"):
            plan(*other.get("shifts", ()), autoshifts=other.get("autoshifts", ()))
    assert does(plan(autoshifts=({"awayFrom": "z1"},)))[0][0] == "start"


def test_what_cannot_be_shifted():
    assert (
        "not turned on" in plan(managed=False).notes[0]
        and "not turned on" in plan(managed=False, state="back").notes[0]
    )
    assert "not in e1c" in plan(zone="e1c").notes[0]
    for given, told in (
        ({"zone": "e1x"}, "there is no zone"),
        ({"weights": ("z1",)}, "no other zone"),
        ({"minutes": 5000}, "lasts 1 to"),
    ):
        with pytest.raises(Refusal, match=told):
            plan(**given)


def test_back_ends_its_own_only():
    assert does(plan(shift(), state="back", zone=None)) == [("cancel", {"shift_id": "id"})]
    assert "by somebody else (mine)" in plan(shift(comment="mine"), state="back", zone=None).notes[0]
    assert does(plan(shift(kind="PRACTICE_RUN"), state="back", zone=None)) == []
