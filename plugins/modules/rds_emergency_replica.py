#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_emergency_replica
version_added: 0.3.0
short_description: Give a database a read replica in a hurry, and take it away again
description:
  - Makes a read replica in the region of its source, with the class and the security groups of the source and not public, and
    waits until it is available and has caught up. RV(endpoint) is where the application may read then.
  - The replica carries the tag C(sre.runbooks/emergency-replica-of). V(absent) deletes a replica with that tag, and none that
    was promoted since.
  - "B(Risk:) the snapshot that it begins with stops the disk of a source in one zone for about a minute, which is then busy for
    longer. A replica takes reads only, and is behind: what was just written may not be there yet."
options:
  db_instance:
    description: The instance to follow, in O(region).
    type: str
    required: true
  replica:
    description: Name of the replica.
    type: str
    required: true
  state:
    description: V(present) makes it, V(absent) deletes it.
    type: str
    choices: [present, absent]
    default: present
  instance_class:
    description: Its class. By default that of the source.
    type: str
  max_lag_seconds:
    description: The verb is done when the replica is at most this many seconds behind.
    type: float
    default: 30
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.database_login
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(rds:DescribeDBInstances), C(rds:CreateDBInstanceReadReplica), C(rds:AddTagsToResource), C(rds:DeleteDBInstance) and
    C(cloudwatch:GetMetricStatistics). Without a login the lag is taken from CloudWatch, which is a minute behind.
seealso:
  - module: sre.runbooks.ecs_repoint
  - module: sre.runbooks.db_connections_assess
"""

EXAMPLES = r"""
- name: A replica to read from
  sre.runbooks.rds_emergency_replica:
    db_instance: regami-db-primary
    replica: regami-db-emergency
    region: us-east-1
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    lease: "{{ lock.lease }}"

- name: It is not needed any more
  sre.runbooks.rds_emergency_replica:
    db_instance: regami-db-primary
    replica: regami-db-emergency
    region: us-east-1
    state: absent
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
endpoint:
  description: Where the replica is, C(host) and C(port); null where there is none, as in check mode.
  returned: unless refused
  type: dict
  sample: {host: regami-db-emergency.cxyz.us-east-1.rds.amazonaws.com, port: 5432}
source_endpoint:
  description: Where its source is.
  returned: unless refused
  type: dict
  sample: {host: regami-db-primary.cxyz.us-east-1.rds.amazonaws.com, port: 5432}
before:
  description: The replica as found; both null where there was none.
  returned: unless refused
  type: dict
  sample: {status: null, source: null}
after:
  description: The replica at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {status: available, source: regami-db-primary}
steps:
  description: What was done, or would be done in check mode, in order. Waits are no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: create
      what: create regami-db-emergency, a db.t3.medium, as a replica of regami-db-primary
      before: null
      after: regami-db-primary
undo:
  description: The same verb with the other state; empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.rds_emergency_replica
      arguments: {db_instance: regami-db-primary, replica: regami-db-emergency, region: us-east-1, state: absent}
notes:
  description: What it costs, and what the source suffers from it.
  returned: success
  type: list
  elements: str
  sample: ["regami-db-emergency costs as much as regami-db-primary until it is deleted: the same task with state=absent"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 512.4
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import rds, replica_lag
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.emergency_replica import plan
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds that creating a replica of some ten gigabytes usually takes, that deleting one does, and catching up.
USUAL_CREATION = 600
USUAL_DELETION = 240
USUAL_CATCH_UP = 60

SERVICES = ("rds", "cloudwatch", "secretsmanager", "dynamodb")
ARGUMENTS = dict(
    LOGIN_ARGUMENTS,
    db_instance=dict(type="str", required=True),
    replica=dict(type="str", required=True),
    state=dict(type="str", choices=["present", "absent"], default="present"),
    instance_class=dict(type="str"),
    max_lag_seconds=dict(type="float", default=30),
)


class RdsEmergencyReplica(Verb):
    """A replica, or none."""

    plan = staticmethod(plan)

    def __init__(self, module):
        super().__init__(module)
        self.login, self.endpoints = Login(self.params, self.aws), {}
        self.source, self.name = self.params["db_instance"], self.params["replica"]

    def observe(self):
        region = self.aws.region
        seen = together(
            source=lambda: rds.describe(self.aws, self.source, region),
            replica=lambda: rds.describe(self.aws, self.name, region),
        )
        if seen["source"] is None:
            raise rds.not_found(self.aws, self.source, region)
        self.endpoints = {name: _endpoint(seen[name]) for name in seen}
        return dict(seen, lag=self._lag(seen))

    def _lag(self, seen):
        """Seconds that it is behind, None where that is not known (yet)."""
        if self.params["state"] == "absent" or not seen["replica"] or seen["replica"]["status"] not in rds.SERVING:
            return None
        found = together(
            replica=lambda: rds.ask(seen["replica"], self.login),
            source=lambda: rds.ask(seen["source"], self.login),
            metric=lambda: rds.metric(self.aws, "ReplicaLag", self.name, self.aws.region),
        )
        facts = [found[name] if isinstance(found[name], dict) else None for name in ("replica", "source")]
        return replica_lag.replication_lag(*facts, found["metric"], time.time()).seconds

    def create(self, settings):
        self.aws.change("rds", "create_db_instance_read_replica", **settings)
        self.settle()

    def settle(self):
        self._await(rds.is_available, f"{self.name} becomes available", USUAL_CREATION)

    def delete(self):
        self.aws.change("rds", "delete_db_instance", DBInstanceIdentifier=self.name, SkipFinalSnapshot=True)

    def await_gone(self):
        self._await(lambda seen: seen is None, f"{self.name} goes", USUAL_DELETION)

    def _await(self, done, what, usual):
        self.wait(
            lambda: rds.describe(self.aws, self.name, self.aws.region),
            done,
            what,
            usual=usual,
            state=lambda seen: seen["status"] if seen else "gone",
        )

    def catch_up(self):
        limit = self.params["max_lag_seconds"]
        self.wait(
            lambda: self.observe()["lag"],
            lambda lag: lag is not None and lag <= limit,
            f"{self.name} follows {self.source}",
            usual=USUAL_CATCH_UP,
            state=lambda lag: "not yet" if lag is None else f"{lag:.0f} s behind",
        )

    def undo(self, before, done):
        other = "present" if self.params["state"] == "absent" else "absent"
        arguments = {"db_instance": self.source, "replica": self.name, "region": self.aws.region, "state": other}
        return [{"verb": "sre.runbooks.rds_emergency_replica", "arguments": arguments}]

    def view(self, observed):
        replica = observed["replica"] or {"status": None, "source": None}
        return {"status": replica["status"], "source": replica["source"]}

    def returned(self):
        return {"endpoint": self.endpoints.get("replica"), "source_endpoint": self.endpoints.get("source")}


def _endpoint(instance):
    return {"host": instance["host"], "port": instance["port"]} if instance and instance["host"] else None


def main():
    run(
        verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], required_by={"login_user": ["login_db"]}),
        RdsEmergencyReplica,
    )


if __name__ == "__main__":
    main()
