# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""iam:SimulatePrincipalPolicy, which moto does not have: what a user or a role would be allowed, by the policies of this sandbox.

It judges as `access` does, and so answers what a call would meet: whom nobody named by `control("enforce", user=NAME)` is refused
only what a policy denies. It simulates one or several resources and pages its answer.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import access
from .wire import ApiError

if TYPE_CHECKING:
    from .world import World

MOST_ITEMS = 100
# Who asks with a key that no user has: moto's own user, whom nothing is refused.
ANYBODY = "user/moto"
DECISIONS = {True: "allowed", False: "explicitDeny", None: "implicitDeny"}


def install(world: World) -> None:
    from moto.core.responses import ActionResult
    from moto.iam.responses import IamResponse

    def simulate_principal_policy(self: Any) -> Any:
        given = self._get_param
        who = given("PolicySourceArn").rpartition(":")[2]
        context = {
            entry["ContextKeyName"].lower(): entry["ContextKeyValues"][0] for entry in given("ContextEntries", [])
        }
        resources = given("ResourceArns", ["*"])
        found = [_evaluated(who, action, resources, context) for action in given("ActionNames")]
        first, size = int(given("Marker") or 0), int(given("MaxItems") or MOST_ITEMS)
        following = first + size
        answer: dict[str, Any] = {
            "EvaluationResults": found[first:following],
            "IsTruncated": following < len(found),
        }
        if answer["IsTruncated"]:
            answer["Marker"] = str(following)
        return ActionResult(answer)

    IamResponse.simulate_principal_policy = simulate_principal_policy


def _evaluated(who: str, action: str, resources: list[str], context: dict[str, Any]) -> dict:
    """The result of one action; its own decision is the most restrictive of those on single resources."""
    each = {resource: _decision(who, action, resource, context) for resource in resources}
    worst = next(word for word in ("explicitDeny", "implicitDeny", "allowed") if word in each.values())
    return {
        "EvalActionName": action,
        "EvalResourceName": "*",
        "EvalDecision": worst,
        "MatchedStatements": [],
        "MissingContextValues": [],
        "ResourceSpecificResults": [
            {"EvalResourceName": resource, "EvalResourceDecision": decision, "MatchedStatements": []}
            for resource, decision in each.items()
            if resource != "*"
        ],
    }


def _decision(who: str, action: str, resource: str, context: dict[str, Any]) -> str:
    if who == ANYBODY:
        return "allowed"
    try:
        return DECISIONS[access.may(who, action, resource, context)]
    except KeyError:
        raise ApiError("NoSuchEntity", f"The {who} cannot be found.", 404) from None
