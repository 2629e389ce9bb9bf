# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the credentials of this run would not be allowed to change tonight, by IAM's own simulator and the policies of iam/.

What only looks is left out: the run itself has just looked, under the same credentials, and a verb says what it was refused.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html

The simulator compares names as text. An ARN of a policy that still has a star in it is therefore allowed where the credentials'
own policy is as wide; where that is narrower nobody can tell from outside whether it has what the playbook meets.
"""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass

from . import principals
from .aws import READS, code_of, is_denied
from .errors import Stop, Throttled
from .readiness import NOT_READY, RISK, UNKNOWN, Found

CHECK, SCENARIOS = "permissions", None
# What the simulator is asked for.
OWN = "what this run may do"
ALLOWED, DENIED = "allowed", "explicitDeny"
# The statement for the record of a run, without which it goes on (iam/policy.py).
RECORDS = "Records"
REGION = "aws:RequestedRegion"
# Puts tags on whatever kind of resource was made or changed, so that none of them in particular is needed.
_MARKS = re.compile(r":\w*Tag")
# Few simulations a second are allowed to an account, and many services ask side by side: seconds that one waits for its turn.
PATIENCE = 120
MOST_ITEMS = 1000


@dataclass(frozen=True)
class Need:
    """A permission of one scenario in one region, with the ARNs that it is held to; `level` of its lack."""

    scenario: str
    region: str
    action: str
    arns: tuple
    level: str = NOT_READY
    context: tuple = ()  # (condition key, value) that such a call has besides its region


def needs(policies):
    """Pure: the Needs of [{scenario, region, policy}], each policy with the names of one host."""
    found = []
    for each in policies:
        for statement in each["policy"]["Statement"]:
            is_record = statement.get("Sid") == RECORDS
            named = [_concrete(arn, each["region"]) for arn in statement["Resource"]]
            # Of a bucket and what is in it, a record is put into it.
            arns = [arn.replace("/*", "/runs/x") for arn in named if "/" in arn] if is_record else named
            level = RISK if is_record else NOT_READY
            found += [
                Need(each["scenario"], each["region"], action, _about(action, arns), level, _context(statement))
                for action in statement["Action"]
                if not action.partition(":")[2].startswith(READS)
            ]
    return list(dict.fromkeys(found))


def _about(action, arns):
    """Those of the action's own service, where a statement that had to be short has others too."""
    own = [arn for arn in arns if arn.split(":")[2:3] == [action.partition(":")[0]]]
    return tuple(dict.fromkeys(own or arns))


def _context(statement):
    """What would be true of the calls that a statement is for, such as the tag of the resource."""
    conditions = statement.get("Condition", {}).items()
    # One of IfExists holds where nothing is said.
    must = [each for operator, each in conditions if not operator.endswith("IfExists")]
    keys = {key: values for each in must for key, values in each.items()}
    return tuple((key, values[0].replace("*", "x")) for key, values in keys.items() if key != REGION)


def _concrete(arn, region):
    """With the region, and without the star after a name, which stands for what playbooks make beside it."""
    parts = arn.split(":")
    if len(parts) > 3 and parts[3] == "*":
        parts[3] = region
    return re.sub(r"(?<=[\w-])\*$", "", ":".join(parts))


def looks(aws, wanted, now):
    """{OWN: call}, where anything is to be allowed."""
    asked = needs(wanted["policies"])
    return {OWN: lambda: _simulated(aws, asked)} if asked else {}


def _simulated(aws, asked):
    """{who, decisions: {(region, action, arn): (decision, whether a condition could not be weighed)}}"""
    caller = aws.read("sts", "get_caller_identity")["Arn"]
    who = principals.of(caller)
    if who is None:
        raise Stop(
            f"IAM simulates roles and users only, and this run is {caller}: run it with the role of who is on call"
        )
    source, decisions = _policy_source(aws, who, caller), {}
    try:
        for context, actions, arns in _questions(asked):
            for action, arn, answer in _pages(aws, source, actions, arns, context):
                decisions[context[REGION], action, arn] = answer
    except Exception as error:
        if code_of(error) == "NoSuchEntity":
            raise Stop(
                f"IAM knows no {who} without its path: missing permission iam:GetRole, which tells it"
            ) from error
        raise
    return {"who": str(who), "decisions": decisions}


def _questions(asked):
    """Pure: [(context, actions, ARNs)] that cover the Needs. Few may be asked in a second, so each action is told of each ARN."""
    for region, more in dict.fromkeys((need.region, need.context) for need in asked):
        here = [need for need in asked if (need.region, need.context) == (region, more)]
        # "*" among names would be one of them.
        for some in ([need for need in here if need.arns != ("*",)], [need for need in here if need.arns == ("*",)]):
            if some:
                arns = dict.fromkeys(arn for need in some for arn in need.arns)
                yield {REGION: region, **dict(more)}, list(dict.fromkeys(need.action for need in some)), list(arns)


def _policy_source(aws, who, caller):
    """The ARN that IAM knows it by; that of a session leaves out the path of its role.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    """
    if who.kind == "user":
        return caller
    try:
        return aws.read("iam", "get_role", RoleName=who.name)["Role"]["Arn"]
    except Exception as error:
        if not is_denied(error):
            raise
        return f"arn:{caller.split(':')[1]}:iam::{who.account}:role/{who.name}"


def _pages(aws, source, actions, arns, context):
    """(action, ARN, (decision, undecided)) of all pages."""
    entries = [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in context.items()
    ]
    asked = {"PolicySourceArn": source, "ActionNames": actions, "ResourceArns": arns, "ContextEntries": entries}
    asked["MaxItems"] = MOST_ITEMS
    more = {}
    while more is not None:
        answer = _in_turn(lambda more=more: aws.read("iam", "simulate_principal_policy", **asked, **more))
        for result in answer["EvaluationResults"]:
            for each in result.get("ResourceSpecificResults") or [result]:
                decision = each.get("EvalResourceDecision") or each["EvalDecision"]
                arn = each["EvalResourceName"] if "EvalResourceDecision" in each else "*"
                yield result["EvalActionName"], arn, (decision, bool(each.get("MissingContextValues")))
        more = {"Marker": answer["Marker"]} if answer.get("IsTruncated") else None


def _in_turn(call):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except Throttled:
            if time.monotonic() > deadline:
                raise
            # Not all at the same moment again.
            time.sleep(random.uniform(1, 5))


def judge(seen, wanted, now):
    """Pure: what the simulator refuses, and what it cannot know."""
    if OWN not in seen:
        return
    who, decisions = seen[OWN]["who"], seen[OWN]["decisions"]
    denied, not_known = defaultdict(list), defaultdict(set)
    for need in needs(wanted["policies"]):
        verdict, arns = _verdict(need, {arn: decisions.get((need.region, need.action, arn)) for arn in need.arns})
        if verdict == DENIED:
            denied[need.scenario, need.level, need.action] += arns
        elif verdict == UNKNOWN:
            not_known[need.scenario].add(need.action)
    for (scenario, level, action), arns in denied.items():
        because = f"missing permission {action}: the policies of {who} do not allow it on {', '.join(arns)}"
        if level == RISK:
            because += ", so that the record of a run does not come into its bucket"
        yield Found(level, who, because, "add it to them; iam/ has the policy of each playbook", (scenario,))
    for scenario, actions in not_known.items():
        because = (
            f"the policies of {who} do not allow {', '.join(sorted(actions))} on all that iam/{scenario}.json does, "
            f"and which of it the playbook will meet is not known"
        )
        yield Found(UNKNOWN, who, because, f"compare them with iam/{scenario}.json", (scenario,))


def _verdict(need, decisions):
    """(DENIED and the ARNs, UNKNOWN, or ALLOWED) of one Need, whose `decisions` are by ARN."""
    known = {arn: answer for arn, answer in decisions.items() if answer is not None}
    refused = {arn: answer for arn, answer in known.items() if answer[0] != ALLOWED}
    if not known or len(refused) < len(known):
        # A statement is about several kinds of resources, and each of its permissions about some of them: one that is allowed will do.
        return (ALLOWED if known else UNKNOWN), []
    sure = [
        arn
        for arn, (decision, is_undecided) in refused.items()
        # AWS holds an action of "*" to no resource; what denies a name with a star denies all that it stands for.
        if not is_undecided and (arn == "*" or "*" not in arn or decision == DENIED)
    ]
    if _MARKS.search(need.action) and len(sure) < len(known):
        sure = []
    return (DENIED, sure) if sure else (UNKNOWN, [])
