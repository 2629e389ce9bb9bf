# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alarms that tell topics of SNS when their state changes, as those of CloudWatch do; moto's tell nobody.

Nothing here looks at metrics: SetAlarmState is what makes an alarm ring.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

ACTIONS = {"ALARM": "alarm_actions", "OK": "ok_actions", "INSUFFICIENT_DATA": "insufficient_data_actions"}


def install(world: World) -> None:
    from moto.cloudwatch.models import Alarm

    update_state = Alarm.update_state

    def update_and_tell(alarm: Any, reason: str, reason_data: str, state_value: str) -> None:
        """Actions belong to changes: an alarm that rings already does not ring anew.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_SetAlarmState.html
        """
        before = alarm.state_value
        update_state(alarm, reason, reason_data, state_value)
        if state_value == before or not alarm.actions_enabled:
            return
        message = json.dumps(_message(alarm, before))
        for arn in getattr(alarm, ACTIONS[state_value]):
            if arn.split(":")[2] == "sns":
                subject = f'{state_value}: "{alarm.name}" in {alarm.region_name}'
                world.backend("sns", alarm.region_name).publish(message, arn=arn, subject=subject)

    Alarm.update_state = update_and_tell


def _message(alarm: Any, before: str) -> dict[str, Any]:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html"""
    return {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": alarm.alarm_arn.split(":")[4],
        "NewStateValue": alarm.state_value,
        "NewStateReason": alarm.state_reason,
        "StateChangeTime": alarm.state_updated_timestamp.strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
        "Region": alarm.region_name,
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": before,
        "OKActions": alarm.ok_actions,
        "AlarmActions": alarm.alarm_actions,
        "Trigger": {
            "MetricName": alarm.metric_name,
            "Namespace": alarm.namespace,
            "Statistic": (alarm.statistic or "").upper(),
            "Dimensions": [{"name": each.name, "value": each.value} for each in alarm.dimensions],
            "Period": alarm.period,
            "EvaluationPeriods": alarm.evaluation_periods,
            "ComparisonOperator": alarm.comparison_operator,
            "Threshold": alarm.threshold,
        },
    }
