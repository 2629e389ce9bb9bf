# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an incident is over with its last alert, and into which of several open ones an alert is written."""

from __future__ import annotations

import os

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import alerts, incidents
from ansible_collections.sre.runbooks.plugins.module_utils.lease import run_id
from ansible_collections.sre.runbooks.plugins.module_utils.timeline import epoch

RUN = "2026-11-22T030500Z-rollback_deployment-prod"


def at(minute, event, record="2026-11-22T030000Z-alert-prod", **more):
    return {"time": f"2026-11-22T03:{minute:02}:00.000Z", "event": event, "record": record, **more}


OPENED = at(0, "opened", title="5xx above 1 %", fires="5xx", incident="it", env="prod")
OVER = at(30, "noted", text="alert over: 5xx above 1 %", over="5xx")
GONE = run_id(os.getpid()).rpartition(":")[0] + ":1"
CHANGED = at(6, "step", RUN, step="roll back", state="changed", calls=[{"what": [], "undo": []}], duration=1, host="a")


def run(process=GONE):
    started = {"playbook": "rollback_deployment", "env": "prod", "by": "jane", "run": process}
    return at(5, "run_started", RUN, **started)


def ended(outcome):
    return at(7, "run_ended", RUN, outcome=outcome, seconds=120)


def proposed(minute=2):
    told = {"env": "prod", "host": "api", "playbook": "rollback_deployment", "remediate": False, "because": "errors"}
    return at(minute, "proposed", proposal="back-1", **told)


APPROVED = at(3, "approved", proposal="back-1", by="jane")


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ((), []),
        ((run(), CHANGED, ended("recovered")), []),
        ((run(), ended("failed")), []),
        ((proposed(), APPROVED, run(), CHANGED, ended("recovered")), []),
        ((run(), CHANGED, ended("failed")), [f"{RUN} failed half way"]),
        ((run(), CHANGED), [f"{RUN} was killed"]),
        ((run(run_id(os.getpid())),), [f"{RUN} is still under way"]),
        ((run("another-host:17:3"),), [f"{RUN} is still under way"]),
        ((proposed(),), ["back-1 is waiting, and has not begun"]),
        ((proposed(), APPROVED), ["back-1 is approved, and has not begun"]),
        ((at(9, "noted", text="alert: p99 above 3 s", fires="p99"),), ["still on: p99 above 3 s"]),
    ],
)
def test_what_keeps_an_incident_open(between, why):
    events = [OPENED, *between, OVER]
    assert alerts.stays_open(events, epoch("2026-11-22T03:30:00Z"), 60) == why


def test_what_a_person_opened_a_person_closes():
    events = [{key: value for key, value in OPENED.items() if key != "fires"}, OVER]
    assert alerts.stays_open(events, epoch("2026-11-22T03:30:00Z"), 60) == ["a person opened it"]


def test_what_nobody_decided_for_long_keeps_nothing_open():
    assert alerts.stays_open([OPENED, proposed(), OVER], epoch("2026-11-22T04:30:00Z"), 60) == []


def test_an_alert_ends_where_it_began():
    other = at(1, "opened", title="p99", fires="p99", incident="other", env="prod")
    known = incidents.known({"1": [OPENED], "2": [other]})
    wanted = {"environment_name": "prod", "event": "alert_over", "title": "it", "alert": "5xx", "incident": None}
    events = {"it": [OPENED], "other": [other]}
    assert alerts.logged(known, events, wanted, "")["incident"] == "it"
    assert alerts.logged(known, events, dict(wanted, alert="unknown"), "")["incident"] is None
