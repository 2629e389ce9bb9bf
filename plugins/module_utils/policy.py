# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IAM policies weighed for one request, down to the statement that decides. Pure.

An explicit Deny of any policy wins; then the identity's policies or the resource's must allow, and each limit (permissions
boundary, VPC endpoint) must too. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
What a condition asks for and nobody knows leaves the statement undecided: it is told, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Policy:
    """One document. `kind`: identity, resource, boundary or endpoint; `name` is for people."""

    kind: str
    name: str
    statements: tuple

    @classmethod
    def of(cls, kind, name, document):
        found = (document or {}).get("Statement", [])
        return cls(kind, name, tuple(found if isinstance(found, list) else [found]))


@dataclass(frozen=True)
class Request:
    """`principal`: the ARN of the caller, of a role or a user, or the name of a service of AWS. `context`: condition keys in lower case."""

    action: str
    resource: str
    principal: str = ""
    context: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`kind` and `policy` of what denies ("" where all allow); `statement` where it is an explicit Deny. `undecided`: names of
    Deny statements whose condition cannot be known."""

    allowed: bool
    kind: str = ""
    policy: str = ""
    statement: dict | None = None
    undecided: tuple = ()


def judge(request, policies):
    """The Verdict of `policies` on a request."""
    undecided = []
    for policy in policies:
        for statement in policy.statements:
            if statement.get("Effect") != "Deny" or not applies(statement, request, policy.kind):
                continue
            holds = condition_holds(statement.get("Condition", {}), request.context)
            if holds:
                return Verdict(False, policy.kind, policy.name, statement, tuple(undecided))
            if holds is None:
                undecided.append(f"{statement.get('Sid') or 'a statement'} of {policy.name}")
    for kind in ("boundary", "endpoint"):
        limits = [policy for policy in policies if policy.kind == kind]
        refusing = [policy for policy in limits if not lets_in(policy, request)]
        if refusing:
            return Verdict(False, kind, refusing[0].name, None, tuple(undecided))
    # A resource's policy that names the account leaves it to the account's own policies.
    if not any(
        lets_in(policy, request, policy.kind == "identity")
        for policy in policies
        if policy.kind in ("identity", "resource")
    ):
        return Verdict(False, "identity", "", None, tuple(undecided))
    return Verdict(True, undecided=tuple(undecided))


def lets_in(policy, request, by_account=True):
    """Whether a statement allows it, where nothing denies; `by_account`: be it by naming the caller's account."""
    return any(
        statement.get("Effect") == "Allow"
        and applies(statement, request, policy.kind, by_account)
        and condition_holds(statement.get("Condition", {}), request.context) is not False
        for statement in policy.statements
    )


def applies(statement, request, kind, by_account=True):
    """Whether a statement speaks of this action, resource and, in a resource's or endpoint's policy, principal."""
    action = request.action.lower()
    if "Action" in statement:
        named = any(_like(action, each.lower()) for each in _list(statement["Action"]))
    else:
        named = not any(_like(action, each.lower()) for each in _list(statement.get("NotAction", [])))
    if "NotResource" in statement:
        meant = not any(_like(request.resource, each) for each in _list(statement["NotResource"]))
    else:
        meant = any(_like(request.resource, each) for each in _list(statement.get("Resource", "*")))
    return named and meant and (kind in ("identity", "boundary") or _names(statement, request.principal, by_account))


def _names(statement, principal, by_account):
    if ":" not in principal:
        return _names_service(statement, principal)
    account = principal.split(":")[4] if by_account else None
    known = {"*", principal, *([account, f"arn:aws:iam::{account}:root"] if account else [])}
    excepted = "NotPrincipal" in statement
    named = statement["NotPrincipal"] if excepted else statement.get("Principal", "*")
    listed = _list(named.get("AWS", []) if isinstance(named, dict) else named)
    return excepted != bool(known.intersection(listed))


def _names_service(statement, service):
    named = statement.get("Principal", {})
    return named == "*" or service in _list(named.get("Service", [])) or "*" in _list(named.get("AWS", []))


def condition_holds(condition, context):
    """True, False, or None where a key is asked for that nobody knows."""
    answers = [
        _test(operator, context.get(key.lower()), _list(values), key.lower() in context)
        for operator, keys in condition.items()
        for key, values in keys.items()
    ]
    if False in answers:
        return False
    return None if None in answers else True


def _test(operator, value, values, is_known):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html

    A key whose value is None is known not to be in the request.
    """
    if_exists = operator.endswith("IfExists")
    name = operator.removesuffix("IfExists")
    if not is_known:
        return None
    if name == "Null":
        return (value is None) == (str(values[0]).lower() == "true")
    negative = "Not" in name
    if value is None:
        return True if if_exists else negative
    texts = [str(each) for each in values]
    match name.replace("Not", ""):
        case "StringEquals":
            found = value in texts
        case "StringEqualsIgnoreCase" | "Bool":
            found = value.lower() in [each.lower() for each in texts]
        case "StringLike" | "ArnLike" | "ArnEquals":
            found = any(_like(value, each) for each in texts)
        case _:
            return None
    return found != negative


def _like(value, pattern):
    # "[" is a letter like others in IAM.
    return fnmatchcase(value, pattern.replace("[", "[[]"))


def _list(value):
    return value if isinstance(value, list) else [value]
