# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""breach_assess: what its plan sums up for each source, and what it could not see."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import flow_logs, indicators
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.log_patterns import Event, Found
from ansible_collections.sre.runbooks.plugins.modules.breach_assess import BreachAssess

NOON = 1_772_366_400_000


def line(text, second=0):
    return Event(NOON + 1000 * second, "/ecs/api", "task", text)


def call(name, who="user/eve", source="iam", error="", **more):
    event = {
        "eventSource": f"{source}.amazonaws.com",
        "eventName": name,
        "eventTime": "2026-03-01T12:00:00Z",
        "sourceIPAddress": "203.0.113.9",
        "userIdentity": {"arn": f"arn:aws:iam::123456789012:{who}"},
        "requestParameters": {"userName": "backup"},
        **more,
    }
    return {**event, "errorCode": error} if error else event


def test_refused_requests_are_counted_by_source():
    lines = [line(f'INFO "POST /login" 401 2.{n} ms from 203.0.113.9', n) for n in range(30)]
    lines += [line('10.0.0.7 - - "GET /a HTTP/1.1" 404 12', 5), line('10.0.0.7 - - "GET /b HTTP/1.1" 404 12', 500)]
    worst, other = indicators.refused(lines, burst=20)
    assert (worst["source"], worst["counts"], worst["most_a_minute"], worst["burst"]) == (
        "203.0.113.9",
        {"401": 30},
        30,
        True,
    )
    assert (other["source"], other["total"], other["burst"]) == ("10.0.0.7", 2, False)
    assert other["last"] - other["first"] == 495


def test_the_source_of_a_line():
    assert indicators.source_of("Failed password for root from 198.51.100.4 port 22") == "198.51.100.4"
    assert indicators.source_of('2001:db8:0:1::9 - - "GET /"') == "2001:db8:0:1::9"
    assert indicators.source_of("took 1.2.3 ms at 12:30:01") == "unknown"
    (found,) = indicators.refused([line("authentication failed for user app")], 20)
    assert found["counts"] == {indicators.SIGN_IN: 1}


def test_callers_in_cloudtrail():
    events = [
        call("CreateAccessKey"),
        call("StopLogging", "user/mallory", "cloudtrail"),
        call("ListBuckets", "user/eve", "s3", "AccessDenied"),
        call("CreateUser", "user/nobody", error="AccessDenied"),
        call("ConsoleLogin", "user/bob", "signin", responseElements={"ConsoleLogin": "Failure"}),
        call("RunTask", "user/pipeline", "ecs"),
    ]
    found = indicators.callers(events)
    assert [each["who"] for each in found] == ["user/mallory", "user/eve", "user/bob", "user/nobody"]
    assert found[1]["new_ways"] == ["2026-03-01T12:00:00Z iam:CreateAccessKey backup"] and found[1]["denied"] == 1
    assert found[2]["failed_sign_ins"] == 1 and found[3]["new_ways"] == []


def record(source, target, port, count, action="ACCEPT"):
    return f"2 123456789012 eni-1 {source} {target} 40000 {port} 6 10 {count} 1772366400 1772366460 {action} OK"


def test_ways_out():
    lines = [
        record("10.0.1.5", "203.0.113.9", 443, 1000),
        record("10.0.1.5", "203.0.113.9", 443, 500),
        record("10.0.1.5", "52.95.1.1", 443, 9000),
        record("10.0.1.5", "10.0.2.2", 5432, 9000),
        record("10.0.1.5", "203.0.113.7", 51234, 9000),
        record("10.0.1.5", "203.0.113.8", 22, 9000, "REJECT"),
        "2 123456789012 eni-1 - - - - - - - 1772366400 1772366460 - NODATA",
    ]
    found = indicators.egress(lines, flow_logs.DEFAULT, known=["52.95.0.0/16"])
    # 203.0.113.0/24 is a network of documentation, and so a private one to Python.
    assert found == []
    lines = [each.replace("203.0.113.", "93.184.216.") for each in lines]
    assert indicators.egress(lines, flow_logs.DEFAULT, known=["52.95.0.0/16"]) == [
        {"source": "10.0.1.5", "destination": "93.184.216.9", "port": 443, "bytes": 1500}
    ]


def test_what_cannot_be_seen_is_told_and_the_rest_is_summed_up():
    observed = {
        "CloudTrail in us-east-1": ([call("CreateUser")], False),
        "logs": [
            (
                {"name": "/ecs/api", "region": "us-east-1"},
                Found((line("x 403 y from 198.51.100.4"),), 1, True, "FilterLogEvents"),
            ),
            ({"name": "/gone", "region": "us-east-1"}, Stop("there is no such log group")),
        ],
        "flow logs": Stop("denied"),
    }
    found = BreachAssess.plan(observed, {"burst": 20})
    assert found.steps == ()
    assert [each["source"] for each in found.returned["refused"]] == ["198.51.100.4"]
    assert len(found.returned["blind"]) == 3
    assert "198.51.100.4 was refused 1 times (1 x 403), up to 1 a minute" in found.notes
    assert any(
        note.startswith("user/eve from 203.0.113.9: 2026-03-01T12:00:00Z iam:CreateUser") for note in found.notes
    )
