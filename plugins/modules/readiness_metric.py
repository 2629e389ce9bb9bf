#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: readiness_metric
version_added: 0.8.0
short_description: Put how ready everything is into CloudWatch
description:
  - Puts the metric C(readiness) of each scenario of each service that M(sre.runbooks.readiness_report) of this run has judged, with the
    dimensions C(environment), C(host) and C(scenario). Its value is 0 for ready, 1 for ready with a risk, 2 for cannot tell and 3 for
    not ready, so that an alarm at 3 never rings for what only could not be seen.
  - Each service and scenario is one custom metric, which AWS charges for by the month in which it gets a value.
  - The role needs C(cloudwatch:PutMetricData), which the condition key C(cloudwatch:namespace) holds to O(metric_namespace).
options:
  environment_name:
    description: Value of the dimension C(environment).
    type: str
    required: true
  metric_namespace:
    description: Namespace of the metric. Those that begin with C(AWS/) are those of AWS.
    type: str
    required: true
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.readiness_report
  - name: PutMetricData
    description: What one call holds.
    link: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
"""

EXAMPLES = r"""
- name: Where alarms see it
  sre.runbooks.readiness_metric:
    environment_name: prod
    metric_namespace: sre.runbooks
    region: us-west-2
"""

RETURN = r"""
before:
  description: Always empty, as is RV(after).
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: What was put, or in check mode would be. It counts as no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: put
      what: put readiness of 6 scenarios into sre.runbooks of CloudWatch
      before: null
      after: null
undo:
  description: Always empty; a value of a metric cannot be taken back.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: Always empty.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import readiness
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("cloudwatch",)
ARGUMENTS = dict(
    environment_name=dict(type="str", required=True),
    metric_namespace=dict(type="str", required=True),
)
METRIC = "readiness"
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
MOST_AT_ONCE = 1000


class ReadinessMetric(Verb):
    """One value for each scenario of each service."""

    def observe(self):
        return {"said": readiness.of_this_run(), "at": time.time()}

    @staticmethod
    def plan(observed, wanted):
        data = [
            {
                "MetricName": METRIC,
                "Dimensions": [
                    {"Name": "environment", "Value": wanted["environment_name"]},
                    {"Name": "host", "Value": each.host},
                    {"Name": "scenario", "Value": each.scenario or "all"},
                ],
                "Timestamp": observed["at"],
                "Value": readiness.LEVELS.index(each.level),
            }
            for each in observed["said"]
        ]
        what = f"put readiness of {len(data)} scenarios into {wanted['metric_namespace']} of CloudWatch"
        return Plan((Step("put", what, arguments={"data": data}),))

    def put(self, data):
        for first in range(0, len(data), MOST_AT_ONCE):
            self.aws.change(
                "cloudwatch",
                "put_metric_data",
                Namespace=self.params["metric_namespace"],
                MetricData=data[first : first + MOST_AT_ONCE],
            )

    def observe_end(self):
        return {}

    def view(self, observed):
        return {}

    def is_change(self, steps):
        return False


def main():
    run(verb_module(ARGUMENTS), ReadinessMetric)


if __name__ == "__main__":
    main()
