# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an alarm that rings tonight reaches the queue that the rulebook reads (extensions/eda), and whether it can ring at all.

Looked at only where the inventory names that queue. Playbooks run without it, started by people, so all of it is a risk.
"""

from __future__ import annotations

import json
import re

from . import alarms
from .aws import code_of, together
from .policy import Policy, Request
from .policy import judge as weighed
from .readiness import RISK, Found

CHECK, SCENARIOS = "alarms", None
ALARMS, QUEUE = "alarms", "queue"
PENDING = "PendingConfirmation"
# So long a metric may have nothing to say.
QUIET_SECONDS = 24 * 3600
SHOWN = 5
DELIVERS = "sns.amazonaws.com"
# Its policy cannot be changed, and does not let SNS encrypt.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html#compatibility-with-aws-services
OWN_KEY = "alias/aws/sqs"


def looks(aws, wanted, now):
    """{what: call}"""
    if not wanted["alarms_queue_url"]:
        return {}
    region = wanted["alarms_queue_region"] or aws.region
    return {
        ALARMS: lambda: _alarms(aws, wanted["alarm_prefixes"]),
        QUEUE: lambda: _queue(aws, region, wanted["alarms_queue_url"]),
    }


def _alarms(aws, prefixes):
    """{alarms: as CloudWatch has them, topics: {ARN: its subscriptions, None where it is not there}}"""
    found = alarms.found(aws, [{"AlarmNamePrefix": prefix} for prefix in prefixes])
    topics = dict.fromkeys(topic for each in found for topic in _topics(each) if each["ActionsEnabled"])
    return {
        "alarms": found,
        "topics": together(**{topic: lambda topic=topic: _subscriptions(aws, topic) for topic in topics}),
    }


def _topics(alarm):
    return [arn for arn in alarm.get("AlarmActions", ()) if arn.split(":")[2] == "sns"]


def _subscriptions(aws, topic):
    found, more = [], {}
    while more is not None:
        try:
            answer = aws.read("sns", "list_subscriptions_by_topic", region=topic.split(":")[3], TopicArn=topic, **more)
        except Exception as error:
            if code_of(error) in ("NotFound", "NotFoundException"):
                return None
            raise
        found += answer["Subscriptions"]
        more = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else None
    return found


def _queue(aws, region, url):
    """Its attributes; None where there is no such queue."""
    try:
        return aws.read("sqs", "get_queue_attributes", region=region, QueueUrl=url, AttributeNames=["All"])[
            "Attributes"
        ]
    except Exception as error:
        # By its two protocols. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
        if code_of(error).rpartition(".")[2] in ("NonExistentQueue", "QueueDoesNotExist"):
            return None
        raise


def judge(seen, wanted, now):
    """Pure: where the way from a metric to the rulebook ends."""
    queue = seen.get(QUEUE, {})
    if queue is None:
        yield Found(
            RISK, wanted["alarms_queue_url"], "there is no such queue", "check alarms_queue_url in the inventory"
        )
    if ALARMS in seen:
        yield from _judged(seen[ALARMS]["alarms"], ", ".join(f"{each}*" for each in wanted["alarm_prefixes"]), now)
        if queue:
            yield from _way(seen[ALARMS], queue)


def _judged(found, names, now):
    if not found:
        yield Found(
            RISK, names, "there is no alarm of such a name", "make them, or mend alarm_prefixes in the inventory"
        )
    rules = "".join(each.get("AlarmRule", "") for each in found)
    # One that is a part of another leaves it to that one to tell, and one that scales has another purpose.
    mute = [each for each in found if not each.get("AlarmActions") and not _is_named(each["AlarmName"], rules)]
    off = [each for each in found if not each["ActionsEnabled"] and not _is_named(each["AlarmName"], rules)]
    blind = [each for each in found if _is_blind(each, now)]
    for some, because, fix in (
        (off, "its actions are switched off, so it tells nobody when it rings", "aws cloudwatch enable-alarm-actions"),
        (
            mute,
            "it has no action, so it tells nobody when it rings",
            "give it the topic that the queue is subscribed to",
        ),
        (
            blind,
            "its metric has had no data for a day",
            "check the metric's name and dimensions, or say how missing data are treated",
        ),
    ):
        if some:
            yield Found(RISK, _names(some), because, fix)


def _is_named(name, rules):
    """Whether a rule of a composite alarm asks for it, with or without quotes.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html
    """
    return re.search(rf"""\(\s*["']?{re.escape(name)}["']?\s*\)""", rules) is not None


def _is_blind(alarm, now):
    return alarm["StateValue"] == "INSUFFICIENT_DATA" and now - alarms.since(alarm) > QUIET_SECONDS


def _names(some):
    names = [each["AlarmName"] for each in some]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _way(seen, queue):
    """From the topics to the queue."""
    arn = queue["QueueArn"]
    for topic, subscriptions in seen["topics"].items():
        if subscriptions is None:
            yield Found(RISK, topic, "alarms tell a topic that is not there", "make it, or give the alarms another")
            continue
        mine = [each["SubscriptionArn"] for each in subscriptions if each["Endpoint"] == arn]
        if not mine:
            yield Found(
                RISK,
                topic,
                f"{arn} is not subscribed to it, so that no alarm comes to the rulebook",
                "aws sns subscribe",
            )
        elif all(each == PENDING for each in mine):
            yield Found(RISK, topic, f"the subscription of {arn} was not confirmed", "confirm it")
        elif not _may_send(queue, topic):
            because = f"the policy of the queue does not let {topic} send to it"
            yield Found(RISK, arn, because, f"allow {DELIVERS} sqs:SendMessage where aws:SourceArn is the topic")
    if queue.get("KmsMasterKeyId") == OWN_KEY:
        yield Found(
            RISK, arn, f"SNS cannot encrypt with {OWN_KEY}", "use SSE-SQS, or a key whose policy lets SNS use it"
        )


def _may_send(queue, topic):
    """https://docs.aws.amazon.com/sns/latest/dg/subscribe-sqs-queue-to-sns-topic.html"""
    policy = Policy.of("resource", "of the queue", json.loads(queue.get("Policy") or "{}"))
    context = {"aws:sourcearn": topic, "aws:sourceaccount": topic.split(":")[4]}
    return weighed(Request("sqs:SendMessage", queue["QueueArn"], DELIVERS, context), [policy]).allowed
