# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""service_diagnostics: what its plan says of answers, of endpoints that are not there, and of a migration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import diagnostics, recovery_api, web
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.recovery_api import Missing, RecoveryApi
from ansible_collections.sre.runbooks.plugins.modules.service_diagnostics import ServiceDiagnostics

TEN = 1763719200
WANTED = {"migration_log": {"terms": ["Error"]}}
ISSUES = {
    "issues": [{"severity": "critical", "component": "api", "message": "37.5 of 100 requests fail"}],
    "total_issues": 1,
}


def test_answers_in_words_and_without_secrets():
    observed = {
        "answers": {
            "health score": ({"score": 62.5, "timestamp": "now", "service_name": "api"}, 0.04),
            "issues": (ISSUES, 0.05),
            "critical issues": (ISSUES, 0.05),
            "diagnostics": ({"status": "ok", "api_token": "planted"}, 0.1),
            "database connections": Missing("it has no diagnostics/database-connections (404)"),
            "metrics": Unreachable("monitoring/metrics/c/api: 500 Internal Server Error"),
        }
    }
    plan = ServiceDiagnostics.plan(observed, WANTED)
    assert not plan.steps
    assert plan.notes == (
        'health score: {"score": 62.5}',
        "issues: 1",
        "  critical: api: 37.5 of 100 requests fail",
        'diagnostics: {"status": "ok", "api_token": ********}',
        "it has no database connections",
        "cannot see metrics: monitoring/metrics/c/api: 500 Internal Server Error",
    )
    assert plan.returned["missing"] == ["database connections"]
    assert [each["name"] for each in plan.returned["diagnostics"]] == [
        "health score",
        "issues",
        "critical issues",
        "diagnostics",
    ]
    assert "planted" not in str(plan)


def test_a_migration_that_failed_and_one_that_did_not():
    job = {
        "log_group": "/ecs/api",
        "stream": "migrate/app/1",
        "at": TEN,
        "lines": ["INFO upgrade 41 -> 42", "Error: no 7", "Error: no 8"],
    }
    plan = ServiceDiagnostics.plan({"migration": job}, WANTED)
    assert plan.notes == ("the last migration wrote to migrate/app/1 until 10:00 UTC, with errors", "  Error: no 8")
    good = ServiceDiagnostics.plan({"migration": {**job, "lines": ["INFO upgrade 41 -> 42"]}}, WANTED)
    assert good.notes == ("the last migration wrote to migrate/app/1 until 10:00 UTC, without an error",)
    assert good.returned["migration"]["failures"] == []
    none = ServiceDiagnostics.plan({"migration": Stop("there is no log group x")}, WANTED)
    assert (none.returned["migration"], none.returned["blind"]) == (
        None,
        ["the last migration: there is no log group x"],
    )


@pytest.mark.parametrize(
    ("status", "text", "error", "part"),
    [
        (404, "", Missing, "it has no monitoring/metrics/c/s (404)"),
        (500, "oops", Unreachable, "500 oops"),
        (None, "no answer within 1 s", Unreachable, "no answer within 1 s"),
        (401, "", Stop, "refuses the token"),
        (200, "<html>", Stop, "answered without a JSON object"),
    ],
)
def test_an_endpoint_is_asked_once(monkeypatch, status, text, error, part):
    sent = []
    monkeypatch.setattr(
        recovery_api.web, "request", lambda message, servers: sent.append(message) or web.Seen(status, text, 0.1)
    )
    api = RecoveryApi("https://api.test", "planted", "c", "s", 1)
    with pytest.raises(error, match=part.replace("(", r"\(").replace(")", r"\)")):
        api.look("monitoring/metrics/{target}")
    assert [each["method"] for each in sent] == ["GET"]


class Logs:
    """DescribeLogStreams by pages, and the events of the stream that is asked for."""

    region = "us-east-1"

    def __init__(self, *pages):
        self._pages, self.asked = list(pages), []

    def read(self, _api, operation, **wanted):
        if operation == "get_log_events":
            self.asked.append(wanted["logStreamName"])
            return {"events": [{"message": "Error: password=planted"}]}
        number = int(wanted.get("nextToken", 0))
        more = {"nextToken": str(number + 1)} if number + 1 < len(self._pages) else {}
        return {"logStreams": self._pages[number], **more}


def stream(name, written):
    return {"logStreamName": name, "lastEventTimestamp": written, "creationTime": 1}


def test_the_last_job_is_the_newest_stream_of_all_pages():
    logs = Logs([stream("migrate/a", 5000), stream("migrate/b", 9000)], [stream("migrate/c", 7000)])
    job = diagnostics.last_job(logs, "/ecs/api", "migrate/", None)
    assert (job["stream"], job["at"], logs.asked) == ("migrate/b", 9.0, ["migrate/b"])
    assert job["lines"] == ["Error: password=********"]
    with pytest.raises(Stop, match="no log stream of /ecs/api begins with migrate/"):
        diagnostics.last_job(Logs([]), "/ecs/api", "migrate/", None)

    def gone(*_arguments, **_wanted):
        raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "DescribeLogStreams")

    with pytest.raises(Stop, match="there is no log group /ecs/api in us-east-1"):
        diagnostics.last_job(SimpleNamespace(read=gone, region="us-east-1"), "/ecs/api", "migrate/", None)
