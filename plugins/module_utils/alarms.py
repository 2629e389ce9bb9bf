# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The alarms of CloudWatch: which ring, and since when."""

from __future__ import annotations

from .metrics import clock

RINGING = "ALARM"
SHOWN = 5  # of which a person is told in words


def read(aws, prefixes, since):
    """[{name, region, state, since (epoch seconds), why}] of alarms in the region of `aws`, the earliest first.

    Args:
        prefixes: what their names begin with; without one all that ring, of whatever service.
        since: epoch seconds. Those that have changed their state after it are told too, though they ring no more.

    Raises:
        Unreachable, Throttled, botocore ClientError: as `Aws.read`.
    """
    found = {}
    for chosen in [{"AlarmNamePrefix": prefix} for prefix in prefixes] or [{"StateValue": RINGING}]:
        more = {}
        while more is not None:
            answer = aws.read("cloudwatch", "describe_alarms", **chosen, **more)
            each_kind = (answer.get(kind, []) for kind in ("MetricAlarms", "CompositeAlarms"))
            found.update({each["AlarmName"]: each for some in each_kind for each in some})
            more = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else None
    told = [_told(each, aws.region) for each in found.values()]
    return sorted(
        (each for each in told if each["state"] == RINGING or each["since"] >= since), key=lambda each: each["since"]
    )


def sentences(alarms):
    """A line for each of the newest that ring."""
    ringing = [each for each in alarms if each["state"] == RINGING]
    return [f"alarm {each['name']} is on since {clock(each['since'])} UTC" for each in ringing[: -SHOWN - 1 : -1]]


def _told(alarm, region):
    """StateUpdatedTimestamp moves with each evaluation of some alarms, StateTransitionedTimestamp only with the state.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html
    """
    at = alarm.get("StateTransitionedTimestamp") or alarm["StateUpdatedTimestamp"]
    return {
        "name": alarm["AlarmName"],
        "region": region,
        "state": alarm["StateValue"],
        "since": round(at.timestamp(), 3),
        "why": alarm.get("StateReason") or alarm.get("AlarmDescription") or "",
    }
