#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_diagnostics
version_added: 0.2.0
short_description: Ask a service for its own diagnostics, and read its last migration's log
description:
  - Asks the API that a service brings along for its health, score, issues, resources, metrics and alerts, all at the same time, each
    once, and reads the end of the log of its last migration job. It changes nothing, and sends C(GET) only.
  - An API has some of these. What it does not have is told in RV(missing), what does not answer in RV(blind), and neither fails.
  - Redirects are not followed, since the token would go along. TLS certificates are verified; C(SSL_CERT_FILE) in the environment
    names other authorities.
  - B(Risk:) one request for each. Diagnostics that a service runs for this are its own work.
options:
  url:
    description: Where C(/api/v1) of the service's API begins, without it. Without it only O(migration_log) is read.
    type: str
  token:
    description: Bearer token for it.
    type: str
  cluster:
    description: Name or ARN of the ECS cluster, as the API knows it.
    type: str
  service:
    description: Name or ARN of the ECS service, likewise.
    type: str
  request_timeout:
    description: Seconds that one answer may take.
    type: float
    default: 10
  dns_servers:
    description: DNS servers to ask for the host of O(url), as V(host) or V(host:port). Default is the resolver of the machine.
    type: list
    elements: str
    default: []
  migration_log:
    description: Where migration jobs, such as one-off ECS tasks, write to.
    type: dict
    suboptions:
      log_group:
        description: Name of the log group.
        type: str
        required: true
      stream_prefix:
        description: What names of their log streams begin with; the newest such stream is the last job's.
        type: str
        required: true
      region:
        description: Its region. Default is O(region).
        type: str
      terms:
        description: A line with any of these words is told in RV(notes). Case counts.
        type: list
        elements: str
        default: [ERROR, Error, FAILED, FATAL]
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.dependencies_assess
  - module: sre.runbooks.recovery_api_rollback
"""

EXAMPLES = r"""
- name: What the service says of itself
  sre.runbooks.service_diagnostics:
    url: https://recovery.regami.test
    token: "{{ recovery_api_token }}"
    cluster: regami-cluster
    service: regami-service
    migration_log:
      log_group: /ecs/regami-api
      stream_prefix: migrate/
    region: us-east-1
"""

RETURN = r"""
diagnostics:
  description: Each answer, without its secrets, and the seconds that it took.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {name: health score, seconds: 0.041, answer: {score: 62.5}}
    - name: issues
      seconds: 0.052
      answer: {total_issues: 1, issues: [{severity: critical, component: api, message: 37.5 of 100 requests fail}]}
missing:
  description: What this API does not have.
  returned: unless refused
  type: list
  elements: str
  sample: [database connections]
migration:
  description:
    - The last migration job's log. C(at) is when it was written to last, in seconds of the epoch; C(lines) are its last ones; C(failures)
      those with one of O(migration_log.terms), each kind once. Null where none was asked for, or none is there.
  returned: unless refused
  type: dict
  sample:
    log_group: /ecs/regami-api
    stream: migrate/app/0a1b2c3d4e5f
    at: 1763712122.4
    lines: ["INFO [alembic.runtime.migration] Running upgrade 41 -> 42", "sqlalchemy.exc.ProgrammingError: column rows.audit does not exist"]
    failures: ["sqlalchemy.exc.ProgrammingError: column rows.audit does not exist"]
blind:
  description: What did not answer or could not be read, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["metrics: monitoring/metrics/regami-cluster/regami-service: no answer within 10 s"]
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
  description: The same in words.
  returned: unless refused
  type: list
  elements: str
  sample: ["health score: {\"score\": 62.5}", "issues: 1", "  critical: api: 37.5 of 100 requests fail"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import diagnostics, dns, ecs
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.metrics import clock
from ansible_collections.sre.runbooks.plugins.module_utils.recovery_api import RecoveryApi
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("logs",)
ARGUMENTS = dict(
    url=dict(type="str"),
    token=dict(type="str", no_log=True),
    cluster=dict(type="str"),
    service=dict(type="str"),
    request_timeout=dict(type="float", default=10),
    dns_servers=dict(type="list", elements="str", default=[]),
    migration_log=dict(
        type="dict",
        options=dict(
            log_group=dict(type="str", required=True),
            stream_prefix=dict(type="str", required=True),
            region=dict(type="str"),
            terms=dict(type="list", elements="str", default=["ERROR", "Error", "FAILED", "FATAL"]),
        ),
    ),
)


class ServiceDiagnostics(Verb):
    """Ask it all at once, and say."""

    def observe(self):
        wanted, looks = self.params, {}
        if wanted["url"]:
            names = ecs.short(wanted["cluster"]), ecs.short(wanted["service"])
            api = RecoveryApi(wanted["url"], wanted["token"], *names, wanted["request_timeout"], wanted["dns_servers"])
            looks["answers"] = lambda: diagnostics.ask(api)
        if job := wanted["migration_log"]:
            looks["migration"] = lambda: diagnostics.last_job(
                self.aws, job["log_group"], job["stream_prefix"], job["region"]
            )
        return tried_together(looks)

    @staticmethod
    def plan(observed, wanted):
        told, job = diagnostics.told(observed.get("answers", {})), observed.get("migration")
        notes = list(diagnostics.words(told["diagnostics"]))
        if told["missing"]:
            notes.append(f"it has no {', '.join(told['missing'])}")
        if isinstance(job, Exception):
            told["blind"].append(f"the last migration: {reason(job)}")
            job = None
        if job:
            job = dict(job, failures=diagnostics.failures(job, wanted["migration_log"]["terms"]))
            state = "without an error" if not job["failures"] else "with errors"
            notes.append(f"the last migration wrote to {job['stream']} until {clock(job['at'])} UTC, {state}")
            notes += [f"  {line}" for line in job["failures"]]
        return Plan(
            notes=(*notes, *(f"cannot see {line}" for line in told["blind"])), returned={**told, "migration": job}
        )

    def view(self, observed):
        return {}


def main():
    module = verb_module(
        ARGUMENTS,
        required_one_of=[("url", "migration_log")],
        required_by={"url": ("cluster", "service")},
    )
    if module.params["dns_servers"] and not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, ServiceDiagnostics)


if __name__ == "__main__":
    main()
