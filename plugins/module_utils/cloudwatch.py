# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many metrics of CloudWatch with few calls.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Stop

# The most that one GetMetricData takes.
METRICS_A_CALL = 500
# Seconds of one point. CloudWatch keeps points of a minute for 15 days.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#Metric
PERIOD = 60


@dataclass(frozen=True)
class Metric:
    """One statistic of one metric; `dimensions` are (name, value) pairs, all that the metric has."""

    namespace: str
    name: str
    stat: str
    dimensions: tuple


def read(aws, region, metrics, start, end):
    """{metric: {minute (epoch seconds): value}} of each of `metrics` from `start` to `end` (epoch seconds).

    A minute of which CloudWatch has nothing is not there.

    Raises:
        Stop: CloudWatch could not tell one of them.
        Unreachable, Throttled, botocore ClientError: as `Aws.read`.
    """
    metrics = list(dict.fromkeys(metrics))
    found = {metric: {} for metric in metrics}
    for first in range(0, len(metrics), METRICS_A_CALL):
        some = {f"m{number}": metric for number, metric in enumerate(metrics[first : first + METRICS_A_CALL])}
        for result in _pages(aws, region, some, start // PERIOD * PERIOD, end):
            metric = some[result["Id"]]
            # PartialData goes on in the next page.
            if result["StatusCode"] in ("Forbidden", "InternalError"):
                raise Stop(
                    f"CloudWatch in {region} answered {result['StatusCode']} for {metric.namespace} {metric.name}"
                )
            points = zip(result["Timestamps"], result["Values"], strict=True)
            found[metric] |= {int(at.timestamp()): value for at, value in points}
    return {metric: dict(sorted(points.items())) for metric, points in found.items()}


def _pages(aws, region, metrics, start, end):
    """The results of every page, for {id: metric}."""
    queries = [
        {
            "Id": key,
            "MetricStat": {
                "Metric": {
                    "Namespace": metric.namespace,
                    "MetricName": metric.name,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
                },
                "Period": PERIOD,
                "Stat": metric.stat,
            },
        }
        for key, metric in metrics.items()
    ]
    more = {}
    while True:
        answer = aws.read(
            "cloudwatch",
            "get_metric_data",
            region=region,
            MetricDataQueries=queries,
            StartTime=start,
            EndTime=end,
            **more,
        )
        yield from answer["MetricDataResults"]
        if not answer.get("NextToken"):
            return
        more = {"NextToken": answer["NextToken"]}
