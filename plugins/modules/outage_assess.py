#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: outage_assess
version_added: 0.1.0
short_description: Say what of a service is down, why, and what to do about it
description:
  - Asks what users ask, and side by side the service's tasks or pods, its newest deployment, the share of requests that
    end in an error, and the database. Nothing is changed, so checks with a method that may change something are left
    out. One that fails is asked a second time.
  - What runs the service is O(cluster) and O(service), in ECS, or O(kubernetes).
  - RV(decision) is one word, RV(because) the sentence to it. A database that is down comes first, since no deployment
    mends that; then a service that is told to have too few tasks; then a recent deployment that went wrong; then tasks
    that run but do not serve. Where nothing of this is the case RV(decision) is V(unknown), and RV(findings) is what a
    person goes on with.
  - Pods that crash although nothing was deployed are worth a restart. Kubernetes starts the same pod again only after longer
    and longer pauses, new ones come at once. Where ECS has put new tasks in the place of those that failed all along, or an
    image cannot be pulled, nothing but a person helps.
  - B(Risk:) the decision is only as good as what was asked. A check that does not fail while users suffer hides an
    outage; a database that nobody may log in to is only known by its status.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
  service:
    description: Name of the ECS service.
    type: str
  target_group_arn:
    description:
      - Target group of the load balancer in front of O(kubernetes), in O(region), whose errors are counted. An ECS
        service names its own.
    type: str
  desired_count:
    description: How many tasks or pods the service is to have at least.
    type: int
    required: true
  db_instance:
    description: Name of the RDS instance that the service needs, in O(region).
    type: str
  recent_minutes:
    description: A deployment is taken for the cause of an outage for so many minutes after it began.
    type: int
    default: 60
  max_error_percent:
    description:
      - More requests than that, of a hundred in the last five minutes, that end in an error are an outage although
        O(checks) pass. Courtcase scenario 2 begins at 10.
    type: float
    default: 10
extends_documentation_fragment:
  - sre.runbooks.checks
  - sre.runbooks.database_login
  - sre.runbooks.kubernetes_workload
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - kubernetes (for O(kubernetes))
  - openshift (for O(kubernetes.kind=DeploymentConfig))
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.smoke_test
"""

EXAMPLES = r"""
- name: What is down, and why
  sre.runbooks.outage_assess:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    desired_count: 2
    db_instance: regami-db-primary
    checks:
      - name: health with the database
        url: https://api.regami.test/health?check=db
  register: outage

- name: What of the pods is down, and why
  sre.runbooks.outage_assess:
    kubernetes:
      context: shop-prod
      namespace: alchemorsel
      name: alchemorsel-api
    region: us-east-1
    desired_count: 2
    db_instance: regami-db-primary
    checks:
      - name: health
        url: https://api.regami.test/health
"""

RETURN = r"""
decision:
  description:
    - V(none), nothing is down. V(rollback), V(restart) and V(scale) say what to do with the service. V(failover), the
      database is the cause. V(unknown), a person has to look.
  returned: unless refused
  type: str
  sample: rollback
because:
  description: Why, in a sentence.
  returned: unless refused
  type: str
  sample: "regami-api:7 was deployed 12 min ago: 3 of its tasks failed one after the other"
findings:
  description: All that was seen, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["regami-service: 0 of 2 serve", "the database regami-db-primary is available and answers"]
before:
  description: How many tasks or pods serve, and what they run.
  returned: unless refused
  type: dict
  sample: {serving: 0, wanted: 2, release: "regami-api:7"}
after:
  description: The same, since nothing is changed.
  returned: success
  type: dict
  sample: {serving: 0, wanted: 2, release: "regami-api:7"}
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

import time

try:
    from botocore.exceptions import ClientError
except ImportError:
    pass

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import (
    ecs,
    elbv2,
    kubernetes_api,
    kubernetes_outage,
    outage,
    rds,
    smoke,
)
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, is_denied, reason, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_reader import WORKLOAD_ARGUMENT, Reader
from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# Requests of so many seconds are counted.
ERRORS_WITHIN = 300
# A check that failed once may have met a target on its way out.
TRIES = 2

SERVICES = ("ecs", "elbv2", "cloudwatch", "rds", "secretsmanager")
ARGUMENTS = dict(
    smoke.CHECK_ARGUMENTS,
    **LOGIN_ARGUMENTS,
    cluster=dict(type="str"),
    service=dict(type="str"),
    kubernetes=WORKLOAD_ARGUMENT,
    target_group_arn=dict(type="str"),
    desired_count=dict(type="int", required=True),
    db_instance=dict(type="str"),
    recent_minutes=dict(type="int", default=60),
    max_error_percent=dict(type="float", default=10),
)


class OutageAssess(Verb):
    """Look at everything at once, and decide."""

    def __init__(self, module):
        super().__init__(module)
        self.params = dict(module.params)
        module.params["checks"] = masked(module.params["checks"])  # the result shows them
        self._workload = self._pods if self.params["kubernetes"] else self._tasks

    def observe(self):
        smoke.refuse_malformed(self.params["checks"], self.params["dns_servers"])
        seen = together(
            users=self._users,
            service=self._workload,
            database=lambda: attempt(self._database, Unreachable, ClientError),
        )
        database = seen["database"]
        if isinstance(database, Exception):  # the API of RDS: that tells nothing of the database
            if is_denied(database):
                self.aws.do_without(database)
            database = outage.Database(self.params["db_instance"], f"unknown ({reason(database)})")
        return outage.Observed(now=time.time(), complaints=seen["users"], database=database, **seen["service"])

    @staticmethod
    def plan(observed, wanted):
        decision = outage.decide(
            observed, wanted["desired_count"], wanted["recent_minutes"], wanted["max_error_percent"]
        )
        return Plan(
            notes=(f"{decision.act}: {decision.because}",),
            returned={
                "decision": decision.act,
                "because": decision.because,
                "findings": list(outage.findings(observed)),
            },
        )

    def view(self, observed):
        work = observed.workload
        return {"serving": work.serving, "wanted": work.wanted, "release": work.release}

    def _users(self):
        return smoke.complaints(self.params["checks"], self.params["dns_servers"], TRIES)

    def _tasks(self):
        """The ECS service and the share of its requests that fail."""
        service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        found = service.describe()
        groups = ecs.target_groups(found)
        seen = together(
            targets=lambda: service.targets(groups), stops=service.stops, errors=lambda: self._known_errors(groups)
        )
        now = ecs.primary(found) or {}
        healthy = [ecs.healthy(targets) for _name, targets in seen["targets"]]
        failed = now.get("rolloutState") == "FAILED" and (now.get("rolloutStateReason") or "it failed")
        created = now.get("createdAt")
        return {
            "errors": seen["errors"],
            "workload": outage.Workload(
                name=found["serviceName"],
                wanted=found["desiredCount"],
                running=found["runningCount"],
                serving=min([found["runningCount"], *healthy]),
                release=ecs.short(found["taskDefinition"]),
                released=created.timestamp() if created else None,
                rollout=failed or None,
                rolling=now.get("rolloutState") == "IN_PROGRESS",
                failures=tuple(
                    dict.fromkeys(why for by, why in seen["stops"].values() if by == now.get("id") or not now.get("id"))
                ),
            ),
        }

    def _pods(self):
        """The workload of a cluster, and the share of the requests to its target group that fail."""
        given, group = self.params["kubernetes"], self.params["target_group_arn"]
        reader = Reader(kubernetes_api.Cluster(given), given["kind"], given["namespace"], given["name"])
        seen = together(found=reader.look, errors=lambda: self._known_errors([(group,)] if group else []))
        return {
            "errors": seen["errors"],
            "workload": kubernetes_outage.workload(reader.kind, seen["found"], time.time()),
        }

    def _known_errors(self, groups):
        """None, too, where CloudWatch does not tell: everything else still does."""
        errors = attempt(lambda: self._errors(groups), Stop, ClientError)
        if is_denied(errors):
            self.aws.do_without(errors)
        return None if isinstance(errors, Exception) else errors

    def _errors(self, groups):
        """Errors of a hundred requests, over all target groups; None where too few requests tell."""
        requests = errors = 0
        for group in (arn for arns in groups for arn in arns):
            balancer = elbv2.load_balancer_of(self.aws, group, self.aws.region)
            if balancer is None:
                continue
            counted = elbv2.traffic(self.aws, balancer, group, time.time() - ERRORS_WITHIN, self.aws.region)
            requests, errors = requests + counted["requests"], errors + counted["errors"]
        return 100 * errors / requests if requests >= outage.FEWEST_REQUESTS else None

    def _database(self):
        if not self.params["db_instance"]:
            return None
        instance = rds.describe(self.aws, self.params["db_instance"], self.aws.region)
        if instance is None:
            raise rds.not_found(self.aws, self.params["db_instance"], self.aws.region)
        login = Login(self.params, self.aws)
        if not login.given:
            return outage.Database(instance["id"], instance["status"])
        facts = rds.ask(instance, login)
        if isinstance(facts, Unreachable):
            return outage.Database(instance["id"], instance["status"], False, str(facts))
        # A refused password says something of the inventory, and that the database is up.
        return outage.Database(instance["id"], instance["status"], True, str(facts) if isinstance(facts, Stop) else "")


def main():
    module = verb_module(
        ARGUMENTS,
        required_together=[("cluster", "service")],
        required_by={"login_user": ["login_db"]},
        required_one_of=[("service", "kubernetes")],
        mutually_exclusive=[PASSWORD_SOURCES, ("service", "kubernetes"), ("service", "target_group_arn")],
    )
    if module.params["kubernetes"] and not kubernetes_api.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    run(module, OutageAssess)


if __name__ == "__main__":
    main()
