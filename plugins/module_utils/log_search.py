# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Searching log groups of CloudWatch: by FilterLogEvents where that is little, by Logs Insights where it is much.

FilterLogEvents reads a log group page by page and may be asked five times a second, by all of an account together; Insights
reads all of it at once and tells how much it found, but not more than 10,000 lines of it.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
"""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime

from . import pod_logs
from .aws import code_of, reason, together, tried_together
from .errors import Refusal, Stop
from .log_patterns import Event, Found, grouped
from .waiting import Pace

# Seconds between two calls of FilterLogEvents in one region, whatever the number of log groups.
FILTER_SECONDS = 0.2
# After so many pages FilterLogEvents is given up for Insights.
FILTER_PAGES = 10
# The most lines that a query of Insights gives.
ROWS = 10_000
# A query takes a second or many; GetQueryResults may be asked five times a second.
POLL = Pace(first=0.2, longest=2.0, growth=1.5)
ENDED_BADLY = ("Failed", "Cancelled", "Timeout", "Unknown")
# What is asked: {option: what it is}.
ARGUMENTS = dict(
    log_groups=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(name=dict(type="str", required=True), region=dict(type="str")),
    ),
    **pod_logs.ARGUMENTS,
    terms=dict(type="list", elements="str", default=["ERROR", "Exception", "FATAL", "CRITICAL"]),
    within_minutes=dict(type="int", default=30),
    insights_above_minutes=dict(type="int", default=60),
)


class Turns:
    """Keeps calls of several threads apart by `seconds`."""

    def __init__(self, seconds):
        self._seconds, self._lock, self._next = seconds, threading.Lock(), 0.0

    def take(self):
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._seconds
        time.sleep(at - now)


def search(aws, wanted, since, until, deployed_at, wait):
    """[(group {name, region}, Found, or the exception)] of every log group and of all pods of `wanted`, the options ARGUMENTS,
    side by side.

    Args:
        since, until: seconds of the epoch.
        deployed_at: likewise; None where nothing tells.
        wait: `Verb.wait`.
    """
    if not any(term.strip() for term in wanted["terms"]):
        raise Refusal("terms: give at least one word to look for")
    groups = [{"name": each["name"], "region": each["region"] or aws.region} for each in wanted["log_groups"]]
    turns = {each["region"]: Turns(FILTER_SECONDS) for each in groups}

    def look(group):
        found = None
        if until - since <= 60 * wanted["insights_above_minutes"]:
            found = few(aws, group, wanted["terms"], since, until, turns[group["region"]])
        return found or many(aws, group, wanted["terms"], since, until, deployed_at, wait)

    looks = [(group, lambda group=group: look(group)) for group in groups]
    looks += [
        (pod_logs.named(each), lambda each=each: pod_logs.search(each, wanted["terms"], since))
        for each in wanted["pods"]
    ]
    found = tried_together({number: look for number, (_group, look) in enumerate(looks)})
    return [(group, each) for (group, _look), each in zip(looks, found.values(), strict=True)]


def told(found, deployed_at, window):
    """Pure: what `search` has found as {patterns, searched, blind}; a group that could not be read is told in `blind`.

    Args:
        deployed_at, window: as for `log_patterns.grouped`.
    """
    read = [(group, each) for group, each in found if not isinstance(each, Exception)]
    return {
        "patterns": grouped(
            (event for _group, each in read for event in each.events),
            deployed_at,
            all(each.complete_before for _group, each in read),
            window,
        ),
        "searched": [dict(group, matched=each.total, read=len(each.events), by=each.by) for group, each in read],
        "blind": [
            f"the log {group['name']} in {group['region']}: {reason(each)}"
            for group, each in found
            if isinstance(each, Exception)
        ]
        + [line for _group, each in read for line in each.unread],
    }


def filter_pattern(terms):
    """Lines with any of the terms. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html"""
    return " ".join('?"' + term.replace("\\", "\\\\").replace('"', '\\"') + '"' for term in terms)


def insights_query(terms):
    """The same for Insights. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Filter.html"""
    either = "|".join(re.sub(r"([^\w\s])", r"\\\1", term) for term in terms)
    return f"fields @timestamp, @message, @logStream | filter @message like /{either}/ | sort @timestamp desc | limit {ROWS}"


def few(aws, group, terms, since, until, turns):
    """Found by FilterLogEvents, None where there are more pages than it is good for.

    Args:
        group: {name, region}.
        since, until: seconds of the epoch.
        turns: Turns of the region.

    Raises:
        Stop: there is no such log group.
    """
    events, all_read = pages(aws, group, filter_pattern(terms), since, until, turns)
    return Found(tuple(events), len(events), True, "FilterLogEvents") if all_read else None


def pages(aws, group, pattern, since, until, turns):
    """([Event], whether these are all) that FilterLogEvents finds by a pattern, as many pages as it is good for.

    Raises:
        Stop: there is no such log group.
    """
    events, more = [], {}
    for _page in range(FILTER_PAGES):
        turns.take()
        answer = _asked(
            aws,
            group,
            "filter_log_events",
            logGroupName=group["name"],
            startTime=int(since * 1000),
            endTime=int(until * 1000),
            filterPattern=pattern,
            **more,
        )
        events += [
            Event(each["timestamp"], group["name"], each["logStreamName"], each["message"]) for each in answer["events"]
        ]
        if not answer.get("nextToken"):
            return events, True
        more = {"nextToken": answer["nextToken"]}
    return events, False


def many(aws, group, terms, since, until, deployed_at, wait):
    """Found by Insights, asked apart for what came before a deployment and after: neither hides the other.

    Args:
        deployed_at: seconds of the epoch, None where nothing tells.
        wait: `Verb.wait`.

    Raises:
        Stop: there is no such log group, or the query failed.
    """
    split = deployed_at is not None and since < deployed_at < until
    # Both ends of a query count: a line of that very second is not to be in both.
    halves = {"before": (since, deployed_at), "after": (deployed_at + 1, until)} if split else {"all": (since, until)}
    answers = together(
        **{
            name: lambda begin=begin, end=end: _query(aws, group, insights_query(terms), begin, end, wait)
            for name, (begin, end) in halves.items()
        }
    )
    events = tuple(event for events, _total in answers.values() for event in events)
    before, total = answers.get("before") or answers["all"], sum(total for _events, total in answers.values())
    return Found(events, total, len(before[0]) >= before[1], "Logs Insights")


def _query(aws, group, query, since, until, wait):
    """(events, how many match) of one query."""
    started = _asked(
        aws,
        group,
        "start_query",
        logGroupName=group["name"],
        startTime=int(since),
        endTime=int(until),
        queryString=query,
    )
    answer = wait(
        lambda: aws.read("logs", "get_query_results", region=group["region"], queryId=started["queryId"]),
        lambda seen: _is_complete(seen, group),
        f"the query of {group['name']}",
        state=lambda seen: f"{seen['status'].lower()}, {seen.get('statistics', {}).get('recordsMatched', 0):.0f} lines",
        pace=POLL,
    )
    rows = [{field["field"]: field["value"] for field in row} for row in answer["results"]]
    events = [Event(_at(row["@timestamp"]), group["name"], row["@logStream"], row["@message"]) for row in rows]
    return events, int(answer.get("statistics", {}).get("recordsMatched", len(events)))


def _is_complete(seen, group):
    if seen["status"] in ENDED_BADLY:
        raise Stop(f"Logs Insights: the query of {group['name']} in {group['region']} ended as {seen['status']}")
    return seen["status"] == "Complete"


def _at(text):
    """Milliseconds of `2026-01-31 03:15:00.123`, which is UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def _asked(aws, group, operation, **request):
    try:
        return aws.read("logs", operation, region=group["region"], **request)
    except Exception as error:
        if code_of(error) == "ResourceNotFoundException":
            raise Stop(
                f"there is no log group {group['name']} in {group['region']}: check log_groups in the inventory"
            ) from error
        raise
