# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The actions of a listener rule, and how they send a share of the requests to another target group: pure functions.

ModifyListener and ModifyRule replace the whole list, so each function returns a whole one in which all else stays:
authentication, order, stickiness, other target groups.
https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ModifyRule.html
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, gcd

# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetGroupTuple.html
HEAVIEST = 999
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
GROUPS_AN_ACTION = 5


def weights(actions):
    """{target group ARN: weight} in their order; empty where the rule forwards nothing."""
    action = _forward(actions)
    groups = action.get("ForwardConfig", {}).get("TargetGroups")
    if groups:
        return {each["TargetGroupArn"]: each.get("Weight", 1) for each in groups}
    return {action["TargetGroupArn"]: 1} if "TargetGroupArn" in action else {}


def is_sticky(actions):
    """Does a cookie bind clients to a target group? It outlives every change of weights, weight 0 included."""
    sticky = _forward(actions).get("ForwardConfig", {}).get("TargetGroupStickinessConfig") or {}
    return bool(sticky.get("Enabled"))


def share(actions, old, new):
    """Percent of what goes to both that the new group gets; None where the rule sends nothing to either."""
    known = weights(actions)
    both = known.get(old, 0) + known.get(new, 0)
    return 100 * known.get(new, 0) / both if both else None


def attached(actions, old, new):
    """The actions with the new group beside the old one at weight 0: checked, without a request."""
    return _with(actions, _beside(weights(actions), old, new))


def shifted(actions, old, new, percent, steps=(100,), detach=False):
    """The actions with `percent` of what goes to the two groups sent to the new one.

    Args:
        steps: all percentages of this move. Where whole weights cannot express them, every weight of the rule is
            multiplied by the same number, which depends on nothing but the weights and `steps`, so that an interrupted move
            ends like one that was not.
        detach: at 100 percent the rule names the old group no more. A sticky rule never does, since its cookie would go on
            sending clients there.
    """
    known = _beside(weights(actions), old, new)
    both = known[old] + known[new]
    factor = _factor(both, max(both, *known.values()), steps)
    # Rounded up, so that no group loses its last request; exact but where both together are heavier than AWS takes one.
    known = {arn: ceil(weight * factor) for arn, weight in known.items()}
    both = int(both * factor)
    known[new] = round(both * percent / 100)
    known[old] = both - known[new]
    if percent == 100 and (detach or is_sticky(actions)):
        del known[old]
    return _with(actions, known)


def sent(actions):
    """As ModifyRule takes what DescribeRules gave: the client secret is never shown, and is to stay what it is."""
    result = []
    for action in actions:
        if action["Type"] == "authenticate-oidc":
            action = dict(
                action, AuthenticateOidcConfig=dict(action["AuthenticateOidcConfig"], UseExistingClientSecret=True)
            )
        result.append(action)
    return result


def same(actions, others):
    """Do both do the same? One target group is spelled in two ways, an action alone needs no order."""
    return _canonical(actions) == _canonical(others)


def _canonical(actions):
    canonical = []
    for action in sorted(actions, key=lambda each: each.get("Order", 0)):
        action = {key: value for key, value in action.items() if key != "Order"}
        if action["Type"] == "forward":
            sticky = action.get("ForwardConfig", {}).get("TargetGroupStickinessConfig") or {}
            groups = weights([action])
            # The weight of a group that is alone means nothing, unless it is 0.
            action = {
                "Type": "forward",
                "groups": list(groups.items()) if len(groups) > 1 else [(arn, bool(groups[arn])) for arn in groups],
                "sticky": sticky.get("DurationSeconds") if sticky.get("Enabled") else None,
            }
        canonical.append(action)
    return canonical


def _forward(actions):
    return next((each for each in actions if each["Type"] == "forward"), {})


def _beside(known, old, new):
    """With the new group at weight 0 right after the old one, where it is not there yet."""
    if new in known:
        return dict({old: 0}, **known) if old not in known else known
    result = {}
    for arn, weight in known.items():
        result[arn] = weight
        if arn == old:
            result[new] = 0
    return result


def _factor(both, heaviest, steps):
    """By what all weights are multiplied: the smallest number by which every step is a whole weight. Where that is too heavy
    the weights stay, and the steps are as near as whole weights come; where even that is, they shrink until one group can
    have what both have."""
    factor = 1
    for percent in steps:
        factor *= 100 // gcd(100, both * factor * percent)
    if heaviest * factor <= HEAVIEST:
        return factor
    return min(Fraction(1), Fraction(HEAVIEST, both))


def _with(actions, groups):
    """The actions with these weights in the forward action, all else as it is."""
    result = []
    for action in actions:
        if action["Type"] == "forward":
            config = {key: value for key, value in action.get("ForwardConfig", {}).items() if key != "TargetGroups"}
            config["TargetGroups"] = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in groups.items()]
            action = dict(
                {key: value for key, value in action.items() if key != "TargetGroupArn"}, ForwardConfig=config
            )
        result.append(action)
    return result
