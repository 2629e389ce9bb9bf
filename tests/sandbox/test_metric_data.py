# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GetMetricData answers as AWS documents: percentiles of what was measured, points at whole periods, pages."""

from __future__ import annotations

import types
from datetime import UTC, datetime

import pytest
from moto.cloudwatch.exceptions import ValidationError

from sandbox import metric_data

TEN = 1763719200


def moment(seconds):
    return datetime.fromtimestamp(TEN + seconds, UTC)


def datum(at, dimensions=(("LoadBalancer", "app/a/1"),), **known):
    named = [types.SimpleNamespace(name=name, value=value) for name, value in dimensions]
    return types.SimpleNamespace(
        namespace="AWS/ApplicationELB", name="Time", dimensions=named, timestamp=moment(at), unit=None, **known
    )


def query(stat, period=60, name="a"):
    dimensions = [{"Name": "LoadBalancer", "Value": "app/a/1"}]
    metric = {"Namespace": "AWS/ApplicationELB", "MetricName": "Time", "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}}


def ask(data, *queries, begin=0, end=600, newest_first=False):
    return metric_data.answer(data, list(queries), moment(begin), moment(end), newest_first)


@pytest.mark.parametrize(
    ("stat", "expected"),
    [("p50", 50), ("p95", 95), ("p99", 99), ("p99.9", 100), ("Sum", 5050), ("Average", 50.5), ("SampleCount", 100)],
)
def test_a_statistic_is_of_every_value_measured(stat, expected):
    (result,) = ask([datum(70, value=float(number)) for number in range(1, 101)], query(stat))
    assert (result["Values"], result["Timestamps"]) == ([expected], [moment(60)])


def test_there_is_no_percentile_of_statistic_sets_unless_all_their_values_are_one():
    mixed = datum(0, min=1.0, max=9.0, sum=10.0, sample_count=2)
    same = datum(60, min=3.0, max=3.0, sum=6.0, sample_count=2)
    (result,) = ask([mixed, same], query("p99"))
    assert result["Values"] == [3.0]
    (average,) = ask([mixed, same], query("Average"))
    assert average["Values"] == [5.0, 3.0]


def test_a_metric_is_the_one_with_these_dimensions_and_no_others():
    more = datum(0, (("LoadBalancer", "app/a/1"), ("TargetGroup", "t")), value=9.0)
    (result,) = ask([more, datum(0, value=1.0)], query("Maximum"))
    assert result["Values"] == [1.0]


def test_points_lie_at_whole_periods_wherever_the_question_begins():
    data = [datum(at, value=1.0) for at in (10, 290, 310)]
    (result,) = ask(data, query("Sum", 300), begin=5)
    assert (result["Timestamps"], result["Values"]) == ([moment(0), moment(300)], [2.0, 1.0])


def test_pages_together_are_the_whole_answer():
    data = [datum(60 * minute, value=float(minute)) for minute in range(5)]
    whole = ask(data, query("Sum", name="a"), query("Maximum", name="b"))
    token, values, partial = None, {"a": [], "b": []}, []
    while True:
        page = metric_data.page(whole, token, 2)
        for result in page["MetricDataResults"]:
            values[result["Id"]] += result["Values"]
            partial.append(result["StatusCode"])
        token = page.get("NextToken")
        if not token:
            break
    assert values == {"a": [0, 1, 2, 3, 4], "b": [0, 1, 2, 3, 4]}
    assert "PartialData" in partial


def test_more_than_500_questions_and_unknown_statistics_are_refused():
    with pytest.raises(ValidationError, match="500"):
        ask([], *[query("Sum", name=f"q{number}") for number in range(501)])
    with pytest.raises(ValidationError, match="median"):
        ask([], query("median"))
