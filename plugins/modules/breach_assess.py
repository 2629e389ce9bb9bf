#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: breach_assess
version_added: 0.3.0
short_description: Look for signs of somebody who should not be there
description:
  - Reads, side by side, which addresses were refused (401, 403, 404, failed sign-ins) in log groups and logs of pods, which callers
    in CloudTrail were denied, failed to sign in, made new ways in or turned logging off, and where flow logs saw data leave to.
  - All of it is summed up for each source. It judges nobody, and changes nothing.
  - What cannot be read is told in RV(blind) and fails nothing.
options:
  vpcs:
    description: VPCs, subnets or network interfaces whose flow logs are read.
    type: list
    elements: str
    default: []
  known_networks:
    description: Networks, as CIDRs, to which data may leave.
    type: list
    elements: str
    default: []
  within_minutes:
    description: How far to look back, in minutes.
    type: int
    default: 60
  burst:
    description: So many refused requests of one address in one minute are a burst.
    type: int
    default: 20
extends_documentation_fragment:
  - sre.runbooks.readings.log_groups
  - sre.runbooks.readings.pods
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - kubernetes (for O(pods))
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - CloudTrail is some minutes late. IAM and sign-in to the console write into the trail of us-east-1, which is read beside O(region).
seealso:
  - module: sre.runbooks.evidence_collect
"""

EXAMPLES = r"""
- name: Who was refused in the last half hour, and who made a new way in
  sre.runbooks.breach_assess:
    log_groups: [{name: /ecs/regami-api}]
    within_minutes: 30
    region: us-east-1
"""

RETURN = r"""
refused:
  description: Addresses whose requests were refused, the most first. C(first) and C(last) are seconds of the epoch.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - source: 203.0.113.9
      counts: {"401": 212, "404": 31}
      total: 243
      most_a_minute: 118
      burst: true
      first: 1763712120
      last: 1763712360
      sample: 'INFO "POST /v1/auth/login" 401 2.1 ms from 203.0.113.9'
callers:
  description: Callers in CloudTrail who were denied, made new ways in, or turned logging off; the worst first.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - who: assumed-role/regami-batch/6c1f8a7e
      addresses: [203.0.113.9]
      denied: 41
      failed_sign_ins: 0
      new_ways: ["2026-03-01T08:02:11Z iam:CreateUser backup"]
      blinding: []
egress:
  description: Accepted packets from private addresses to public ones, the most bytes first; at most 20.
  returned: unless refused
  type: list
  elements: dict
  sample: [{source: 10.0.1.20, destination: 203.0.113.9, port: 443, bytes: 734003200}]
blind:
  description: What could not be read, and why.
  returned: unless refused
  type: list
  elements: str
  sample: []
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
  description: The same in words, the first of each, and what could not be read.
  returned: unless refused
  type: list
  elements: str
  sample: ["203.0.113.9 was refused 243 times (212 x 401, 31 x 404), up to 118 a minute"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import flow_logs, indicators, log_search, trail
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("logs", "cloudtrail", "ec2")
ARGUMENTS = dict(
    log_groups=log_search.ARGUMENTS["log_groups"],
    pods=log_search.ARGUMENTS["pods"],
    vpcs=dict(type="list", elements="str", default=[]),
    known_networks=dict(type="list", elements="str", default=[]),
    within_minutes=dict(type="int", default=60),
    burst=dict(type="int", default=20),
)
# IAM and the console's sign-in are global, and write here.
GLOBAL = "us-east-1"
# So many of each are told in words, and so many ways out are returned.
SHOWN = 3
WAYS_OUT = 20


class BreachAssess(Verb):
    """Read, sum up, and say."""

    def observe(self):
        until = time.time()
        since = until - 60 * self.params["within_minutes"]
        looks = {
            f"CloudTrail in {region}": lambda region=region: self._trail(region, since, until)
            for region in sorted({self.aws.region, GLOBAL})
        }
        if self.params["log_groups"] or self.params["pods"]:
            wanted = dict(self.params, terms=list(indicators.TERMS), insights_above_minutes=180)
            looks["logs"] = lambda: log_search.search(self.aws, wanted, since, until, None, self.wait)
        if self.params["vpcs"]:
            looks["flow logs"] = lambda: self._egress(since, until)
        return tried_together(looks)

    def _trail(self, region, since, until):
        return trail.read(self.aws, since, until, region=region)

    def _egress(self, since, until):
        """(ways out, what could not be read)"""
        found = self.aws.read(
            "ec2", "describe_flow_logs", Filters=[{"Name": "resource-id", "Values": self.params["vpcs"]}]
        )["FlowLogs"]
        turns, out, unread = log_search.Turns(log_search.FILTER_SECONDS), [], []
        for each in found:
            if not each.get("LogGroupName") or each.get("TrafficType") == "REJECT":
                unread.append(f"the flow log {each['FlowLogId']} has no accepted packets in CloudWatch Logs")
                continue
            group = {"name": each["LogGroupName"], "region": self.aws.region}
            events, all_read = log_search.pages(self.aws, group, '"ACCEPT"', since, until, turns)
            form = each.get("LogFormat") or flow_logs.DEFAULT
            out += indicators.egress((event.message for event in events), form, self.params["known_networks"])
            unread += (
                [] if all_read else [f"the flow log {each['FlowLogId']} has more than was read: narrow within_minutes"]
            )
        return out, unread or ([] if found else [f"flow logs: there is none of {', '.join(self.params['vpcs'])}"])

    @staticmethod
    def plan(observed, wanted):
        blind = [f"{name}: {reason(each)}" for name, each in observed.items() if isinstance(each, Exception)]
        read = {name: each for name, each in observed.items() if not isinstance(each, Exception)}
        events = []
        for name, (found, all_read) in ((name, each) for name, each in read.items() if name.startswith("CloudTrail")):
            events += found
            blind += [] if all_read else [f"{name} has more than was read: narrow within_minutes"]
        lines = []
        for group, found in read.get("logs", []):
            if isinstance(found, Exception):
                blind.append(f"the log {group['name']} in {group['region']}: {reason(found)}")
            else:
                lines += found.events
                blind += found.unread
        out, unread = read.get("flow logs", ([], []))
        told = {
            "refused": indicators.refused(lines, wanted["burst"]),
            "callers": indicators.callers(events),
            "egress": sorted(out, key=lambda each: -each["bytes"])[:WAYS_OUT],
            "blind": sorted({*blind, *unread}),
        }
        return Plan(notes=(*_words(told), *(f"cannot see {line}" for line in told["blind"])), returned=told)

    def view(self, observed):
        return {}


def _words(told):
    for each in told["refused"][:SHOWN]:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in each["counts"].items())
        yield f"{each['source']} was refused {each['total']} times ({kinds}), up to {each['most_a_minute']} a minute"
    for each in told["callers"][:SHOWN]:
        parts = [*each["blinding"], *each["new_ways"]][:SHOWN]
        parts += [f"{each['denied']} calls denied"] if each["denied"] else []
        parts += [f"{each['failed_sign_ins']} sign-ins failed"] if each["failed_sign_ins"] else []
        yield f"{each['who']} from {', '.join(each['addresses']) or 'an unknown address'}: {'; '.join(parts)}"
    for each in told["egress"][:SHOWN]:
        yield f"{each['source']} sent {each['bytes']} bytes to {each['destination']} port {each['port']}"


def main():
    run(verb_module(ARGUMENTS), BreachAssess)


if __name__ == "__main__":
    main()
