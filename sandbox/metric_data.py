# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GetMetricData: points at whole periods, percentiles, and pages. moto knows none of the three.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

MAX_QUERIES = 500
MAX_DATAPOINTS = 100_800
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{0,10})?|100)")


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_set(datum: Any) -> bool:
    """A statistic set, of which single values are not known."""
    return not hasattr(datum, "value")


def _count(data: list) -> float:
    return sum(each.sample_count if _is_set(each) else 1 for each in data)


def _sum(data: list) -> float:
    return sum(each.sum if _is_set(each) else each.value for each in data)


_STATISTICS: dict[str, Callable[[list], float]] = {
    "SampleCount": _count,
    "Sum": _sum,
    "Average": lambda data: _sum(data) / _count(data),
    "Minimum": lambda data: min(each.min if _is_set(each) else each.value for each in data),
    "Maximum": lambda data: max(each.max if _is_set(each) else each.value for each in data),
}


def _percentile(data: list, percent: float) -> float | None:
    """The nearest rank. None where raw values are missing, or one is negative: CloudWatch has no percentile of those."""
    if any(_is_set(each) and each.min != each.max for each in data):
        return None
    values = sorted(
        v for each in data for v in ([each.min] * int(each.sample_count) if _is_set(each) else [each.value])
    )
    if not values or values[0] < 0:
        return None
    return values[max(math.ceil(percent / 100 * len(values)), 1) - 1]


def _statistic(data: list, stat: str) -> float | None:
    if stat in _STATISTICS:
        return _STATISTICS[stat](data)
    return _percentile(data, float(stat[1:]))


def _key(namespace: str, name: str, dimensions: list[tuple[str, str]]) -> tuple:
    return namespace, name, frozenset(dimensions)


def _refuse_malformed(queries: list[dict], start: datetime, end: datetime) -> None:
    from moto.cloudwatch.exceptions import ValidationError

    if len(queries) > MAX_QUERIES:
        raise ValidationError(f"The collection MetricDataQueries must not have a size greater than {MAX_QUERIES}.")
    if _seconds(start) >= _seconds(end):
        raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")
    for query in queries:
        stat = query["MetricStat"]["Stat"]
        if stat not in _STATISTICS and not _PERCENTILE.fullmatch(stat):
            raise ValidationError(f"The sandbox does not know the statistic {stat}.")


def answer(metrics: list, queries: list[dict], start: datetime, end: datetime, newest_first: bool) -> list[dict]:
    """MetricDataResults, whole. The start is rounded down to the minute, a point is at the start of its period."""
    _refuse_malformed(queries, start, end)
    begin, until = _seconds(start) // 60 * 60, _seconds(end)
    wanted = {
        _key(stat["Namespace"], stat["MetricName"], [(d["Name"], d["Value"]) for d in stat.get("Dimensions", [])])
        for stat in (query["MetricStat"]["Metric"] for query in queries)
    }
    found: dict[tuple, list] = defaultdict(list)
    for datum in metrics:
        key = _key(datum.namespace, datum.name, [(each.name, each.value) for each in datum.dimensions])
        if key in wanted and begin <= (at := _seconds(datum.timestamp)) < until:
            found[key].append((at, datum))
    return [_result(query, found, newest_first) for query in queries if query.get("ReturnData", True)]


def _result(query: dict, found: dict[tuple, list], newest_first: bool) -> dict:
    metric, period = query["MetricStat"]["Metric"], int(query["MetricStat"]["Period"])
    stat, unit = query["MetricStat"]["Stat"], query["MetricStat"].get("Unit")
    key = _key(
        metric["Namespace"], metric["MetricName"], [(d["Name"], d["Value"]) for d in metric.get("Dimensions", [])]
    )
    periods: dict[int, list] = defaultdict(list)
    for at, datum in found[key]:
        if unit is None or datum.unit == unit:
            periods[int(at // period * period)].append(datum)
    points = [(at, value) for at in sorted(periods) if (value := _statistic(periods[at], stat)) is not None]
    if newest_first:
        points.reverse()
    return {
        "Id": query["Id"],
        "Label": query.get("Label") or metric["MetricName"],
        "Timestamps": [datetime.fromtimestamp(at, UTC) for at, _value in points],
        "Values": [value for _at, value in points],
        "StatusCode": "Complete",
    }


def page(results: list[dict], token: str | None, most: int) -> dict:
    """So many points of the answer, from where `token` says; a metric that goes on in the next page is PartialData."""
    skip, left, shown = int(token or 0), most, []
    begun = skip
    for result in results:
        size = len(result["Values"])
        if skip and skip >= size:
            skip -= size
            continue
        taken = slice(skip, skip + left)
        part = result | {key: result[key][taken] for key in ("Timestamps", "Values")}
        if skip + len(part["Values"]) < size:
            part["StatusCode"] = "PartialData"
        shown.append(part)
        left, skip = left - len(part["Values"]), 0
        if left == 0:
            break
    total, done = sum(len(each["Values"]) for each in results), begun + most - left
    return {"MetricDataResults": shown, **({"NextToken": str(done)} if done < total else {})}
