#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: readiness_assess
version_added: 0.8.0
short_description: Look for what a recovery needs and no gate asks for
description:
  - Finds what stands in the way of a recovery before there is one, beside the gates of the verbs, which P(sre.runbooks.incident#callback)
    records when C(readiness.yml) asks them. M(sre.runbooks.readiness_report) tells both.
  - Placeholders and empty values that are left in the inventory count for the scenarios whose playbooks name the variable.
  - How far the replica of O(standby) was behind over the last day, by CloudWatch, is measured by O(rpo_seconds), and how long resolvers
    keep the answers for O(record) by O(rto_seconds). A PRIMARY record that Route 53 cannot find to be down is a risk.
  - Images, secrets and parameters that the task definition of O(standby) names are looked for where it names them, and its images are
    compared with what O(service) runs. Values of secrets and parameters are not read.
  - Where O(db_instance) and that of O(standby) are two databases, and none the replica of the other, the versions of their schemas count, as
    Alembic writes them down.
  - Of O(db_instance) the newest snapshot or second to which it could be restored counts, and that of its copies in
    O(backup_copy_region).
  - Certificates of the load balancers' listeners, and those that O(served) are met by, count when they are not valid, not for O(record), or
    end within 21 days. Where the load balancer's are said to be bad, what is served is not told again.
  - Whatever else it takes counts too, the permissions of this run among it, the bucket of the records, the alarms on their way to the
    rulebook, and those who are told of incidents.
  - Changes nothing, and sends nothing to anybody.
options:
  scenarios:
    description: Names of the scenarios to look at, as their playbooks are called.
    type: list
    elements: str
    required: true
  inventory:
    description: Variables of the service by name. Their values are looked at for placeholders and told to nobody.
    type: dict
    default: {}
  cluster:
    description: Name or ARN of the ECS cluster of O(service).
    type: str
  service:
    description: Name of the ECS service, in O(region).
    type: str
  db_instance:
    description: Its RDS instance, in O(region).
    type: str
  load_balancer_arn:
    description: ARN of the load balancer in front of it.
    type: str
  standby:
    description: The same of where it goes when O(region) fails.
    type: dict
    suboptions:
      region:
        description: Region of the standby.
        type: str
        required: true
      cluster:
        description: ECS cluster of it.
        type: str
      service:
        description: ECS service of it.
        type: str
      db_instance:
        description: Replica of O(db_instance).
        type: str
      load_balancer_arn:
        description: ARN of its load balancer.
        type: str
  record:
    description: The public name.
    type: str
  type:
    description: Type of its records.
    type: str
    choices: [A, AAAA, CNAME]
    default: A
  hosted_zone_id:
    description: Hosted zone of O(record).
    type: str
  dns_servers:
    description: Name servers to ask for O(served), as C(host) or C(host:port); by default the resolver of this machine.
    type: list
    elements: str
    default: []
  served:
    description: Hosts that users reach by HTTPS, as C(host) or C(host:port).
    type: list
    elements: str
    default: []
  rto_seconds:
    description: So many seconds after it failed the service is promised to be back. Without it no TTL is too long.
    type: float
  rpo_seconds:
    description: So many seconds of its newest data may be lost. Without it no lag is too long.
    type: float
  backup_copy_region:
    description: Region that shall have a copy of the backups; by default none is looked for.
    type: str
  policies:
    description:
      - The policies of the playbooks, each with the names of one host, as the filter P(sre.runbooks.iam_policy#filter) fills them in. What
        they allow to change is simulated for the credentials of this run; what only looks the run tries anyway.
      - Of the root user, or of a federated user, nothing can be told.
    type: list
    elements: dict
    default: []
    suboptions:
      scenario:
        description: Whose policy it is.
        type: str
        required: true
      region:
        description: Region of the host.
        type: str
        required: true
      policy:
        description: The policy.
        type: dict
        required: true
  drills:
    description: What tells M(sre.runbooks.readiness_report) how long a recovery takes, beside those that there were.
    type: dict
    default: {}
    suboptions:
      service:
        description: Name of the service, as drills have it.
        type: str
        default: ""
      held_in:
        description: Environments whose drills count, beside the service's own.
        type: list
        elements: str
        default: []
      within_days:
        description: Where fewer than three recoveries are known, one must be so new. Without it none has to be.
        type: int
  records:
    description: The bucket that keeps the records of runs, which M(sre.runbooks.record_bucket) makes; none if nothing is said.
    type: dict
    suboptions:
      bucket:
        description: Its name.
        type: str
        required: true
      region:
        description: Its region.
        type: str
        required: true
      account_id:
        description: The account that it has to belong to.
        type: str
      kms_key_arn:
        description: ARN of the key of KMS that it encrypts with, where it is one of the team's.
        type: str
  alarm_prefixes:
    description: What the names of the service's alarms begin with. They are looked at where O(alarms_queue_url) is given.
    type: list
    elements: str
    default: []
  alarms_queue_url:
    description:
      - URL of the queue that the rulebook reads. Alarms that tell nobody, topics that do not lead to it, and alarms that have had no data for
        a day are risks; not those that only scale, nor those that are a part of a composite alarm.
    type: str
  alarms_queue_region:
    description: Its region. Default is O(region).
    type: str
  rulebook_url:
    description: Where the rulebook listens for alerts. It is only asked whether it answers.
    type: str
  recovery_api:
    description: The service's own recovery API, asked for the state of O(service) in O(cluster).
    type: dict
    suboptions:
      url:
        description: Where C(/api/v1) begins, without it.
        type: str
        required: true
      token:
        description: Its bearer token.
        type: str
  routes:
    description:
      - Who hears of an incident, by its severity, each as O(sre.runbooks.incident_notify#module:route). The notifiers that they lead to are
        asked, without that anything is sent, whether they would take it. Nobody is told addresses that are in them.
    type: dict
    default: {}
  severities:
    description: How bad incidents may be, the worst first. That one must have a route, where there are any.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - sre.runbooks.checks
  - sre.runbooks.database_login
  - sre.runbooks.jira
  - sre.runbooks.notifiers
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs, as far as they are named, C(ecs:DescribeServices), C(ecs:DescribeTaskDefinition), C(ecr:DescribeImages),
    C(secretsmanager:DescribeSecret), C(ssm:DescribeParameters), C(rds:DescribeDBInstances), C(rds:DescribeDBSnapshots),
    C(rds:DescribeDBInstanceAutomatedBackups), C(cloudwatch:GetMetricData), C(route53:ListResourceRecordSets),
    C(route53:GetHealthCheck), C(elasticloadbalancing:DescribeListeners),
    C(elasticloadbalancing:DescribeListenerCertificates) and C(acm:DescribeCertificate),
    C(iam:SimulatePrincipalPolicy), and C(iam:GetRole) of a role that has a path,
    C(s3:ListBucket), C(s3:GetBucketVersioning), C(s3:GetEncryptionConfiguration), C(s3:GetBucketPublicAccessBlock),
    C(cloudwatch:DescribeAlarms), C(sns:ListSubscriptionsByTopic), C(sqs:GetQueueAttributes).
seealso:
  - name: SimulatePrincipalPolicy
    description: What IAM's simulator weighs.
    link: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
  - module: sre.runbooks.readiness_report
  - module: sre.runbooks.standby_assess
"""

EXAMPLES = r"""
- name: What the failover of tonight would lack
  sre.runbooks.readiness_assess:
    scenarios: [db_failover]
    region: us-east-1
    inventory:
      hosted_zone_id: Z1234567890ABC
    cluster: regami-cluster
    service: regami-service
    db_instance: regami-db-primary
    standby:
      region: us-west-2
      cluster: regami-cluster-secondary
      service: regami-service-secondary
      db_instance: regami-db-replica
    record: api.example.com
    hosted_zone_id: Z1234567890ABC
    rto_seconds: 900
    rpo_seconds: 60
    policies:
      - scenario: db_failover
        region: us-west-2
        policy:
          Version: "2012-10-17"
          Statement:
            - Effect: Allow
              Action: [rds:PromoteReadReplica]
              Resource: ["arn:aws:rds:*:123456789012:db:regami-db-replica*"]
    drills: {service: regami-api, held_in: [staging], within_days: 90}
"""

RETURN = r"""
readiness:
  description: The scenarios that were looked at, and what was found, each with the C(scenario) (empty for all of them), the C(level)
    (V(risk), V(cannot_tell) or V(not_ready)), the C(check), the C(resource), the reason and the C(fix); and what is C(promised).
  returned: success
  type: dict
  sample:
    scenarios: [db_failover]
    findings:
      - {scenario: db_failover, level: not_ready, check: inventory, resource: hosted_zone_id, because: hosted_zone_id is still a placeholder,
         fix: replace CHANGEME in the inventory}
    promised: {rto_seconds: 1800.0, rpo_seconds: 60.0, drills: {service: regami-api, held_in: [staging], within_days: 90}}
before:
  description: Always empty, as is RV(after).
  returned: success
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: Always empty.
  returned: success
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty.
  returned: success
  type: list
  elements: dict
  sample: []
notes:
  description: Always empty.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Always 0.
  returned: success
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import (
    channels,
    ecs,
    readiness_alarms,
    readiness_backups,
    readiness_certificates,
    readiness_contacts,
    readiness_images,
    readiness_inventory,
    readiness_names,
    readiness_permissions,
    readiness_records,
    readiness_replica,
    readiness_schema,
    readiness_secrets,
)
from ansible_collections.sre.runbooks.plugins.module_utils.aws import Aws, reason, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.masking import HIDDEN
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import LOGIN_ARGUMENTS, PASSWORD_SOURCES
from ansible_collections.sre.runbooks.plugins.module_utils.readiness import UNKNOWN, Found
from ansible_collections.sre.runbooks.plugins.module_utils.smoke import CHECK_ARGUMENTS
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = (
    "acm",
    "cloudwatch",
    "ecr",
    "ecs",
    "elbv2",
    "iam",
    "rds",
    "route53",
    "s3",
    "secretsmanager",
    "sns",
    "sqs",
    "ssm",
    "sts",
)
# Each has a CHECK, the SCENARIOS that it concerns (None for all), looks(aws, wanted, now) -> {resource: read}, and a pure
# judge({resource: answer}, wanted, now) -> Found of those that answered.
SUBJECTS = (
    readiness_replica,
    readiness_backups,
    readiness_images,
    readiness_secrets,
    readiness_schema,
    readiness_names,
    readiness_certificates,
    readiness_permissions,
    readiness_records,
    readiness_alarms,
    readiness_contacts,
)
RESOURCES = dict(
    cluster=dict(type="str"), service=dict(type="str"), db_instance=dict(type="str"), load_balancer_arn=dict(type="str")
)
ARGUMENTS = dict(
    scenarios=dict(type="list", elements="str", required=True),
    inventory=dict(type="dict", default={}),
    standby=dict(type="dict", options=dict(RESOURCES, region=dict(type="str", required=True))),
    record=dict(type="str"),
    type=dict(type="str", choices=["A", "AAAA", "CNAME"], default="A"),
    hosted_zone_id=dict(type="str"),
    dns_servers=dict(type="list", elements="str", default=[]),
    served=dict(type="list", elements="str", default=[]),
    rto_seconds=dict(type="float"),
    rpo_seconds=dict(type="float"),
    backup_copy_region=dict(type="str"),
    policies=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            scenario=dict(type="str", required=True),
            region=dict(type="str", required=True),
            policy=dict(type="dict", required=True),
        ),
    ),
    drills=dict(
        type="dict",
        default={},
        options=dict(
            service=dict(type="str", default=""),
            held_in=dict(type="list", elements="str", default=[]),
            within_days=dict(type="int"),
        ),
    ),
    records=dict(
        type="dict",
        options=dict(
            bucket=dict(type="str", required=True),
            region=dict(type="str", required=True),
            account_id=dict(type="str"),
            kms_key_arn=dict(type="str", no_log=False),
        ),
    ),
    alarm_prefixes=dict(type="list", elements="str", default=[]),
    alarms_queue_url=dict(type="str"),
    alarms_queue_region=dict(type="str"),
    rulebook_url=dict(type="str"),
    checks=CHECK_ARGUMENTS["checks"],
    recovery_api=dict(
        type="dict", options=dict(url=dict(type="str", required=True), token=dict(type="str", no_log=True))
    ),
    routes=dict(type="dict", default={}),
    severities=dict(type="list", elements="str", default=[]),
    **channels.ARGUMENTS,
    **RESOURCES,
    **LOGIN_ARGUMENTS,
)


class ReadinessAssess(Verb):
    """Look, and tell all that was found."""

    def __init__(self, module):
        super().__init__(module)
        self.inventory = module.params["inventory"]
        self.routes = module.params["routes"]
        # A result shows the parameters of its module (-vvv), and some of these values are passwords, or addresses of persons.
        module.params["inventory"] = dict.fromkeys(self.inventory, HIDDEN)
        module.params["routes"] = dict.fromkeys(self.routes, HIDDEN)
        standby = self.params["standby"]
        self.there = standby and Aws((standby["region"], *self.connection(module)[1:]))

    def observe(self):
        wanted, now = self.params, time.time()
        named = readiness_inventory.named_by(wanted["scenarios"])
        findings = list(readiness_inventory.judge(self.inventory, named))
        wanted = dict(wanted, definitions=self._definitions(), routes=self.routes)
        asked = {each: each.looks(self.aws, wanted, now) for each in SUBJECTS if _scenarios(each, wanted)}
        reads = {(each, resource): read for each, looks in asked.items() for resource, read in looks.items()}
        answers = tried_together(reads)
        for subject in asked:
            mine = {resource: answer for (each, resource), answer in answers.items() if each is subject}
            for each in _found(subject, mine, wanted, now):
                findings += each.told(subject.CHECK, _scenarios(subject, wanted))
        return {"findings": findings}

    def _definitions(self):
        """{"here", "standby": task definition} as far as there is one: the verbs of the scenarios say why there is none."""
        sides = {"here": (self.aws, self.params), "standby": (self.there, self.params["standby"] or {})}
        found = tried_together(
            {
                side: lambda aws=aws, named=named: _definition(ecs.Service(aws, named["cluster"], named["service"]))
                for side, (aws, named) in sides.items()
                if named.get("cluster") and named.get("service")
            }
        )
        return {side: each for side, each in found.items() if each and not isinstance(each, Exception)}

    @staticmethod
    def plan(observed, wanted):
        promised = {name: wanted[name] for name in ("rto_seconds", "rpo_seconds", "drills")}
        told = {"scenarios": wanted["scenarios"], "findings": observed["findings"], "promised": promised}
        return Plan(returned={"readiness": told})

    def view(self, observed):
        return {}


def _definition(service):
    found = service.definition(service.describe()["taskDefinition"])
    return found and found["taskDefinition"]


def _scenarios(subject, wanted):
    """Those that the subject concerns, of those that are looked at."""
    return [each for each in wanted["scenarios"] if subject.SCENARIOS is None or each in subject.SCENARIOS]


def _found(subject, answers, wanted, now):
    """What could not be read, and what the subject says of the rest."""
    for resource, answer in answers.items():
        if isinstance(answer, Exception):
            because = f"{resource} could not be looked at: {reason(answer)}"
            yield Found(UNKNOWN, str(resource), because, "see that it can be asked, then look again")
    known = {resource: answer for resource, answer in answers.items() if not isinstance(answer, Exception)}
    yield from subject.judge(known, wanted, now)


def main():
    run(
        verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], required_by={"login_user": ["login_db"]}),
        ReadinessAssess,
    )


if __name__ == "__main__":
    main()
