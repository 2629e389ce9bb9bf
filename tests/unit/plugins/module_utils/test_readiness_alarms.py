# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the way from a metric to the rulebook may end, and what is no gap of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import readiness_alarms as subject

NOW = datetime(2026, 11, 22, 6, tzinfo=UTC)
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"
QUEUE = "arn:aws:sqs:us-west-2:123456789012:alarms"
WANTED = {"alarm_prefixes": ["regami-"], "alarms_queue_url": "https://sqs.us-west-2.amazonaws.com/123456789012/alarms"}


def alarm(**more):
    since = NOW - timedelta(days=3)
    usual = {"AlarmName": "regami-5xx", "ActionsEnabled": True, "AlarmActions": [TOPIC], "StateValue": "OK"}
    return usual | {"StateUpdatedTimestamp": since} | more


def sends(**condition):
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": QUEUE,
    }
    return statement | ({"Condition": condition} if condition else {})


def queue(*statements, **more):
    return {"QueueArn": QUEUE, "Policy": json.dumps({"Statement": statements or [sends()]}), **more}


def subscription(endpoint=QUEUE, arn=f"{TOPIC}:1"):
    return {"Endpoint": endpoint, "SubscriptionArn": arn}


MINE = (subscription(),)


def found(alarms=(), subscriptions=MINE, here=None):
    seen = {subject.ALARMS: {"alarms": list(alarms) or [alarm()], "topics": {TOPIC: subscriptions}}}
    told = subject.judge(seen | {subject.QUEUE: here or queue()}, WANTED, NOW.timestamp())
    return [(each.resource, each.because) for each in told]


def test_a_way_that_is_whole():
    assert found() == []
    assert found(here=queue(sends(ArnEquals={"aws:SourceArn": TOPIC}))) == []


@pytest.mark.parametrize(
    ("alarms", "because"),
    [
        pytest.param([alarm(ActionsEnabled=False)], "its actions are switched off", id="switched off"),
        pytest.param([alarm(AlarmActions=[])], "it has no action", id="mute"),
        pytest.param([alarm(StateValue="INSUFFICIENT_DATA")], "its metric has had no data for a day", id="blind"),
    ],
)
def test_an_alarm_that_nobody_hears(alarms, because):
    ((resource, told),) = found(alarms)
    assert resource == "regami-5xx" and told.startswith(because)


@pytest.mark.parametrize(
    "alarms",
    [
        pytest.param([alarm(AlarmActions=["arn:aws:autoscaling:us-east-1:1:scalingPolicy:x"])], id="it scales"),
        pytest.param(
            [alarm(AlarmActions=[]), alarm(AlarmName="regami", AlarmRule='ALARM("regami-5xx") OR ALARM(regami-cpu)')],
            id="it is a part of another",
        ),
        pytest.param(
            [alarm(StateValue="INSUFFICIENT_DATA", StateTransitionedTimestamp=NOW - timedelta(hours=2))], id="just made"
        ),
    ],
)
def test_what_is_no_gap(alarms):
    assert found(alarms) == []


@pytest.mark.parametrize(
    ("subscriptions", "because"),
    [
        pytest.param(None, "alarms tell a topic that is not there", id="no topic"),
        pytest.param([subscription("jane@example.com")], f"{QUEUE} is not subscribed to it", id="only a person"),
        pytest.param([subscription(arn="PendingConfirmation")], f"the subscription of {QUEUE} was not", id="pending"),
    ],
)
def test_a_topic_that_does_not_lead_to_the_queue(subscriptions, because):
    ((resource, told),) = found(subscriptions=subscriptions)
    assert resource == TOPIC and told.startswith(because)


@pytest.mark.parametrize(
    ("here", "because"),
    [
        pytest.param({"QueueArn": QUEUE}, "does not let", id="no policy"),
        pytest.param(queue(sends(ArnEquals={"aws:SourceArn": f"{TOPIC}-other"})), "does not let", id="another topic"),
        pytest.param(queue(sends(), sends() | {"Effect": "Deny"}), "does not let", id="denied"),
        pytest.param(queue(KmsMasterKeyId="alias/aws/sqs"), "SNS cannot encrypt", id="SQS's own key"),
    ],
)
def test_a_queue_that_sns_cannot_send_to(here, because):
    ((resource, told),) = found(here=here)
    assert resource == QUEUE and because in told


def test_neither_alarm_nor_queue():
    seen = {subject.ALARMS: {"alarms": [], "topics": {}}, subject.QUEUE: None}
    told = [each.because for each in subject.judge(seen, WANTED, NOW.timestamp())]
    assert told == ["there is no such queue", "there is no alarm of such a name"]


def test_without_a_queue_in_the_inventory_nothing_is_asked():
    assert subject.looks(None, WANTED | {"alarms_queue_url": None}, 0) == {}
