#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_role_limit
version_added: 0.1.0
short_description: Let a role of PostgreSQL have so many connections and no more
description:
  - Sets the connection limit of a role, so that one application cannot take the connections of all others. It needs no restart.
  - It holds for new connections. Those that the role has beyond the limit stay until they end
    (M(sre.runbooks.pg_kill_queries) ends them).
  - B(Risk:) what asks for a connection beyond the limit is refused, where it would have waited or worked before.
options:
  db_instance:
    description: The RDS instance, in O(region).
    type: str
    required: true
  role:
    description: The role. Superusers are bound by no limit.
    type: str
    required: true
  connection_limit:
    description: How many connections it may have. V(-1) is without limit.
    type: int
    required: true
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
  - The user must be granted C(CREATEROLE), and since PostgreSQL 16 the role itself with the admin option.
seealso:
  - module: sre.runbooks.rds_max_connections
  - module: sre.runbooks.pg_kill_queries
"""

EXAMPLES = r"""
- name: Leave connections for others
  sre.runbooks.pg_role_limit:
    db_instance: regami-db-primary
    region: us-east-1
    role: regami
    connection_limit: 60
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
"""

RETURN = r"""
before:
  description: The limit found, and how many connections the role had.
  returned: unless refused
  type: dict
  sample: {connection_limit: -1, connections: 91}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {connection_limit: 60, connections: 91}
steps:
  description: What was done, or in check mode would be, with what it costs.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: limit, what: "let regami have 60 connections: no restart, 31 of its 91 are over and stay until they end, and new ones
         are refused until then", before: -1, after: 60}
undo:
  description: The same verb with the former limit.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.pg_role_limit
      arguments: {db_instance: regami-db-primary, region: us-east-1, role: regami, connection_limit: -1}
notes:
  description: What a person should know.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.0
"""

from ansible_collections.sre.runbooks.plugins.module_utils import rds
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal, Unreachable, near
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import Line
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("rds", "secretsmanager", "dynamodb")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    role=dict(type="str", required=True),
    connection_limit=dict(type="int", required=True),
    **LOGIN_ARGUMENTS,
)

_ROLES = """
SELECT r.rolname AS name, r.rolconnlimit AS connection_limit, r.rolsuper AS superuser, current_user AS own,
  (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.backend_type = 'client backend') AS connections
FROM pg_roles r WHERE r.rolcanlogin
"""


class PgRoleLimit(Verb):
    """One role's share of the connections."""

    def __init__(self, module):
        super().__init__(module)
        self.login, self.line = Login(self.params, self.aws), None

    def observe(self):
        if self.line is None:
            name, region = self.params["db_instance"], self.aws.region
            instance = rds.describe(self.aws, name, region)
            if instance is None:
                raise rds.not_found(self.aws, name, region)
            if not instance["host"]:
                raise Refusal(f"{name} is {instance['status']} and has no endpoint yet")
            self.line = Line(rds.database(instance, self.login), tick=self.keep_lease)
        return {row["name"]: row for row in self.line.rows(_ROLES)}

    @staticmethod
    def plan(observed, wanted):
        name, limit = wanted["role"], wanted["connection_limit"]
        role = observed.get(name)
        if role is None:
            raise Refusal(f"no role {name} may log in to {wanted['db_instance']} ({near(name, observed)}): check role")
        if limit < -1:
            raise Refusal(f"connection_limit is {limit}: give -1 for none, or 0 and more")
        if role["superuser"]:
            raise Refusal(f"{name} is a superuser, whom no limit binds: take that away from it first")
        if name == role["own"]:
            raise Refusal(f"{name} is who logs in here: a limit could lock us out; log in as another role")
        present, over = role["connection_limit"], max(0, role["connections"] - limit)
        if present == limit:
            return Plan()
        cost = "no restart, and nobody is held back"
        if limit >= 0:
            cost = f"no restart, it has {role['connections']} now, and what it asks for beyond is refused"
        if limit >= 0 and over:
            cost = (
                f"no restart, {over} of its {role['connections']} are over and stay until they end, and new ones are refused "
                f"until then"
            )
        what = f"let {name} have {'any number of' if limit < 0 else limit} connections: {cost}"
        return Plan((Step("limit", what, present, limit),), {"connection_limit": limit})

    def limit(self):
        try:
            role = self.line.quoted(self.params["role"])
            self.line.rows(f"ALTER ROLE {role} CONNECTION LIMIT %(limit)s", limit=self.params["connection_limit"])
        except Unreachable as error:
            raise LostAnswer(str(error)) from error

    def undo(self, before, done):
        names = ("db_instance", "role")
        arguments = {
            **{name: self.params[name] for name in names},
            "region": self.aws.region,
            "connection_limit": before["connection_limit"],
        }
        return [{"verb": "sre.runbooks.pg_role_limit", "arguments": arguments}]

    def view(self, observed):
        role = observed.get(self.params["role"], {})
        return {name: role.get(name) for name in ("connection_limit", "connections")}


def main():
    run(verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES]), PgRoleLimit)


if __name__ == "__main__":
    main()
