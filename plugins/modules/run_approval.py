#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_approval
version_added: 0.3.0
short_description: Propose a playbook to those who may approve it, and note what they decide
description:
  - Proposals and decisions are events in the records of runs, so they outlive whoever waits for them, and the post-mortem has them.
  - A playbook that only looks needs no approval. One of O(may_run) is approved by the inventory, but not twice within
    O(valid_minutes), since it did not help if it is proposed again so soon. Any other waits for a person.
  - The same playbook for the same environment is not proposed again while it waits.
  - A decision is refused where there is no such proposal, somebody has decided already, or it has waited too long to be right still.
  - With O(record_bucket) all of this holds for all controllers that share it, the first decision of all counts. Where the bucket cannot be had
    it holds for this controller, which is told.
  - Asks AWS for nothing and changes nothing but the record. In check mode not even that.
  - B(Risk:) none by itself; what is approved is run by whoever asked, such as the rulebook of this collection.
options:
  environment_name:
    description: The environment that the playbook is for.
    type: str
    required: true
  state:
    description: Whether a playbook is proposed, or a proposal is approved or denied.
    type: str
    choices: [proposed, approved, denied]
    default: proposed
  playbook:
    description: Name of the playbook, for O(state=proposed).
    type: str
  host:
    description: The host of the inventory that it is for, for O(state=proposed).
    type: str
  remediate:
    description: Whether the playbook gets C(remediate=true), without which some only look.
    type: bool
    default: false
  because:
    description: Why it is proposed.
    type: str
    default: ""
  may_run:
    description: Names of playbooks that the inventory approves.
    type: list
    elements: str
    default: []
  proposal:
    description: The RV(proposal) that is approved or denied.
    type: str
  by:
    description: Who decides; of the address of a mailbox only the name is kept.
    type: str
  valid_minutes:
    description: How long a proposal waits for a decision.
    type: float
    default: 60
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
- name: Propose to take the deployment back
  sre.runbooks.run_approval:
    environment_name: prod
    playbook: rollback_deployment
    host: api-prod
    because: regami-api:8 was deployed 4 min ago, error_percent is 12
  register: proposed

- name: Somebody approves it
  sre.runbooks.run_approval:
    environment_name: prod
    state: approved
    proposal: "{{ proposed.proposal.id }}"
    by: jane
"""

RETURN = r"""
proposal:
  description:
    - The proposal, with C(id), C(env), C(host), C(playbook), C(remediate), C(because), C(command) that a person would type, C(by) who decided,
      C(at) when it was proposed, and C(state).
    - The state is V(looks) where the playbook only looks and nobody has to approve it, V(waiting), V(approved) or V(denied).
  returned: unless refused
  type: dict
  sample:
    id: rollback_deployment-1f3870be
    env: prod
    host: api-prod
    playbook: rollback_deployment
    remediate: false
    because: regami-api:8 was deployed 4 min ago, error_percent is 12
    command: ansible-playbook playbooks/rollback_deployment.yml -e env=prod --limit api-prod
    state: waiting
    by: ""
    at: "2026-11-21T22:04:56.000Z"
entries:
  description: What the callback writes into the record of the run.
  returned: unless refused
  type: list
  elements: dict
  sample: [{event: approved, proposal: rollback_deployment-1f3870be, by: jane}]
before:
  description: Always empty.
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: unless refused
  type: dict
  sample: {}
steps:
  description: Always empty, since nothing is changed.
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
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import approvals, incidents, record, records
from ansible_collections.sre.runbooks.plugins.module_utils.masking import name_of
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    environment_name=dict(type="str", required=True),
    state=dict(type="str", choices=["proposed", "approved", "denied"], default="proposed"),
    playbook=dict(type="str"),
    host=dict(type="str"),
    remediate=dict(type="bool", default=False),
    because=dict(type="str", default=""),
    may_run=dict(type="list", elements="str", default=[]),
    proposal=dict(type="str"),
    by=dict(type="str"),
    valid_minutes=dict(type="float", default=60),
    **records.ARGUMENTS,
)


class RunApproval(Verb):
    """Read the records and note one thing more in this run's own."""

    def __init__(self, module):
        super().__init__(module)
        self.params["by"] = name_of(self.params["by"] or "")
        self.records = records.Records(self.params, self.connection(module))

    def observe(self):
        folder, now = self.records.required_folder(), time.time()
        self.records.mirror()
        decided, self.notes = self.records.decided()
        known = approvals.recent(folder, now, self.params["valid_minutes"], decided)
        incident = incidents.joined(record.events(self.records.own or "", ("joined",)))
        return {"known": known, "now": now, "incident": incident or "", "writes": not self.check_mode}

    @staticmethod
    def plan(observed, wanted):
        now, minutes, known = observed["now"], wanted["valid_minutes"], observed["known"]
        if wanted["state"] == "proposed":
            what = {key: wanted[key] for key in ("host", "playbook", "remediate", "because")}
            what["env"] = wanted["environment_name"]
            found, entries = approvals.propose(known, what, now, minutes, wanted["may_run"], observed["incident"])
        else:
            deny = wanted["state"] == "denied"
            found, entries = approvals.decide(
                known, wanted["proposal"], wanted["by"], deny, wanted["environment_name"], now, minutes
            )
        return Plan(returned={"proposal": found.returned(), "entries": entries if observed["writes"] else []})

    def note(self, plan):
        return self.records.noted(plan, lambda: self.plan(self.observe(), self.params))

    def view(self, observed):
        return {}


def main():
    decided = ["proposal", "by"]
    run(
        verb_module(
            ARGUMENTS,
            required_if=[
                ("state", "proposed", ["host", "playbook"]),
                ("state", "approved", decided),
                ("state", "denied", decided),
            ],
        ),
        RunApproval,
    )


if __name__ == "__main__":
    main()
