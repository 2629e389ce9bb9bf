# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event history of CloudTrail: who changed what through the API. moto records nothing.

Management events only, so nothing of items, objects, log lines and metric values; at once, where AWS takes some minutes.
https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import access
from .world import SEED_KEY

if TYPE_CHECKING:
    from .wire import ApiError, Call
    from .world import World

DATA = (
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "PutObject",
    "CopyObject",
    "DeleteObject",
    "DeleteObjects",
    "PutLogEvents",
    "PutMetricData",
)
MOST = 50
# Services whose events go by another name than that of their client.
_SOURCES = {"elbv2": "elasticloadbalancing", "cloudwatch": "monitoring"}
_ATTRIBUTES = {"EventName", "EventSource", "ReadOnly", "Username", "AccessKeyId", "EventId"}

# Who has which access key; whoever else asks is "sandbox". What faults do that are a person's or a pipeline's doing.
_users = {SEED_KEY: "pipeline"}
_events: list[dict[str, Any]] = []  # oldest first


def install(world: World) -> None:
    from moto.cloudtrail.responses import CloudTrailResponse

    def lookup_events(response: Any) -> Any:
        from moto.core.responses import ActionResult

        return ActionResult(_found(response.region, json.loads(response.body)))

    CloudTrailResponse.lookup_events = lookup_events
    world.after_change.append(lambda call: _record(world, call))
    world.after_refusal.append(lambda call, error: _record(world, call, error))


def seed(world: World) -> None:
    _events.clear()


def _record(world: World, call: Call, error: ApiError | None = None) -> None:
    if world.seeding or call.action in DATA:
        return
    service = _SOURCES.get(call.service, call.service)
    user, identity = _identity(world, call.access_key)
    more = {"sourceIPAddress": call.source, "readOnly": not call.is_change}
    if error is not None:
        more |= {"errorCode": error.code, "errorMessage": error.message}
    note(world, user, service, call.action, call.region, _parameters(call), call.came, call.access_key, identity, more)


def _identity(world: World, access_key: str) -> tuple[str, dict | None]:
    """(user name, userIdentity where it is no IAM user's) of who has that key.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
    """
    session = access.session_of(access_key)
    if session is None:
        return _users.get(access_key) or access.user_of(access_key) or "sandbox", None
    issuer = {
        "type": "Role",
        "arn": f"arn:aws:iam::{world.account_id}:role/{session.role}",
        "accountId": world.account_id,
        "userName": session.role,
    }
    created = f"{datetime.fromtimestamp(session.issued, UTC):%Y-%m-%dT%H:%M:%SZ}"
    identity = {
        "type": "AssumedRole",
        "arn": session.arn,
        "accountId": world.account_id,
        "accessKeyId": access_key,
        "sessionContext": {
            "sessionIssuer": issuer,
            "attributes": {"creationDate": created, "mfaAuthenticated": "false"},
        },
    }
    return session.name, identity


def client_of(world: World, user: str, service: str, region: str) -> Any:
    """A boto3 client whose calls are this person's."""
    import boto3

    key = f"AKIA{user.upper()[:12]:X<12}"
    _users[key] = user
    session = boto3.Session(aws_access_key_id=key, aws_secret_access_key="-", region_name=region)
    return session.client(service, endpoint_url=world.endpoint_url)


def events() -> list[dict[str, Any]]:
    """As they are told, oldest first; for who tells a story of the past."""
    return _events


def note(
    world: World,
    user: str,
    service: str,
    action: str,
    region: str,
    parameters: dict,
    at: float,
    access_key: str = "",
    identity: dict | None = None,
    more: dict | None = None,
) -> None:
    """`service`: the first part of its event source. `at`: seconds of the epoch. `identity`: of who is no IAM user.
    `more`: other fields of the event."""
    source = f"{service}.amazonaws.com"
    arn = f"arn:aws:iam::{world.account_id}:user/{user}"
    told = {
        "eventVersion": "1.09",
        "userIdentity": identity
        or {"type": "IAMUser", "arn": arn, "accountId": world.account_id, "accessKeyId": access_key, "userName": user},
        "eventTime": f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": source,
        "eventName": action,
        "awsRegion": region,
        "requestParameters": parameters,
        "readOnly": False,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        **(more or {}),
    }
    _events.append(
        {
            "EventId": str(uuid.uuid4()),
            "EventName": action,
            "ReadOnly": json.dumps(told["readOnly"]),
            "AccessKeyId": access_key,
            "EventTime": at,
            "EventSource": source,
            "Username": user,
            "Resources": [],
            "CloudTrailEvent": json.dumps(told, default=str),
        }
    )


def _parameters(call: Call) -> dict:
    """Without passwords. Of S3 what its path names, and a policy."""
    if call.service == "s3":
        bucket, _, key = call.path.strip("/").partition("/")
        policy = {"bucketPolicy": json.loads(call.body)} if call.action == "PutBucketPolicy" else {}
        return {"bucketName": bucket, **({"key": key} if key else {}), **policy}
    return {
        name: "HIDDEN_DUE_TO_SECURITY_REASONS" if "password" in name.lower() else value
        for name, value in call.params.items()
    }


def _found(region: str, asked: dict) -> dict:
    """Newest first, so many from where the token says."""
    from moto.core.exceptions import JsonRESTError

    attributes = asked.get("LookupAttributes", [])
    if len(attributes) > 1 or any(each["AttributeKey"] not in _ATTRIBUTES for each in attributes):
        raise JsonRESTError("InvalidLookupAttributesException", "one lookup attribute that is known, or none")
    begin, end = asked.get("StartTime", 0.0), asked.get("EndTime", time.time())
    events = [
        event
        for event in reversed(_events)
        if json.loads(event["CloudTrailEvent"])["awsRegion"] == region
        and begin <= event["EventTime"] <= end
        and all(event[each["AttributeKey"]] == each["AttributeValue"] for each in attributes)
    ]
    first, most = int(asked.get("NextToken") or 0), int(asked.get("MaxResults") or MOST)
    more = {"NextToken": str(first + most)} if len(events) > first + most else {}
    return {"Events": events[first : first + most], **more}
