# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""triage_assess: what its plan makes of what others found, of what failed to be read, and of what it looked at itself."""

from __future__ import annotations

from unittest import mock

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import smoke, triage
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.web import Seen
from ansible_collections.sre.runbooks.plugins.modules.triage_assess import TriageAssess, _whole

NOW = 1763719200
LEVELS = ["P0", "P1", "P2"]
RULES = [
    {"signal": "failed_checks", "at_least": 3, "severity": "P0"},
    {"signal": "data_loss", "at_least": 1, "severity": "P0"},
    {"signal": "restarts", "above": 3, "for_minutes": 10, "severity": "P1"},
    {"signal": "p99", "above": 3, "severity": "P2"},
]
WANTED = {
    "environment_name": "prod",
    "severities": LEVELS,
    "data_checks": [],
    "data_loss": False,
    "metrics": {},
    "outage": {},
    "log_patterns": [],
    "has_disks": False,
    "recent_minutes": 60,
}
LOOKED = {
    "now": NOW,
    "rules": triage.rules(RULES, LEVELS),
    "failing": (0, ()),
    "lost": (),
    "service": {"failures": [], "release": "regami-api:3", "released": NOW - 864000},
}


def plan(wanted=None, **looked):
    return TriageAssess.plan(LOOKED | looked, WANTED | (wanted or {}))


def test_nothing_wrong():
    made = plan()
    assert (made.steps, made.returned["severity"], made.notes[0]) == ((), None, "no rule is broken")
    assert made.returned["unjudged"] == ["data_loss at least 1 (P0)", "p99 above 3 (P2)"]


def test_what_could_not_be_seen_is_said_and_the_rest_still_counts():
    made = plan(
        {"metrics": {"msg": "missing permission", "failed": True}, "outage": {"msg": "ecs got no answer"}},
        failing=(3, ("health: no answer",)),
        service=Unreachable("ecs got no answer"),
        lost=Stop("denied"),
    )
    assert made.returned["severity"] == "P0"
    assert made.notes[0] == "severity at least P0"
    assert made.returned["blind"] == [
        "metrics: missing permission",
        "what is down: ecs got no answer",
        "data: denied",
        "tasks: ecs got no answer",
    ]
    assert made.returned["next"]["command"] == "ansible-playbook playbooks/db_failover.yml -e env=prod"


def test_a_person_who_knows_of_lost_data_is_believed():
    made = plan({"data_loss": True})
    assert (made.returned["severity"], made.returned["evidence"]) == (
        "P0",
        ["P0: 1 signs of lost data, at least 1: a person says so"],
    )


def test_data_that_is_not_there_is_lost_and_data_that_was_looked_for_and_found_is_judged():
    checked = {"data_checks": [{"name": "the first order"}]}
    assert plan(checked, lost=("the first order: answered 404",)).returned["severity"] == "P0"
    assert "data_loss at least 1 (P0)" not in plan(checked).returned["unjudged"]


def test_alarms_and_abnormal_metrics_are_told_and_make_no_severity_by_themselves():
    alarm = {"name": "regami-5xx", "state": "ALARM", "since": NOW}
    made = plan({"metrics": {"metrics": [], "abnormal": ["db_cpu is 99 %"], "alarms": [alarm]}})
    assert made.returned["evidence"] == ["db_cpu is 99 %", "alarm regami-5xx is on since 10:00 UTC"]
    assert made.returned["severity"] is None


def test_the_plan_ends_with_the_command_line_alone():
    assert plan().notes[-1] == "next: ansible-playbook playbooks/recovery_validation.yml -e env=prod"


@pytest.mark.parametrize(("status", "lost"), [(200, 0), (404, 1), (503, 0), (None, 0)])
def test_a_service_that_fails_says_nothing_of_its_data(status, lost):
    verb = TriageAssess.__new__(TriageAssess)
    verb.params = {"dns_servers": []}
    check = _whole({"name": "the first order", "url": "https://a.example/v1/orders/1"})
    with mock.patch.object(smoke, "request", return_value=Seen(status, "{}")):
        assert len(verb._lost([check])) == lost
