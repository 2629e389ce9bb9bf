# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics as AWS publishes them, and their absence."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from . import metric_data
from .faults import Fault

if TYPE_CHECKING:
    from .world import World

_silent = False


def install(world: World) -> None:
    from moto.cloudwatch.models import CloudWatchBackend
    from moto.cloudwatch.responses import CloudWatchResponse

    with_expressions = CloudWatchResponse.get_metric_data
    original = CloudWatchBackend.get_metric_statistics

    def get_metric_statistics(backend: Any, *args: Any, dimensions: list[dict], **kwargs: Any) -> Any:
        """The metric with these dimensions; moto adds up those that have more of them.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#Dimension
        """
        everything = backend.metric_data
        backend.metric_data = [point for point in everything if len(point.dimensions) == len(dimensions)]
        try:
            return original(backend, *args, dimensions=dimensions, **kwargs)
        finally:
            backend.metric_data = everything

    def get_metric_data(response: Any) -> Any:
        from moto.core.responses import ActionResult

        asked = response._get_params()
        queries = asked.get("MetricDataQueries", [])
        if any("MetricStat" not in query for query in queries):
            return with_expressions(response)  # metric math stays as moto has it
        results = metric_data.answer(
            response.cloudwatch_backend.get_all_metrics(),
            queries,
            asked["StartTime"],
            asked["EndTime"],
            asked.get("ScanBy", "TimestampDescending") == "TimestampDescending",
        )
        most = int(asked.get("MaxDatapoints") or metric_data.MAX_DATAPOINTS)
        return ActionResult(metric_data.page(results, asked.get("NextToken"), most))

    def get_filtered_metrics(backend: Any, name: str, namespace: str, dimensions: list[dict]) -> list:
        """Each metric once; moto tells those of several dimensions once for each point."""
        found = {}
        for point in backend.get_all_metrics():
            if point.filter(namespace, name, dimensions):
                found[point.namespace, point.name, frozenset((each.name, each.value) for each in point.dimensions)] = (
                    point
                )
        return list(found.values())

    CloudWatchBackend.get_filtered_metrics = get_filtered_metrics
    CloudWatchBackend.get_metric_statistics = get_metric_statistics
    CloudWatchResponse.get_metric_data = get_metric_data


def seed(world: World) -> None:
    _speak(world)


def publish(
    world: World,
    region: str,
    namespace: str,
    dimensions: dict[str, str],
    values: dict[str, float | list[float]],
    at: float | None = None,
) -> None:
    """Each metric, now or `at` (epoch seconds): one value, or all that were measured, of which CloudWatch makes percentiles."""
    if _silent:
        return
    from moto.core.utils import utcnow

    when = utcnow() if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC).replace(tzinfo=None)
    named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    points = [
        {
            "MetricName": name,
            "Dimensions": named,
            "Timestamp": when,
            **({"Values": value} if isinstance(value, list) else {"Value": value}),
        }
        for name, value in values.items()
    ]
    with world.lock:
        world.backend("cloudwatch", region).put_metric_data(namespace, points)


def _stop_publishing(world: World) -> None:
    global _silent
    _silent = True


def _forget(world: World) -> None:
    _stop_publishing(world)
    with world.lock:
        for region in world.regions:
            world.backend("cloudwatch", region).metric_data.clear()


def _speak(world: World) -> None:
    global _silent
    _silent = False


faults = {
    "metrics-missing": Fault("CloudWatch has no metric of the databases and load balancers", _forget, _speak),
    "metrics-stale": Fault("CloudWatch gets no new metrics and keeps the old", _stop_publishing, _speak),
}
