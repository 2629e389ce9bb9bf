# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An alarm of CloudWatch and its way to the queue that the rulebook reads."""

from __future__ import annotations

import json
from dataclasses import dataclass

from world import World

NAME = "regami-api-5xx"


@dataclass(frozen=True)
class Ringing:
    """An alarm that tells a topic, which tells a queue."""

    world: World
    queue: str  # URL
    topic: str  # ARN

    def set(self, state: str) -> None:
        self.world.aws("cloudwatch").set_alarm_state(
            AlarmName=NAME, StateValue=state, StateReason="as the metric has it"
        )

    def heard(self) -> bool:
        """Whether anything has come to the queue since the last look; the alarm rings meanwhile."""
        self.set("OK")
        self._messages()
        self.set("ALARM")
        return bool(self._messages())

    def _messages(self) -> list[dict]:
        sqs, found = self.world.aws("sqs"), []
        while some := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            found += some
            for each in some:
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=each["ReceiptHandle"])
        return found

    def silence(self) -> None:
        self.world.aws("cloudwatch").disable_alarm_actions(AlarmNames=[NAME])

    def unsubscribe(self) -> None:
        sns = self.world.aws("sns")
        for each in sns.list_subscriptions_by_topic(TopicArn=self.topic)["Subscriptions"]:
            sns.unsubscribe(SubscriptionArn=each["SubscriptionArn"])


def ringing(world: World) -> Ringing:
    topic = world.aws("sns").create_topic(Name="alarms")["TopicArn"]
    sqs = world.aws("sqs")
    queue = sqs.create_queue(QueueName="alarms")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    # https://docs.aws.amazon.com/sns/latest/dg/subscribe-sqs-queue-to-sns-topic.html
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    world.aws("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    world.aws("cloudwatch").put_metric_alarm(
        AlarmName=NAME,
        AlarmDescription="errors above 1 % runbook_host=api-sandbox",
        Namespace="AWS/ApplicationELB",
        MetricName="HTTPCode_Target_5XX_Count",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
        OKActions=[topic],
    )
    return Ringing(world, queue, topic)
