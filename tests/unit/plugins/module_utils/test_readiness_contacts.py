# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notifiers are asked whether they would take a notice, and none is sent to anybody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import channels, readiness_contacts
from ansible_collections.sre.runbooks.tests.unit.notifier_services import COMPONENT, PERSON, Illness, Services

ROUTE = {
    "slack": ["#incidents"],
    "pagerduty": "critical",
    "statuspage": {"components": {COMPONENT: "major_outage"}},
    "mail": [PERSON],
    "jira": True,
}
CHANNELS = set(channels.CHANNELS)


@pytest.fixture
def services() -> Iterator[Services]:
    there = Services()
    yield there
    there.close()


def wanted(services, route=None, **more):
    given = {name.removeprefix("notify_"): dict(value) for name, value in services.inventory.items()}
    known = {
        name: {part: option.get("default") for part, option in spec["options"].items()} | given[name]
        for name, spec in channels.ARGUMENTS.items()
    }
    usual = {"checks": [], "dns_servers": [], "rulebook_url": None, "recovery_api": None, "cluster": None}
    return {**usual, **known, "routes": {"P0": ROUTE if route is None else route}, "severities": ["P0", "P1"], **more}


def found(asked):
    seen = {name: look() for name, look in readiness_contacts.looks(None, asked, 0).items()}
    return [(each.level, each.resource, each.because) for each in readiness_contacts.judge(seen, asked, 0)]


def test_where_all_answer_nothing_is_said_and_nothing_sent(services):
    assert found(wanted(services)) == []
    assert {name for name, _call in services.calls} == CHANNELS
    assert services.told == []
    assert PERSON not in str(services.bodies)


@pytest.mark.parametrize("channel", sorted(CHANNELS))
def test_one_that_does_not_answer(services, channel):
    asked = wanted(services)
    asked[channel] |= {"port": 1} if channel == "mail" else {"url": "http://127.0.0.1:1"}
    ((level, resource, _because),) = found(asked)
    assert (level, resource) == ("risk", channel)


@pytest.mark.parametrize(
    ("channel", "parts", "because"),
    [
        ("slack", {"token": "revoked"}, "Slack answered invalid_auth to auth.test: check notify_slack.token"),
        ("pagerduty", {"routing_key": "short"}, "an integration key has 32 letters and digits"),
        ("statuspage", {"token": "revoked"}, "Statuspage answered 401: check notify_statuspage.token"),
        ("jira", {"token": "revoked"}, "Jira answered 401: check notify_jira.token"),
        ("jira", {"project": "NONE"}, "Jira has no project NONE that this token can see"),
        ("jira", {"issue_type": "Chore"}, "project OPS has no issue type Chore, but Task, Bug"),
        ("mail", {"user": "robot", "password": "secret"}, "the password would go in the clear"),
        ("mail", {"security": "starttls"}, "the mail server offers no STARTTLS"),
    ],
)
def test_one_that_would_refuse(services, channel, parts, because):
    asked = wanted(services)
    asked[channel] |= parts
    ((level, resource, told),) = found(asked)
    assert (level, resource, because in told) == ("risk", channel, True), told


@pytest.mark.parametrize(
    ("route", "because"),
    [
        ({"slack": ["#nowhere"]}, "Slack has no channel #nowhere that the app can see"),
        ({"slack": ["#leadership"]}, "Slack: the app is not in #leadership: invite the app to it"),
        ({"statuspage": {"components": {"gone": "major_outage"}}}, "Statuspage: the page has no component gone"),
    ],
)
def test_a_place_that_is_not_there(services, route, because):
    ((_level, _resource, told),) = found(wanted(services, route))
    assert told.startswith(because)


def test_scopes_of_slack_that_telling_needs(services):
    services.slack.scopes = "channels:read,chat:write"
    ((_level, _resource, because),) = found(wanted(services, {"slack": ["#incidents"]}))
    assert because == "Slack: the app lacks the scopes channels:manage, channels:join, channels:history"


def test_one_that_was_asked_too_often_cannot_be_told(services):
    services.ill["jira"] = Illness("limited")
    ((level, resource, _because),) = found(wanted(services))
    assert (level, resource) == ("cannot_tell", "jira")


def test_routes_that_lead_to_nobody(services):
    asked = wanted(services, {"slack": ["#incidents"]}, slack=None)
    assert found(asked) == [("risk", "slack", "a route leads to slack, which is not set up")]
    asked = wanted(services, {"update_minutes": 30})
    assert found(asked) == [("risk", "P0", "nobody hears of severity P0")]
    assert found(wanted(services, routes={})) == []


def test_what_does_not_answer_besides(services):
    nobody = "http://127.0.0.1:1"
    check = {"name": "health", "url": nobody, "method": "GET", "headers": None, "json": None, "secret_json": None}
    check |= {"body": None, "within": 1, "expect_status": [200], "attempts": None}
    check |= {"expect_json": None, "expect_above": None, "expect_below": None}
    more = {"checks": [check, check | {"name": "write", "method": "POST"}], "rulebook_url": nobody}
    more |= {"recovery_api": {"url": nobody, "token": None}, "cluster": "shop", "service": "api", "routes": {}}
    told = found(wanted(services, **more))
    assert [resource for _level, resource, _because in told] == ["smoke tests", "rulebook", "recovery API"]
    # It takes what is posted only.
    assert found(wanted(services, routes={}, rulebook_url=services.url("pagerduty"))) == []
