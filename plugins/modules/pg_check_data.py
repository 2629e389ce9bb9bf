#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_check_data
version_added: 0.1.0
short_description: Ask a database whether the right data is in it, beside another one
description:
  - Runs a team's own queries on a database, for example a restored one, and on the damaged one beside it. Fails where an answer
    is not the one that is expected, and says which.
  - Each query runs in a transaction that cannot write, with a limit of time, in check mode too.
options:
  db_instance:
    description: The instance in question, in O(region).
    type: str
    required: true
  beside:
    description: The instance to compare it with, in O(region).
    type: str
  queries:
    description: The queries. Each must give one value, and say what of it is right.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the check, for people.
        type: str
        required: true
      query:
        description: One SELECT with one value. The value is shown, so ask for a count and not for somebody's data.
        type: str
        required: true
      expect:
        description: The value that is right.
        type: str
      at_least:
        description: The least number that is right.
        type: float
      at_most:
        description: The greatest number that is right.
        type: float
      beside:
        description: How the number must compare to that of the other instance, O(beside).
        type: str
        choices: [equal, more, at_least, fewer, at_most]
  query_timeout:
    description: Seconds that one query may take. A restored volume is read from S3 at first, which is slow.
    type: int
    default: 60
  accept_mismatch:
    description: Let the task pass although answers are wrong, with a note of each. B(Risk:) the wrong data goes into service.
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
seealso:
  - module: sre.runbooks.rds_restore
"""

EXAMPLES = r"""
- name: Are the rows back
  sre.runbooks.pg_check_data:
    db_instance: regami-db-primary
    region: us-east-1
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    queries:
      - name: users
        query: SELECT count(*) FROM users
        at_least: 1
      - name: the user who complained
        query: SELECT count(*) FROM users WHERE email = 'test@example.com'
        expect: "1"
"""

RETURN = r"""
checks:
  description: Each check with its value, that of the other database, and what is wrong with it (null where nothing is).
  returned: success, or some are wrong
  type: list
  elements: dict
  sample: [{name: users, value: "1204", beside: "0", ok: true, why: null}]
before:
  description: Always empty, as is RV(after).
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: Always empty; nothing is changed.
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
notes:
  description: A line for each check.
  returned: success
  type: list
  elements: str
  sample: ["users: 1204, in the other database 0"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

from ansible_collections.sre.runbooks.plugins.module_utils import data_checks, rds
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import Database
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("rds", "secretsmanager")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    beside=dict(type="str"),
    queries=dict(type="list", elements="dict", required=True, options=data_checks.CHECK_ARGUMENTS),
    query_timeout=dict(type="int", default=60),
    accept_mismatch=dict(type="bool", default=False),
    **LOGIN_ARGUMENTS,
)


class PgCheckData(Verb):
    """Ask both databases, and say what is wrong with the answers."""

    def __init__(self, module):
        super().__init__(module)
        self.login = Login(self.params, self.aws)
        data_checks.check_queries(self.params["queries"])

    def observe(self):
        other = self.params["beside"]
        return together(
            answers=lambda: self._ask(self.params["db_instance"]),
            beside=lambda: attempt(lambda: self._ask(other), Stop) if other else None,
        )

    def _ask(self, name):
        instance, region = rds.describe(self.aws, name, self.aws.region), self.aws.region
        if instance is None:
            raise rds.not_found(self.aws, name, region)
        if not instance["host"]:
            raise Stop(f"{name} is {instance['status']} and has no endpoint yet")
        timeout = self.params["query_timeout"]
        database = Database(instance["host"], instance["port"], self.login, region=region, within=timeout + 2)
        return data_checks.ask(database, self.params["queries"], timeout)

    @staticmethod
    def plan(observed, wanted):
        found = data_checks.judge(wanted["queries"], observed["answers"], observed["beside"])
        wrong = [f"{each['name']}: {each['why']}" for each in found if not each["ok"]]
        if wrong and not wanted["accept_mismatch"]:
            raise Refusal(
                f"the data of {wanted['db_instance']} is not as expected: {'; '.join(wrong)}: choose another moment, or say "
                f"accept_mismatch=true if it is right all the same",
                checks=found,
            )
        right = [f"{each['name']}: {each['value']}{_other(each)}" for each in found if each["ok"]]
        return Plan(notes=(*(f"accepted: {each}" for each in wrong), *right), returned={"checks": found})

    def view(self, observed):
        return {}


def _other(check):
    return "" if check["beside"] is None else f", in the other database {check['beside']}"


def main():
    run(
        verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], required_by={"login_user": ["login_db"]}),
        PgCheckData,
    )


if __name__ == "__main__":
    main()
