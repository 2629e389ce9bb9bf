# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which ticket is opened, commented or ended: pure."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import readiness_tickets
from ansible_collections.sre.runbooks.plugins.module_utils.readiness import (
    NOT_READY,
    READY,
    RISK,
    UNKNOWN,
    Finding,
    Verdict,
)

GONE = "regami-db-replica is 300 s behind"


def verdict(level, scenario="db_failover", host="api", because=GONE, check="rds_promote_replica"):
    found = Finding(host, scenario, level, check, "regami-db-replica", because, "wait until it has caught up")
    return Verdict(host, scenario, level, () if level == READY else (found,))


def planned(*said, tickets=None):
    return list(readiness_tickets.actions("prod", said, tickets or {}))


def opened(*said):
    """The tickets that there are once those of `said` are opened."""
    return {f"OPS-{number}": list(each.labels) for number, each in enumerate(planned(*said), 1)}


def test_a_service_that_is_not_ready_gets_one_ticket_for_all_its_scenarios():
    (action,) = planned(verdict(NOT_READY), verdict(NOT_READY, "region_evacuation"), verdict(READY, "traffic"))
    assert (action.do, action.host) == ("open", "api")
    title, _empty, *lines = action.text.splitlines()
    assert title == "api in prod is not ready for db_failover, region_evacuation"
    assert lines == [
        f"- db_failover, region_evacuation (rds_promote_replica): {GONE}",
        "  -> wait until it has caught up",
    ]
    assert action.labels[:2] == ("sre-runbooks-readiness", "readiness-of-api")


def test_each_service_has_its_own():
    assert [each.host for each in planned(verdict(NOT_READY, host="web"), verdict(NOT_READY))] == ["api", "web"]


def test_the_same_reasons_are_told_once_however_the_figures_are():
    tickets = opened(verdict(NOT_READY))
    assert planned(verdict(NOT_READY, because="regami-db-replica is 305 s behind"), tickets=tickets) == []


def test_other_reasons_are_a_comment():
    tickets = opened(verdict(NOT_READY))
    (action,) = planned(verdict(NOT_READY), verdict(NOT_READY, "traffic", check="alb_traffic"), tickets=tickets)
    assert (action.do, action.key) == ("comment", "OPS-1")
    assert action.old == (tickets["OPS-1"][2],) and action.labels != action.old


def test_what_is_ready_again_is_ended_with_a_risk_or_without():
    tickets = opened(verdict(NOT_READY))
    for level in (READY, RISK):
        (action,) = planned(verdict(level), tickets=tickets)
        assert (action.do, action.key) == ("finish", "OPS-1")


def test_what_cannot_be_told_opens_none_and_ends_none():
    assert planned(verdict(UNKNOWN)) == []
    assert planned(verdict(UNKNOWN), verdict(READY, "traffic"), tickets=opened(verdict(NOT_READY))) == []


def test_a_service_that_was_not_looked_at_keeps_its_ticket():
    assert planned(verdict(READY), tickets=opened(verdict(NOT_READY, host="web"))) == []


def test_no_secret_stands_in_a_ticket():
    (action,) = planned(verdict(NOT_READY, because="postgres://admin:hunter2@db/regami does not answer"))
    assert "hunter2" not in action.text
