#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_promote_replica
version_added: 0.1.0
short_description: Promote a read replica in place of its primary, fenced and with a bound on loss
description:
  - Moves the writer of a database from an RDS PostgreSQL instance to its (cross-region) read replica.
  - Where the primary answers, this is a switchover. The primary is made read-only and its sessions are ended, the replica
    replays all that was written, then it is promoted. No acknowledged write is lost.
  - Where the primary does not answer, this is a failover. It is refused unless O(accept_data_loss_seconds) covers what may
    be lost. The primary cannot be fenced then, which RV(unfenced) says; running the task again when it is back fences it.
  - A promotion cannot be undone. The way back is a replica in the other direction
    (M(sre.runbooks.rds_recreate_replica)) and the same verb with the instances exchanged.
options:
  db_instance:
    description: The replica to promote. It is in O(region).
    type: str
    required: true
  source_instance:
    description: The primary that it replicates, and that it replaces.
    type: str
    required: true
  source_region:
    description: Region of O(source_instance).
    type: str
    required: true
  max_lag_seconds:
    description:
      - A switchover is refused when the replica is further behind than this, in seconds, since writers are stopped
        for as long as it takes to catch up.
    type: float
    default: 60
  accept_data_loss_seconds:
    description:
      - Accept that up to this many seconds of acknowledged writes are lost, because the primary does not answer.
      - B(Risk:) those writes are gone for the application; they remain only in the old primary's storage.
    type: float
    default: 0
  accept_unknown_loss:
    description:
      - Promote although nothing tells how far the replica is behind. B(Risk:) the loss has no bound.
    type: bool
    default: false
  accept_standalone:
    description:
      - Take an instance that is no replica, and of which neither its tags nor its events say that it was promoted from
        O(source_instance), for the promoted one; or one that was promoted by hand while O(source_instance) still takes writes.
        B(Risk:) it may hold other data, and lacks what was written since.
    type: bool
    default: false
  fence_security_groups:
    description:
      - Security groups without any ingress rule that the old primary gets in place of its own, so that nothing
        new connects to it. They are in O(source_region); one that is not there refuses. Established connections are ended by the read-only fence.
    type: list
    elements: str
    default: []
  backup_retention_days:
    description: Days that automated backups of the promoted instance are kept. V(0) would leave it without backups.
    type: int
    default: 7
  multi_az:
    description:
      - Whether the promoted instance gets a standby in another zone. Default is what the old primary has, where its
        region answers. It is asked for at the end and not waited for.
    type: bool
  write_probe:
    description:
      - Whether the promoted database must take a real write before the verb is done.
      - V(false) is for controllers that have no way into the database network; then only what uses it can prove it.
    type: bool
    default: true
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
  - The lag of a replica comes from the replica itself where it can be reached, else from the CloudWatch metric
    C(ReplicaLag). A missing, stale or negative lag refuses.
  - The old primary's tags and settings stay as they are but for the fence.
seealso:
  - name: Promoting a read replica
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ReadRepl.Promote.html
"""

EXAMPLES = r"""
- name: Move the writer to the other region, without loss where the primary answers
  sre.runbooks.rds_promote_replica:
    db_instance: regami-db-replica
    region: us-west-2
    source_instance: regami-db-primary
    source_region: us-east-1
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    lease: "{{ lock.lease }}"

- name: The primary is gone, two minutes of writes may be lost
  sre.runbooks.rds_promote_replica:
    db_instance: regami-db-replica
    region: us-west-2
    source_instance: regami-db-primary
    source_region: us-east-1
    accept_data_loss_seconds: 120
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
"""

RETURN = r"""
mode:
  description: C(switchover), C(failover), or C(done) where the promotion had happened before.
  returned: when the gates are open
  type: str
  sample: switchover
unfenced:
  description: Whether the old primary may still take writes.
  returned: when the gates are open
  type: bool
  sample: false
possible_loss_seconds:
  description: Upper bound of the seconds of acknowledged writes that are lost; null where it is not known.
  returned: when the gates are open
  type: float
  sample: 0.0
endpoint:
  description: Where the application must write from now on.
  returned: when the replica exists
  type: dict
  sample: {host: regami-db-replica.cxyz.us-west-2.rds.amazonaws.com, port: 5432}
before:
  description: Both instances as found.
  returned: unless refused
  type: dict
  sample: {role: replica, status: available, source: "arn:aws:rds:us-east-1:123456789012:db:regami-db-primary", primary: answers}
after:
  description: Both instances at the end.
  returned: success
  type: dict
  sample: {role: primary, status: available, source: null, primary: fenced}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: promote, what: promote regami-db-replica, before: replica, after: primary}]
undo:
  description: Nothing undoes a promotion; says so, and what to do instead.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - cannot: regami-db-replica was promoted, which nothing undoes
      instead: playbooks/db_reprotect.yml, then playbooks/db_failover.yml with the other env
notes:
  description: Risks, and overrides that were used.
  returned: success
  type: list
  elements: str
  sample: ["UNFENCED: regami-db-primary does not answer and may still take writes when it comes back"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 312.4
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import rds
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.promotion import plan
from ansible_collections.sre.runbooks.plugins.module_utils.security_groups import not_there
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds that a promotion usually takes (runbook 1, step 4 says 5 to 10 minutes).
USUAL_PROMOTION = 420

SERVICES = ("rds", "cloudwatch", "dynamodb", "ec2", "secretsmanager")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    source_instance=dict(type="str", required=True),
    source_region=dict(type="str", required=True),
    max_lag_seconds=dict(type="float", default=60),
    accept_data_loss_seconds=dict(type="float", default=0),
    accept_unknown_loss=dict(type="bool", default=False),
    accept_standalone=dict(type="bool", default=False),
    fence_security_groups=dict(type="list", elements="str", default=[]),
    backup_retention_days=dict(type="int", default=7),
    multi_az=dict(type="bool"),
    write_probe=dict(type="bool", default=True),
    **LOGIN_ARGUMENTS,
)


class RdsPromoteReplica(Verb):
    """Promote a replica in place of its primary."""

    plan = staticmethod(plan)

    def __init__(self, module):
        super().__init__(module)
        self.login = Login(self.params, self.aws)
        self.id, self.region = self.params["db_instance"], self.aws.region
        self.source_id, self.source_region = self.params["source_instance"], self.params["source_region"]
        self.drain_to = None

    def observe(self):
        seen = together(
            replica=lambda: rds.describe(self.aws, self.id, self.region),
            source=lambda: attempt(lambda: rds.describe(self.aws, self.source_id, self.source_region), Unreachable),
            lag_metric=lambda: rds.metric(self.aws, "ReplicaLag", self.id, self.region),
            alive_metric=lambda: attempt(
                lambda: rds.metric(self.aws, "DatabaseConnections", self.source_id, self.source_region), Unreachable
            ),
        )
        if seen["replica"] is None:
            raise rds.not_found(self.aws, self.id, self.region)
        source = seen["source"]
        if isinstance(source, Unreachable):
            self.aws.silent.add(self.source_region)
        quarantined = isinstance(source, dict) and source["security_groups"] == sorted(
            self.params["fence_security_groups"]
        )
        groups = self.params["fence_security_groups"]
        seen["quarantined"] = bool(groups) and quarantined
        asks_groups = isinstance(source, dict) and not seen["quarantined"]
        seen.update(
            together(
                replica_facts=lambda: rds.ask(seen["replica"], self.login),
                source_facts=lambda: (
                    Unreachable("it is cut off by its security groups")
                    if seen["quarantined"]
                    else rds.ask(source, self.login)
                ),
                # No answer stops no failover: nor could the region be told to change anything.
                unknown_groups=lambda: (
                    attempt(lambda: not_there(self.aws, groups, self.source_region), Unreachable) if asks_groups else []
                ),
            )
        )
        if isinstance(seen["unknown_groups"], Unreachable):
            seen["unknown_groups"] = []
        seen["was_promoted"] = self._events_say_promoted(seen)
        seen["now"] = time.time()
        seen["ids"] = {
            "replica": self.id,
            "source": self.source_id,
            "region": self.region,
            "source_region": self.source_region,
        }
        return seen

    def _events_say_promoted(self, seen):
        """Asked only where the instance is no replica and carries no tag of ours: somebody promoted it by hand."""
        if seen["replica"]["source"] or seen["replica"]["promoted_from"]:
            return False
        events = self.aws.read(
            "rds",
            "describe_events",
            region=self.region,
            SourceIdentifier=self.id,
            SourceType="db-instance",
            Duration=14 * 24 * 60,
        )
        return any("promot" in event["Message"].lower() for event in events["Events"])

    def undo(self, before, done):
        if not any(step["do"] == "promote" for step in done):
            return []
        return [
            {
                "cannot": f"{self.id} was promoted, which nothing undoes",
                "instead": "playbooks/db_reprotect.yml, then playbooks/db_failover.yml with the other env",
            }
        ]

    # The steps, named as in the plan.

    def fence(self):
        self.drain_to = rds.fence(self.aws, self.source_id, self.source_region, self.login)

    def drain(self):
        replica = rds.database(rds.describe(self.aws, self.id, self.region), self.login)
        self.wait(
            replica.facts,
            lambda seen: seen["lsn"] >= self.drain_to,
            f"{self.id} replays what is left",
            usual=2,
            state=lambda seen: f"{max(0, self.drain_to - seen['lsn'])} bytes to go",
        )

    def drain_by_metric(self):
        fenced_at = time.time()
        self.wait(
            lambda: rds.metric(self.aws, "ReplicaLag", self.id, self.region),
            lambda seen: bool(seen) and seen[-1][0] > fenced_at and seen[-1][1] == 0,
            f"{self.id} reports ReplicaLag 0",
            usual=120,
            state=lambda seen: f"lag {seen[-1][1]:.0f} s" if seen else "no lag",
        )

    def settle(self):
        self.wait(
            lambda: rds.describe(self.aws, self.id, self.region),
            rds.is_available,
            f"{self.id} becomes available",
            usual=USUAL_PROMOTION,
            state=lambda seen: seen["status"],
        )

    def quarantine(self, groups):
        self.aws.change(
            "rds",
            "modify_db_instance",
            region=self.source_region,
            DBInstanceIdentifier=self.source_id,
            VpcSecurityGroupIds=groups,
            ApplyImmediately=True,
        )

    def mark(self, arn, source_arn):
        rds.mark(self.aws, arn, self.region, {rds.PROMOTED_FROM: source_arn, rds.PROMOTED_AT: f"{time.time():.0f}"})

    def promote(self, retention):
        self.aws.change(
            "rds",
            "promote_read_replica",
            region=self.region,
            DBInstanceIdentifier=self.id,
            BackupRetentionPeriod=retention,
        )

    def await_promotion(self):
        def promoted(seen):
            return rds.is_available(seen) and seen["source"] is None

        seen = self.wait(
            lambda: rds.describe(self.aws, self.id, self.region),
            promoted,
            f"{self.id} is promoted",
            usual=USUAL_PROMOTION,
            state=lambda seen: seen["status"] + (", still a replica" if seen["source"] else ""),
        )
        if self.params["write_probe"]:
            self.open_for_writes(seen)

    def open_for_writes(self, instance=None):
        database = rds.database(instance or rds.describe(self.aws, self.id, self.region), self.login)
        self.wait(
            lambda: database.unfence() or database.write_probe(),
            bool,
            f"{self.id} takes writes",
            usual=1,
            state=lambda seen: "writable" if seen else "read-only",
        )

    def adjust(self, settings):
        self.aws.change(
            "rds",
            "modify_db_instance",
            region=self.region,
            DBInstanceIdentifier=self.id,
            ApplyImmediately=True,
            **settings,
        )

    def view(self, observed):
        replica, source, facts = observed["replica"], observed["source"], observed["source_facts"]
        primary = "does not answer"
        if observed["quarantined"] or (isinstance(facts, dict) and facts["read_only"]):
            primary = "fenced"
        elif isinstance(facts, dict):
            primary = "a replica" if facts["in_recovery"] else "answers"
        elif source is None:
            primary = "gone"
        return {
            "role": "replica" if replica["source"] else "primary",
            "status": replica["status"],
            "source": replica["source"],
            "primary": primary,
            "backup_retention_days": replica["backup_retention"],
        }


def main():
    run(
        verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], required_by={"login_user": ["login_db"]}),
        RdsPromoteReplica,
    )


if __name__ == "__main__":
    main()
