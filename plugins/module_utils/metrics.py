# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the metrics of a service say: each beside the window before and the same hour a week ago.

A signal is what the runbooks look at ("error_percent of regami-alb"), made of one metric of CloudWatch or of several.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import cloudwatch, ecs, elbv2
from .aws import reason, together, tried_together
from .cloudwatch import PERIOD, Metric
from .errors import Refusal, Unreachable, near

WEEK = 7 * 24 * 3600
# A point comes a minute or two late, and the minute that goes on is not whole: a sum of it would look like a fall.
LATE = 2 * PERIOD
# Without so many points, nothing is known of now; a shorter pause does not end what lasts.
SILENT_AFTER, PAUSE = 5, 2
# What is usual is what 19 of 20 minutes kept to, and half as much again. Fewer points than these make nothing usual.
EXTREMES, MARGIN, FEWEST_POINTS = 0.05, 0.5, 3


@dataclass(frozen=True)
class Signal:
    """One thing that is looked at.

    Attributes:
        name: as limits and rules call it; `of`: what it is of, for people.
        region, metrics: where to read what.
        unit: of its values, for people.
        noise: a change of so much is none, in that unit.
        value: makes one value of a minute's values of `metrics` (None where there is none); None of too little to tell.
        every: seconds between two points.
        counts: it is a count of a minute: a minute of which nothing is known had none, and fewer than usual counts too.
    """

    name: str
    of: str
    region: str
    metrics: tuple
    unit: str = ""
    noise: float = 0.0
    value: Callable = field(default=lambda one: one, compare=False)
    every: int = PERIOD
    counts: bool = False


@dataclass(frozen=True)
class Seen:
    """The points of a signal, {minute (epoch seconds): value}, in each of the three windows."""

    now: dict
    before: dict = field(default_factory=dict)
    week_ago: dict = field(default_factory=dict)


# Below so many requests in a minute a share of errors says nothing.
FEWEST_REQUESTS = 10


def _error_percent(requests, of_targets, of_balancer):
    """RequestCount leaves out what no target was chosen for, which HTTPCode_ELB_5XX_Count may have."""
    errors = (of_targets or 0) + (of_balancer or 0)
    asked = max(requests or 0, errors)
    return 100 * errors / asked if asked >= FEWEST_REQUESTS else None


def of_load_balancer(arn):
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html"""
    dimensions, region, of = (("LoadBalancer", elbv2.metric_name(arn)),), elbv2.region_of(arn), elbv2.short_name(arn)

    def metric(name, stat="Sum"):
        return Metric("AWS/ApplicationELB", name, stat, dimensions)

    errors = tuple(map(metric, ("RequestCount", "HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count")))
    return [
        Signal("requests", of, region, errors[:1], "a minute", noise=30, counts=True),
        Signal("error_percent", of, region, errors, "%", noise=1, value=_error_percent),
        *(
            Signal(stat, of, region, (metric("TargetResponseTime", stat),), "s", noise=0.1)
            for stat in ("p50", "p95", "p99")
        ),
    ]


def of_service(cluster, service, region):
    """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/available-metrics.html"""
    dimensions = (("ClusterName", ecs.short(cluster)), ("ServiceName", ecs.short(service)))
    return [
        Signal(name, dimensions[1][1], region, (Metric("AWS/ECS", metric, "Average", dimensions),), "%", noise=10)
        for name, metric in (("service_cpu", "CPUUtilization"), ("service_memory", "MemoryUtilization"))
    ]


def of_busiest_task(cluster, service, region):
    """The task of a service that uses most of what it may have."""
    dimensions = (("ClusterName", ecs.short(cluster)), ("ServiceName", ecs.short(service)))
    return [
        Signal(name, dimensions[1][1], region, (Metric("AWS/ECS", metric, "Maximum", dimensions),), "%", noise=10)
        for name, metric in (("busiest_cpu", "CPUUtilization"), ("busiest_memory", "MemoryUtilization"))
    ]


def of_task(cluster, service, task, region):
    """One task, where Container Insights with enhanced observability is on; else there are no points.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-enhanced-observability-metrics-ECS.html
    """
    dimensions = (("ClusterName", ecs.short(cluster)), ("ServiceName", ecs.short(service)), ("TaskId", task))
    return [
        Signal(name, task, region, (Metric("ECS/ContainerInsights", metric, "Average", dimensions),), "%", noise=10)
        for name, metric in (("task_cpu", "TaskCpuUtilization"), ("task_memory", "TaskMemoryUtilization"))
    ]


def of_target_group(load_balancer, target_group):
    """What a load balancer measures of the targets of one of its groups."""
    group = (("LoadBalancer", elbv2.metric_name(load_balancer)), ("TargetGroup", target_group.rpartition(":")[2]))
    region, of = elbv2.region_of(load_balancer), f"{elbv2.short(target_group)} behind {elbv2.short_name(load_balancer)}"
    metric = Metric("AWS/ApplicationELB", "TargetResponseTime", "p99", group)
    return [Signal("target_p99", of, region, (metric,), "s", noise=0.1)]


def of_agent(instance_id, region):
    """Memory and disks of an instance where the CloudWatch agent runs and adds up by instance, which its wizard sets.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/metrics-collected-by-CloudWatch-agent.html
    """
    dimensions = (("InstanceId", instance_id),)
    return [
        Signal(name, instance_id, region, (Metric("CWAgent", metric, "Maximum", dimensions),), "%", noise=10)
        for name, metric in (("instance_memory", "mem_used_percent"), ("instance_disk", "disk_used_percent"))
    ]


def of_database(name, region):
    """https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html"""

    def metric(what, stat):
        return (Metric("AWS/RDS", what, stat, (("DBInstanceIdentifier", name),)),)

    return [
        Signal("db_connections", name, region, metric("DatabaseConnections", "Maximum"), noise=10),
        Signal("db_lag", name, region, metric("ReplicaLag", "Maximum"), "s", noise=5),
        Signal("db_cpu", name, region, metric("CPUUtilization", "Average"), "%", noise=10),
    ]


def of_instances(dimension, name, region):
    """Processors of an instance (dimension InstanceId) or of a group (AutoScalingGroupName). Without detailed monitoring
    there is a point every five minutes.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_metrics_with_cloudwatch.html
    """
    metric = Metric("AWS/EC2", "CPUUtilization", "Average", ((dimension, name),))
    return [Signal("instance_cpu", name, region, (metric,), "%", noise=10, every=5 * PERIOD)]


NAMES = (
    *("requests", "error_percent", "p50", "p95", "p99", "service_cpu", "service_memory"),
    *("db_connections", "db_lag", "db_cpu", "instance_cpu"),
)


# What may be read of: {option: what it is}.
ARGUMENTS = dict(
    load_balancer_arns=dict(type="list", elements="str", default=[]),
    cluster=dict(type="str"),
    service=dict(type="str"),
    db_instances=dict(type="list", elements="str", default=[]),
    auto_scaling_groups=dict(type="list", elements="str", default=[]),
    instance_ids=dict(type="list", elements="str", default=[]),
    within_minutes=dict(type="int", default=30),
    limits=dict(type="dict", default={}),
    alarm_prefixes=dict(type="list", elements="str", default=[]),
)


def refuse_unknown(limits):
    """Stop at a limit of something that is not looked at, or one that is no number: it would never be missed."""
    for name, limit in limits.items():
        if name not in NAMES:
            raise Refusal(f"limits: there is no metric {name} ({near(name, NAMES)})")
        try:
            float(limit)
        except (TypeError, ValueError) as error:
            raise Refusal(f"limits: {name} is {limit}, which is no number") from error


def of_all(wanted, region):
    """[Signal] of all that is named in `wanted`, the options ARGUMENTS; limits that mean nothing are refused."""
    refuse_unknown(wanted["limits"])
    return [
        *(each for arn in dict.fromkeys(wanted["load_balancer_arns"]) for each in of_load_balancer(arn)),
        *(of_service(wanted["cluster"], wanted["service"], region) if wanted["service"] else ()),
        *(each for name in wanted["db_instances"] for each in of_database(name, region)),
        *(
            each
            for name in wanted["auto_scaling_groups"]
            for each in of_instances("AutoScalingGroupName", name, region)
        ),
        *(each for name in wanted["instance_ids"] for each in of_instances("InstanceId", name, region)),
    ]


def judged(seen, limits, now):
    """Pure: `judge` of each of {signal: Seen}, what is abnormal first."""
    found = [
        judge(signal, each, float(limits[signal.name]) if signal.name in limits else None, now)
        for signal, each in seen.items()
    ]
    return sorted(found, key=lambda each: not each["abnormal"])


def read(aws, signals, now, minutes):
    """{signal: Seen} of what CloudWatch told, and {region: why} of where it did not. Two calls a region, side by side."""
    regions = list(dict.fromkeys(signal.region for signal in signals))
    found = tried_together(
        {
            region: lambda region=region: _read(
                aws, region, [each for each in signals if each.region == region], now, minutes
            )
            for region in regions
        }
    )
    # Those that ask it later need not wait as long to hear nothing.
    aws.silent |= {region for region, answer in found.items() if isinstance(answer, Unreachable)}
    blind = {region: reason(answer) for region, answer in found.items() if not isinstance(answer, dict)}
    return {
        signal: seen for answer in found.values() if isinstance(answer, dict) for signal, seen in answer.items()
    }, blind


def _read(aws, region, signals, now, minutes):
    metrics = [metric for signal in signals for metric in signal.metrics]
    begin, split = now - 2 * 60 * minutes, (now - 60 * minutes) // PERIOD * PERIOD
    points = together(
        recent=lambda: cloudwatch.read(aws, region, metrics, begin, now + PERIOD),
        week_ago=lambda: cloudwatch.read(aws, region, metrics, now - WEEK - 60 * minutes, now - WEEK),
    )
    seen = {}
    for signal in signals:
        recent, week_ago = (_combined(signal, points[key]) for key in ("recent", "week_ago"))
        if signal.counts:
            recent = _without_gaps(recent, bool(week_ago), begin, now)
        seen[signal] = Seen(
            {at: value for at, value in recent.items() if at >= split},
            {at: value for at, value in recent.items() if at < split},
            week_ago,
        )
    return seen


def _without_gaps(points, there_before, begin, now):
    """Pure: counts of every minute, from the first known one on, or from `begin` where there were some a week ago."""
    first = begin if there_before else min(points, default=now)
    whole_minutes = range(int(first // PERIOD * PERIOD), int((now - LATE) // PERIOD * PERIOD) + 1, PERIOD)
    return {at: points.get(at, 0) for at in whole_minutes}


def _combined(signal, points):
    """The signal's value of each minute of which any of its metrics tells."""
    of_each = [points[metric] for metric in signal.metrics]
    values = {at: signal.value(*(each.get(at) for each in of_each)) for at in sorted(set().union(*of_each))}
    return {at: value for at, value in values.items() if value is not None}


def is_silent(points, now, every=PERIOD):
    """Pure: is nothing known of `now`, with a point `every` so many seconds?"""
    return not points or now - max(points) > SILENT_AFTER * every


def lasting(points, is_out, every=PERIOD):
    """Pure: the minute (epoch seconds) since which every value was out, up to the newest; None where that one is not."""
    since = None
    for at in sorted(points, reverse=True):
        if not is_out(points[at]) or (since is not None and since - at > PAUSE * every):
            break
        since = at
    return since


def usual(signal, seen):
    """Pure: (low, high) between which its values usually are; (None, None) where too little is known of earlier."""
    values = sorted([*seen.before.values(), *seen.week_ago.values()])
    if len(values) < FEWEST_POINTS:
        return None, None
    cut = int(EXTREMES * len(values))
    low, high = values[cut], values[-1 - cut]
    floor = low * MARGIN - signal.noise if signal.counts else None
    return floor, high * (1 + MARGIN) + signal.noise


def judge(signal, seen, limit, now):
    """Pure: what is to be said of one signal.

    Args:
        limit: above it a value is abnormal, however usual it is; None for no limit.
        now: epoch seconds.

    Returns:
        {name, of, region, unit, every (seconds), now, before, week_ago: values or None, usual: [low, high], abnormal, since, why, series}
    """
    low, high = usual(signal, seen)

    def is_out(value):
        return (
            (limit is not None and value > limit)
            or (high is not None and value > high)
            or (low is not None and value < low)
        )

    silent = is_silent(seen.now, now, signal.every)
    since = None if silent else lasting(seen.now, is_out, signal.every)
    newest = seen.now[max(seen.now)] if seen.now and not silent else None
    return {
        "name": signal.name,
        "of": signal.of,
        "region": signal.region,
        "unit": signal.unit,
        "every": signal.every,
        "now": newest,
        "before": _middle(seen.before),
        "week_ago": _middle(seen.week_ago),
        "usual": [low, high],
        "abnormal": since is not None,
        "since": since,
        "why": _why_out(signal, seen, newest, high, limit, since) if since is not None else "",
        "series": [[at, value] for at, value in seen.now.items()],
    }


def _middle(points):
    return statistics.median(points.values()) if points else None


def _why_out(signal, seen, value, high, limit, since):
    typical = shown(_middle(seen.before | seen.week_ago), signal.unit) if high is not None else ""
    if limit is not None and value > limit:
        over = f"above {shown(limit, signal.unit)}"
    elif value > high:
        over = f"more than the usual {typical}"
    else:
        over = f"less than the usual {typical}"
    began = "at least " if since == min(seen.now) else ""
    return f"{signal.name} of {signal.of} is {shown(value, signal.unit)}, {over} since {began}{clock(since)} UTC"


def shown(value, unit):
    """A value for people: `3.2 s`, `85 %`, `120 a minute`."""
    return f"{float(f'{value:.3g}'):g}{f' {unit}' if unit else ''}"


def clock(at):
    return time.strftime("%H:%M", time.gmtime(at))
