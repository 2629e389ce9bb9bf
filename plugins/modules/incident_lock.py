#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident_lock
version_added: 0.1.0
short_description: One run at a time for each target
description:
  - Takes, keeps or gives back a lease on a target, held as an item of a DynamoDB table.
  - The table belongs in the region that survives the incident, or the lock is lost with what it protects.
  - Taking it is one conditional write, so that two responders cannot both win. Each holder gets a higher fencing token;
    verbs that are given the lease renew it and stop when it is no longer theirs.
  - A lease whose run died on this same machine is taken over at once, any other one when it has expired.
options:
  name:
    description: What is locked, for example V(regami-api).
    type: str
    required: true
  table:
    description: DynamoDB table with the hash key C(name) of type S.
    type: str
    default: sre-incident-locks
  state:
    description: Whether to hold the lease or to give it back.
    type: str
    choices: [held, released]
    default: held
  ttl:
    description: Seconds that the lease lasts without renewal. Verbs renew it after a third of that time.
    type: int
    default: 60
  force:
    description:
      - Take the lease from its present holder. B(Risk:) two runs may then change the same target; the other one stops at
        its next step, not at once.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: One failover of this service at a time
  sre.runbooks.incident_lock:
    name: regami-api
    table: sre-incident-locks
    region: us-west-2
  register: lock

- name: Give the lease back
  sre.runbooks.incident_lock:
    name: regami-api
    region: us-west-2
    state: released
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
lease:
  description: The lease in the form that the O(lease) option of every verb takes.
  returned: when O(state=held)
  type: dict
  sample: {name: regami-api, table: sre-incident-locks, region: us-west-2, ttl: 60, token: 7}
before:
  description: The holder found, empty where there was none.
  returned: unless refused
  type: dict
  sample: {}
after:
  description: The holder now.
  returned: success
  type: dict
  sample: {holder: oncall@bastion, token: 7}
steps:
  description: What was done, or would be done in check mode.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: take, what: take the lease regami-api, before: free, after: oncall@bastion}]
undo:
  description: Always empty; a lease is given back, not undone.
  returned: unless refused
  type: list
  elements: dict
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils.errors import LeaseLost, Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.lease import Lease, identity, may_take
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("dynamodb",)
ARGUMENTS = dict(
    name=dict(type="str", required=True),
    table=dict(type="str", default="sre-incident-locks"),
    state=dict(type="str", choices=["held", "released"], default="held"),
    ttl=dict(type="int", default=60),
    force=dict(type="bool", default=False),
)


class IncidentLock(Verb):
    """Hold or release the lease of a target."""

    def __init__(self, module):
        super().__init__(module)
        given = self.params["lease"] or {}
        self.target = Lease(
            self.aws,
            self.params["table"],
            self.params["name"],
            self.params["region"],
            self.params["ttl"],
            token=given.get("token"),
        )
        self._lease = None  # the lease is the target here, not a condition

    def observe(self):
        return {
            "item": self.target.observe(),
            "me": identity(),
            "now": time.time(),
            "token": self.target.token,
            "describe": self.target.lost_message,
        }

    @staticmethod
    def plan(observed, wanted):
        item, me = observed["item"], observed["me"]
        held = item is not None and item["run"] != "released"
        if wanted["state"] == "released":
            if not held or item["token"] != observed["token"]:
                return Plan()
            return Plan(
                (Step("release", f"give the lease {wanted['name']} back", item["holder"], "free"),), {"holder": "free"}
            )
        if not wanted["force"] and not may_take(item, me, observed["now"]):
            raise Refusal(observed["describe"](item))
        note = (f"lease {wanted['name']} taken from {item['holder']} by force",) if held and wanted["force"] else ()
        step = Step(
            "take",
            f"take the lease {wanted['name']}",
            item["holder"] if held else "free",
            me["holder"],
            {"before": item, "now": observed["now"]},
        )
        return Plan((step,), {"holder": me["holder"], "token": (item["token"] if item else 0) + 1}, note)

    def take(self, before, now):
        try:
            self.target.take(before, now)
        except LeaseLost as lost:
            raise Refusal(str(lost)) from lost

    def release(self):
        self.target.release()

    def view(self, observed):
        item = observed["item"]
        if item is None or item["run"] == "released":
            return {}
        return {"holder": item["holder"], "token": item["token"]}

    def returned(self):
        """The lease for the tasks that follow (in check mode there is none to keep)."""
        if self.params["state"] == "held" and not self.check_mode:
            return {
                "lease": {
                    "name": self.target.name,
                    "table": self.target.table,
                    "region": self.target.region,
                    "ttl": self.target.ttl,
                    "token": self.target.token,
                }
            }
        return {"lease": None} if self.params["state"] == "held" else {}

    def is_change(self, steps):
        return False  # holding a lock changes nothing of the target: a run that found all done is still "ok"


def main():
    run(verb_module(ARGUMENTS), IncidentLock)


if __name__ == "__main__":
    main()
