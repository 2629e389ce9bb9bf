#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: standby_assess
version_added: 0.3.0
short_description: Say whether a standby has all it needs, and needs nothing of the region that is left
description:
  - Looks at the task definition of the standby service for what it takes from O(failed_region), such as its image, secrets,
    log group or variables that name it; whether its other images, secrets and parameters are there; at quotas and free addresses
    for as many tasks as O(desired_count) is more than the service has; and at the caches, queues and buckets that it has in
    O(region).
  - What is missing refuses, since tasks that do not start cost the minutes that a failover is to save. What nobody answers for, or
    this run may not ask, does not refuse, and is noted.
  - What is taken from O(failed_region) is missing where all of that region is left (O(leaves_region)), or does not answer; else it
    is looked for there, and noted.
  - Waits for no more than a second for O(failed_region), such as for how many messages its queues still hold, and goes on without.
  - Changes nothing.
options:
  cluster:
    description: Name or ARN of the standby's ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the standby's ECS service.
    type: str
    required: true
  failed_region:
    description: The region that is left.
    type: str
    required: true
  leaves_region:
    description: Whether all of O(failed_region) is left, and not only its database.
    type: bool
    default: true
  desired_count:
    description: How many tasks the standby is to run.
    type: int
    required: true
  moved_variables:
    description: Variables of the task definition that are pointed elsewhere later, and may name O(failed_region) until then.
    type: list
    elements: str
    default: [DATABASE_URL]
  caches:
    description: Ids of the ElastiCache replication groups that the service uses in O(region).
    type: list
    elements: str
    default: []
  queues:
    description: Names of the SQS queues that the service uses in O(region).
    type: list
    elements: str
    default: []
  buckets:
    description: Names of the S3 buckets that the service uses in O(region).
    type: list
    elements: str
    default: []
  failed_queues:
    description: Names of the SQS queues in O(failed_region) whose messages stay behind.
    type: list
    elements: str
    default: []
  accept_missing:
    description: Go on although something is missing, which is noted then.
    type: bool
    default: false
  accept_shortage:
    description: Go on although a quota or the subnets have too little left for the tasks, which is noted then.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ecs:DescribeServices), C(ecs:DescribeTaskDefinition), C(servicequotas:GetServiceQuota),
    C(servicequotas:GetAWSDefaultServiceQuota), C(cloudwatch:GetMetricStatistics), C(ec2:DescribeSubnets), and as far as they are
    named C(ecr:DescribeImages), C(secretsmanager:DescribeSecret), C(ssm:DescribeParameters), C(elasticache:DescribeReplicationGroups),
    C(sqs:GetQueueUrl), C(sqs:GetQueueAttributes) and C(s3:ListBucket).
seealso:
  - module: sre.runbooks.rds_promote_replica
  - module: sre.runbooks.route53_failover
"""

EXAMPLES = r"""
- name: Nothing of the standby hangs on the region that is left
  sre.runbooks.standby_assess:
    cluster: regami-cluster-secondary
    service: regami-service-secondary
    region: us-west-2
    failed_region: us-east-1
    desired_count: 2
"""

RETURN = r"""
missing:
  description: What stands in the way, a line each.
  returned: success
  type: list
  elements: str
  sample: []
before:
  description: The standby as found.
  returned: success
  type: dict
  sample: {desired: 0, running: 0, task_definition: "regami-api:3"}
after:
  description: The same, since nothing is changed.
  returned: success
  type: dict
  sample: {desired: 0, running: 0, task_definition: "regami-api:3"}
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
  description: What stays behind, what was accepted, and what could not be asked.
  returned: success
  type: list
  elements: str
  sample: ["regami-jobs in us-east-1 still holds 12 messages, which nobody works off there"]
waited_seconds:
  description: Always 0.
  returned: success
  type: float
  sample: 0.0
"""

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, registry, room, static_stability, task_secrets
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import NotLetIn, Refusal, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.task_definition import short
from ansible_collections.sre.runbooks.plugins.module_utils.verb import (
    REFUSED,
    Plan,
    Verb,
    run,
    verb_module,
    why_stopped,
)

SERVICES = (
    "cloudwatch",
    "dynamodb",
    "ec2",
    "ecr",
    "ecs",
    "elasticache",
    "s3",
    "secretsmanager",
    "service-quotas",
    "sqs",
    "ssm",
    "sts",
)
ARGUMENTS = dict(
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    failed_region=dict(type="str", required=True),
    leaves_region=dict(type="bool", default=True),
    desired_count=dict(type="int", required=True),
    moved_variables=dict(type="list", elements="str", default=["DATABASE_URL"]),
    caches=dict(type="list", elements="str", default=[]),
    queues=dict(type="list", elements="str", default=[]),
    buckets=dict(type="list", elements="str", default=[]),
    failed_queues=dict(type="list", elements="str", default=[]),
    accept_missing=dict(type="bool", default=False),
    accept_shortage=dict(type="bool", default=False),
)


class StandbyAssess(Verb):
    """Read, and refuse what would refuse half way."""

    def __init__(self, module):
        super().__init__(module)
        self.service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        self.failed = self.params["failed_region"]
        self.aws.hurried.add(self.failed)

    def observe(self):
        service = self.service.describe()
        definition = self.service.definition(service["taskDefinition"])
        if definition is None:
            raise Refusal(f"the task definition {short(service['taskDefinition'])} of {self.service.name} is gone")
        definition = definition["taskDefinition"]
        # All at once: a recovery waits for it.
        seen = together(
            source_serves=self._source_serves,
            there=lambda: tried_together(self._lacks(definition)),
            left=lambda: tried_together(
                {name: lambda name=name: self._messages(name, self.failed) for name in self.params["failed_queues"]}
            ),
            rooms=lambda: list(together(**self._rooms(service, definition)).values()),
        )
        return {"service": service, "definition": definition, **seen}

    def _source_serves(self):
        """Whether what comes from the failed region goes on to come: only its database is left, and it answers."""
        if self.params["leaves_region"]:
            return False
        try:
            self.aws.read("sts", "get_caller_identity", region=self.failed)
        except Unreachable:
            return False
        return True

    def _lacks(self, definition):
        """{what: a call that says what it lacks}, but for what is in a region that is left, which is not asked."""
        wanted, here = self.params, self.aws.region
        left = self.failed if wanted["leaves_region"] else None
        looks = {f"the cache {name} in {here}": lambda name=name: self._cache(name) for name in wanted["caches"]}
        looks |= {f"the queue {name} in {here}": lambda name=name: self._queue(name) for name in wanted["queues"]}
        looks |= {f"the bucket {name} in {here}": lambda name=name: self._bucket(name) for name in wanted["buckets"]}
        for each in definition["containerDefinitions"]:
            if not left or not static_stability.names(left, each["image"]):
                what = f"the image {each['image']} of container {each['name']}"
                looks[what] = lambda name=each["image"]: self._image(name)
        for secret, variables in task_secrets.variables(definition, here).items():
            if secret.region != left:
                what = f"the {secret} for {' and '.join(variables)}"
                looks[what] = lambda secret=secret: task_secrets.lack(self.aws, secret)
        return looks

    def _rooms(self, service, definition):
        if _lacking(service, self.params) <= 0:
            return {}
        network = (service.get("networkConfiguration") or {}).get("awsvpcConfiguration")
        asked = {}
        if room.fargate_kinds(service):
            asked |= room.fargate(self.aws, service, int(definition["cpu"]) / room.CPU_UNITS)
        if network:
            asked["addresses"] = lambda: room.addresses(self.aws, network["subnets"])
        return asked

    def _image(self, name):
        image = registry.look(self.aws, name)
        if image.state == registry.GONE:
            return f"cannot be pulled: {image.why} (push it again, or have the registry replicate it)"
        if image.state == registry.UNKNOWN and registry.is_ecr(name):
            raise NotLetIn(image.why)
        return None

    def _cache(self, name):
        found = self.aws.read("elasticache", "describe_replication_groups", ReplicationGroupId=name)
        status = found["ReplicationGroups"][0]["Status"]
        return None if status == "available" else f"is {status}"

    def _queue(self, name):
        self.aws.read("sqs", "get_queue_url", QueueName=name)

    def _messages(self, name, region):
        """How many messages wait in a queue, those that are being worked on included."""
        url = self.aws.read("sqs", "get_queue_url", region=region, QueueName=name)["QueueUrl"]
        counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self.aws.read("sqs", "get_queue_attributes", region=region, QueueUrl=url, AttributeNames=list(counts))
        return sum(int(found["Attributes"][each]) for each in counts)

    def _bucket(self, name):
        answer = self.aws.read("s3", "head_bucket", Bucket=name)
        where = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", self.aws.region)
        return None if where == self.aws.region else f"is in {where}"

    @staticmethod
    def plan(observed, wanted):
        name, failed = observed["service"]["serviceName"], wanted["failed_region"]
        hangs = list(static_stability.needs(observed["definition"], failed, wanted["moved_variables"]))
        missing, unknown = [] if observed["source_serves"] else list(hangs), []
        for what, lacks in observed["there"].items():
            if isinstance(lacks, Exception):
                # Who could not be asked has not said no.
                (missing if why_stopped(lacks) == REFUSED else unknown).append(f"{what}: {reason(lacks)}")
            elif lacks:
                missing.append(f"{what} {lacks}")
        in_the_way, notes = [], [f"ACCEPTED: {each}" for each in missing] + [f"NOT CHECKED: {each}" for each in unknown]
        if observed["source_serves"]:
            notes += [f"ACCEPTED, since {failed} answers: {each}" for each in hangs]
        more = _lacking(observed["service"], wanted)
        try:
            notes += room.check(f"tasks of {name}", more, observed["rooms"], wanted["accept_shortage"])
        except Refusal as short_of:
            in_the_way.append(str(short_of))
        # Last, since what a message ends with is told as what to do about all of it.
        if missing and not wanted["accept_missing"]:
            mend = "mend that, or say -e accept_missing=true"
            in_the_way.append(f"{name} cannot take over: {'; '.join(missing)}: {mend}")
        if in_the_way:
            raise Refusal(f"{'; '.join(in_the_way)}; nothing was changed")
        for queue, count in observed["left"].items():
            if isinstance(count, Exception):
                notes.append(f"how many messages {queue} in {failed} still holds is not known: {reason(count)}")
            elif count:
                notes.append(f"{queue} in {failed} still holds {count} messages, which nobody works off there")
        if wanted["buckets"]:
            notes.append(
                f"objects that were written in {failed} and not replicated yet are not in {', '.join(wanted['buckets'])}"
            )
        return Plan(notes=tuple(notes), returned={"missing": missing})

    def view(self, observed):
        service = observed["service"]
        return {
            "desired": service["desiredCount"],
            "running": service["runningCount"],
            "task_definition": short(service["taskDefinition"]),
        }


def _lacking(service, wanted):
    """How many tasks more than it has the standby shall run: what a run before this has started needs no room."""
    return wanted["desired_count"] - service["desiredCount"]


def main():
    run(verb_module(ARGUMENTS), StandbyAssess)


if __name__ == "__main__":
    main()
