# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of rds_restore_points, which is a list."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.restore_points import Window
from ansible_collections.sre.runbooks.plugins.modules.rds_restore_points import RdsRestorePoints

NOW = 1_800_000_000.0
SNAPSHOT = {
    "id": "by-hand",
    "type": "manual",
    "status": "available",
    "created": NOW - 900,
    "gib": 20,
    "encrypted": True,
}
BEING_MADE = SNAPSHOT | {"id": "new", "status": "creating", "created": None}


def listed(restore_time=None, **changes):
    instance = {"id": "regami-db-primary", "backup_retention": 7, "status": "available"}
    observed = {"instance": instance, "snapshots": [BEING_MADE, SNAPSHOT], "window": Window(NOW - 86400, NOW - 200)}
    return RdsRestorePoints.plan({**observed, "now": NOW, **changes}, {"restore_time": restore_time})


def test_everything_there_is_to_go_back_to():
    found = listed()
    assert found.steps == ()
    assert found.returned["window"] == {"earliest": "2027-01-14T08:00:00Z", "latest": "2027-01-15T07:56:40Z"}
    assert [(each["id"], each["created"]) for each in found.returned["snapshots"]] == [
        ("new", None),
        ("by-hand", "2027-01-15T07:45:00Z"),
    ]
    assert found.notes[1:] == ("snapshot new, manual, creating", "snapshot by-hand, manual, of 2027-01-15T07:45:00Z")


def test_without_backups_there_are_snapshots_only():
    found = listed(window=None, instance={"id": "regami-db-primary", "backup_retention": 0})
    assert found.returned["window"] is None
    assert "keeps no automated backups: no point in time can be chosen" in found.notes[0]


def test_a_time_is_looked_up():
    assert listed("2027-01-15T07:50:00Z").notes[-1] == "2027-01-15T07:50:00Z can be chosen now"
    assert "when the log has come 170 s further" in listed("2027-01-15T07:59:30Z").notes[-1]
    with pytest.raises(Refusal, match="still to come"):
        listed("2027-01-15T09:00:00Z")
