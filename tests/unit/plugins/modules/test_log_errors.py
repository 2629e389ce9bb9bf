# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""log_errors: which API it asks how often, and what its plan says of what could not be read."""

from __future__ import annotations

from unittest import mock

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import log_search
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.log_patterns import Event
from ansible_collections.sre.runbooks.plugins.module_utils.log_search import Found
from ansible_collections.sre.runbooks.plugins.modules.log_errors import LogErrors

GROUP = {"name": "/ecs/app", "region": "us-east-1"}
OTHER = {"name": "/ecs/web", "region": "us-east-1"}


def event(at, message):
    return Event(1000 * at, "/ecs/app", "s", message)


def test_the_plan_tells_new_patterns_first_and_what_it_could_not_read():
    found = Found((event(60, "ERROR old"), event(7200, "ERROR new")), 2, True, "FilterLogEvents")
    observed = {
        "found": [(GROUP, found), (OTHER, Stop("there is no log group /ecs/web"))],
        "deployed_at": 3600,
        "window": (0, 7300),
    }
    plan = LogErrors.plan(observed, {})
    assert not plan.steps
    assert plan.notes == (
        "1 x NEW since the deployment, 02:00 to 02:00 UTC: ERROR new",
        "1 x 00:01 to 00:01 UTC: ERROR old",
        "cannot see the log /ecs/web in us-east-1: there is no log group /ecs/web",
    )
    assert plan.returned["searched"] == [dict(GROUP, matched=2, read=2, by="FilterLogEvents")]


def test_the_plan_says_that_it_has_not_read_all():
    found = Found((event(1, "ERROR x"),), 25000, False, "Logs Insights")
    plan = LogErrors.plan({"found": [(GROUP, found)], "deployed_at": None, "window": (0, 60)}, {})
    assert plan.notes[-1] == "25000 lines of /ecs/app match; counts are of the 1 that were read"


def test_a_small_window_is_read_page_after_page():
    aws = mock.Mock()
    line = {"timestamp": 1, "logStreamName": "s", "message": "ERROR"}
    aws.read.side_effect = [{"events": [line], "nextToken": "more"}, {"events": [line]}]
    found = log_search.few(aws, GROUP, ["ERROR", "a b"], 0, 60, log_search.Turns(0))
    assert (found.total, found.by) == (2, "FilterLogEvents")
    assert aws.read.call_args_list[0].kwargs["filterPattern"] == '?"ERROR" ?"a b"'
    assert aws.read.call_args_list[1].kwargs["nextToken"] == "more"


def test_many_pages_are_given_up():
    aws = mock.Mock()
    aws.read.return_value = {"events": [], "nextToken": "more"}
    assert log_search.few(aws, GROUP, ["ERROR"], 0, 60, log_search.Turns(0)) is None
    assert aws.read.call_count == log_search.FILTER_PAGES


def test_calls_keep_the_quota_whoever_asks():
    with mock.patch.object(log_search, "time") as clock:
        clock.monotonic.return_value = 100.0
        turns = log_search.Turns(0.2)
        for _number in range(3):
            turns.take()
    assert [round(call.args[0], 3) for call in clock.sleep.call_args_list] == [0.0, 0.2, 0.4]


class Insights:
    """Answers queries from lines [(second, text)]; gives `most` rows of each."""

    def __init__(self, lines, most=10_000, status="Complete"):
        self.lines, self.most, self.status, self.asked = lines, most, status, []

    def read(self, api, operation, region, **request):
        if operation == "start_query":
            self.asked.append(request)
            return {"queryId": str(len(self.asked) - 1)}
        asked = self.asked[int(request["queryId"])]
        rows = [line for line in self.lines if asked["startTime"] <= line[0] <= asked["endTime"]]
        shown = [
            [
                {"field": "@timestamp", "value": f"1970-01-01 00:{at // 60:02d}:{at % 60:02d}.000"},
                {"field": "@message", "value": text},
                {"field": "@logStream", "value": "s"},
            ]
            for at, text in rows[: self.most]
        ]
        return {"status": self.status, "results": shown, "statistics": {"recordsMatched": float(len(rows))}}


def wait(look, done, what, **_more):
    seen = look()
    assert done(seen)
    return seen


def test_what_came_before_a_deployment_is_asked_for_apart():
    aws = Insights([(10, "ERROR a"), (100, "ERROR b"), (120, "ERROR c")])
    found = log_search.many(aws, GROUP, ["ERROR", "x|y"], 0, 200, 100, wait)
    assert sorted((asked["startTime"], asked["endTime"]) for asked in aws.asked) == [(0, 100), (101, 200)]
    assert r"like /ERROR|x\|y/" in aws.asked[0]["queryString"]
    assert sorted(event.message for event in found.events) == ["ERROR a", "ERROR b", "ERROR c"]
    assert found.complete_before and found.total == 3


def test_a_cut_off_past_is_known_to_be_one():
    aws = Insights([(number, "ERROR a") for number in range(50)], most=10)
    found = log_search.many(aws, GROUP, ["ERROR"], 0, 200, 100, wait)
    assert (len(found.events), found.total, found.complete_before) == (10, 50, False)


def test_a_query_that_failed_is_no_empty_log():
    with pytest.raises(Stop, match="ended as Failed"):
        log_search.many(Insights([], status="Failed"), GROUP, ["ERROR"], 0, 200, None, wait)
