#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dependencies_assess
version_added: 0.2.0
short_description: Ask what a service depends on whether it answers, and why not
description:
  - Asks databases, Redis, buckets and other people's APIs at the same time, each as a client of it asks, and tells how long the
    answer took or why there was none. What is down fails nothing; it changes nothing.
  - V(s3) and a login are asked with the credentials given here. What only the service's own role is denied shows in its log;
    M(sre.runbooks.log_errors) reads that.
  - B(Risk:) one connection and one request to each.
options:
  warn_days:
    description: A certificate that lasts no longer than so many days is told in RV(notes).
    type: float
    default: 14
  dns_servers:
    description:
      - DNS servers to ask for the names of hosts, as V(host) or V(host:port). Default is the resolver of the machine. A login to
        PostgreSQL uses the latter in any case.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - sre.runbooks.dependencies
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.log_errors
  - module: sre.runbooks.smoke_test
"""

EXAMPLES = r"""
- name: Is it the service, or what it depends on
  sre.runbooks.dependencies_assess:
    dependencies:
      - name: database
        kind: postgresql
        db_instance: regami-db-primary
        login_user: regami_admin
        login_password: "{{ db_admin_password }}"
        login_db: regami
        sslmode: prefer
      - name: cache
        kind: redis
        host: regami-redis.abc123.cache.amazonaws.com
        tls: true
        within: 2
      - name: uploads
        kind: s3
        bucket: regami-uploads
      - name: payments
        kind: url
        url: https://api.payments.test/health
        within: 3
    region: us-east-1
"""

RETURN = r"""
dependencies:
  description:
    - What each answered, in the order in which they were given. RV(dependencies[].ok) is null where it could not be asked.
  returned: unless refused
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      returned: unless refused
    kind:
      description: What it is.
      type: str
      returned: unless refused
    ok:
      description: Whether it serves.
      type: bool
      returned: unless refused
    seconds:
      description: How long name, connection, TLS, login and answer took together; null where it does not serve.
      type: float
      returned: unless refused
    reason:
      description: Why it does not serve, or could not be asked.
      type: str
      returned: unless refused
    fault:
      description:
        - The same in a word. V(unresolved), its name has no address; V(refused), nothing listens; V(filtered), nothing comes back;
          V(closed) or V(silent), it takes connections and does not answer; V(starting); V(exhausted), it has no connection
          left; V(certificate_expired); V(tls), anything else of TLS; V(denied), it does not accept us; V(throttled); V(missing),
          there is no such bucket or instance; V(wrong_region); V(error), it answers with one.
      type: str
      returned: unless refused
    certificate_days:
      description: Days that the certificate it shows lasts, below 0 when that is over; null where none was seen.
      type: float
      returned: unless refused
  sample:
    - {name: database, kind: postgresql, ok: true, seconds: 0.021, reason: null, fault: null, certificate_days: 212.4}
    - name: cache
      kind: redis
      ok: false
      seconds: null
      reason: "regami-redis.abc123.cache.amazonaws.com:6379 refuses connections: nothing listens there"
      fault: refused
      certificate_days: null
down:
  description: The names of those that do not serve.
  returned: unless refused
  type: list
  elements: str
  sample: [cache]
blind:
  description: What could not be asked, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["database: there is no secret regami/db in us-east-1: check login_secret"]
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
  description: The same in words, those that do not serve first.
  returned: unless refused
  type: list
  elements: str
  sample:
    - "cache is down: regami-redis.abc123.cache.amazonaws.com:6379 refuses connections: nothing listens there"
    - database answers in 0.021 s
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import dependencies, dns
from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("rds", "s3", "secretsmanager")
ARGUMENTS = dict(
    dependencies.ARGUMENTS,
    warn_days=dict(type="float", default=14),
    dns_servers=dict(type="list", elements="str", default=[]),
)


class DependenciesAssess(Verb):
    """Ask all of them, and say."""

    def __init__(self, module):
        super().__init__(module)
        self.params = dict(module.params)
        # The result shows the parameters as they were given; those of the module are what is shown.
        module.params["dependencies"] = masked(module.params["dependencies"])

    def observe(self):
        wanted, servers = self.params["dependencies"], self.params["dns_servers"]
        dependencies.refuse_malformed(wanted, servers)
        return {"found": dependencies.assess(self.aws, wanted, servers)}

    @staticmethod
    def plan(observed, wanted):
        found = observed["found"]
        blind = [f"{each['name']}: {each['reason']}" for each in found if each["ok"] is None]
        return Plan(
            notes=(*dependencies.words(found, wanted["warn_days"]), *(f"cannot see {line}" for line in blind)),
            returned={
                "dependencies": found,
                "down": [each["name"] for each in found if each["ok"] is False],
                "blind": blind,
            },
        )

    def view(self, observed):
        return {}


def main():
    module = verb_module(ARGUMENTS)
    if module.params["dns_servers"] and not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, DependenciesAssess)


if __name__ == "__main__":
    main()
