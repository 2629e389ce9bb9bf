# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is abnormal, since when, and what is only not known."""

from __future__ import annotations

import datetime
from unittest import mock

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import cloudwatch, metrics
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.metrics import Metric, Seen, Signal

# 10:00 UTC of some day; NOW is half past.
TEN = 1763719200
NOW = TEN + 30 * 60
P99 = Signal("p99", "regami-alb", "us-east-1", (Metric("N", "T", "p99", ()),), "s", noise=0.1)
REQUESTS = Signal(
    "requests", "regami-alb", "us-east-1", (Metric("N", "R", "Sum", ()),), "a minute", noise=30, counts=True
)
ALB = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/abc"


def minutes(values, first=0):
    return {TEN + 60 * (first + number): value for number, value in enumerate(values)}


def usually(value):
    return {"before": minutes([value] * 30, -30), "week_ago": minutes([value] * 30, -10080)}


def judge(now, limit=None, signal=P99, earlier=None):
    return metrics.judge(signal, Seen(now, **(usually(0.2) if earlier is None else earlier)), limit, NOW)


def test_what_is_as_usual_is_not_abnormal():
    found = judge(minutes([0.2, 0.25] * 15))
    assert (found["abnormal"], found["why"], found["before"], found["week_ago"]) == (False, "", 0.2, 0.2)


def test_it_is_abnormal_since_the_first_minute_of_those_that_last_until_now():
    found = judge(minutes([0.2] * 5 + [4.0] + [0.2] * 14 + [4.0] * 10))
    assert found["abnormal"] and found["since"] == TEN + 20 * 60
    assert found["why"] == "p99 of regami-alb is 4 s, more than the usual 0.2 s since 10:20 UTC"


def test_what_was_over_before_the_window_began_is_at_least_as_old():
    assert judge(minutes([4.0] * 30), limit=3)["why"] == "p99 of regami-alb is 4 s, above 3 s since at least 10:00 UTC"


def test_a_limit_counts_however_usual_it_is_to_be_above_it():
    assert judge(minutes([4.0] * 30), limit=3, earlier=usually(4.0))["abnormal"]
    assert not judge(minutes([4.0] * 30), earlier=usually(4.0))["abnormal"]


def test_what_is_over_is_not_abnormal_any_more():
    assert not judge(minutes([4.0] * 29 + [0.2]), limit=3)["abnormal"]


def test_without_earlier_points_only_a_limit_tells():
    nothing = {"before": {}, "week_ago": {}}
    assert not judge(minutes([99.0] * 30), earlier=nothing)["abnormal"]
    found = judge(minutes([99.0] * 30), limit=3, earlier=nothing)
    assert found["abnormal"] and found["before"] is None


def test_a_week_ago_explains_what_the_window_before_does_not():
    """The same hour of every day is busy."""
    earlier = {"before": minutes([0.2] * 30, -30), "week_ago": minutes([2.0] * 30, -10080)}
    assert not judge(minutes([2.1] * 30), earlier=earlier)["abnormal"]


def test_old_points_say_nothing_of_now():
    found = judge(minutes([9.0] * 20), limit=3)
    assert (found["abnormal"], found["now"]) == (False, None)


def test_a_minute_without_a_point_does_not_end_what_lasts():
    points = minutes([0.2] * 10 + [4.0] * 20)
    del points[TEN + 15 * 60]
    assert judge(points)["since"] == TEN + 10 * 60


def test_fewer_requests_are_abnormal_and_fewer_seconds_are_not():
    earlier = {"before": minutes([1000] * 30, -30), "week_ago": {}}
    found = metrics.judge(REQUESTS, Seen(minutes([1000] * 20 + [3] * 10), **earlier), None, NOW)
    assert found["why"] == "requests of regami-alb is 3 a minute, less than the usual 1000 a minute since 10:20 UTC"
    assert not judge(minutes([0.001] * 30))["abnormal"]


class Aws:
    """Answers GetMetricData from {metric name: {minute: value}}; `calls` are the requests."""

    def __init__(self, points, silent=()):
        self.points, self.down, self.silent, self.calls = points, silent, set(), []

    def read(self, api, operation, region, **request):
        self.calls.append((region, request))
        if region in self.down:
            raise Unreachable("cloudwatch got no answer")
        found = []
        for query in request["MetricDataQueries"]:
            known = self.points.get(query["MetricStat"]["Metric"]["MetricName"], {})
            known = {at: value for at, value in known.items() if request["StartTime"] <= at < request["EndTime"]}
            found.append(
                {
                    "Id": query["Id"],
                    "StatusCode": "Complete",
                    "Timestamps": [datetime.datetime.fromtimestamp(at, datetime.UTC) for at in known],
                    "Values": list(known.values()),
                }
            )
        return {"MetricDataResults": found}


def test_errors_are_a_share_of_all_that_asked_even_where_no_target_was_chosen():
    aws = Aws(
        {
            "RequestCount": minutes([100, 100, 5], 10),
            "HTTPCode_Target_5XX_Count": minutes([3], 10),
            "HTTPCode_ELB_5XX_Count": minutes([50], 13),
        }
    )
    seen, blind = metrics.read(aws, metrics.of_load_balancer(ALB), NOW, 30)
    errors = next(points for signal, points in seen.items() if signal.name == "error_percent")
    # Of five requests nothing is said; 50 answers of the balancer alone are all that it gave.
    assert errors.now == {TEN + 600: 3.0, TEN + 660: 0.0, TEN + 780: 100.0}
    assert not blind
    assert len(aws.calls) == 2


def test_no_request_is_a_count_of_none_from_the_first_known_minute_on():
    aws = Aws({"RequestCount": minutes([100] * 5, 0)})
    seen, _blind = metrics.read(aws, metrics.of_load_balancer(ALB)[:1], NOW, 30)
    (points,) = seen.values()
    assert list(points.now.values()) == [100] * 5 + [0] * 24
    assert points.before == {}


def test_a_region_that_is_down_hides_only_itself():
    signals = metrics.of_database("one", "us-east-1") + metrics.of_database("two", "us-west-2")
    aws = Aws({}, silent=["us-west-2"])
    seen, blind = metrics.read(aws, signals, NOW, 30)
    assert {signal.region for signal in seen} == {"us-east-1"}
    assert blind == {"us-west-2": "cloudwatch got no answer"}
    assert aws.silent == {"us-west-2"}


def test_500_metrics_a_call_and_every_page():
    wanted = [Metric("N", f"m{number}", "Sum", ()) for number in range(501)]
    aws = mock.Mock()
    at = datetime.datetime.fromtimestamp(TEN, datetime.UTC)
    partial = {"Id": "m0", "StatusCode": "PartialData", "Timestamps": [at], "Values": [1.0]}
    rest = {"Id": "m0", "StatusCode": "Complete", "Timestamps": [at + datetime.timedelta(minutes=1)], "Values": [2.0]}
    aws.read.side_effect = [
        {"MetricDataResults": [partial], "NextToken": "more"},
        {"MetricDataResults": [rest]},
        {"MetricDataResults": []},
    ]
    found = cloudwatch.read(aws, "us-east-1", wanted, TEN, NOW)
    assert found[wanted[0]] == {TEN: 1.0, TEN + 60: 2.0}
    assert [len(call.kwargs["MetricDataQueries"]) for call in aws.read.call_args_list] == [500, 500, 1]
    assert "NextToken" in aws.read.call_args_list[1].kwargs


@pytest.mark.parametrize("status", ["Forbidden", "InternalError"])
def test_a_metric_that_cloudwatch_would_not_tell_is_not_taken_for_an_empty_one(status):
    aws = mock.Mock()
    aws.read.return_value = {"MetricDataResults": [{"Id": "m0", "StatusCode": status, "Timestamps": [], "Values": []}]}
    with pytest.raises(Stop, match=status):
        cloudwatch.read(aws, "us-east-1", [Metric("N", "m", "Sum", ())], TEN, NOW)
