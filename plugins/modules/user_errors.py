#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: user_errors
version_added: 0.1.0
short_description: Tell how long users saw errors
description:
  - Reads from CloudWatch what Application Load Balancers have answered minute by minute, and finds the last episode of errors,
    answers of 5xx of the targets and of the load balancer itself. It changes nothing.
  - The record of a run keeps it, so that the review of an incident need not look for it.
  - CloudWatch counts whole minutes and is a minute late, so the length is an upper bound.
  - What cannot be read is told in a note and fails nothing; a recovery does not turn red for the lack of a number.
options:
  load_balancer_arns:
    description: The load balancers that users reach, in any regions.
    type: list
    elements: str
    required: true
  within_minutes:
    description: How far to look back, in minutes.
    type: int
    default: 180
  error_percent:
    description: A minute in which more than so many of a hundred requests failed is one of errors.
    type: float
    default: 1
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.outage_assess
"""

EXAMPLES = r"""
- name: How long users saw errors
  sre.runbooks.user_errors:
    load_balancer_arns: ["{{ load_balancer_arn }}"]
    region: us-east-1
"""

RETURN = r"""
user_errors:
  description:
    - The last episode of errors, null where there was none. C(since) and C(until) are seconds of the epoch; C(requests) and
      C(errors) are what CloudWatch had counted of it.
  returned: unless refused
  type: dict
  sample: {since: 1763712120, until: 1763712360, seconds: 240, requests: 9130, errors: 412}
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
  description: The same in words, and what could not be read.
  returned: unless refused
  type: list
  elements: str
  sample: ["users saw errors for at most 4 min, 08:02 to 08:06 UTC: 412 of 9130 requests"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import elbv2, user_errors
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("cloudwatch",)
ARGUMENTS = dict(
    load_balancer_arns=dict(type="list", elements="str", required=True),
    within_minutes=dict(type="int", default=180),
    error_percent=dict(type="float", default=1),
)


class UserErrors(Verb):
    """Read, and say."""

    def observe(self):
        arns = dict.fromkeys(self.params["load_balancer_arns"])
        read = tried_together({arn: lambda arn=arn: self._minutes(arn) for arn in arns})
        return {"read": read, "now": time.time()}

    def _minutes(self, arn):
        return elbv2.by_minute(self.aws, arn, time.time() - 60 * self.params["within_minutes"])

    @staticmethod
    def plan(observed, wanted):
        known = [minutes for minutes in observed["read"].values() if isinstance(minutes, dict)]
        notes = [
            f"how long users of {elbv2.short(arn)} saw errors is not known: {reason(error)}"
            for arn, error in observed["read"].items()
            if not isinstance(error, dict)
        ]
        found = user_errors.episode(user_errors.merged(known), observed["now"], wanted["error_percent"])
        if found:
            notes.append(user_errors.told(found))
        return Plan(notes=tuple(notes), returned={"user_errors": found})

    def view(self, observed):
        return {}


def main():
    run(verb_module(ARGUMENTS), UserErrors)


if __name__ == "__main__":
    main()
