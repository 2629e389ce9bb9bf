# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rds_zone_failover: its plan, and that no answer, or a run that was killed, makes no second failover."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import verb, waiting
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal
from ansible_collections.sre.runbooks.plugins.modules import rds_zone_failover
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main


def plan(zone="a", multi_az=True, status="available"):
    observed = {"id": "db", "zone": zone, "multi_az": multi_az, "status": status}
    return rds_zone_failover.RdsZoneFailover.plan(observed, {"zone": "a"})


def does(found):
    return [step.do for step in found.steps]


def test_what_it_needs():
    assert does(plan()) == ["failover", "settle"]
    assert does(plan(zone="b")) == []
    assert does(plan(status="rebooting")) == ["settle"]
    alone = plan(multi_az=False)
    assert does(alone) == [] and "db_failover.yml" in alone.notes[0]
    with pytest.raises(Refusal, match="db is storage-full"):
        plan(status="storage-full")


class Account:
    """One Multi-AZ instance, which has failed over at the third look after it was told to."""

    region = "us-east-1"

    def __init__(self):
        self.zone, self.status, self.looks = "a", "available", 0
        self.silent, self.missed, self.changes, self.how = set(), [], 0, None

    def read(self, _api, _operation, /, region=None, **_arguments):
        self.looks += self.status == "rebooting"
        if self.looks == 3:
            self.zone, self.status = "b", "available"
        raw = {"DBInstanceIdentifier": "db", "DBInstanceArn": "arn:aws:rds:us-east-1:1:db:db", "MultiAZ": True}
        return {"DBInstances": [dict(raw, DBInstanceStatus=self.status, AvailabilityZone=self.zone)]}

    def change(self, _api, _operation, /, region=None, **arguments):
        assert arguments == {"DBInstanceIdentifier": "db", "ForceFailover": True}
        self.changes, self.status = self.changes + 1, "rebooting"
        if self.how:
            raise self.how


@pytest.mark.parametrize("how", [None, LostAnswer("no answer"), KeyboardInterrupt()])
def test_one_failover_whatever_happens(monkeypatch, how):
    account = Account()
    account.how = how
    monkeypatch.setattr(verb, "Aws", lambda *_arguments: account)
    monkeypatch.setattr(waiting.time, "sleep", lambda _seconds: None)
    given = {"db_instance": "db", "zone": "a", "region": "us-east-1"}
    assert run_main(rds_zone_failover.main, True, **given)["changed"] and account.changes == 0
    try:
        assert run_main(rds_zone_failover.main, **given)["after"]["zone"] == "b"
    except KeyboardInterrupt:
        assert run_main(rds_zone_failover.main, **given)["failed"] is False
    assert account.changes == 1 and run_main(rds_zone_failover.main, **given)["changed"] is False
