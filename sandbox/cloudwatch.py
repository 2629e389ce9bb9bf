# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics as AWS publishes them, and their absence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .faults import Fault

if TYPE_CHECKING:
    from .world import World

_silent = False


def install(world: World) -> None:
    from moto.cloudwatch.models import CloudWatchBackend

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

    CloudWatchBackend.get_metric_statistics = get_metric_statistics


def seed(world: World) -> None:
    _speak(world)


def publish(world: World, region: str, namespace: str, dimensions: dict[str, str], values: dict[str, float]) -> None:
    """One point of each metric, now."""
    if _silent:
        return
    from moto.core.utils import utcnow

    named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    points = [
        {"MetricName": name, "Dimensions": named, "Value": value, "Timestamp": utcnow()}
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
