# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Room for more: quotas of the account, free addresses of the subnets, and connections that the database has left.

A promise of capacity that ends in tasks which cannot start costs the minutes that it was to save; one that takes the last
connection of the database takes the service down that it was to help.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

try:
    from botocore import exceptions as boto_errors
except ImportError:  # AnsibleAWSModule says so in words
    pass

from . import rds, sessions
from .aws import attempt, code_of, explain
from .errors import Refusal, Stop
from .postgres import Line

# The usage of a quota is published every five minutes or so.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Service-Quota-Integration.html
USAGE_SECONDS = 900
# Quotas of Fargate, counted in vCPUs of all tasks and pods of the account in the region.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html#service-quotas-fargate
FARGATE = {
    "FARGATE": ("L-3032A538", "vCPUs of Fargate On-Demand"),
    "FARGATE_SPOT": ("L-36FBB829", "vCPUs of Fargate Spot"),
}
CPU_UNITS = 1024


@dataclass(frozen=True)
class Room:
    """One thing that more capacity takes some of.

    Attributes:
        what: it, for people.
        each: of it for one more.
        free: of it left; None where nobody tells.
        detail: what `free` is made of, or why it is not known.
        mend: what a person can do about it.
        must_be_known: not knowing is a reason not to begin.
    """

    what: str
    each: float
    free: float | None
    detail: str
    mend: str
    must_be_known: bool = False

    def fits(self, more):
        return self.free is not None and more * self.each <= self.free


def check(name, more, rooms, accept):
    """Notes on what is short or not known, for `more` of `name` ("tasks of regami-service").

    Raises:
        Refusal: something is too little, or must be known and is not, unless `accept`.
    """
    if more <= 0:
        return []
    short = [
        f"{more} more {name} take {more * room.each:g} {room.what}, and {max(room.free, 0):g} are left ({room.detail}): {room.mend}"
        for room in rooms
        if room.free is not None and not room.fits(more)
    ]
    unknown = [
        (room, f"whether {more} more {name} find their {room.what} is not known: {room.detail}")
        for room in rooms
        if room.free is None
    ]
    in_the_way = short + [f"{told}: {room.mend}" for room, told in unknown if room.must_be_known]
    if in_the_way and not accept:
        fit = [int(room.free // room.each) for room in rooms if room.free is not None]
        fewer = f"; {max(min(fit), 0)} would fit" if short else ""
        raise Refusal(f"{'; '.join(in_the_way)}{fewer}; accept_shortage=true goes on all the same")
    notes = [f"ACCEPTED: {told}" for told in in_the_way]
    return notes + [f"NOT CHECKED: {told}" for room, told in unknown if not room.must_be_known]


def quota(aws, service, code, what, each, own):
    """Room in a quota of the account and region.

    Args:
        service, code: as Service Quotas names them.
        own: what the target itself uses now: the published usage lags behind.

    https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_GetServiceQuota.html
    """
    mend = f"ask for more in Service Quotas ({service} {code}), or give up something else"

    def ask():
        found = _quota(aws, service, code)
        used = max(_usage(aws, found.get("UsageMetric")), own)
        return Room(what, each, found["Value"] - used, f"{used:g} of {found['Value']:g} are used", mend)

    return _known_or(ask, lambda why: Room(what, each, None, why, mend))


def _quota(aws, service, code):
    """The applied quota, or AWS's default where none was ever applied."""
    try:
        return aws.read("service-quotas", "get_service_quota", ServiceCode=service, QuotaCode=code)["Quota"]
    except boto_errors.ClientError as error:
        if code_of(error) != "NoSuchResourceException":
            raise
    return aws.read("service-quotas", "get_aws_default_service_quota", ServiceCode=service, QuotaCode=code)["Quota"]


def _usage(aws, metric):
    """The last published usage, by the metric that the quota itself names; 0 where there is none."""
    if not metric:
        return 0
    now = datetime.datetime.now(datetime.UTC)
    answer = aws.read(
        "cloudwatch",
        "get_metric_statistics",
        Namespace=metric["MetricNamespace"],
        MetricName=metric["MetricName"],
        Dimensions=[{"Name": name, "Value": value} for name, value in metric["MetricDimensions"].items()],
        Period=300,
        Statistics=["Maximum"],
        StartTime=now - datetime.timedelta(seconds=USAGE_SECONDS),
        EndTime=now + datetime.timedelta(minutes=1),
    )
    newest = max(answer["Datapoints"], key=lambda point: point["Timestamp"], default=None)
    return newest["Maximum"] if newest else 0


def fargate_kinds(service):
    """The kinds of Fargate that the tasks of a service (DescribeServices) may run on."""
    strategy = [each["capacityProvider"] for each in service.get("capacityProviderStrategy", [])]
    return [kind for kind in FARGATE if kind in (strategy or [service.get("launchType")])]


def fargate(aws, service, each):
    """{kind of Fargate: a call that gives its Room} for tasks of `each` vCPUs of a service, as far as it runs there."""
    kinds = fargate_kinds(service)
    own = each * service["runningCount"] if len(kinds) == 1 else 0
    return {kind: lambda kind=kind: quota(aws, "fargate", *FARGATE[kind], each, own) for kind in kinds}


def addresses(aws, subnets, what="free addresses of its subnets"):
    """Room in subnets, of which each task, instance or pod of its own address takes one."""
    mend = "give the service another subnet as well"

    def ask():
        found = aws.read("ec2", "describe_subnets", SubnetIds=list(subnets))["Subnets"]
        free = {each["SubnetId"]: each["AvailableIpAddressCount"] for each in found}
        detail = ", ".join(f"{count} in {subnet}" for subnet, count in sorted(free.items()))
        return Room(what, 1, sum(free.values()), detail, mend)

    return _known_or(ask, lambda why: Room(what, 1, None, why, mend))


def connections(aws, instance_id, login, each, present):
    """Room for the connections of more pools: so many as a pool may open, not as it has opened by now.

    Args:
        login: postgres_login.Login.
        each: connections of one pool.
        present: pools there are now.
    """
    what, mend = f"connections of {instance_id}", "end sessions, raise max_connections or use smaller pools"

    def ask():
        instance = rds.describe(aws, instance_id, aws.region)
        if instance is None:
            raise rds.not_found(aws, instance_id, aws.region)
        if not instance["host"] or not login.given:
            raise Stop(f"{instance_id} is {instance['status']}" if login.given else "no login_user given")
        seen = sessions.Sessions(Line(rds.database(instance, login)), {}).look()
        used, usable = seen.used, seen.max_connections - seen.reserved_for_superusers - seen.reserved_for_entitled
        promised = max(used, each * present)
        detail = f"{used} of {usable} are in use, the {present} there are may open {each * present}"
        return Room(what, each, usable - promised, detail, mend, must_be_known=True)

    return _known_or(ask, lambda why: Room(what, each, None, why, mend, must_be_known=True))


def _known_or(ask, unknown):
    """What is there, or the room that nobody tells of. A name that does not exist is a mistake, and stays one."""
    found = attempt(ask, boto_errors.ClientError, Stop)
    if isinstance(found, Refusal):
        raise found
    if isinstance(found, Stop):
        return unknown(str(found))
    return unknown(explain(found)) if isinstance(found, boto_errors.ClientError) else found
