# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service Quotas: what an account may have of Fargate and EC2 in a region, and how much of it is used.

The usage is published as a metric, late, as AWS does; what is allowed is decided by what really runs.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Service-Quota-Integration.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import cloudwatch
from .faults import Fault

if TYPE_CHECKING:
    from .world import World


@dataclass(frozen=True)
class Quota:
    service: str
    code: str
    name: str
    applied: float
    usage: str  # what the usage metrics call the service

    def describe(self, region: str, value: float) -> dict[str, Any]:
        return {
            "ServiceCode": self.service,
            "QuotaCode": self.code,
            "QuotaArn": f"arn:aws:servicequotas:{region}:123456789012:{self.service}/{self.code}",
            "QuotaName": self.name,
            "Value": value,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
            "UsageMetric": {
                "MetricNamespace": NAMESPACE,
                "MetricName": METRIC,
                "MetricDimensions": self.dimensions,
                "MetricStatisticRecommendation": "Maximum",
            },
        }

    @property
    def dimensions(self) -> dict[str, str]:
        return {"Service": self.usage, "Type": "Resource", "Resource": "vCPU", "Class": "Standard/OnDemand"}


NAMESPACE, METRIC = "AWS/Usage", "ResourceCount"
FARGATE = Quota("fargate", "L-3032A538", "Fargate On-Demand vCPU resource count", 100.0, "Fargate")
EC2 = Quota("ec2", "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 64.0, "EC2")
KNOWN = {(each.service, each.code): each for each in (FARGATE, EC2)}

_given: dict[str, float] = {}  # by quota code, as a fault has it
_users: dict[str, Callable[[World, str], float]] = {}  # by quota code: what is used in a region


def used_by(quota: Quota, count: Callable[[World, str], float]) -> None:
    """Say who counts what is used of a quota: function(world, region), called with the lock held."""
    _users[quota.code] = count


def room(world: World, quota: Quota, region: str) -> float:
    """How much is left at this moment. Hold the lock."""
    return _value(quota) - _used(world, quota, region)


def _value(quota: Quota) -> float:
    return _given.get(quota.code, quota.applied)


def _used(world: World, quota: Quota, region: str) -> float:
    count = _users.get(quota.code)
    return count(world, region) if count else 0.0


def install(world: World) -> None:
    from moto.servicequotas.models import ServiceQuotasBackend

    original = ServiceQuotasBackend.get_service_quota

    def get_service_quota(backend: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        quota = KNOWN.get((service_code, quota_code))
        if quota is None:
            return original(backend, service_code, quota_code)
        return quota.describe(backend.region_name, _value(quota))

    ServiceQuotasBackend.get_service_quota = get_service_quota


def seed(world: World) -> None:
    _given.clear()


def start(world: World) -> None:
    world.background(_publish, world)


def _publish(world: World) -> None:
    while True:
        for quota in KNOWN.values():
            for region in world.regions:
                if region not in world.cut_regions:
                    with world.lock:
                        used = _used(world, quota, region)
                    cloudwatch.publish(world, region, NAMESPACE, quota.dimensions, {METRIC: used})
        world.pause(world.settings.metric_seconds)


def _give(world: World, service: str, value: str | float) -> None:
    quota = next((each for each in KNOWN.values() if each.service == service), None)
    if quota is None:
        raise ValueError(f"unknown quota {service!r}: one of {', '.join(each.service for each in KNOWN.values())}")
    _given[quota.code] = float(value)


faults = {
    "quota": Fault(
        "the account may have VALUE vCPUs of SERVICE (fargate, ec2) in each region",
        _give,
        lambda world: _given.clear(),
        ("service", "value"),
    )
}
