# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An alarm tells its topic when its state changes, and a queue hears of it as AWS documents."""

from __future__ import annotations

import json


def test_change_of_an_alarm_reaches_a_queue_once(sandbox):
    sns, sqs, cloudwatch = (sandbox.boto(service, "us-west-2") for service in ("sns", "sqs", "cloudwatch"))
    topic = sns.create_topic(Name="of-test-alarms")["TopicArn"]
    queue = sqs.create_queue(QueueName="of-test-alarms")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    alarm = {
        "AlarmName": "slow",
        "AlarmDescription": "answers take long",
        "Namespace": "AWS/ApplicationELB",
        "MetricName": "TargetResponseTime",
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 3.0,
        "ComparisonOperator": "GreaterThanThreshold",
    }
    cloudwatch.put_metric_alarm(
        **alarm, AlarmActions=[topic], Dimensions=[{"Name": "LoadBalancer", "Value": "app/a/b"}]
    )
    # Twice the same is no change, and nobody wants to hear that it is over.
    for state in ("ALARM", "ALARM", "OK"):
        cloudwatch.set_alarm_state(AlarmName="slow", StateValue=state, StateReason="as the metric has it")
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    (told,) = (json.loads(json.loads(message["Body"])["Message"]) for message in messages)
    assert (told["AlarmName"], told["NewStateValue"], told["OldStateValue"]) == ("slow", "ALARM", "OK")
    assert told["Trigger"]["MetricName"] == "TargetResponseTime"
    assert told["Trigger"]["Dimensions"] == [{"name": "LoadBalancer", "value": "app/a/b"}]
    cloudwatch.delete_alarms(AlarmNames=["slow"])
    sqs.delete_queue(QueueUrl=queue)
    sns.delete_topic(TopicArn=topic)
