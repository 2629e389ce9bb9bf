#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_connections_assess
version_added: 0.1.0
short_description: Say who holds the connections of a database, and which relief comes first
description:
  - Asks side by side PostgreSQL for its sessions, RDS for the instance, its events and its parameter group, CloudWatch for
    its metrics, and EC2 for its security groups. Nothing is changed.
  - Where no connection is left for others it gets in by a reserved one, for which O(login_user) must be entitled, as the
    master user of RDS is.
  - RV(decision) is one word, RV(because) the sentence to it. The cheapest relief that can help comes first.
  - B(Risk:) it is one look. A crowd that comes in waves may be gone at this moment, which the metric in RV(findings) shows.
options:
  db_instance:
    description: The RDS instance, in O(region).
    type: str
    required: true
  free_percent:
    description: Connections are short while fewer than that, of a hundred that any role may take, are free.
    type: float
    default: 20
  max_idle_in_transaction_seconds:
    description: A session that is idle in a transaction for longer may be ended where connections are short.
    type: float
    default: 60
  max_query_seconds:
    description: A statement that runs for longer may be ended where connections are short.
    type: float
    default: 300
  max_blocked_seconds:
    description: Who holds what others have waited for that long may be ended, whether connections are short or not.
    type: float
    default: 30
  protected_users:
    description: Users whose sessions are never meant, nor are those of other databases than O(login_db).
    type: list
    elements: str
    default: []
  protected_applications:
    description: Application names whose sessions are never meant, in which V(*) and V(?) stand for any text and any character.
    type: list
    elements: str
    default: [pg_dump, pg_dumpall, pg_restore, pg_basebackup]
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.database_login
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.pg_kill_queries
  - module: sre.runbooks.ecs_restart
  - module: sre.runbooks.rds_max_connections
"""

EXAMPLES = r"""
- name: Who holds the connections
  sre.runbooks.db_connections_assess:
    db_instance: regami-db-primary
    region: us-east-1
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
  register: diagnosis
"""

RETURN = r"""
decision:
  description:
    - V(none), there are enough. V(kill), V(restart) and V(raise) say what helps, the application's tasks being what is
      restarted. V(failover), the database is down. V(security_groups), nobody is let in. V(wait), the instance is being
      changed. V(unknown), a person has to look.
  returned: unless refused
  type: str
  sample: kill
because:
  description: Why, in a sentence.
  returned: unless refused
  type: str
  sample: "97 of 100 connections are taken, 0 are free for any role; 91 are idle in a transaction since 60 s and more"
short:
  description: Whether connections are short.
  returned: unless refused
  type: bool
  sample: true
kill:
  description: Filters for M(sre.runbooks.pg_kill_queries), one after the other.
  returned: unless refused
  type: list
  elements: dict
  sample: [{min_idle_in_transaction_seconds: 60}]
raise_to:
  description: What C(max_connections) could be raised to within the memory of the class; null where it has none left.
  returned: unless refused
  type: int
  sample: 200
findings:
  description: All that was seen, a line each.
  returned: unless refused
  type: list
  elements: str
  sample:
    - regami-db-primary is available, a db.t3.medium, max_connections 100 by regami-postgres16 (in-sync)
    - "DatabaseConnections: 97 now, 97 at most and 4 at least in an hour"
    - 97 of 100 connections are taken (5 are reserved), 0 are free
    - "  91 idle in transaction: regami, regami-api"
    - "security groups let in on port 5432: tcp 5432 from sg-0a1b2c3d (sg-1a2b3c4d)"
    - "event 14:30:12 UTC: DB instance restarted"
connections:
  description: Who holds the connections, by user, application and state; null where PostgreSQL could not be asked.
  returned: unless refused
  type: dict
  sample:
    max_connections: 100
    reserved_for_superusers: 3
    reserved_for_entitled: 2
    used: 97
    free: 0
    groups: [{user: regami, application: regami-api, state: idle in transaction, count: 91}]
blocking_chains:
  description: Who waits for whom, as M(sre.runbooks.pg_kill_queries) returns it.
  returned: unless refused
  type: list
  elements: dict
  sample: []
prepared_transactions:
  description: Transactions that were prepared and neither committed nor rolled back.
  returned: unless refused
  type: list
  elements: dict
  sample: []
before:
  description: The instance, and how many connections it has, may have, and how many are free for any role.
  returned: unless refused
  type: dict
  sample: {status: available, max_connections: 100, connections: 97, free: 0}
after:
  description: The same, since nothing is changed.
  returned: success
  type: dict
  sample: {status: available, max_connections: 100, connections: 97, free: 0}
steps:
  description: Always empty; nothing is changed.
  returned: unless refused
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty; nothing is changed.
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

from ansible_collections.sre.runbooks.plugins.module_utils import connection_pressure as pressure
from ansible_collections.sre.runbooks.plugins.module_utils import rds, rds_parameters, sessions
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Throttled, Unreachable, WaitTimeout
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import Line
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.security_groups import let_in
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# Minutes of events and metrics; so far back mangu 3.1 and ec2-asg 2 look.
LOOK_BACK = 60

SERVICES = ("rds", "ec2", "cloudwatch", "secretsmanager")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    free_percent=dict(type="float", default=20),
    max_idle_in_transaction_seconds=dict(type="float", default=60),
    max_query_seconds=dict(type="float", default=300),
    max_blocked_seconds=dict(type="float", default=30),
    protected_users=dict(type="list", elements="str", default=[]),
    protected_applications=dict(type="list", elements="str", default=list(sessions.BACKUPS)),
    **LOGIN_ARGUMENTS,
)


class DbConnectionsAssess(Verb):
    """Look at everything at once, and decide."""

    def __init__(self, module):
        super().__init__(module)
        self.id, self.login = self.params["db_instance"], Login(self.params, self.aws)

    def observe(self):
        region = self.aws.region
        instance = rds.describe(self.aws, self.id, region)
        if instance is None:
            raise rds.not_found(self.aws, self.id, region)
        # An API that fails must not hide what the others tell.
        silent = (Unreachable, Throttled)
        group, kind = instance["parameter_group"], instance["instance_class"]
        seen = tried_together(
            dict(
                seen=lambda: self._sessions(instance),
                ingress=lambda: let_in(self.aws, instance, region),
                connections=lambda: self._metric("DatabaseConnections"),
                memory=lambda: self._metric("FreeableMemory"),
                events=lambda: rds.events(self.aws, self.id, region, LOOK_BACK),
                value=lambda: rds_parameters.parameter(self.aws, group, "max_connections", region),
                class_memory=lambda: rds_parameters.memory_of(self.aws, kind, region),
            ),
            *silent,
        )
        for name in ("ingress", "connections", "memory", "events", "value", "class_memory"):
            if isinstance(seen[name], silent):
                self.notes.append(str(seen.pop(name)))
        return pressure.Observed(instance=instance, **{"ingress": None, **seen})

    def _sessions(self, instance):
        """What PostgreSQL says, in one session, or why it says nothing; None where nobody may log in."""
        if not self.login.given or not instance["host"]:
            return None
        look = sessions.Sessions(Line(rds.database(instance, self.login)), self.params).look
        found = attempt(look, Stop)
        return found.__cause__ if isinstance(found, WaitTimeout) else found  # why there is no slot to be had

    def _metric(self, name):
        return rds.metric(self.aws, name, self.id, self.aws.region, minutes=LOOK_BACK)

    @staticmethod
    def plan(observed, wanted):
        decision = pressure.decide(
            observed,
            pressure.Limits(
                wanted["free_percent"],
                wanted["max_idle_in_transaction_seconds"],
                wanted["max_query_seconds"],
                wanted["max_blocked_seconds"],
                wanted["login_db"],
            ),
        )
        told = {"connections": None, "blocking_chains": [], "prepared_transactions": []}
        if isinstance(observed.seen, sessions.Seen):
            told = sessions.diagnosis(observed.seen)
        return Plan(
            notes=(f"{decision.act}: {decision.because}",),
            returned={
                "decision": decision.act,
                "because": decision.because,
                "short": decision.short,
                "kill": list(decision.kill),
                "raise_to": pressure.more_connections(observed),
                "findings": list(pressure.findings(observed)),
                **told,
            },
        )

    def view(self, observed):
        seen = observed.seen if isinstance(observed.seen, sessions.Seen) else None
        return {
            "status": observed.instance["status"],
            "max_connections": observed.limit,
            "connections": seen and seen.used,
            "free": seen and seen.free,
        }


def main():
    run(
        verb_module(ARGUMENTS, required_together=[("login_user", "login_db")], mutually_exclusive=[PASSWORD_SOURCES]),
        DbConnectionsAssess,
    )


if __name__ == "__main__":
    main()
