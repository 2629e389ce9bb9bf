#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_login_rotate
version_added: 0.3.0
short_description: Give an application another login to PostgreSQL, then close the old one
description:
  - PostgreSQL knows one password of a role, so that a new one would lock out whoever has not heard of it yet. This makes a second
    login that is a member of the first and acts as it, so that both work while the application is moved, and what either of them
    makes belongs to the same owner.
  - With O(state=retired) the old role may not log in any more, has no password, and its sessions are ended. It stays as the owner.
    Where the password of O(new_role) is given as well, that is refused as long as O(new_role) does not get in with it.
  - The password comes from where the application reads it, and goes to the server as a SCRAM verifier, which no log of a statement
    gives away.
  - B(Risk:) with O(state=retired) whoever still uses the old login is out at once. Move the application first.
options:
  db_instance:
    description: Identifier of the RDS instance, in O(region).
    type: str
    required: true
  role:
    description: The login that is to go.
    type: str
    required: true
  new_role:
    description: The login that takes its place.
    type: str
    required: true
  state:
    description: V(created) makes the new login, or gives it the password again; V(retired) closes the old one.
    type: str
    choices: [created, retired]
    default: created
  password_file:
    description: A file of the controller with the password of O(new_role).
    type: path
  password_secret:
    description: Name or ARN of a secret of Secrets Manager with that password, itself or as its field C(password).
    type: str
  password_version:
    description: Id of the version of O(password_secret), such as the one that M(sre.runbooks.secret_rotate) returns.
    type: str
  password_kubernetes:
    description: A Secret of Kubernetes with that password.
    type: dict
    suboptions:
      namespace:
        description: Its namespace.
        type: str
        required: true
      secret:
        description: Its name.
        type: str
        required: true
      key:
        description: The key of it that has the password.
        type: str
        default: password
      kubeconfig:
        description: Path of a kubeconfig, or its content as a dictionary. Default is the one of the client.
        type: raw
      context:
        description: Name of a context of the kubeconfig. Default is its current one.
        type: str
      host:
        description: URL of the API.
        type: str
      api_key:
        description: A token.
        type: str
      ca_cert:
        description: Path of the certificate of the authority that signed the API's.
        type: path
        aliases: [ssl_ca_cert]
extends_documentation_fragment:
  - sre.runbooks.database_login
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - psycopg2
  - kubernetes (for O(password_kubernetes))
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Who logs in here needs CREATEROLE, membership of O(role) with the admin option, and pg_signal_backend to end sessions.
seealso:
  - name: Alternating users
    description: The same strategy in the user guide of Secrets Manager.
    link: https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotation-strategy.html
"""

EXAMPLES = r"""
- name: A second login that acts as the first
  sre.runbooks.pg_login_rotate:
    db_instance: regami-db-primary
    region: us-east-1
    role: regami
    new_role: regami_2
    password_secret: regami/database-password
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
"""

RETURN = r"""
before:
  description:
    - The two roles as found, and how many sessions the old one has. A role that is not there is null, else whether it may log in.
  returned: unless refused
  type: dict
  sample: {role: true, new_role: null, sessions: 4}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {role: true, new_role: true, sessions: 4}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: make, what: make the login regami_2 that acts as regami, before: null, after: null}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "make the login regami_2 that acts as regami"
      instead: >-
        a login that was made and that nobody uses goes by DROP ROLE NAME; one that was closed after a breach is opened by a
        person alone: ALTER ROLE NAME LOGIN, and \password NAME of psql
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.0
"""

import base64
import json

from ansible_collections.sre.runbooks.plugins.module_utils import rds
from ansible_collections.sre.runbooks.plugins.module_utils.errors import (
    LostAnswer,
    Overtaken,
    Refusal,
    Stop,
    Unreachable,
    because_and_fix,
    near,
)
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_options import CLUSTER_ARGUMENTS
from ansible_collections.sre.runbooks.plugins.module_utils.new_values import make
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import Line
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("rds", "secretsmanager", "dynamodb")
NEW_PASSWORD = ("password_file", "password_secret", "password_kubernetes")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    role=dict(type="str", required=True),
    new_role=dict(type="str", required=True),
    state=dict(type="str", choices=["created", "retired"], default="created"),
    password_file=dict(type="path", no_log=False),
    password_secret=dict(type="str", no_log=False),
    password_version=dict(type="str", no_log=False),
    password_kubernetes=dict(
        type="dict",
        no_log=False,
        options=dict(
            CLUSTER_ARGUMENTS,
            namespace=dict(type="str", required=True),
            secret=dict(type="str", required=True, no_log=False),
            key=dict(type="str", default="password", no_log=False),
        ),
    ),
    **LOGIN_ARGUMENTS,
)

_ROLES = """
SELECT r.rolname AS name, r.rolcanlogin AS login, r.rolsuper AS superuser, r.rolname = current_user AS own,
  coalesce((SELECT array_agg(o.rolname::text) FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.roleid WHERE m.member = r.oid),
    '{}') AS member_of,
  (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.backend_type = 'client backend') AS sessions
FROM pg_roles r
"""
# duplicate_object and unique_violation: another CREATE ROLE was under way when this one was sent.
# https://www.postgresql.org/docs/16/errcodes-appendix.html
EXISTS = ("42710", "23505")
_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %(role)s AND backend_type = 'client backend'
"""


class PgLoginRotate(Verb):
    """Two logins of one owner, and then one."""

    INSTEAD = (
        "a login that was made and that nobody uses goes by DROP ROLE NAME; one that was closed after a breach is opened by a "
        "person alone: ALTER ROLE NAME LOGIN, and \\password NAME of psql"
    )

    def __init__(self, module):
        super().__init__(module)
        self.login, self.line, self.instance, self.password = Login(self.params, self.aws), None, None, None

    def observe(self):
        if self.line is None:
            name, region = self.params["db_instance"], self.aws.region
            instance = rds.describe(self.aws, name, region)
            if instance is None:
                raise rds.not_found(self.aws, name, region)
            if not instance["host"]:
                raise Refusal(f"{name} is {instance['status']} and has no endpoint yet")
            self.instance, self.line = instance, Line(rds.database(instance, self.login), tick=self.keep_lease)
            if any(self.params[option] for option in NEW_PASSWORD):
                self.password = self._password()
        roles = {row["name"]: row for row in self.line.rows(_ROLES)}
        return {"roles": roles, "shut_out": self._shut_out() if self.params["new_role"] in roles else None}

    def _shut_out(self):
        """Why the new login does not get in with its password; None where it does, or there is no password to ask with."""
        if self.password is None:
            return None
        given = dict(dict.fromkeys(LOGIN_ARGUMENTS), login_user=self.params["new_role"], login_password=self.password)
        kept = {name: self.params[name] for name in ("login_db", "sslmode", "ssl_root_cert")}
        try:
            rds.database(self.instance, Login({**given, **kept}, self.aws)).connect().close()
        except Stop as stop:
            return because_and_fix(str(stop))[0]
        return None

    def _password(self):
        """What the application will log in with."""
        wanted = self.params
        if wanted["password_file"]:
            return make({"file": wanted["password_file"]}, None)
        if wanted["password_kubernetes"]:
            return _from_kubernetes(wanted["password_kubernetes"])
        version = {"VersionId": wanted["password_version"]} if wanted["password_version"] else {}
        text = self.aws.read("secretsmanager", "get_secret_value", SecretId=wanted["password_secret"], **version)[
            "SecretString"
        ]
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        password = fields.get("password") if isinstance(fields, dict) else text
        if not password:
            raise Refusal(f"the secret {wanted['password_secret']} has no field password: check password_secret")
        return password

    @staticmethod
    def plan(observed, wanted):
        roles = observed["roles"]
        old, new = roles.get(wanted["role"]), roles.get(wanted["new_role"])
        if old is None:
            raise Refusal(
                f"there is no role {wanted['role']} in {wanted['db_instance']} ({near(wanted['role'], roles)}): check role"
            )
        if wanted["role"] == wanted["new_role"]:
            raise Refusal(
                "role and new_role are the same: one password would lock out the other's users; name another new_role"
            )
        if old["superuser"] or old["own"]:
            why = "a superuser" if old["superuser"] else "who logs in here"
            raise Refusal(
                f"{wanted['role']} is {why}: log in as another role, and name the application's login as role"
            )
        ours = new is not None and wanted["role"] in new["member_of"]
        if wanted["state"] == "retired":
            return _retired(wanted["role"], wanted["new_role"], old, new if ours else None, observed["shut_out"])
        if new is not None and not ours:
            raise Refusal(
                f"there is a role {wanted['new_role']} already, which does not act as {wanted['role']}: name another new_role"
            )
        if new and observed["shut_out"] is None:
            return Plan()
        what = (
            f"give the login {wanted['new_role']} its password"
            if new
            else f"make the login {wanted['new_role']} that acts as {wanted['role']}"
        )
        return Plan((Step("make", what, arguments={"fresh": new is None}),), {"new_role": True})

    def make(self, fresh):
        role, new = self._quoted("role"), self._quoted("new_role")
        word = self.line.verifier(self.params["new_role"], self.password)
        begin = f"CREATE ROLE {new} LOGIN IN ROLE {role} PASSWORD" if fresh else f"ALTER ROLE {new} LOGIN PASSWORD"
        try:
            # Sent as one, which is one transaction: there is never a login that does not act as the owner.
            self._run(f"{begin} %(word)s; ALTER ROLE {new} SET role = {role}", word=word)
        except Stop as stop:
            if getattr(stop.__cause__, "pgcode", None) in EXISTS:
                raise Overtaken(f"the login {self.params['new_role']} was made meanwhile") from stop
            raise

    def close(self):
        self._run(f"ALTER ROLE {self._quoted('role')} NOLOGIN PASSWORD NULL")

    def end(self):
        self._run(_END, role=self.params["role"])

    def empty(self):
        def look():
            return {row["name"]: row for row in self.line.rows(_ROLES)}[self.params["role"]]["sessions"]

        self.wait(look, lambda left: not left, f"sessions of {self.params['role']} end", 1)

    def _quoted(self, option):
        return self.line.quoted(self.params[option])

    def _run(self, statement, **values):
        try:
            self.line.rows(statement, **values)
        except Unreachable as error:
            raise LostAnswer(str(error)) from error

    def view(self, observed):
        old, new = (observed["roles"].get(self.params[name]) for name in ("role", "new_role"))
        return {
            "role": old and old["login"],
            "new_role": new and new["login"],
            "sessions": old["sessions"] if old else 0,
        }


def _retired(role, new_role, old, new, shut_out):
    if new is None or not new["login"]:
        raise Refusal(f"no login {new_role} takes the place of {role} yet: state=created comes first")
    steps = []
    if old["login"]:
        if shut_out is not None:
            raise Refusal(
                f"{new_role} does not get in with that password ({shut_out}), so {role} is not closed: state=created gives it "
                f"that password"
            )
        # Who has come in since the look is seen only when nobody can come after them.
        steps.append(Step("close", f"let nobody log in as {role} any more", True, False, look_again=True))
    if old["sessions"]:
        steps.append(Step("end", f"end the {old['sessions']} sessions of {role}", old["sessions"], 0))
        steps.append(Step("empty", f"wait until {role} has no session left", waits=True))
    return Plan(tuple(steps), {"role": False, "sessions": 0})


def _from_kubernetes(given):
    from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api

    path = api.objects(given["namespace"], "secrets", given["secret"], api="/api/v1")
    data = api.Cluster(given).read(path).get("data") or {}
    if not data.get(given["key"]):
        raise Refusal(
            f"the Secret {given['secret']} has no {given['key']} (it has: {', '.join(sorted(data))}): check key"
        )
    return base64.b64decode(data[given["key"]]).decode()


def main():
    module = verb_module(
        ARGUMENTS,
        mutually_exclusive=[PASSWORD_SOURCES, NEW_PASSWORD],
        required_if=[("state", "created", NEW_PASSWORD, True)],
    )
    run(module, PgLoginRotate)


if __name__ == "__main__":
    main()
