#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_recreate_replica
version_added: 0.1.0
short_description: Make an old primary a replica of the instance that replaced it
description:
  - After a failover the promoted instance has no replica. This verb gives it one under the old primary's name, so
    that the next failure has somewhere to go and the way back is open.
  - The old primary is fenced where it answers, renamed to C(<name>-retired-<time>) and kept, since it may hold
    acknowledged writes that were never replicated. Nothing is deleted.
  - A replica of a damaged instance, whose place a restored one has taken (M(sre.runbooks.rds_swap_names)), is replaced the same
    way; it would go on following the damaged one.
  - Each step can be interrupted; the same task again goes on from there.
options:
  db_instance:
    description: The old primary, whose name the new replica takes. It is in O(region).
    type: str
    required: true
  source_instance:
    description: The promoted instance, which the new replica follows.
    type: str
    required: true
  source_region:
    description: Region of O(source_instance).
    type: str
    required: true
  security_groups:
    description:
      - Security groups of the new replica, in O(region). Default are those of the old primary, which may be the ones
        that fence it.
    type: list
    elements: str
    default: []
  max_lag_seconds:
    description: The verb is done when the new replica is at most this many seconds behind.
    type: float
    default: 30
  accept_standalone:
    description:
      - Take O(db_instance) for the old primary although nothing says that O(source_instance) was promoted from it.
        B(Risk:) an instance with other data is moved aside.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.database_login
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: Protect the promoted database again
  sre.runbooks.rds_recreate_replica:
    db_instance: regami-db-primary
    region: us-east-1
    source_instance: regami-db-replica
    source_region: us-west-2
    security_groups: [sg-0a1b2c3d]
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
"""

RETURN = r"""
before:
  description: The instance as found; empty where there was none of that name.
  returned: unless refused
  type: dict
  sample: {status: available, source: null}
after:
  description: The instance at the end.
  returned: success
  type: dict
  sample: {status: available, source: "arn:aws:rds:us-west-2:123456789012:db:regami-db-replica"}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: create_replica, what: create regami-db-primary as a replica of regami-db-replica, before: null, after: null}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "create regami-db-primary as a replica of regami-db-replica"
      instead: "the old primary is kept under the name that the notes of that run say; delete the replica by hand where nobody wants it"
notes:
  description: What was kept, and what is left to do by hand.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 740.2
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import rds, replica_lag
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.reprotection import plan
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds that creating a cross-region replica usually takes.
USUAL_CREATION = 1200

SERVICES = ("rds", "dynamodb", "secretsmanager")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    source_instance=dict(type="str", required=True),
    source_region=dict(type="str", required=True),
    security_groups=dict(type="list", elements="str", default=[]),
    max_lag_seconds=dict(type="float", default=30),
    accept_standalone=dict(type="bool", default=False),
    **LOGIN_ARGUMENTS,
)


class RdsRecreateReplica(Verb):
    """Give a promoted instance a replica under the old primary's name."""

    INSTEAD = "the old primary is kept under the name that the notes of that run say; delete the replica by hand where nobody wants it"

    plan = staticmethod(plan)

    def __init__(self, module):
        super().__init__(module)
        self.login = Login(self.params, self.aws)
        self.id, self.region = self.params["db_instance"], self.aws.region
        self.source_id, self.source_region = self.params["source_instance"], self.params["source_region"]

    def observe(self):
        seen = together(
            here=lambda: self.aws.read("rds", "describe_db_instances", region=self.region),
            source=lambda: rds.describe(self.aws, self.source_id, self.source_region),
            metric=lambda: rds.metric(self.aws, "ReplicaLag", self.id, self.region),
        )
        if seen["source"] is None:
            raise rds.not_found(self.aws, self.source_id, self.source_region)
        damaged = self._damaged(seen["source"]["restored_from"])
        here = [rds.instance(raw) for raw in seen["here"]["DBInstances"]]
        old = next((instance for instance in here if instance["id"] == self.id), None)
        facts = rds.ask(old, self.login)
        lag = None
        if old is not None and old["source"]:
            lag = replica_lag.replication_lag(
                *self._both_facts(facts, seen["source"]), seen["metric"], time.time()
            ).seconds
        return {
            "old": old,
            "source": seen["source"],
            "damaged": damaged,
            "old_facts": facts,
            "lag": lag,
            "now": time.time(),
            "retired": [instance for instance in here if instance["id"].startswith(f"{self.id}-retired-")],
            "ids": {"old": self.id, "source": self.source_id, "source_region": self.source_region},
        }

    def _damaged(self, resource_id):
        """What the source was restored from, or None; replicas go on following that one, whatever it is called."""
        if not resource_id:
            return None
        there = rds.every(self.aws, self.source_region).values()
        return next((each for each in there if each["resource_id"] == resource_id), None)

    def _both_facts(self, facts, source):
        """Facts of replica and primary for the lag, None for what does not answer."""
        if not isinstance(facts, dict):
            return None, None
        primary = rds.ask(source, self.login)
        return facts, primary if isinstance(primary, dict) else None

    def fence(self):
        rds.fence(self.aws, self.id, self.region, self.login)

    def rename(self, name):
        self.aws.change(
            "rds",
            "modify_db_instance",
            region=self.region,
            DBInstanceIdentifier=self.id,
            NewDBInstanceIdentifier=name,
            ApplyImmediately=True,
        )
        self.await_renamed()

    def await_renamed(self):
        self.wait(
            lambda: rds.describe(self.aws, self.id, self.region),
            lambda seen: seen is None,
            f"the name {self.id} becomes free",
            usual=240,
            state=lambda seen: seen["status"] if seen else "free",
        )

    def create_replica(self, settings):
        self.aws.change("rds", "create_db_instance_read_replica", region=self.region, **settings)
        self.settle()

    def settle(self):
        self.wait(
            lambda: rds.describe(self.aws, self.id, self.region),
            rds.is_available,
            f"{self.id} becomes available",
            usual=USUAL_CREATION,
            state=lambda seen: seen["status"],
        )

    def catch_up(self):
        limit = self.params["max_lag_seconds"]
        self.wait(
            lambda: self.observe()["lag"],
            lambda lag: lag is not None and lag <= limit,
            f"{self.id} follows {self.source_id}",
            usual=60,
            state=lambda lag: "not yet" if lag is None else f"{lag:.0f} s behind",
        )

    def view(self, observed):
        old = observed["old"]
        return {"status": old["status"], "source": old["source"]} if old else {}


def main():
    run(
        verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], required_by={"login_user": ["login_db"]}),
        RdsRecreateReplica,
    )


if __name__ == "__main__":
    main()
