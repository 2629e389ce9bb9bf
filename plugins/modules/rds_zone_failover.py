#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_zone_failover
version_added: 0.3.0
short_description: Have a Multi-AZ database answer from another zone than a bad one
description:
  - Reboots an RDS instance with failover where its primary is in O(zone), and waits until it is available in the other one. RDS
    does so by itself where it notices that the zone fails; half a failure it may not notice.
  - An instance in another zone needs nothing. One that is in O(zone) and in no other stays, and RV(notes) says what helps.
  - "B(Risk:) all sessions end, and nobody is let in for a minute or two. Nothing that was acknowledged is lost."
options:
  db_instance:
    description: The instance, in O(region).
    type: str
    required: true
  zone:
    description: Name of the zone that is bad.
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
notes:
  - Needs C(rds:DescribeDBInstances) and C(rds:RebootDBInstance).
seealso:
  - module: sre.runbooks.zone_assess
  - module: sre.runbooks.rds_promote_replica
"""

EXAMPLES = r"""
- name: The database answers from another zone
  sre.runbooks.rds_zone_failover:
    db_instance: regami-db-primary
    zone: us-east-1a
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: The instance as found.
  returned: unless refused
  type: dict
  sample: {status: available, zone: us-east-1a, multi_az: true}
after:
  description: The instance at the end, as predicted in check mode; its zone is null there.
  returned: success
  type: dict
  sample: {status: available, zone: us-east-1b, multi_az: true}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: failover, what: "fail regami-db-primary over, out of us-east-1a: ends all its sessions", before: us-east-1a, after: null}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "fail regami-db-primary over, out of us-east-1a: ends all its sessions"
      instead: "its other zone serves as well; aws rds reboot-db-instance --force-failover moves it once more"
notes:
  description: What a person must know.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 74.0
"""

from ansible_collections.sre.runbooks.plugins.module_utils import rds
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.MultiAZSingleStandby.html
USUAL = 90

SERVICES = ("rds", "dynamodb")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    zone=dict(type="str", required=True),
)


class RdsZoneFailover(Verb):
    """Out of a zone."""

    INSTEAD = "its other zone serves as well; aws rds reboot-db-instance --force-failover moves it once more"

    def __init__(self, module):
        super().__init__(module)
        self.id, self.zone = self.params["db_instance"], self.params["zone"]

    def observe(self):
        instance = rds.describe(self.aws, self.id, self.aws.region)
        if instance is None:
            raise rds.not_found(self.aws, self.id, self.aws.region)
        return instance

    @staticmethod
    def plan(observed, wanted):
        name, zone, status = observed["id"], wanted["zone"], observed["status"]
        if observed["zone"] != zone:
            return Plan()
        if not observed["multi_az"]:
            only = (
                f"{name} is in {zone} and in no other zone: if it does not answer, playbooks/db_failover.yml moves it"
            )
            return Plan(notes=(only,))
        after = {"status": "available", "zone": None}
        settle = Step("settle", f"wait until {name} is available outside of {zone}", waits=True)
        if status == "rebooting":
            return Plan((settle,), after)
        if status not in rds.SERVING:
            raise Refusal(
                f"{name} is {status}, and only an instance that is available is failed over: look at its RDS events; nothing "
                f"was changed"
            )
        what = f"fail {name} over, out of {zone}: ends all its sessions"
        return Plan((Step("failover", what, zone), settle), after)

    def failover(self):
        self.aws.change("rds", "reboot_db_instance", DBInstanceIdentifier=self.id, ForceFailover=True)

    def settle(self):
        self.wait(
            self.observe,
            lambda seen: rds.is_available(seen) and seen["zone"] != self.zone,
            f"{self.id} is available outside of {self.zone}",
            usual=USUAL,
            state=lambda seen: f"{seen['status']} in {seen['zone']}",
        )

    def view(self, observed):
        return {key: observed[key] for key in ("status", "zone", "multi_az")}


def main():
    run(verb_module(ARGUMENTS), RdsZoneFailover)


if __name__ == "__main__":
    main()
