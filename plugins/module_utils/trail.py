# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event history of CloudTrail as an investigator reads it: all of it, or what one principal did.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
"""

from __future__ import annotations

import json

from .changes import TRAIL_SECONDS
from .log_search import Turns

# 50 events a page, two pages a second: a minute of reading at most.
PAGES = 120


def read(aws, since, until, region=None, **attribute):
    """([event as CloudTrail wrote it, newest first], whether these are all).

    Args:
        since, until: seconds of the epoch.
        region: default is that of `aws`.
        attribute: one of LookupAttributes, such as Username="deploy".
    """
    found, turns, more = [], Turns(TRAIL_SECONDS), {}
    asked = [{"AttributeKey": key, "AttributeValue": value} for key, value in attribute.items()]
    for _page in range(PAGES):
        turns.take()
        answer = aws.read(
            "cloudtrail",
            "lookup_events",
            region=region,
            StartTime=since,
            EndTime=until,
            **({"LookupAttributes": asked} if asked else {}),
            **more,
        )
        found += [json.loads(event["CloudTrailEvent"]) for event in answer["Events"]]
        if not answer.get("NextToken"):
            return found, True
        more = {"NextToken": answer["NextToken"]}
    return found, False


def of_principal(aws, principal, since, until):
    """What a `principals.Principal` did: a user is looked up by name, a role is the issuer of its sessions, each of another name."""
    if principal.kind == "user":
        return read(aws, since, until, Username=principal.name)
    events, all_read = read(aws, since, until)
    return [event for event in events if issuer(event) == principal.name], all_read


def issuer(event):
    """Name of the role whose session it was, None where it was none."""
    context = event.get("userIdentity", {}).get("sessionContext", {})
    return context.get("sessionIssuer", {}).get("userName")


def who(event):
    """The caller, in a few words: the ARN without the account."""
    identity = event.get("userIdentity", {})
    named = identity.get("arn", "").partition("::")[2].partition(":")[2]
    return named or identity.get("invokedBy") or identity.get("type", "nobody")


def action(event):
    """As IAM spells it: iam:CreateUser."""
    return f"{event['eventSource'].partition('.')[0]}:{event['eventName']}"
