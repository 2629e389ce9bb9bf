# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How CodeDeploy moves traffic: it rewrites the listeners' rules that forward to one of its two target groups.

https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-groups-create-load-balancer-for-ecs.html
All functions are called with the world's lock held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import elbv2

if TYPE_CHECKING:
    from ..world import World


def weights(world: World, region: str, listeners: list[str]) -> dict[str, int]:
    """{ARN of the target group: weight} over all rules of these listeners."""
    rules = _rules(world, region, listeners)
    return {arn: weight for rule in rules for action in rule.actions for arn, weight in _weights(action.data).items()}


def route(world: World, region: str, listeners: list[str], groups: list[str], wanted: dict[str, int]) -> None:
    """Give the weights `wanted` to each rule that forwards to one of `groups`."""
    backend = world.backend("elbv2", region)
    forward = {
        "Type": "forward",
        "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": arn, "Weight": each} for arn, each in wanted.items()]},
    }
    for rule in list(_rules(world, region, listeners)):
        present = [action.data for action in rule.actions]
        actions = [_with_order(forward, each) if _weights(each).keys() & set(groups) else each for each in present]
        if actions == present:
            continue
        if rule.is_default:
            backend.modify_listener(rule.listener_arn, None, None, None, [], actions)
        else:
            backend.modify_rule(rule.arn, [], actions)
    elbv2.refresh()


def _rules(world: World, region: str, listeners: list[str]) -> Iterator[Any]:
    for balancer in world.backend("elbv2", region).load_balancers.values():
        for arn, listener in balancer.listeners.items():
            yield from listener.rules.values() if arn in listeners else ()


def _weights(action: dict) -> dict[str, int]:
    groups = action.get("ForwardConfig", {}).get("TargetGroups", ())
    return {each["TargetGroupArn"]: int(each.get("Weight", 1)) for each in groups}


def _with_order(action: dict, replaced: dict) -> dict:
    return action | ({"Order": replaced["Order"]} if "Order" in replaced else {})
