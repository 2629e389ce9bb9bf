# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What CloudWatch gets of a look at all gates."""

from __future__ import annotations

from types import SimpleNamespace

from ansible_collections.sre.runbooks.plugins.modules.readiness_metric import ReadinessMetric
from ansible_collections.sre.runbooks.tests.unit.a_look import NOW, SAID

WANTED = {"environment_name": "prod", "metric_namespace": "sre.runbooks"}


def data(said):
    (step,) = ReadinessMetric.plan({"said": said, "at": NOW}, WANTED).steps
    return step.arguments["data"]


def test_the_plan_has_one_value_for_each_scenario_of_each_service():
    seen = [({each["Name"]: each["Value"] for each in point["Dimensions"]}, point["Value"]) for point in data(SAID)]
    assert seen[1] == ({"environment": "prod", "host": "api-prod", "scenario": "db_failover"}, 3)
    assert [value for _dimensions, value in seen] == [2, 3, 3, 0, 1, 0]


def test_no_call_has_more_values_than_aws_takes():
    calls = []
    verb = SimpleNamespace(
        params=WANTED, aws=SimpleNamespace(change=lambda *names, **arguments: calls.append(arguments))
    )
    ReadinessMetric.put(verb, data(SAID * 400))
    assert [len(call["MetricData"]) for call in calls] == [1000, 1000, 400]
    assert {call["Namespace"] for call in calls} == {"sre.runbooks"}
