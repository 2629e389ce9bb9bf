#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lease_table
version_added: 0.2.0
short_description: The DynamoDB table that keeps the leases of runs
description:
  - Makes the table in which M(sre.runbooks.incident_lock) holds its leases, with the key that they need, paid for each request,
    and waits until it serves.
  - A table that is there is left as it is; one with another key is refused.
options:
  table:
    description: Name of the table.
    type: str
    default: sre-incident-locks
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(dynamodb:DescribeTable) and C(dynamodb:CreateTable).
  - A region that fails takes its table with it. Make one in each region that a service may go to.
"""

EXAMPLES = r"""
- name: Leases in the region that survives
  sre.runbooks.lease_table:
    table: sre-incident-locks
    region: us-west-2
"""

RETURN = r"""
verification:
  description: That the table serves, where it was made.
  returned: unless refused
  type: list
  elements: dict
  sample: [{name: lease table sre-incident-locks us-west-2, ok: true}]
before:
  description: The state of the table found, null where there was none.
  returned: unless refused
  type: dict
  sample: {status: null}
after:
  description: The state at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {status: ACTIVE}
steps:
  description: What was done, or would be done in check mode.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: create, what: make the lease table sre-incident-locks in us-west-2, before: null, after: ACTIVE}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: make the table sre-incident-locks in us-west-2
      instead: "where nobody starts runs any more: aws dynamodb delete-table"
waited_seconds:
  description: Time until the table served.
  returned: unless refused
  type: float
  sample: 4.2
"""

from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("dynamodb",)
ARGUMENTS = dict(table=dict(type="str", default="sre-incident-locks"))
# What module_utils/lease.py writes its items under.
KEY = [{"AttributeName": "name", "KeyType": "HASH"}]


class LeaseTable(Verb):
    """Make the table where there is none."""

    INSTEAD = "where nobody starts runs any more: aws dynamodb delete-table"

    def observe(self):
        name = self.params["table"]
        try:
            found = self.aws.read("dynamodb", "describe_table", TableName=name)["Table"]
        except Exception as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            found = {}
        return {"region": self.aws.region, "status": found.get("TableStatus"), "key": found.get("KeySchema")}

    @staticmethod
    def plan(observed, wanted):
        where = f"the lease table {wanted['table']} in {observed['region']}"
        if observed["status"] is None:
            return Plan((Step("create", f"make {where}", None, "ACTIVE"),), {"status": "ACTIVE"})
        if observed["key"] != KEY:
            keys = ", ".join(each["AttributeName"] for each in observed["key"])
            raise Refusal(f"{where} has the key {keys}, and leases need the hash key name: name another as lock_table")
        if observed["status"] != "ACTIVE":
            step = Step("serve", f"wait for {where}", observed["status"], "ACTIVE", waits=True)
            return Plan((step,), {"status": "ACTIVE"})
        return Plan()

    def create(self):
        try:
            self.aws.change(
                "dynamodb",
                "create_table",
                TableName=self.params["table"],
                KeySchema=KEY,
                AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except Exception as error:
            if code_of(error) == "ResourceInUseException":
                raise Overtaken(f"another run makes {self.params['table']}") from error
            raise
        self.serve()

    def serve(self):
        name = self.params["table"]
        self.wait(self.observe, lambda seen: seen["status"] == "ACTIVE", f"{name} serves", usual=5, state=_status)

    def view(self, observed):
        return {"status": observed["status"]}

    def observe_end(self):
        self.made = self.observe()
        return self.made

    made = None

    def returned(self):
        name = f"lease table {self.params['table']} {self.aws.region}"
        return {"verification": [{"name": name, "ok": self.made["status"] == "ACTIVE"}] if self.made else []}


def _status(seen):
    return str(seen["status"])


def main():
    run(verb_module(ARGUMENTS), LeaseTable)


if __name__ == "__main__":
    main()
