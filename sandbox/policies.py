# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IAM policies weighed for one permission, as AWS does.

moto takes a resource for a regular expression, and an Allow whose condition does not hold for a Deny.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any


def decide(documents: list[dict], action: str, resource: str | None, context: dict[str, Any]) -> bool | None:
    """False where a statement denies it, True where one allows it, None where none speaks of it.

    `resource` None is one that nobody knows: what allows it for some resource allows it, and only what denies it for all
    denies it. `context`: condition keys in lower case; times in seconds of the epoch.
    """
    found = [
        statement["Effect"]
        for document in documents
        for statement in _list(document["Statement"])
        if _speaks_of(statement, action, resource) and _holds(statement.get("Condition", {}), context)
    ]
    return False if "Deny" in found else True if "Allow" in found else None


def _speaks_of(statement: dict, action: str, resource: str | None) -> bool:
    named = any(
        _like(action.lower(), each.lower()) for each in _list(statement.get("Action") or statement["NotAction"])
    )
    if named == ("NotAction" in statement):
        return False
    resources = _list(statement.get("Resource", "*"))
    if resource is None:
        return statement["Effect"] == "Allow" or "*" in resources
    return any(_like(resource, each) for each in resources)


def _holds(condition: dict, context: dict[str, Any]) -> bool:
    return all(
        _compared(operator, context.get(key.lower()), _list(values))
        for operator, keys in condition.items()
        for key, values in keys.items()
    )


def _compared(operator: str, known: Any, values: list) -> bool:
    """A key that is not in the request makes a condition false, and one that negates or says IfExists true.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    every, _, plain = operator.rpartition("ForAllValues:")
    if every or operator.startswith("ForAllValues:"):
        return all(_compared(plain, each, values) for each in _list(known or []))
    if known is None:
        return operator.endswith("IfExists") or "Not" in operator
    match operator.removesuffix("IfExists"):
        case "StringEquals":
            return known in values
        case "StringNotEquals":
            return known not in values
        case "StringLike" | "ArnLike" | "ArnEquals":
            return any(_like(known, each) for each in values)
        case "Bool":
            return str(known).lower() in [str(each).lower() for each in values]
        case "DateLessThan":
            return any(known < datetime.fromisoformat(each.replace("Z", "+00:00")).timestamp() for each in values)
    raise ValueError(f"the sandbox does not weigh conditions of {operator}")


def _like(text: str, pattern: str) -> bool:
    # "[" is a letter like others here.
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [value]
