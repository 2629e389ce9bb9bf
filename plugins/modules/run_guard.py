#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_guard
version_added: 0.1.0
short_description: Stop a run that is about to act on the wrong target
description:
  - Compares the account of the present AWS credentials with the one that the inventory names, by the STS endpoint of
    O(region), and refuses inventory values that are still placeholders.
  - Finds the incident that the run belongs to, O(incident) or the open one of the environment. A record that cannot be read stops no run.
  - Refuses extra variables that the argument spec of the playbook does not have, or has with another type, where the callback
    P(sre.runbooks.incident#callback) is enabled, which knows them.
  - Changes nothing. It belongs before everything else in a playbook, with the region that survives the incident.
options:
  account_id:
    description: The account that the target is in, twelve digits.
    type: str
    required: true
  environment_name:
    description: Name of the environment, for the messages.
    type: str
    required: true
  incident:
    description: Name of the incident to join, as M(sre.runbooks.incident_log) opened it. Default is the newest open one of the environment.
    type: str
  settings:
    description: Inventory values by name. One that is empty or contains V(CHANGEME) stops the run.
    type: dict
    default: {}
extends_documentation_fragment:
  - sre.runbooks.records
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: Right account, and no placeholder left
  sre.runbooks.run_guard:
    account_id: "123456789012"
    environment_name: prod
    region: us-west-2
    settings:
      hosted_zone_id: Z1234567890ABC
      ecs_cluster: regami-cluster
"""

RETURN = r"""
caller:
  description: Who the credentials belong to.
  returned: success
  type: dict
  sample: {account: "123456789012", arn: "arn:aws:sts::123456789012:assumed-role/oncall/jane"}
incident:
  description: The incident that the run joined.
  returned: when there is one
  type: str
  sample: 2026-11-22-checkout-answers-503
incident_opened:
  description: What is known of that incident, C(title), C(severity) and C(detected), each empty where nobody said it.
  returned: when there is one
  type: dict
  sample: {title: Checkout answers 503, severity: P1, detected: "2026-11-22T02:58:00.000Z"}
entries:
  description: What the callback writes into the timeline of the run.
  returned: unless refused
  type: list
  elements: dict
  sample: [{event: joined, incident: 2026-11-22-checkout-answers-503}]
notes:
  description: Which incident was joined, where several are open.
  returned: unless refused
  type: list
  elements: str
  sample: []
ansible_stats:
  description: What the artifacts of a job in AWX have as C(sre_runbooks), the record of the run and its incident.
  returned: unless refused
  type: dict
  sample: {data: {sre_runbooks: {record: 2026-11-22T023053Z-db_failover-prod, incident: 2026-11-22-checkout}}, per_host: false, aggregate: true}
before:
  description: The account found.
  returned: unless refused
  type: dict
  sample: {account: "123456789012"}
after:
  description: The same, since nothing is changed.
  returned: success
  type: dict
  sample: {account: "123456789012"}
steps:
  description: Always empty.
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
waited_seconds:
  description: Always V(0.0).
  returned: unless refused
  type: float
  sample: 0.0
"""

import os

from ansible_collections.sre.runbooks.plugins.module_utils import incidents, records
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.extra_vars import artifacts
from ansible_collections.sre.runbooks.plugins.module_utils.guard import (
    plan,
    refuse_placeholders,
    refuse_strange_words,
)
from ansible_collections.sre.runbooks.plugins.module_utils.masking import HIDDEN, kept
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("sts",)
ARGUMENTS = dict(
    account_id=dict(type="str", required=True),
    environment_name=dict(type="str", required=True),
    incident=dict(type="str"),
    settings=dict(type="dict", default={}),
    **records.ARGUMENTS,
)


class RunGuard(Verb):
    """Right account, right region, no placeholder."""

    plan = staticmethod(plan)

    def __init__(self, module):
        super().__init__(module)
        self.incident = self.opened = None
        self.records = records.Records(module.params, self.connection(module))
        self.settings = module.params["settings"]
        # A result shows the parameters of its module (-vvv), and some of these settings are passwords.
        module.params["settings"] = dict.fromkeys(self.settings, HIDDEN)

    def observe(self):
        refuse_strange_words(os.environ)
        # Before the first call: with a placeholder for a region there is no endpoint to ask.
        refuse_placeholders(
            dict(self.settings, aws_account_id=self.params["account_id"], aws_region=self.aws.region),
            self.params["environment_name"],
        )
        self.records.mirror()
        seen = together(known=self.records.known, caller=lambda: self.aws.read("sts", "get_caller_identity"))
        (known, notes), caller = seen["known"], seen["caller"]
        self.incident, note = incidents.choose(known, self.params["environment_name"], self.params["incident"])
        self.opened = incidents.summary(known.get(self.incident))
        self.notes += [*notes, note] if note else notes
        return {"account": caller["Account"], "arn": kept(caller["Arn"]), "region": self.aws.region}

    def returned(self):
        told = artifacts(record=os.path.basename(self.records.own or ""), incident=self.incident or "")
        if self.incident is None:
            return {"entries": [], **told}
        entries = [{"event": "joined", "incident": self.incident}]
        return {"incident": self.incident, "incident_opened": self.opened, "entries": entries, **told}

    def view(self, observed):
        return observed


def main():
    run(verb_module(ARGUMENTS), RunGuard)


if __name__ == "__main__":
    main()
