#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: route53_traffic
version_added: 0.1.0
short_description: Lead a public name to a maintenance page, and back to where it led
description:
  - Puts one plain record in the place of all sets of a name (failover, weighted and the like), in one change batch, and waits until
    all name servers have it.
  - What the name had is kept beside it, in the TXT record C(_sre-runbooks-traffic) of that name, which is written and removed in
    the same batch. So any controller leads it back.
  - A name that somebody else has changed meanwhile is left as it is, and what it had before is told. A name of external-dns is
    refused.
  - "B(Risk:) users are cut off from the service. Resolvers keep answers for their TTL, clients at times for longer, so this is slower
    than to close a load balancer, both ways."
options:
  hosted_zone_id:
    description: The zone of the name.
    type: str
    required: true
  record:
    description: The name.
    type: str
    required: true
  type:
    description: Type of its records.
    type: str
    choices: [A, AAAA, CNAME]
    default: A
  state:
    description: V(maintenance) leads it to the page, V(open) back.
    type: str
    choices: [open, maintenance]
    required: true
  alias_target:
    description: The load balancer or distribution with the page.
    type: dict
    suboptions:
      dns_name:
        description: Its DNS name.
        type: str
        required: true
      hosted_zone_id:
        description: The hosted zone of that name, as AWS documents it for the service and region.
        type: str
        required: true
  values:
    description: Addresses with the page, or its name for a CNAME, in place of O(alias_target).
    type: list
    elements: str
    default: []
  when_managed:
    description: What to do where external-dns says that it owns the name.
    type: str
    choices: [refuse, note]
    default: refuse
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(route53:ListResourceRecordSets), C(route53:ChangeResourceRecordSets) and C(route53:GetChange). Their control plane is in
    us-east-1.
seealso:
  - module: sre.runbooks.alb_traffic
  - module: sre.runbooks.route53_failover
"""

EXAMPLES = r"""
- name: A page at an address of its own
  sre.runbooks.route53_traffic:
    hosted_zone_id: Z1234567890ABC
    record: api.regami.test
    state: maintenance
    values: [192.0.2.10]
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Back to where the name led
  sre.runbooks.route53_traffic:
    hosted_zone_id: Z1234567890ABC
    record: api.regami.test
    state: open
    region: us-east-1
"""

RETURN = r"""
before:
  description: Where the name leads, as found.
  returned: unless refused
  type: dict
  sample: {state: open, since: null, leads_to: [regami-alb-1.us-east-1.elb.amazonaws.com]}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {state: maintenance, since: "2026-01-01T12:00:00Z", leads_to: [192.0.2.10]}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: change
      what: lead api.regami.test A from regami-alb-1.us-east-1.elb.amazonaws.com to 192.0.2.10 in one change batch
      before: [regami-alb-1.us-east-1.elb.amazonaws.com]
      after: [192.0.2.10]
undo:
  description: The same verb with the state that was found. Empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.route53_traffic
      arguments: {hosted_zone_id: Z1234567890ABC, record: api.regami.test, type: A, region: us-east-1, state: open}
status_code:
  description: Always null; what users are answered is the affair of the page.
  returned: unless refused
  type: int
  sample: null
notes:
  description: What a person should know, for example how long resolvers keep the old answer.
  returned: success
  type: list
  elements: str
  sample: ["resolvers may go on giving the old answer for 60 s, and some clients for longer"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 31.2
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import replaced_record, route53
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("route53",)
ARGUMENTS = dict(
    hosted_zone_id=dict(type="str", required=True),
    record=dict(type="str", required=True),
    type=dict(type="str", choices=["A", "AAAA", "CNAME"], default="A"),
    state=dict(type="str", choices=["open", "maintenance"], required=True),
    alias_target=dict(
        type="dict",
        options=dict(dns_name=dict(type="str", required=True), hosted_zone_id=dict(type="str", required=True)),
    ),
    values=dict(type="list", elements="str", default=[]),
    when_managed=dict(type="str", choices=["refuse", "note"], default="refuse"),
)


class Route53Traffic(Verb):
    """A name that leads to a page for a while."""

    plan = staticmethod(replaced_record.plan)

    def __init__(self, module):
        super().__init__(module)
        self.record = self.params["record"]
        self.zone = route53.Zone(self.aws, self.params["hosted_zone_id"])
        self.planned_on = None
        self.stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def observe(self):
        kind = self.params["type"]
        # Where external-dns writes whose a name is: at the name itself, and at one with the type in front.
        owners = [self.record, f"{kind.lower()}-{self.record}"]
        seen = together(
            sets=lambda: self.zone.record_sets(self.record, kind),
            kept=lambda: self.zone.record_sets(replaced_record.beside(self.record), "TXT"),
            **{name: lambda name=name: self.zone.record_sets(name, "TXT") for name in owners},
        )
        texts = [value["Value"] for name in owners for each in seen[name] for value in each.get("ResourceRecords", [])]
        self.planned_on = seen["sets"]
        return {
            "sets": seen["sets"],
            "kept": seen["kept"][0] if seen["kept"] else None,
            "owners": texts,
            "stamp": self.stamp,
        }

    def change(self, changes):
        planned_on = self.planned_on
        batch = {"Comment": "sre.runbooks.route53_traffic", "Changes": changes}
        try:
            answer = self.aws.change(
                "route53", "change_resource_record_sets", HostedZoneId=self.zone.id, ChangeBatch=batch
            )
        except Exception as error:
            if code_of(error) == "InvalidChangeBatch" and self.observe()["sets"] != planned_on:
                raise Overtaken(f"{self.record} was changed by somebody else since it was looked at") from error
            raise
        sent = answer["ChangeInfo"]["Id"].rpartition("/")[2]
        self.wait(
            lambda: self.zone.status(sent),
            lambda status: status == "INSYNC",
            f"all name servers have {self.record}",
            route53.USUAL_SYNC,
        )

    def undo(self, before, done):
        names = ("hosted_zone_id", "record", "type", "alias_target", "values")
        where = {name: self.params[name] for name in names if self.params[name]}
        arguments = dict(where, region=self.aws.region, state=before["state"])
        return [{"verb": "sre.runbooks.route53_traffic", "arguments": arguments}]

    def view(self, observed):
        return replaced_record.view(observed)

    def returned(self):
        return {"status_code": None}


def main():
    run(verb_module(ARGUMENTS, mutually_exclusive=[("alias_target", "values")]), Route53Traffic)


if __name__ == "__main__":
    main()
