# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The alarms of CloudWatch: which ring, and since when."""

from __future__ import annotations

from .metrics import clock

RINGING = "ALARM"
TYPES = ("MetricAlarm", "CompositeAlarm")
SHOWN = 5  # of which a person is told in words


def read(aws, prefixes, after):
    """[{name, region, state, since (epoch seconds), why}] of alarms in the region of `aws`, the earliest first.

    Args:
        prefixes: what their names begin with; without one all that ring, of whatever service.
        after: epoch seconds. Those that have changed their state after it are told too, though they ring no more.

    Raises:
        Unreachable, Throttled, botocore ClientError: as `Aws.read`.
    """
    chosen = [{"AlarmNamePrefix": prefix} for prefix in prefixes] or [{"StateValue": RINGING}]
    told = [_told(each, aws.region) for each in found(aws, chosen)]
    return sorted(
        (each for each in told if each["state"] == RINGING or each["since"] >= after), key=lambda each: each["since"]
    )


def found(aws, choices):
    """The alarms of each choice, as CloudWatch describes them, each once; composite ones come only where they are asked for.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html

    Args:
        choices: arguments of DescribeAlarms.
    """
    known = {}
    for chosen in choices:
        more = {}
        while more is not None:
            answer = aws.read("cloudwatch", "describe_alarms", AlarmTypes=list(TYPES), **chosen, **more)
            each_kind = (answer.get(kind, []) for kind in ("MetricAlarms", "CompositeAlarms"))
            known.update({each["AlarmName"]: each for some in each_kind for each in some})
            more = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else None
    return list(known.values())


def since(alarm):
    """Second of the epoch of its last change of state.

    StateUpdatedTimestamp moves with each evaluation of some alarms, StateTransitionedTimestamp only with the state.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html
    """
    return round((alarm.get("StateTransitionedTimestamp") or alarm["StateUpdatedTimestamp"]).timestamp(), 3)


def sentences(alarms):
    """A line for each of the newest that ring."""
    ringing = [each for each in alarms if each["state"] == RINGING]
    return [f"alarm {each['name']} is on since {clock(each['since'])} UTC" for each in ringing[: -SHOWN - 1 : -1]]


def _told(alarm, region):
    return {
        "name": alarm["AlarmName"],
        "region": region,
        "state": alarm["StateValue"],
        "since": since(alarm),
        "why": alarm.get("StateReason") or alarm.get("AlarmDescription") or "",
    }
