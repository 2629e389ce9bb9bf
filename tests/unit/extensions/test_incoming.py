# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts as their senders document them, and what the rulebook gets of each."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sre.runbooks.extensions.eda.plugins.event_filter.incoming import kind, main

ALERTMANAGER = {
    "version": "4",
    "groupKey": '{}:{alertname="HighErrorRate"}',
    "status": "firing",
    "externalURL": "http://alerts.example.com",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "HighErrorRate", "runbook_host": "api-prod"},
            "annotations": {"summary": "5xx above 1 %"},
            "startsAt": "2026-11-22T03:52:26.739266876+01:00",
            "fingerprint": "7c6f3ac2a1d2a2b1",
            "generatorURL": "http://metrics.example.com/graph",
        },
        {
            "status": "resolved",
            "labels": {"alertname": "TargetDown"},
            "annotations": {},
            "startsAt": "2026-11-22T02:52:26Z",
        },
    ],
}
PAGERDUTY = {
    "event": {
        "id": "5ac64822",
        "event_type": "incident.triggered",
        "resource_type": "incident",
        "data": {
            "id": "PGR0VU2",
            "type": "incident",
            "html_url": "https://acme.example.com/incidents/PGR0VU2",
            "title": "Database connections runbook_env=prod",
            "created_at": "2026-11-22T02:52:26Z",
            "service": {"summary": "API Service"},
        },
    }
}
ALARM = {
    "AlarmName": "regami-web-slow",
    "AlarmDescription": "p99 above 3 s runbook_host=web-prod",
    "AlarmArn": "arn:aws:cloudwatch:eu-west-2:123456789012:alarm:regami-web-slow",
    "NewStateValue": "ALARM",
    "NewStateReason": "Threshold Crossed: 1 out of the last 1 datapoints [500.0]",
    "StateChangeTime": "2026-11-22T02:52:26.730+0000",
    "Region": "EU (London)",
    "Trigger": {"MetricName": "TargetResponseTime", "Namespace": "AWS/ApplicationELB", "Dimensions": []},
}


def of(payload):
    return [event["alert"] for event in main({"payload": payload, "meta": {"headers": {"X-Secret": "s"}}})]


def test_each_alert_of_a_group_is_one():
    firing, over = of(ALERTMANAGER)
    assert firing == {
        "source": "alertmanager",
        "id": "7c6f3ac2a1d2a2b1",
        "name": "HighErrorRate",
        "kind": "high_error_rate",
        "state": "firing",
        "env": "",
        "host": "api-prod",
        "title": "5xx above 1 %",
        "since": "2026-11-22T02:52:26.739Z",
        "url": "http://metrics.example.com/graph",
    }
    assert (over["kind"], over["state"], over["title"]) == ("service_down", "resolved", "TargetDown")


def test_a_host_limits_what_is_started():
    with_host, without = main({"payload": ALERTMANAGER, "meta": {"headers": {"X-Secret": "s"}}})
    assert with_host["meta"] == {"hosts": "api-prod"}
    assert without["meta"] == {"hosts": "all"}


def test_incident_of_pagerduty():
    (alert,) = of(PAGERDUTY)
    assert (alert["kind"], alert["state"], alert["env"]) == ("database", "firing", "prod")
    over = dict(PAGERDUTY["event"], event_type="incident.resolved")
    assert of({"event": over})[0]["state"] == "resolved"
    noted = dict(PAGERDUTY["event"], event_type="incident.annotated")
    assert of({"event": noted}) == []


@pytest.mark.parametrize(
    "wrapped",
    [lambda alarm: alarm, json.dumps, lambda alarm: json.dumps({"Type": "Notification", "Message": json.dumps(alarm)})],
)
def test_alarm_of_cloudwatch_from_a_queue(wrapped):
    """As it is, and in the envelope of SNS; what its reason tells of numbers says nothing about its kind."""
    (event,) = main({"body": wrapped(ALARM), "meta": {"message": "1"}})
    alert = event["alert"]
    assert (alert["kind"], alert["host"], alert["title"]) == ("performance", "web-prod", "p99 above 3 s")
    assert alert["since"] == "2026-11-22T02:52:26.730Z"


def test_alarm_without_data_tells_nothing():
    assert of(dict(ALARM, NewStateValue="INSUFFICIENT_DATA")) == []


@pytest.mark.parametrize(
    "payload",
    [
        {},
        [],
        None,
        "no json",
        {"alerts": [{}], "groupKey": "x"},
        {"event": {"event_type": "incident.triggered", "data": {}}},
        {"proposal": "db_failover-1", "by": "jane"},
        dict(ALARM, AlarmDescription="runbook_host=-evil"),
    ],
)
def test_what_is_no_alert_makes_no_event(payload):
    assert [each for each in of(payload) if each["host"]] == []
    if payload != dict(ALARM, AlarmDescription="runbook_host=-evil"):
        assert of(payload) == []


def test_host_pattern_is_no_host():
    alert = dict(ALERTMANAGER["alerts"][0], labels={"alertname": "x", "runbook_host": "all:!api-prod"})
    assert of(dict(ALERTMANAGER, alerts=[alert])) == []


def test_nothing_is_a_template():
    """Ansible templates extra variables."""
    title = "{{ lookup('pipe', 'id') }} {% x %} {# y #}\n{{{{ z"
    alert = dict(ALERTMANAGER["alerts"][0], annotations={"summary": title})
    shown = of(dict(ALERTMANAGER, alerts=[alert]))[0]["title"]
    assert not any(mark in shown for mark in ("{{", "{%", "{#", "\n"))
    (event,) = main({"payload": {"proposal": "a-1", "by": "{{ x }}"}}, what="decisions")
    assert "{{" not in event["decision"]["by"]


def test_decisions():
    def decided(**said):
        return [event["decision"] for event in main({"payload": said}, what="decisions")]

    assert decided(proposal="db_failover-1f3870be", by="jane") == [
        {"proposal": "db_failover-1f3870be", "by": "jane", "deny": False}
    ]
    assert decided(proposal="db_failover-1f3870be", by="jane", deny=True)[0]["deny"]
    assert (
        decided(proposal="db_failover-1f3870be")
        == decided(proposal="a b", by="jane")
        == decided(proposal="a", by="")
        == []
    )
    assert main({"payload": ALERTMANAGER}, what="decisions") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UnHealthyHostCount", "service_down"),
        ("KubePodCrashLooping", "restarts"),
        ("HTTPCode_Target_5XX_Count", "high_error_rate"),
        ("regami-cpu AWS/ECS CPUUtilization", "performance"),
        ("regami-cpu AWS/RDS CPUUtilization", "database"),
        ("FreeStorageSpace on disk", "disk_full"),
        ("AWS/ElastiCache CurrConnections", "cache"),
        ("GuardDuty Finding", "security"),
        ("FeedbackQueueAge", None),
    ],
)
def test_kinds(text, expected):
    assert kind(text) == expected
