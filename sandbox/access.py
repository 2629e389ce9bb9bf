# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task may do in S3 under its role: the role's policies and the bucket's decide, and an explicit deny wins.

Only what comes with the credentials of a task's role is judged; everybody else may do everything, as moto has it.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .wire import ApiError

if TYPE_CHECKING:
    from .wire import Call
    from .world import World


# Permissions that go by another name than the call.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
_ACTIONS = {
    "CopyObject": "PutObject",
    "DeleteObjects": "DeleteObject",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}


@dataclass(frozen=True)
class Session:
    role: str  # its name
    name: str


_sessions: dict[str, Session] = {}  # by access key
_world: World


def credentials(role_arn: str, name: str, region: str) -> dict[str, str]:
    """The environment in which a program is the session `name` of a role."""
    role = role_arn.rpartition("/")[2]
    key = f"ASIA{hashlib.sha256(f'{role}/{name}'.encode()).hexdigest()[:16].upper()}"
    _sessions[key] = Session(role, name)
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": _world.secret("task_role"),
        "AWS_SESSION_TOKEN": _world.secret("task_session"),
        "AWS_REGION": region,
        "AWS_ENDPOINT_URL": _world.endpoint_url,
    }


def refuse(call: Call) -> None:
    """Raises ApiError where the caller may not do that."""
    session = _sessions.get(call.access_key)
    if session is None or call.service != "s3":
        return
    from moto.iam.access_control import PermissionResult

    action, resource = f"s3:{_ACTIONS.get(call.action, call.action)}", f"arn:aws:s3:::{call.path.strip('/')}"
    role_arn = f"arn:aws:iam::{_world.account_id}:role/{session.role}"
    # The order in which AWS names the reason: an explicit deny of either kind comes before a permission that is missing.
    of_bucket = _judged(_bucket_policy(call.path.strip("/").partition("/")[0], role_arn), action, resource)
    of_role = [_judged(policy, action, resource) for policy in _role_policies(session.role)]
    if of_bucket is PermissionResult.DENIED:
        why = "with an explicit deny in a resource-based policy"
    elif PermissionResult.DENIED in of_role:
        why = "with an explicit deny in an identity-based policy"
    elif PermissionResult.PERMITTED in (of_bucket, *of_role):
        return
    else:
        why = f"because no identity-based policy allows the {action} action"
    who = f"arn:aws:sts::{_world.account_id}:assumed-role/{session.role}/{session.name}"
    raise ApiError(
        "AccessDenied", f'User: {who} is not authorized to perform: {action} on resource: "{resource}" {why}', 403
    )


def _judged(policy: dict, action: str, resource: str) -> Any:
    from moto.iam.access_control import IAMPolicy

    return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)


def _role_policies(name: str) -> list[dict]:
    backend = _world.backend("iam", "aws")
    role = next((each for each in backend.roles.values() if each.name == name), None)
    if role is None:
        return []
    texts = [*role.policies.values(), *(each.document for each in role.managed_policies.values())]
    return [json.loads(text) for text in texts]


def _bucket_policy(bucket: str, role_arn: str) -> dict:
    """Its statements that are about this role."""
    known = _world.backend("s3", "aws").buckets.get(bucket)
    statements = json.loads(known.policy)["Statement"] if known and known.policy else []
    return {"Statement": [_for_anybody(each) for each in statements if _names(each.get("Principal"), role_arn)]}


def _names(principal: Any, role_arn: str) -> bool:
    named = principal.get("AWS", []) if isinstance(principal, dict) else principal
    named = [named] if isinstance(named, str) else named or []
    return "*" in named or role_arn in named


def _for_anybody(statement: dict) -> dict:
    return {name: value for name, value in statement.items() if name != "Principal"}


def install(world: World) -> None:
    global _world
    _world = world
    world.gates.append(refuse)


def seed(world: World) -> None:
    _sessions.clear()
