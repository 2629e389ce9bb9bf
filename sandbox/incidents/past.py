# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was before an incident: hours of metrics as they are where nothing is wrong, lines of the log, deployments of good
builds, and what other people changed. Made up from a number, as noisy as the real thing.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .. import cloudtrail, elasticache
from ..ecs import deployments, tasks
from ..ecs.events import say
from . import stage
from .levels import Level, epoch, is_count

if TYPE_CHECKING:
    from ..world import World

MINUTE, WEEK = 60, 7 * 24 * 3600
HOURS = 2.5
# Of a minute's answers so many times are kept, and so many answers are errors of no consequence, of either kind.
TIMES, MISSING, FAILING = 12, 0.02, 0.0008
# Nothing at the beginning is as it was in the last days.
DAYS = timedelta(days=9)

# Lines that a healthy service writes now and then. `{}` is a number.
NOISE = (
    'INFO "GET /v1/rows/{}" 404 1.8 ms',
    'INFO "GET /favicon.ico" 404 0.2 ms',
    'INFO "GET /wp-login.php" 404 0.2 ms',
    'INFO "POST /v1/rows" 400 0.6 ms',
    "WARNING slow request: POST /v1/rows took 1.{} s",
    "WARNING DeprecationWarning: datetime.utcnow() is deprecated",
    "WARNING retrying check of row {} after 1 s",
)
# ... and errors that are nobody's emergency.
RARE = (
    "ERROR POST /v1/rows requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='partner.regami.test', port=8443): Read timed "
    "out. (read timeout=2.0)",
    "ERROR POST /v1/rows OperationalError: SSL connection has been closed unexpectedly",
    "ERROR GET /v1/rows/{} redis.exceptions.TimeoutError: Timeout reading from socket",
    "ERROR POST /v1/auth/login ValueError: malformed token",
)
# What others do all day: (service, action, parameters). Some of it looks as if it could be the cause of something.
OTHERS = (
    ("ecs", "UpdateService", {"cluster": "regami-cluster", "service": "regami-web", "desiredCount": 3}),
    ("ecs", "RegisterTaskDefinition", {"family": "regami-exports"}),
    (
        "ecs",
        "UpdateService",
        {"cluster": "regami-cluster", "service": "regami-exports", "taskDefinition": "regami-exports:41"},
    ),
    ("ec2", "AuthorizeSecurityGroupIngress", {"groupId": "sg-0b1f5a7cbastion1", "cidrIp": "203.0.113.7/32"}),
    ("ec2", "RevokeSecurityGroupIngress", {"groupId": "sg-0b1f5a7cbastion1", "cidrIp": "203.0.113.9/32"}),
    ("ec2", "CreateTags", {"resourcesSet": {"items": [{"resourceId": "i-0d2e9c41aa7781234"}]}}),
    ("s3", "PutBucketPolicy", {"bucketName": stage.OTHER_BUCKET}),
    ("s3", "PutBucketLifecycle", {"bucketName": stage.OTHER_BUCKET}),
    ("iam", "PutRolePolicy", {"roleName": "regami-exports", "policyName": "reports"}),
    ("iam", "CreateAccessKey", {"userName": "k.tanaka"}),
    ("monitoring", "PutMetricAlarm", {"alarmName": "regami-web-latency"}),
    ("logs", "PutRetentionPolicy", {"logGroupName": "/ecs/regami-exports", "retentionInDays": 30}),
    ("elasticloadbalancing", "ModifyTargetGroupAttributes", {"targetGroupArn": "regami-web-green"}),
    ("autoscaling", "SetDesiredCapacity", {"autoScalingGroupName": "regami-batch", "desiredCapacity": 4}),
    ("rds", "AddTagsToResource", {"resourceName": "arn:aws:rds:us-east-1:123456789012:db:regami-reports"}),
    ("secretsmanager", "RotateSecret", {"secretId": "regami-exports/token"}),
)
SCANNERS = ("203.0.113.77", "198.51.100.23", "192.0.2.140")


def write(world: World, dice: random.Random, levels: dict[tuple, Level], began: float) -> None:
    """The hours before `began` (seconds of the epoch), in place of what really was."""
    region = world.regions[0]
    with world.lock:
        data = world.backend("cloudwatch", region).metric_data
        data[:] = [each for each in data if epoch(each.timestamp) >= began]
        data[:0] = _metrics(levels, dice, began)
        deployed = began - dice.uniform(25, 170) * MINUTE
        _changes(world, dice, began)
        _set_deployment(world, deployed)
        cloudtrail.events().sort(key=lambda each: each["EventTime"])
        _lines(world, dice, began)
        _age(world, began)


# ---- metrics -------------------------------------------------------------------------------------------------------


def _metrics(levels: dict[tuple, Level], dice: random.Random, began: float) -> Iterator[Any]:
    """A point a minute, of the hours before and of the same hours a week ago."""
    now = time.time()
    minutes = [
        *range(int(now - WEEK - HOURS * 3600), int(now - WEEK + 600), MINUTE),
        *range(int(began - HOURS * 3600), int(began - 1), MINUTE),
    ]
    # The day has its hours, and a quiet minute is quiet everywhere.
    busy = {at: 1 + 0.12 * math.sin(at / 3600) + dice.gauss(0, 0.05) for at in minutes}
    made = []
    for (namespace, name, dimensions), level in levels.items():
        for at in minutes:
            made += [_datum(namespace, name, dimensions, at, value) for value in _minute(name, level, busy[at], dice)]
    requests = [
        (namespace, dimensions, level)
        for (namespace, name, dimensions), level in levels.items()
        if name == "RequestCount" and namespace == "AWS/ApplicationELB"
    ]
    for namespace, dimensions, level in requests:
        for at in minutes:
            for name, share in (("HTTPCode_Target_4XX_Count", MISSING), ("HTTPCode_Target_5XX_Count", FAILING)):
                count = _so_many(level.a_second * MINUTE * share, dice)
                if count:
                    made.append(_datum(namespace, name, dimensions, at, float(count)))
    return made


def _minute(name: str, level: Level, busy: float, dice: random.Random) -> list[float]:
    """A minute's values."""
    if name.startswith(("HTTPCode_Target_4", "HTTPCode_Target_5", "HTTPCode_ELB")):
        return []
    if is_count(name):
        return [float(_so_many(level.a_second * MINUTE * busy, dice))]
    if name == "TargetResponseTime":
        return [dice.choice(level.values) * dice.uniform(0.8, 1.25) for _time in range(TIMES)]
    if len(set(level.values)) == 1:
        return [level.values[0]]  # so many hosts, the size of a disk
    value = max(0.0, statistics.fmean(level.values) * dice.gauss(1, 0.07))
    return [float(round(value)) if all(each.is_integer() for each in level.values) else value]


def _so_many(mean: float, dice: random.Random) -> int:
    """As Poisson has it."""
    if mean > 30:
        return max(0, round(dice.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), dice.random(), 0
    while product > limit:
        product, count = product * dice.random(), count + 1
    return count


def _datum(namespace: str, name: str, dimensions: tuple, at: float, value: float) -> Any:
    from moto.cloudwatch.models import MetricDatum

    named = [{"Name": each, "Value": of} for each, of in dimensions]
    return MetricDatum(namespace, name, value, named, datetime.fromtimestamp(at, UTC).replace(tzinfo=None))


# ---- the service ---------------------------------------------------------------------------------------------------


def _set_deployment(world: World, at: float) -> None:
    """The good build was deployed at `at`, by the pipeline, and all went well; tasks that run since then began then."""
    own = stage.service(world)
    good = next(each for each in deployments.history[own.arn] if each.target.task_definition == stage.good())
    moment = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    ended = moment + timedelta(minutes=4)
    for each in (good, good.target, good.target.revision):
        for name, value in vars(each).items():
            if isinstance(value, datetime):
                late = name in ("finished_at", "updated_at")
                setattr(each, name, ended if late else moment)
    for each in deployments.history[own.arn]:
        if each.target.task_definition in stage.replaced() and epoch(each.created_at) > at:
            _move(-DAYS, each, each.target, each.target.revision)
    for task in tasks.of_service[own.arn]:
        if task.started_by == good.target.id:
            for name in task.times:
                if not name.startswith(("stop", "execution")):
                    task.times[name] = ended
    region = world.regions[0]
    revision = stage.good().rpartition("/")[2]
    asked = {"cluster": own.cluster_name, "service": own.name, "taskDefinition": revision}
    family = {"family": revision.partition(":")[0]}
    cloudtrail.note(world, "pipeline", "ecs", "RegisterTaskDefinition", region, family, at - 5)
    cloudtrail.note(world, "pipeline", "ecs", "UpdateService", region, asked, at)
    said = [event for event in own.events if epoch(event["createdAt"]) > at + 600]
    own.events = said
    say(own, "has reached a steady state.")
    steady = own.events.pop(0)
    own.events.append(steady | {"createdAt": ended})


def _move(by: timedelta, *owners: Any) -> None:
    for owner in owners:
        for name, value in vars(owner).items():
            if isinstance(value, datetime):
                setattr(owner, name, value + by)


def _lines(world: World, dice: random.Random, began: float) -> None:
    region = world.regions[0]
    group = world.backend("logs", region).groups[stage.log_groups(world)[0]]
    mine = {task.id for task in tasks.of_service[stage.service(world).arn] if task.status == "RUNNING"}
    for name, stream in list(group.streams.items()):
        stream.events = [each for each in stream.events if each.timestamp >= began * 1000]
        if not stream.events and name.rpartition("/")[2] not in mine:
            del group.streams[name]
    streams = list(group.streams.values())
    now = time.time()
    for at in _moments(dice, now - HOURS * 3600, now, 2.0):
        _log(dice.choice(streams), at, dice.choice(NOISE), dice)
    for at in _moments(dice, now - HOURS * 3600, now, 25.0):
        _log(dice.choice(streams), at, dice.choice(RARE), dice)
    for stream in streams:
        stream.events.sort(key=lambda each: each.timestamp)
    _flows(world, dice, began, now)


def _log(stream: Any, at: float, line: str, dice: random.Random) -> None:
    stream.put_log_events([{"timestamp": int(at * 1000), "message": line.replace("{}", str(dice.randrange(1, 9)))}])


def _moments(dice: random.Random, begin: float, end: float, minutes: float) -> Iterator[float]:
    """By chance, so many minutes apart on average."""
    at = begin
    while (at := at + dice.expovariate(1 / (minutes * MINUTE))) < end:
        yield at


def _flows(world: World, dice: random.Random, began: float, now: float) -> None:
    """Packets that nobody let in, as every address of the internet gets them."""
    from ..flow_logs import Flow, interface_of

    group = world.backend("logs", world.regions[0]).groups[stage.FLOW_LOG_GROUP]
    for stream in group.streams.values():
        stream.events = [each for each in stream.events if each.timestamp >= began * 1000]
    interface = interface_of("regami-alb")
    name = f"{interface}-all"
    if name not in group.streams:
        group.create_log_stream(name)
    for at in _moments(dice, now - HOURS * 3600, now, 4.0):
        source, port = dice.choice(SCANNERS), dice.choice((22, 23, 3389, 445, 8080))
        flow = Flow(interface, source, "10.0.1.20", dice.randrange(30000, 60000), port, "REJECT")
        line = flow.record(world.account_id, int(at) - 50, int(at))
        group.streams[name].put_log_events([{"timestamp": int(at * 1000), "message": line}])


# ---- others --------------------------------------------------------------------------------------------------------


def _changes(world: World, dice: random.Random, began: float) -> None:
    from .causes import PEOPLE

    events, region = cloudtrail.events(), world.regions[0]
    events[:] = [each for each in events if each["EventTime"] >= began]
    for at in _moments(dice, began - HOURS * 3600, time.time(), 14.0):
        service, action, parameters = dice.choice(OTHERS)
        cloudtrail.note(world, dice.choice(PEOPLE), service, action, region, dict(parameters), at)


def _age(world: World, began: float) -> None:
    """The database and the cache were made days ago, not when the sandbox was."""
    for event in world.backend("rds", world.regions[0]).events:
        if (
            epoch(event.date) < time.time()
            and epoch(event.date) > time.time() - 3600 * HOURS
            and epoch(event.date) < began
        ):
            event.date -= DAYS
    elasticache.events()[:] = [each for each in elasticache.events() if each["Date"].timestamp() >= began]
