#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: log_errors
version_added: 0.2.0
short_description: Find the errors in log groups and in logs of pods, as patterns with counts
description:
  - Searches log groups, and logs of pods, side by side and groups like messages into patterns, each with its count, when it was first and last
    seen, and one example whose secrets are masked. What came only after the last deployment is marked. It changes nothing.
  - A window of up to O(insights_above_minutes) is read by C(FilterLogEvents), within its quota of five calls a second; a larger
    one, or one that turns out to be large, by Logs Insights, which AWS charges for by what it scans.
  - A log group or a container that cannot be read is told in RV(blind) and fails nothing.
  - B(Risk:) none for the service. Logs Insights gives the newest 10,000 lines; beyond them counts are of those lines, as
    RV(searched) says.
options:
  within_minutes:
    description: How far to look back, in minutes.
    type: int
    default: 30
  deployed_at:
    description: When the last deployment began, in seconds of the epoch or as ISO 8601. What came only after it is new.
    type: str
extends_documentation_fragment:
  - sre.runbooks.readings.log_groups
  - sre.runbooks.readings.pods
  - sre.runbooks.readings.logs
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.metrics_assess
  - module: sre.runbooks.smoke_test
"""

EXAMPLES = r"""
- name: What went wrong in the last half hour
  sre.runbooks.log_errors:
    log_groups:
      - name: /ecs/regami-api
    region: us-east-1

- name: What is new since the deployment of this morning
  sre.runbooks.log_errors:
    log_groups:
      - name: /ecs/regami-api
      - name: /ecs/regami-api
        region: us-west-2
    region: us-east-1
    within_minutes: 720
    deployed_at: "2026-01-31T03:15:00Z"

- name: What pods and their ingress controller complain of
  sre.runbooks.log_errors:
    pods:
      - namespace: alchemorsel
        selector: app=alchemorsel-api
      - namespace: ingress-nginx
        selector: app.kubernetes.io/name=ingress-nginx
        terms: [" 502 ", " 503 ", " 504 "]
    region: us-east-1
"""

RETURN = r"""
patterns:
  description:
    - The kinds of errors, new ones first, then by count. C(first) and C(last) are seconds of the epoch. C(new) is null where it
      is not known whether a pattern was there before the deployment. C(surge) is the second since which it comes much more often
      than before, null where it does not; C(streams) are those since then, and C(busiest) the one that has most of them.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - pattern: "ERROR POST /v<n>/rows KeyError: 'tenant'"
      count: 412
      first: 1763712122.4
      last: 1763712360.1
      example: "ERROR POST /v1/rows KeyError: 'tenant'"
      log_groups: [/ecs/regami-api]
      streams: 2
      new: true
      surge: 1763712122.4
      busiest: {stream: app/app/3f1c, count: 240}
searched:
  description: For each log group how many lines matched, how many of them were read, and by which API.
  returned: unless refused
  type: list
  elements: dict
  sample: [{name: /ecs/regami-api, region: us-east-1, matched: 412, read: 412, by: FilterLogEvents}]
blind:
  description: What could not be read, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["there is no log group /ecs/regami-web in us-east-1: check log_groups in the inventory"]
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
  description: The first patterns, and what could not be read.
  returned: unless refused
  type: list
  elements: str
  sample: ["412 x NEW since the deployment, 08:02 to 08:06 UTC: ERROR POST /v<n>/rows KeyError: 'tenant'"]
waited_seconds:
  description: How long the queries of Logs Insights took, in seconds.
  returned: unless refused
  type: float
  sample: 2.4
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import log_search, smoke
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.metrics import clock
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# So many patterns are told in words; the result has them all.
SHOWN = 5

SERVICES = ("logs",)


class LogErrors(Verb):
    """Search, group, and say."""

    def observe(self):
        wanted, until = self.params, time.time()
        if not wanted["log_groups"] and not wanted["pods"]:
            raise Refusal("there is nothing to search: give log_groups or pods")
        deployed_at = smoke.parse_time(wanted["deployed_at"]) if wanted["deployed_at"] else None
        since = until - 60 * wanted["within_minutes"]
        found = log_search.search(self.aws, wanted, since, until, deployed_at, self.wait)
        # A deployment before the window leaves nothing to compare with.
        compared = deployed_at if deployed_at is not None and deployed_at > since else None
        return {"found": found, "deployed_at": compared, "window": (since, until)}

    @staticmethod
    def plan(observed, wanted):
        told = log_search.told(observed["found"], observed["deployed_at"], observed["window"])
        notes = [*_told(told["patterns"]), *_shortened(told["searched"])]
        return Plan(notes=(*notes, *(f"cannot see {line}" for line in told["blind"])), returned=told)

    def view(self, observed):
        return {}


def _told(patterns):
    for each in patterns[:SHOWN]:
        new = "NEW since the deployment, " if each["new"] else ""
        yield f"{each['count']} x {new}{clock(each['first'])} to {clock(each['last'])} UTC: {each['pattern']}"
    if len(patterns) > SHOWN:
        yield f"and {len(patterns) - SHOWN} more kinds of errors"


def _shortened(searched):
    for each in searched:
        if each["read"] < each["matched"]:
            yield f"{each['matched']} lines of {each['name']} match; counts are of the {each['read']} that were read"


def main():
    module = verb_module(dict(log_search.ARGUMENTS, deployed_at=dict(type="str")))
    run(module, LogErrors)


if __name__ == "__main__":
    main()
