# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was changed of a service, its database and its capacity, and by whom: one list in the order in which it happened."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass

from . import commits, ecs, rds
from .aws import reason, together, tried_together
from .log_search import Turns
from .masking import snippet
from .releases import History, before
from .task_definition import differences, short

# LookupEvents may be asked twice a second, and gives 50 events.
# https://docs.aws.amazon.com/awscloudtrail/latest/userguide/WhatIsCloudTrail-Limits.html
TRAIL_SECONDS, TRAIL_PAGES = 0.5, 6
# Writes that may part a service from what it needs, whatever they name: rules of the network, and permissions.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/OperationList-query-vpc.html
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
NETWORK = re.compile(
    r"ec2:(Revoke|Authorize|Modify)SecurityGroup\w*|ec2:ModifyNetworkInterfaceAttribute|elasticloadbalancing:SetSecurityGroups"
    r"|ec2:(Create|Delete|Replace)(NetworkAclEntry|Route|RouteTableAssociation|NetworkAclAssociation)\b"
    r"|ec2:(Disassociate|Delete)(RouteTable|NatGateway|Address|VpcEndpoints)\b"
)
PERMISSIONS = re.compile(
    r"s3:(Put|Delete)(BucketPolicy|BucketAcl|PublicAccessBlock|BucketPublicAccessBlock|BucketOwnershipControls|BucketEncryption)\b"
    r"|iam:(Put|Delete|Detach|Attach|Update|Set)\w*(Role|Polic)\w*|kms:(Disable|Revoke|PutKeyPolicy|ScheduleKeyDeletion)\w*"
)
# How requests call what they are about.
_NAMED_BY = (
    "bucket",
    "bucketname",
    "groupid",
    "groupname",
    "keyid",
    "networkaclid",
    "policyarn",
    "rolename",
    "routetableid",
)
DEPLOYMENT, DATABASE, SCALING, WRITE, COMMIT = "deployment", "database", "scaling", "write", "commit"


@dataclass(frozen=True)
class Change:
    """`at` is in seconds of the epoch; `who` is "" where nothing tells."""

    at: float
    kind: str
    what: str
    who: str = ""


# What may be asked about: {option: what it is}.
ARGUMENTS = dict(
    cluster=dict(type="str"),
    service=dict(type="str"),
    db_instances=dict(type="list", elements="str", default=[]),
    auto_scaling_groups=dict(type="list", elements="str", default=[]),
    names=dict(type="list", elements="str", default=[]),
    checkout=dict(type="path"),
)


def read(aws, wanted, since, until):
    """{what was asked: its answer, or the exception} of all that `wanted`, the options ARGUMENTS, names, side by side.

    Args:
        since, until: seconds of the epoch.
    """
    names = [*wanted["db_instances"], *wanted["auto_scaling_groups"], *wanted["names"]]
    looks = {}
    if wanted["service"]:
        names.append(ecs.short(wanted["service"]))
        target = wanted["cluster"], wanted["service"]
        looks["deployments"] = lambda: of_service(aws, *target)
        looks[f"scaling of {names[-1]}"] = lambda: scaling_of_service(aws, *target, since)
    for name in wanted["db_instances"]:
        looks[f"events of {name}"] = lambda name=name: of_database(aws, name, since)
    for name in wanted["auto_scaling_groups"]:
        looks[f"scaling of {name}"] = lambda name=name: of_group(aws, name, since)
    if wanted["checkout"]:
        looks["commits"] = lambda: [
            Change(at, COMMIT, what, who) for at, what, who in commits.of_checkout(wanted["checkout"], since)
        ]
    looks["CloudTrail"] = lambda: of_trail(aws, names, since, until)
    return tried_together(looks)


def told(found, since):
    """Pure: what `read` has found as {changes: [Change] in order, revision, blind: lines, notes: lines}."""
    listed, revision, blind, notes = [], {"from": None, "to": None, "lines": None}, [], []
    for name, answer in found.items():
        if isinstance(answer, Exception):
            blind.append(f"{name}: {reason(answer)}")
        elif name == "deployments":
            some, revision = answer
            listed += some
        elif name == "CloudTrail":
            some, others, all_read = answer
            listed += some
            notes += [f"CloudTrail has {others} other writes"] if others else []
            notes += [] if all_read else ["CloudTrail has more, older writes than were read: narrow within_minutes"]
        else:
            listed += answer
    changes = sorted({each for each in listed if each.at >= since}, key=lambda each: (each.at, each.what))
    return {"changes": changes, "revision": revision, "blind": blind, "notes": notes}


def of_service(aws, cluster, name):
    """Deployments of an ECS service, as far back as its last good one, and what its revision changed: (changes, {from, to, lines}).

    The last good revision is the one that completed a deployment before the present one; lines is None where none did.
    """
    service = ecs.Service(aws, cluster, name)
    entry, history = service.describe(), History(aws, service)
    releases, running = history.releases(entry, history.listed()), entry["taskDefinition"]
    found = [
        Change(
            release.at.timestamp(),
            DEPLOYMENT,
            f"deployment of {short(release.task_definition)} to {entry['serviceName']} {release.outcome}{_because(release)}",
        )
        for release in releases
        if release.at is not None and release.task_definition
    ]
    present = ecs.primary(entry)
    if present is not None:
        began = f"deployment of {short(present['taskDefinition'])} to {entry['serviceName']} began"
        found.append(Change(present["createdAt"].timestamp(), DEPLOYMENT, began))
    good = before(releases)
    compared = {"from": good and short(good.task_definition), "to": short(running), "lines": None}
    if good is not None:
        old, new = together(
            old=lambda: service.definition(good.task_definition), new=lambda: service.definition(running)
        ).values()
        if old and new:
            compared["lines"] = differences(old["taskDefinition"], new["taskDefinition"])
    return found, compared


def _because(release):
    reason = snippet(release.reason)
    return f": {reason}" if reason else ""


def scaling_of_service(aws, cluster, name, since):
    """Scaling activities of an ECS service, which Application Auto Scaling keeps for six weeks."""
    resource = f"service/{ecs.short(cluster)}/{ecs.short(name)}"
    return _activities(
        aws, "application-autoscaling", since, "ScalingActivities", ServiceNamespace="ecs", ResourceId=resource
    )


def of_group(aws, name, since):
    """Scaling activities of an Auto Scaling group."""
    return _activities(aws, "autoscaling", since, "Activities", AutoScalingGroupName=name)


def _activities(aws, api, since, key, **what):
    """They come newest first; no API takes a time."""
    found, more = [], {}
    while True:
        answer = aws.read(api, "describe_scaling_activities", **what, **more)
        recent = [each for each in answer[key] if each["StartTime"].timestamp() >= since]
        found += [
            Change(
                each["StartTime"].timestamp(),
                SCALING,
                f"{snippet(each.get('Description', 'scaling'))} ({each['StatusCode'].lower()}): {snippet(each.get('Cause', ''))}",
            )
            for each in recent
        ]
        if len(recent) < len(answer[key]) or not answer.get("NextToken"):
            return found
        more = {"NextToken": answer["NextToken"]}


def of_database(aws, name, since):
    """Events of an RDS instance, which RDS keeps for 14 days."""
    minutes = max(1, round((time.time() - since) / 60))
    events = rds.pages(
        aws,
        "describe_events",
        "Events",
        aws.region,
        SourceIdentifier=name,
        SourceType="db-instance",
        Duration=min(minutes, 14 * 24 * 60),
    )
    return [Change(each["Date"].timestamp(), DATABASE, f"{name}: {snippet(each['Message'])}") for each in events]


def of_trail(aws, names, since, until):
    """(changes, others, all_read): writes of the API that name any of `names`, or are of NETWORK or PERMISSIONS; how many others
    there were, and whether all were read. Writes that were refused changed nothing. CloudTrail is some minutes late.

    https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
    """
    found, others, more, turns = [], 0, {}, Turns(TRAIL_SECONDS)
    for _page in range(TRAIL_PAGES):
        turns.take()
        answer = aws.read(
            "cloudtrail",
            "lookup_events",
            LookupAttributes=[{"AttributeKey": "ReadOnly", "AttributeValue": "false"}],
            StartTime=since,
            EndTime=until,
            **more,
        )
        for event in answer["Events"]:
            told = json.loads(event["CloudTrailEvent"])
            named = [name for name in names if _is_named(name, event["CloudTrailEvent"])]
            if told.get("errorCode"):
                continue
            api = f"{event['EventSource'].partition('.')[0]}:{event['EventName']}"
            if not named and (NETWORK.match(api) or PERMISSIONS.match(api)):
                named = _what(told.get("requestParameters") or {})
            elif not named:
                others += 1
                continue
            what = f"{api}{' of ' if named else ''}{' and '.join(named)}"
            found.append(Change(event["EventTime"].timestamp(), WRITE, what, _who(event, told)))
        if not answer.get("NextToken"):
            return found, others, True
        more = {"NextToken": answer["NextToken"]}
    return found, others, False


def _is_named(name, text):
    """As a value of its own, or as the last part of an ARN; not as the beginning of another name."""
    return re.search(rf'["/:]{re.escape(name)}(?![\w-])', text) is not None


def _what(request):
    """Names and ids that a request is about, as far as they are told at its top."""
    return [value for name, value in request.items() if name.lower() in _NAMED_BY and isinstance(value, str)]


def _who(event, told):
    """Of an assumed role the session too: it is often the person."""
    return told.get("userIdentity", {}).get("arn", "").partition("::")[2].partition(":")[2] or event.get("Username", "")
