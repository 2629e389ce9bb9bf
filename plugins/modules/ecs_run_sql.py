#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_run_sql
version_added: 0.1.0
short_description: Run a reviewed SQL file once, as a one-off task of an ECS service
description:
  - Repairs a schema that is not what the service expects, from where the service itself reaches its database. A one-off task with
    the service's own image, network, roles and secrets runs the file as one transaction with a lock timeout, so a busy table
    is given up and never queued for, and nothing of a file that fails stays.
  - C(alembic_version) is read before, locked against migrations, compared with O(expect_version) and with the head revision of
    the migrations in the image, and changed only where O(stamp) says so.
  - Without O(sql_file) and O(stamp) it looks only, in a read-only transaction, and RV(alembic) says whether database and image
    agree. That starts a task, too, so check mode does not do it.
  - The same file for the same service runs once. A task that is under way, for example of a run that was killed, is waited for;
    one that has committed is reported and not repeated. ECS remembers a task for an hour after it has ended, so
    give O(expect_version) where a repetition later than that would do harm.
  - Where a task was killed so late that nobody knows whether its transaction was committed, the next one asks PostgreSQL.
  - B(Risk:) what the file does is its own affair. A lock that it holds stops the service for as long, up to O(statement_timeout)
    for each statement.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service.
    type: str
    required: true
  container:
    description: Container of the task definition that has the code. Default is the one behind the load balancer, else the only one.
    type: str
  sql_file:
    description:
      - File with the SQL, on the controller. It must not begin or end a transaction. Compressed together with what runs it, it
        must fit into the 8192 characters that ECS takes, which some 10 kB of usual SQL do.
      - It is sent as a variable of the task, which everybody may read who may describe tasks. Write no secrets into it.
    type: path
  reviewed_sha256:
    description:
      - SHA-256 of the text that was reviewed, as C(sha256sum) prints it. Another text is refused. Needed with O(sql_file).
    type: str
  expect_version:
    description: Run nothing unless C(alembic_version) holds just this revision.
    type: str
  stamp:
    description:
      - Set C(alembic_version) to V(head), the head revision of the migrations in the image, or to a revision that the image has,
        in the same transaction. Default is to leave it as it is.
    type: str
  alembic_config:
    description: Alembic's configuration in the image, from the folder that the image starts in. Empty where there is none.
    type: str
    default: alembic.ini
  login_variables:
    description:
      - Variables of the container that say where the database is and who asks, a URL or its parts. The variables are read in the
        task and nowhere else. Parts win over the URL.
    type: dict
    default: {url: DATABASE_URL, password: DATABASE_PASSWORD}
    suboptions:
      url:
        description: Variable with a URL, whatever its scheme. Its query is not used, so O(sslmode) holds.
        type: str
      host:
        description: Variable with the host.
        type: str
      port:
        description: Variable with the port.
        type: str
      user:
        description: Variable with the user.
        type: str
      password:
        description: Variable with the password.
        type: str
      name:
        description: Variable with the name of the database.
        type: str
  sslmode:
    description: How far TLS is required between the task and the database.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
    default: require
  ssl_root_cert:
    description: File in the image with the certificate authorities to trust for V(verify-ca) and V(verify-full).
    type: str
  lock_timeout:
    description: Seconds that a statement may wait for a lock. Others wait behind it meanwhile.
    type: float
    default: 5
  statement_timeout:
    description: Seconds that one statement may take.
    type: float
    default: 300
  attempt:
    description: Raise it to run the same file once more although it has run.
    type: int
    default: 1
  python:
    description: Python of the image, which has psycopg2, psycopg or asyncpg, and alembic.
    type: str
    default: python
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs iam:PassRole for the roles of the task definition, besides ecs:RunTask.
  - Lines of the log come from the driver awslogs. With another one the exit code alone tells how a task ended.
seealso:
  - name: RunTask
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
"""

EXAMPLES = r"""
- name: Does the database have the schema that the image expects
  sre.runbooks.ecs_run_sql:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    sslmode: verify-full
    ssl_root_cert: /etc/ssl/certs/rds-global-bundle.pem

- name: Add the column that the migration did not, and say that the schema is the image's
  sre.runbooks.ecs_run_sql:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    sql_file: "{{ sql_file }}"
    reviewed_sha256: "{{ reviewed_sha256 }}"
    expect_version: 5b1f0c7d2a90
    stamp: head
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
alembic:
  description:
    - Revisions in C(alembic_version) C(before) and C(after), null where there is no such table, and the heads of the migrations
      in the C(image). C(in_sync) is whether the database has those, null where one of both is not known. Null in check mode.
  returned: unless refused
  type: dict
  sample: {before: [5b1f0c7d2a90], after: [8e2d4c6a1f37], image: [8e2d4c6a1f37], in_sync: true}
task:
  description: ARN of the task, null in check mode.
  returned: unless refused
  type: str
  sample: arn:aws:ecs:us-east-1:123456789012:task/regami-cluster/0f9de17a6465404e8b1b2356dc13c2f8
exit_code:
  description: Of its container, null where it never ran.
  returned: unless refused
  type: int
  sample: 0
stopped_reason:
  description: Why the task ended, in ECS's words.
  returned: unless refused
  type: str
  sample: Essential container in task exited
log_lines:
  description: The last lines that the container wrote, notices of the server included, without secrets.
  returned: unless refused
  type: list
  elements: str
  sample: ["NOTICE:  column \"written_at\" of relation \"rows\" already exists, skipping"]
sha256:
  description: SHA-256 of the file, null without one.
  returned: unless refused
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
before:
  description:
    - Whether the file was applied (or the stamp set) by a task that ECS still knows, the statements that were, without comments and
      literals, and the task definition that has the image.
  returned: unless refused
  type: dict
  sample: {applied: false, statements: [], task_definition: "regami-api:3"}
after:
  description: The same at the end.
  returned: success
  type: dict
  sample:
    applied: true
    statements: [ALTER TABLE rows ADD COLUMN IF NOT EXISTS written_at timestamptz DEFAULT now()]
    task_definition: "regami-api:3"
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: run, what: "run fix.sql (1 statement, SHA-256 9f86d081884c) as a one-off task of regami-service", before: null,
       after: null}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "run fix.sql (1 statement, SHA-256 9f86d081884c) as a one-off task of regami-service"
      instead: "have the SQL that takes it back reviewed, and run that with playbooks/schema_drift.yml"
notes:
  description: Risks, overrides that were used, and what became of earlier tasks.
  returned: unless refused
  type: list
  elements: str
  sample: ["what the SQL does cannot be undone by this collection"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 48.2
"""

import hashlib
import re
import uuid

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, one_off_task, schema_repair, sql_file
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, TakenBack
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("ecs", "logs", "dynamodb")
ARGUMENTS = dict(
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    container=dict(type="str"),
    sql_file=dict(type="path"),
    reviewed_sha256=dict(type="str"),
    expect_version=dict(type="str"),
    stamp=dict(type="str"),
    alembic_config=dict(type="str", default="alembic.ini"),
    login_variables=dict(
        type="dict",
        default={"url": "DATABASE_URL", "password": "DATABASE_PASSWORD"},
        options=dict(
            url=dict(type="str"),
            host=dict(type="str"),
            port=dict(type="str"),
            user=dict(type="str"),
            password=dict(type="str", no_log=False),
            name=dict(type="str"),
        ),
    ),
    sslmode=dict(
        type="str", choices=["disable", "allow", "prefer", "require", "verify-ca", "verify-full"], default="require"
    ),
    ssl_root_cert=dict(type="str"),
    lock_timeout=dict(type="float", default=5),
    statement_timeout=dict(type="float", default=300),
    attempt=dict(type="int", default=1),
    python=dict(type="str", default="python"),
)


class EcsRunSql(Verb):
    """One SQL file, one task, one transaction."""

    INSTEAD = "have the SQL that takes it back reviewed, and run that with playbooks/schema_drift.yml"

    plan = staticmethod(schema_repair.plan)

    def __init__(self, module):
        super().__init__(module)
        for name in ("expect_version", "stamp"):
            if not re.fullmatch(r"\w{1,64}", self.params[name] or "none", re.ASCII):
                raise Refusal(f"{name} is {self.params[name]}, which is no revision: letters, digits and _ only")
        self.sql = sql_file.read(self.params["sql_file"]) if self.params["sql_file"] else None
        self.writes = bool(self.sql or self.params["stamp"])
        self.service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        self.seen = self.tasks = self.arn = self.ended = None

    def observe(self):
        service = one_off_task.deployed(self.service.describe())
        answer = self.service.definition(service["taskDefinition"])
        if answer is None:
            raise Refusal(
                f"the task definition {ecs.short(service['taskDefinition'])} of {service['serviceName']} is gone"
            )
        definition = answer["taskDefinition"]
        chosen = one_off_task.container(definition, service, self.params["container"])
        # A look is asked anew each time.
        key = schema_repair.key(service, self.sql, self.params) if self.writes else uuid.uuid4().hex[:24]
        self.tasks = one_off_task.OneOff(self.aws, self.service, f"sre-runbooks/sql/{key}")
        tries = self.tasks.tasks(definition["family"]) if self.writes else []
        self.seen = {
            "service": service,
            "definition": definition,
            "container": chosen,
            "sql": self.sql,
            "key": key,
            "started_by": self.tasks.started_by,
            "tries": [self._heard(task, chosen) for task in tries],
        }
        self.ended = schema_repair.committed(self.seen["tries"])
        return self.seen

    def observe_end(self):
        return self.seen

    def _heard(self, task, chosen, is_last=None):
        return schema_repair.heard(task, chosen, self.tasks.lines(chosen, task["taskArn"], is_last))

    def run(self, request, last):
        # The same for whoever sends this request after the same past: one of them starts a task.
        token = hashlib.sha256(f"{self.seen['key']} {last}".encode()).hexdigest()
        self.arn = self.tasks.start(request, token)

    def settle(self):
        seen, name = self.seen, ecs.short(self.params["service"])
        arn = self.arn or seen["tries"][-1].task["taskArn"]
        what = schema_repair.purpose(self.sql, self.params)
        task = self.tasks.follow(self.wait, arn, f"the one-off task of {name}")
        self.ended = self._heard(task, seen["container"], schema_repair.ends)
        outcome = self.ended.outcome
        if outcome in (schema_repair.COMMITTED, schema_repair.LOOKED):
            return
        told = f"{what}: task {self.ended.name} ended with exit code {self.ended.exit_code}: {self.ended.reason()}"
        if outcome == schema_repair.FAILED:
            raise TakenBack(f"{told}. Its transaction was rolled back, the database is as it was")
        raise Stop(f"{told}. Its transaction may be committed: the same command again asks the database")

    def is_change(self, steps):
        return self.writes and bool(steps)

    def view(self, observed):
        applied = self.ended is not None and self.ended.outcome == schema_repair.COMMITTED
        return {
            "applied": applied,
            "statements": schema_repair.shown(self.sql) if applied else [],
            "task_definition": ecs.short(observed["definition"]["taskDefinitionArn"]),
        }

    def returned(self):
        told = self.ended.returned() if self.ended else schema_repair.NOT_RUN
        return dict(told, sha256=self.sql.sha256 if self.sql else None)


def main():
    run(verb_module(ARGUMENTS, required_by={"sql_file": ["reviewed_sha256"]}), EcsRunSql)


if __name__ == "__main__":
    main()
