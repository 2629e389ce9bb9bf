# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which permissions an API call needs, as a policy names them, and on which resource.

Most are service:Operation. The exceptions stand here, each with the page of AWS that tells it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from .wire import Call

# A file to which each permission that a playbook needs is added once, for `make iam`.
OBSERVED_VARIABLE = "SRE_SANDBOX_OBSERVED"

_PREFIXES = {"elbv2": "elasticloadbalancing", "s3control": "s3"}

# Who one is, one is told in any case. https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
_FREE = {("sts", "GetCallerIdentity")}

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
_OF_S3 = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
# What is asked of one version goes by a name of its own.
_OF_VERSION = {"DeleteObject", "GetObject", "GetObjectTagging"}
_BY_HEADER = {
    "x-amz-acl": "PutObjectAcl",
    "x-amz-object-lock-mode": "PutObjectRetention",
    "x-amz-tagging": "PutObjectTagging",
}

# What a call needs besides its own name: {(service, action): permissions}.
_BESIDES = {
    # https://docs.aws.amazon.com/codedeploy/latest/userguide/auth-and-access-control-permissions-reference.html
    ("codedeploy", "CreateDeployment"): ("codedeploy:GetDeploymentConfig", "codedeploy:RegisterApplicationRevision"),
    # Those of the task definition. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/security_iam_service-with-iam.html
    ("ecs", "RunTask"): ("iam:PassRole",),
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-iam-role-policies.html
    ("s3control", "CreateJob"): ("iam:PassRole",),
}

# The resource that a call is about, of each service, by the first parameter that is given: (its name, what the ARN ends in). A
# value that is an ARN is the resource itself. https://docs.aws.amazon.com/service-authorization/latest/reference/
_RESOURCES = {
    "autoscaling": (("AutoScalingGroupName", "autoScalingGroup:*:autoScalingGroupName/{}"),),
    "codedeploy": (("deploymentGroupName", "deploymentgroup:{applicationName}/{}"),),
    "dynamodb": (("TableName", "table/{}"),),
    "ec2": (
        ("InstanceId", "instance/{}"),
        ("NetworkInterfaceId", "network-interface/{}"),
        ("VolumeId", "volume/{}"),
        ("GroupId", "security-group/{}"),
    ),
    "ecs": (
        ("service", "service/{cluster}/{}"),
        ("task", "task/{cluster}/{}"),
        ("resourceArn", "{}"),
        ("taskDefinition", "task-definition/{}"),
        ("family", "task-definition/{}:*"),
    ),
    "elasticache": (("ReplicationGroupId", "replicationgroup:{}"), ("CacheClusterId", "cluster:{}")),
    "elasticloadbalancing": (
        ("RuleArn", "{}"),
        ("ListenerArn", "{}"),
        ("TargetGroupArn", "{}"),
        ("LoadBalancerArn", "{}"),
        ("ResourceArns.member.1", "{}"),
        ("RulePriorities.member.1.RuleArn", "{}"),
    ),
    "iam": (("RoleName", "role/{}"), ("UserName", "user/{}")),
    "kms": (("KeyId", "key/{}"),),
    "logs": (("logGroupName", "log-group:{}:*"),),
    "rds": (
        ("DBInstanceIdentifier", "db:{}"),
        ("TargetDBInstanceIdentifier", "db:{}"),
        ("ResourceName", "{}"),
        ("DBParameterGroupName", "pg:{}"),
        ("DBSnapshotIdentifier", "snapshot:{}"),
    ),
    "secretsmanager": (("SecretId", "secret:{}"),),
    "ssm": (("DocumentName", "document/{}"),),
    "sts": (("RoleArn", "{}"),),
}
# Instances that a call is about, besides or instead of the one of InstanceId: as their permissions are given for those of a tag only,
# each counts. The document that runs on them counts too.
_INSTANCES = {
    ("ec2", "CreateSnapshots"): re.compile(r"InstanceSpecification\.InstanceId"),
    ("ec2", "CreateTags"): re.compile(r"ResourceId\.\d+"),
    ("ec2", "DeleteTags"): re.compile(r"ResourceId\.\d+"),
    ("ssm", "SendCommand"): re.compile("InstanceIds"),
}
# Whose ARNs name no region.
_GLOBAL = {"iam"}
# Where an update of a group's launch template stands.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
_TEMPLATE = re.compile(r"LaunchTemplate\.")


@dataclass(frozen=True)
class Need:
    """A permission, such as s3:ListBucket, on the ARN of a resource; None where the request does not tell it.

    `facts`: condition keys of this call alone, in lower case.
    """

    action: str
    resource: str | None
    facts: dict[str, Any] = field(default_factory=dict)


def needed(call: Call, account: str) -> list[Need]:
    """What the caller must be allowed; all of it."""
    if (call.service, call.action) in _FREE:
        return []
    own = _of_s3(call) if call.service == "s3" else _of_service(call, account)
    besides = [Need(action, None) for action in _BESIDES.get((call.service, call.action), ())]
    return own + besides


def _of_service(call: Call, account: str) -> list[Need]:
    prefix = _PREFIXES.get(call.service, call.service)
    action = f"{prefix}:{call.action}"
    if call.protocol == "rest-xml":  # Route 53, whose path names the resource
        zone = re.search(r"/hostedzone/(\w+)", call.path)
        return [Need(action, f"arn:aws:route53:::hostedzone/{zone[1]}" if zone else None)]
    given = {key: value for key, value in call.params.items() if value}
    facts = (
        {"aws:tagkeys": [value for key, value in given.items() if _TAG_KEY.fullmatch(key)]} if prefix == "ec2" else {}
    )
    own = Need(action, _resource(prefix, call.region, account, given), facts)
    instances = [Need(action, each, facts) for each in _instances(prefix, call, account, given)]
    made = {"ec2:createaction": call.action}
    besides = [Need(more, None, made) for more in _with_parameters(prefix, call.action, given)]
    return [*([own] if own.resource or not instances else []), *instances, *besides, *_passed(given)]


def _passed(given: dict[str, Any]) -> list[Need]:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html"""
    roles = dict.fromkeys(given[name] for name in ("taskRoleArn", "executionRoleArn") if given.get(name))
    return [Need("iam:PassRole", role, {"iam:passedtoservice": "ecs-tasks.amazonaws.com"}) for role in roles]


# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html
_TAG_KEY = re.compile(r"Tag\.\d+\.Key")


def _instances(service: str, call: Call, account: str, given: dict[str, Any]) -> list[str]:
    names = _INSTANCES.get((service, call.action))
    found = [value for key, value in given.items() if names and names.fullmatch(key)]
    ids = [each for value in found for each in (value if isinstance(value, list) else [value])]
    return [f"arn:aws:ec2:{call.region}:{account}:instance/{each}" for each in ids if each.startswith("i-")]


def _resource(service: str, region: str, account: str, given: dict[str, Any]) -> str | None:
    named = [(given[name], path) for name, path in _RESOURCES.get(service, ()) if isinstance(given.get(name), str)]
    if not named:
        return None
    value, path = named[0]
    if value.startswith("arn:"):
        return value
    # A cluster is named, or its ARN.
    others = {"cluster": str(given.get("cluster", "default")).rpartition("/")[2]}
    where = "" if service in _GLOBAL else region
    return f"arn:aws:{service}:{where}:{account}:{path.format(value, **{**given, **others})}"


def _with_parameters(prefix: str, action: str, given: dict[str, Any]) -> list[str]:
    """What some parameters need besides."""
    more = []
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
    if prefix == "ec2" and action != "CreateTags" and any(key.startswith("TagSpecification.") for key in given):
        more.append("ec2:CreateTags")
    # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_Tagging.html
    if prefix == "rds" and action != "AddTagsToResource" and any(key.startswith("Tags.") for key in given):
        more.append("rds:AddTagsToResource")
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/supported-iam-actions-tagging.html
    if prefix == "ecs" and action != "TagResource" and given.get("tags"):
        more.append("ecs:TagResource")
    if prefix == "autoscaling" and any(_TEMPLATE.search(key) for key in given):
        more += ["ec2:RunInstances", "iam:PassRole"]
    return more


def _of_s3(call: Call) -> list[Need]:
    path = unquote(call.path).strip("/")
    query = parse_qs(urlsplit(call.target).query, keep_blank_values=True)
    name = _OF_S3.get(call.action, call.action)
    action = _versioned(name, "versionId" in query or (call.action == "DeleteObjects" and b"<VersionId>" in call.body))
    resource = f"arn:aws:s3:::{path}" if path else None
    if call.action == "DeleteObjects":
        resource += "/*"
    found = [Need(action, resource)]
    if source := call.headers.get("x-amz-copy-source"):
        key, _, version = unquote(source).lstrip("/").partition("?versionId=")
        found.append(Need(_versioned("GetObject", bool(version)), f"arn:aws:s3:::{key}"))
    if name == "PutObject":
        found += [Need(f"s3:{each}", resource) for header, each in _BY_HEADER.items() if call.headers.get(header)]
    return found


def _versioned(name: str, is_version: bool) -> str:
    if is_version and name in _OF_VERSION:
        name = name.removesuffix("Tagging") + "Version" + ("Tagging" if name.endswith("Tagging") else "")
    return f"s3:{name}"


class Observed:
    """The permissions that each playbook was seen to need, in a file of JSON lines that many sandboxes add to."""

    def __init__(self, path: str | None) -> None:
        self._path, self._seen, self._lock = Path(path) if path else None, set(), threading.Lock()

    def add(self, playbook: str | None, needs: list[Need]) -> None:
        """One write a line to a file opened for appending, so that sandboxes do not mix their lines."""
        if self._path is None:
            return
        with self._lock:
            new = {(playbook, need.action) for need in needs} - self._seen
            self._seen |= new
        lines = "".join(json.dumps({"playbook": name, "action": action}) + "\n" for name, action in sorted(new))
        if lines:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, lines.encode())
            finally:
                os.close(descriptor)
