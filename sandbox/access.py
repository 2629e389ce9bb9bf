# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a session of a role or the key of a user may do: an explicit deny wins, and an inactive key opens nothing.

What a task may do in S3 under its role is judged in full, by the role's policies and the bucket's; so is all that a user may do
who was named by `control("enforce", user=NAME)`. All else is allowed to everybody who is not denied it, as moto has it.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .faults import Fault
from .permissions import Need, needed
from .policies import decide
from .s3 import BUCKET
from .wire import ApiError

if TYPE_CHECKING:
    from .wire import Call
    from .world import World


ROLE, POLICY = "regami-uploads", "uploads"


@dataclass(frozen=True)
class Session:
    role: str  # its name
    name: str
    issued: float  # second of the epoch

    @property
    def arn(self) -> str:
        return f"arn:aws:sts::{_world.account_id}:assumed-role/{self.role}/{self.name}"


_sessions: dict[str, Session] = {}  # by access key
_enforced: set[str] = set()  # names of users
_world: World


def credentials(role_arn: str, name: str, region: str) -> dict[str, str]:
    """The environment in which a program is the session `name` of a role."""
    role = role_arn.rpartition("/")[2]
    key = f"ASIA{hashlib.sha256(f'{role}/{name}'.encode()).hexdigest()[:16].upper()}"
    _sessions[key] = Session(role, name, time.time())
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": _world.secret("task_role"),
        "AWS_SESSION_TOKEN": _world.secret("task_session"),
        "AWS_REGION": region,
        "AWS_ENDPOINT_URL": _world.endpoint_url,
    }


def refuse(call: Call) -> None:
    """Raises ApiError where the caller may not do that."""
    key = _key_of_user(call.access_key)
    if key is not None and key.status == "Inactive":
        code = _INACTIVE.get("s3" if call.service == "s3" else call.protocol, "UnrecognizedClientException")
        raise ApiError(code, "The security token included in the request is invalid.", 403)
    session = session_of(call.access_key)
    user = key and key.user_name
    if session is None and user is None:
        return
    for need in needed(call, _world.account_id):
        why = _why_not(call, need, session, user)
        if why:
            who = session.arn if session else f"arn:aws:iam::{_world.account_id}:user/{user}"
            code = {"ec2": "UnauthorizedOperation", "json": "AccessDeniedException"}.get(call.protocol, "AccessDenied")
            quoted = f'"{need.resource}"' if call.service == "s3" else need.resource
            about = f" on resource: {quoted}" if need.resource else ""
            raise ApiError(code, f"User: {who} is not authorized to perform: {need.action}{about} {why}", 403)


# How each protocol calls a key that does not open anything; a JSON service answers UnrecognizedClientException.
_INACTIVE = {
    "query": "InvalidClientTokenId",
    "rest-xml": "InvalidClientTokenId",
    "ec2": "AuthFailure",
    "s3": "InvalidAccessKeyId",
}


def session_of(access_key: str) -> Session | None:
    """The session of a role that has this key: a task's, or one of AssumeRole."""
    if access_key in _sessions:
        return _sessions[access_key]
    assumed = _world.backend("sts", "aws").get_assumed_role_from_access_key(access_key)
    if assumed is None:
        return None
    role, _, name = assumed.arn.partition(":assumed-role/")[2].partition("/")
    return Session(role, name, assumed.access_key.create_date.timestamp())


def user_of(access_key: str) -> str | None:
    """The IAM user whose key this is."""
    key = _key_of_user(access_key)
    return key and key.user_name


def _key_of_user(access_key: str) -> Any:
    users = _world.backend("iam", "aws").users.values()
    return next((key for user in users for key in user.access_keys if key.access_key_id == access_key), None)


def _why_not(call: Call, need: Need, session: Session | None, user: str | None) -> str:
    """In the order in which AWS names the reason: an explicit deny of either kind comes before a permission that is missing."""
    of_caller = {"aws:requestedregion": call.region, "aws:tokenissuetime": session and session.issued}
    context = of_caller | need.facts | _tags_of(need.resource or "", call.region)
    policies = _role_policies(session.role) if session else _user_policies(user)
    of_caller = decide(policies, need.action, need.resource, context)
    by_role = call.service == "s3" and call.access_key in _sessions
    of_bucket = None
    if by_role:
        role_arn = f"arn:aws:iam::{_world.account_id}:role/{session.role}"
        bucket = _bucket_policy(call.path.strip("/").partition("/")[0], role_arn)
        of_bucket = decide([bucket], need.action, need.resource, context)
    if of_bucket is False:
        return "with an explicit deny in a resource-based policy"
    if of_caller is False:
        return "with an explicit deny in an identity-based policy"
    if by_role and not _within_boundary(session.role, need, context):
        return f"because no permissions boundary allows the {need.action} action"
    if of_caller or of_bucket or not (by_role or user in _enforced):
        return ""
    return f"because no identity-based policy allows the {need.action} action"


def may(who: str, action: str, resource: str, context: dict[str, Any]) -> bool | None:
    """What the policies of user/NAME or role/PATH/NAME say: True, False for an explicit deny, None for nothing. KeyError for nobody.

    A role is judged in full, as AWS does; a user whom nobody has named to `enforce` is allowed what no policy speaks of.
    """
    kind, _, path = who.partition("/")
    name = path.rpartition("/")[2]
    if kind == "role":
        arn = f"arn:aws:iam::{_world.account_id}:{who}"
        if getattr(_role(name), "arn", None) != arn:
            raise KeyError(who)
        decision = decide(_role_policies(name), action, resource, context)
        within = _within_boundary(name, Need(action, resource), context)
        return decision if within or decision is False else None
    if name not in _world.backend("iam", "aws").users:
        raise KeyError(who)
    decision = decide(_user_policies(name), action, resource, context)
    return True if decision is None and name not in _enforced else decision


def _tags_of(resource: str, region: str) -> dict[str, str]:
    """Those of an EC2 resource, as condition keys."""
    if not resource.startswith("arn:aws:ec2:"):
        return {}
    tags = _world.backend("ec2", region).tags.get(resource.rpartition("/")[2], {})
    return {f"aws:resourcetag/{key}".lower(): value for key, value in tags.items()}


def _role(name: str) -> Any:
    return next((each for each in _world.backend("iam", "aws").roles.values() if each.name == name), None)


def _within_boundary(name: str, need: Need, context: dict) -> bool:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html"""
    role = _role(name)
    arn = role and role.permissions_boundary_arn
    if not arn:
        return True
    policy = json.loads(_world.backend("iam", "aws").managed_policies[arn].document)
    return decide([policy], need.action, need.resource, context) is True


def _role_policies(name: str) -> list[dict]:
    role = _role(name)
    if role is None:
        return []
    texts = [*role.policies.values(), *(each.document for each in role.managed_policies.values())]
    return [json.loads(text) for text in texts]


def _user_policies(name: str | None) -> list[dict]:
    user = _world.backend("iam", "aws").users.get(name)
    if user is None:
        return []
    texts = [*user.policies.values(), *(each.document for each in user.managed_policies.values())]
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


def _trusts_the_account(role: Any) -> bool:
    account = {"*", _world.account_id, f"arn:aws:iam::{_world.account_id}:root"}
    statements = json.loads(role.assume_role_policy_document)["Statement"]
    named = [each.get("Principal", {}).get("AWS", []) for each in statements if each["Effect"] == "Allow"]
    return any(account & set([each] if isinstance(each, str) else each) for each in named)


def _lose_permission(world: World, how: str) -> None:
    """HOW: bucket (its policy denies), role (its policy is gone) or boundary (a limit that leaves out S3)."""
    region = world.regions[0]
    match how:
        case "bucket":
            denial = {"Sid": "KeepOut", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject"}
            reading = {
                "Sid": "Reading",
                "Effect": "Allow",
                "Principal": {"AWS": world.account_id},
                "Action": "s3:GetObject",
            }
            resource = {"Resource": f"arn:aws:s3:::{BUCKET}/*"}
            policy = {"Version": "2012-10-17", "Statement": [reading | resource, denial | resource]}
            world.client("s3", region).put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
        case "role":
            world.client("iam", region).delete_role_policy(RoleName=ROLE, PolicyName=POLICY)
        case "boundary":
            nothing = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}]}
            iam = world.client("iam", region)
            made = iam.create_policy(PolicyName="logs-only", PolicyDocument=json.dumps(nothing))["Policy"]["Arn"]
            iam.put_role_permissions_boundary(RoleName=ROLE, PermissionsBoundary=made)
        case _:
            raise ValueError(f"how {how!r}: bucket, role or boundary")


def _grant(world: World) -> None:
    allowed = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject"], "Resource": f"arn:aws:s3:::{BUCKET}/*"}
        ],
    }
    world.client("iam", world.regions[0]).put_role_policy(
        RoleName=ROLE, PolicyName=POLICY, PolicyDocument=json.dumps(allowed)
    )


def _permit(world: World) -> None:
    client = world.client("iam", world.regions[0])
    world.client("s3", world.regions[0]).delete_bucket_policy(Bucket=BUCKET)
    if _role(ROLE).permissions_boundary_arn:
        client.delete_role_permissions_boundary(RoleName=ROLE)
    _grant(world)


def _enforce(world: World, args: dict) -> None:
    """Judge in full what a user may do. ValueError for one that is not there."""
    if args["user"] not in world.backend("iam", "aws").users:
        raise ValueError(f"there is no user {args['user']}")
    _enforced.add(args["user"])


def _health(call: Call) -> dict:
    """AWS Health, of an account whose support plan does not have it.

    https://docs.aws.amazon.com/health/latest/ug/health-api.html
    """
    raise ApiError("SubscriptionRequiredException", "A support plan that includes the AWS Health API is required.")


def install(world: World) -> None:
    from moto.sts.models import STSBackend

    global _world
    _world = world
    world.gates.append(refuse)
    world.handlers["health"] = _health
    original = STSBackend.assume_role

    def assume_role(self: Any, role_session_name: str, role_arn: str, **rest: Any) -> Any:
        """Only of a role that trusts the account, where moto takes any; its session may do what the role may."""
        role = _role(role_arn.rpartition("/")[2])
        if role is None or not _trusts_the_account(role):
            who = f"arn:aws:iam::{world.account_id}:user/sandbox"
            message = f"User: {who} is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
            raise ApiError("AccessDenied", message, 403)
        made = original(self, role_session_name=role_session_name, role_arn=role_arn, **rest)
        _sessions[made.access_key_id] = Session(role.name, role_session_name, time.time())
        return made

    STSBackend.assume_role = assume_role


def seed(world: World) -> None:
    """The role under which users' uploads are kept: the account may assume it, to try it out."""
    _sessions.clear()
    _enforced.clear()
    trusted = {"Service": "ecs-tasks.amazonaws.com", "AWS": f"arn:aws:iam::{world.account_id}:root"}
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"}],
    }
    world.client("iam", world.regions[0]).create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))
    _grant(world)
    world.state["regions"].setdefault(world.regions[0], {})["uploads_role"] = ROLE


control = {"enforce": _enforce}

faults = {
    "uploads-denied": Fault(
        f"the role {ROLE} may not put into {BUCKET}, by its policy: HOW is bucket, role or boundary",
        _lose_permission,
        _permit,
        ("how",),
    ),
}
