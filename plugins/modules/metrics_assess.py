#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: metrics_assess
version_added: 0.2.0
short_description: Say which metrics of a service are abnormal, and since when
description:
  - Reads from CloudWatch, minute by minute, what the runbooks look at, and compares the last O(within_minutes) minutes with as
    many before them and with the same time a week ago. It changes nothing.
  - Of a load balancer C(requests), C(error_percent) (answers of 5xx, of targets and of the balancer), C(p50), C(p95) and C(p99)
    of the response time; of an ECS service C(service_cpu) and C(service_memory); of a database C(db_connections), C(db_lag)
    and C(db_cpu); of instances C(instance_cpu).
  - A value is abnormal above its limit in O(limits), or half as high again as 19 of 20 minutes of the two earlier windows were.
    Requests are abnormal when they are less than half of what is usual, too.
  - Two calls for each region answer for up to 500 metrics, and one more each of O(alarm_prefixes) for the alarms.
  - A region that cannot be read is told in RV(blind) and fails nothing.
  - B(Risk:) none. CloudWatch is a minute or two late, so an incident that began just now may not be seen.
options:
  within_minutes:
    description: Length of each of the three windows, in minutes. CloudWatch keeps minutes for 15 days.
    type: int
    default: 30
extends_documentation_fragment:
  - sre.runbooks.readings
  - sre.runbooks.readings.metrics
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.outage_assess
  - module: sre.runbooks.user_errors
"""

EXAMPLES = r"""
- name: What is abnormal of the service, and since when
  sre.runbooks.metrics_assess:
    load_balancer_arns: ["{{ load_balancer_arn }}"]
    cluster: regami-cluster
    service: regami-service
    db_instances: [regami-db-primary]
    alarm_prefixes: [regami-]
    region: us-east-1
    limits:
      error_percent: 1
      p99: 3
      service_memory: 85

- name: The processors of a fleet in the last hour
  sre.runbooks.metrics_assess:
    auto_scaling_groups: [prod-asg]
    region: us-east-1
    within_minutes: 60
"""

RETURN = r"""
metrics:
  description:
    - Each metric, what is abnormal first. C(now) is its newest value, C(before) and C(week_ago) are the medians of the earlier
      windows, all null where nothing is known. C(usual) is between what its values usually are, C(since) the second of the
      epoch since which it is abnormal, C(series) the minutes of the last window with their values, C(every) the seconds from one to the next.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - name: p99
      of: regami-alb
      region: us-east-1
      unit: s
      every: 60
      now: 4.1
      before: 0.21
      week_ago: 0.19
      usual: [null, 0.42]
      abnormal: true
      since: 1763712120
      why: "p99 of regami-alb is 4.1 s, above 3 s since 08:02 UTC"
      series: [[1763712060, 0.2], [1763712120, 4.1]]
alarms:
  description: Alarms that ring or that have changed their state within the last two windows, the earliest first; C(since) in seconds of the epoch.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - name: regami-5xx
      region: us-east-1
      state: ALARM
      since: 1763712241.3
      why: "Threshold Crossed: 1 datapoint [12.0] was greater than the threshold (1.0)."
abnormal:
  description: What is abnormal, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["p99 of regami-alb is 4.1 s, above 3 s since 08:02 UTC"]
blind:
  description: What could not be read, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["metrics in us-west-2: cloudwatch:GetMetricData in us-west-2 got no answer (ReadTimeoutError)"]
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
  description: Always empty; nothing is changed.
  returned: unless refused
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: RV(abnormal), the alarms that ring, and RV(blind).
  returned: unless refused
  type: list
  elements: str
  sample: ["p99 of regami-alb is 4.1 s, above 3 s since 08:02 UTC"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import alarms, metrics
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("cloudwatch",)


class MetricsAssess(Verb):
    """Read, compare, and say."""

    def observe(self):
        now, minutes = time.time(), self.params["within_minutes"]
        signals = metrics.of_all(self.params, self.aws.region)
        found = tried_together(
            {
                "metrics": lambda: metrics.read(self.aws, signals, now, minutes),
                "alarms": lambda: alarms.read(self.aws, self.params["alarm_prefixes"], now - 2 * 60 * minutes),
            }
        )
        seen, blind = found["metrics"]
        return {"seen": seen, "blind": blind, "alarms": found["alarms"], "now": now}

    @staticmethod
    def plan(observed, wanted):
        judged = metrics.judged(observed["seen"], wanted["limits"], observed["now"])
        abnormal = [each["why"] for each in judged if each["abnormal"]]
        blind = [f"metrics in {region}: {why}" for region, why in observed["blind"].items()]
        ringing = observed["alarms"]
        if isinstance(ringing, Exception):
            blind.append(f"alarms: {reason(ringing)}")
            ringing = []
        return Plan(
            notes=(*abnormal, *alarms.sentences(ringing), *blind),
            returned={"metrics": judged, "alarms": ringing, "abnormal": abnormal, "blind": blind},
        )

    def view(self, observed):
        return {}


def main():
    run(verb_module(metrics.ARGUMENTS, required_together=[("cluster", "service")]), MetricsAssess)


if __name__ == "__main__":
    main()
