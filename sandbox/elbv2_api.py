# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listeners and rules as AWS takes them: what moto accepts and AWS refuses, and in which form they are described.

https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ModifyRule.html
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

from .listeners import SESSION_COOKIE, is_on

ROUTING = ("forward", "redirect", "fixed-response")
AUTHENTICATION = {
    "authenticate-oidc": "AuthenticateOidcConfig",
    "authenticate-cognito": "AuthenticateCognitoConfig",
}
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
GROUPS_AN_ACTION = 5
ACTIONS_A_RULE = 5
WEIGHTS = range(1000)
STICKY_SECONDS = range(1, 604801)
PRIORITIES = range(1, 50001)
PAGE = 400
RULES_A_BALANCER = 100
VALUES_A_RULE = 5
# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_FixedResponseActionConfig.html
LONGEST_BODY = 1024

_moto: dict[str, Any] = {}


def _refuse(code: str, message: str) -> Exception:
    from moto.elbv2.exceptions import ELBClientError

    return ELBClientError(code, message)


# ---- actions ---------------------------------------------------------------------------------------------------------


def _checked(backend: Any, balancer: Any, protocol: str, actions: list[dict], present: list[dict] | None) -> list[dict]:
    """The actions as AWS keeps and describes them: forward in both spellings, no client secret.

    `present`: those that they replace (None for a new rule). Raises ELBClientError.
    """
    if len(actions) > ACTIONS_A_RULE:
        raise _refuse("TooManyActions", f"The maximum number of actions in a rule is {ACTIONS_A_RULE}")
    if len(actions) > 1:
        orders = [int(action.get("Order") or 0) for action in actions]
        if 0 in orders:
            raise _refuse("InvalidLoadBalancerAction", "An order must be specified for each of several actions")
        if len(set(orders)) < len(orders):
            raise _refuse("InvalidLoadBalancerAction", "Two actions cannot have the same order")
        actions = [action for _, action in sorted(zip(orders, actions, strict=True), key=lambda pair: pair[0])]
    kinds = [action["Type"] for action in actions]
    if not kinds or kinds[-1] not in ROUTING or sum(kind in ROUTING for kind in kinds) != 1:
        raise _refuse(
            "InvalidLoadBalancerAction",
            "The last action must be the only one of the types forward, redirect and fixed-response",
        )
    checked = []
    for action in actions:
        if action["Type"] == "forward":
            checked.append(_forward(backend, balancer, action))
        elif action["Type"] in AUTHENTICATION:
            if protocol != "HTTPS":
                raise _refuse(
                    "InvalidLoadBalancerAction", f"Actions of type '{action['Type']}' need a listener of protocol HTTPS"
                )
            checked.append(_authenticate(action, present))
        else:
            if action["Type"] == "fixed-response":
                _check_answer(action["FixedResponseConfig"])
            checked.append(action)
    return checked


def _check_answer(config: dict) -> None:
    if not re.fullmatch(r"[245]\d\d", str(config.get("StatusCode", ""))):
        raise _refuse("ValidationError", "The status code of a fixed response must be 2XX, 4XX or 5XX")
    if len(config.get("MessageBody") or "") > LONGEST_BODY:
        raise _refuse("ValidationError", f"The message body must have at most {LONGEST_BODY} characters")


def _check_conditions(conditions: list[dict]) -> None:
    values = [value for each in conditions for value in _values(each)]
    if len(values) > VALUES_A_RULE:
        raise _refuse("ValidationError", f"A rule can only have '{VALUES_A_RULE}' condition values")
    for each in conditions:
        for value in _values(each) if each["Field"] == "source-ip" else ():
            try:
                ip_network(value)
            except ValueError:
                raise _refuse("ValidationError", f"The condition value '{value}' must be a CIDR block") from None


def _values(condition: dict) -> list:
    config = next((condition[name] for name in condition if name.endswith("Config")), condition)
    return config.get("Values") or []


def _forward(backend: Any, balancer: Any, action: dict) -> dict:
    config = action.get("ForwardConfig") or {}
    groups = config.get("TargetGroups") or []
    if not groups and not action.get("TargetGroupArn"):
        raise _refuse("ValidationError", "A target group ARN must be specified for an action of type 'forward'")
    if action.get("TargetGroupArn"):
        groups = groups or [{"TargetGroupArn": action["TargetGroupArn"]}]
        if [each["TargetGroupArn"] for each in groups] != [action["TargetGroupArn"]]:
            raise _refuse(
                "InvalidLoadBalancerAction",
                "You can specify one target group with ForwardConfig when TargetGroupArn is given, and the same one",
            )
    if len(groups) > GROUPS_AN_ACTION:
        raise _refuse("ValidationError", f"An action of type 'forward' takes at most {GROUPS_AN_ACTION} target groups")
    arns = [each["TargetGroupArn"] for each in groups]
    if len(set(arns)) < len(arns):
        raise _refuse("ValidationError", "The same target group cannot be specified twice in an action")
    weighted = [{"TargetGroupArn": each["TargetGroupArn"], "Weight": int(each.get("Weight", 1))} for each in groups]
    for each in weighted:
        if each["Weight"] not in WEIGHTS:
            raise _refuse("ValidationError", f"The target group weight '{each['Weight']}' must be between 0 and 999")
        _check_group(backend, balancer, each["TargetGroupArn"])
    sticky = config.get("TargetGroupStickinessConfig") or {}
    kept: dict[str, Any] = {"Enabled": is_on(sticky.get("Enabled", False))}
    if sticky.get("DurationSeconds") is not None:
        kept["DurationSeconds"] = int(sticky["DurationSeconds"])
    if kept["Enabled"] and kept.get("DurationSeconds", 0) not in STICKY_SECONDS:
        raise _refuse("ValidationError", "The target group stickiness duration must be between 1 and 604800 seconds")
    normal = {"Type": "forward", "ForwardConfig": {"TargetGroups": weighted, "TargetGroupStickinessConfig": kept}}
    if len(weighted) == 1:
        normal["TargetGroupArn"] = arns[0]
    return normal | ({"Order": int(action["Order"])} if action.get("Order") else {})


def _check_group(backend: Any, balancer: Any, arn: str) -> None:
    group = backend.target_groups.get(arn)
    if group is None:
        raise _refuse("TargetGroupNotFound", f"Target groups '{arn}' not found")
    if group.vpc_id and group.vpc_id != balancer.vpc_id:
        raise _refuse(
            "InvalidConfigurationRequest",
            f"The target group '{arn}' and the load balancer '{balancer.arn}' are not in the same VPC",
        )
    if balancer.type == "application" and group.protocol not in ("HTTP", "HTTPS", None):
        raise _refuse("IncompatibleProtocols", f"The target group '{arn}' has protocol {group.protocol}")
    if users_of(backend, arn) - {balancer.arn}:
        raise _refuse(
            "TargetGroupAssociationLimit",
            f"The following target groups cannot be associated with more than one load balancer: {arn}",
        )


def _authenticate(action: dict, present: list[dict] | None) -> dict:
    """A client secret is needed, may be left as it is, and is never shown."""
    name = AUTHENTICATION[action["Type"]]
    config = dict(action[name])
    if action["Type"] == "authenticate-oidc":
        keep = is_on(config.pop("UseExistingClientSecret", False))
        known = any(each["Type"] == action["Type"] for each in present or ())
        if not config.pop("ClientSecret", None) and not (keep and known):
            raise _refuse("InvalidLoadBalancerAction", "A client secret must be specified for authenticate-oidc")
    usual = {
        "SessionCookieName": SESSION_COOKIE,
        "Scope": "openid",
        "SessionTimeout": 604800,
        "OnUnauthenticatedRequest": "authenticate",
    }
    return action | {name: usual | config}


def users_of(backend: Any, group_arn: str) -> set[str]:
    """ARNs of the load balancers that refer to a target group."""
    return {
        balancer.arn
        for balancer in backend.load_balancers.values()
        for listener in balancer.listeners.values()
        for rule in listener.rules.values()
        for action in rule.actions
        if action.type == "forward"
        and group_arn in [each["TargetGroupArn"] for each in action.data["ForwardConfig"]["TargetGroups"]]
    }


# ---- listeners and rules ---------------------------------------------------------------------------------------------


def create_listener(backend: Any, load_balancer_arn: str, protocol: str, port: Any, **given: Any) -> Any:
    if balancer := backend.load_balancers.get(load_balancer_arn):
        if any(int(each.port) == int(port) for each in balancer.listeners.values()):
            raise _refuse("DuplicateListener", "A listener already exists on this port for this load balancer")
        if protocol == "HTTPS" and not given["certificate"]:
            raise _refuse("ValidationError", "A certificate must be specified for HTTPS listeners")
        given["actions"] = _checked(backend, balancer, protocol, given["actions"], None)
    return _moto["create_listener"](backend, load_balancer_arn=load_balancer_arn, protocol=protocol, port=port, **given)


def modify_listener(
    backend: Any, arn: str, port: Any, protocol: str | None, policy: Any, certificates: Any, actions: list[dict]
) -> Any:
    listener = backend.describe_listeners(None, [arn])[0]
    balancer = backend.load_balancers[listener.load_balancer_arn]
    if port and any(each is not listener and int(each.port) == int(port) for each in balancer.listeners.values()):
        raise _refuse("DuplicateListener", "A listener already exists on this port for this load balancer")
    if actions:
        present = [each.data for each in listener.default_actions]
        actions = _checked(backend, balancer, protocol or listener.protocol, actions, present)
    return _moto["modify_listener"](backend, arn, port, protocol, policy, certificates, actions)


def create_rule(
    backend: Any, listener_arn: str, conditions: list[dict], priority: Any, actions: list[dict], **given: Any
):
    listener = backend.describe_listeners(None, [listener_arn])[0]
    if int(priority) not in PRIORITIES:
        raise _refuse("ValidationError", f"Priority '{priority}' must be between 1 and 50000")
    if not conditions:
        raise _refuse("ValidationError", "A condition must be specified")
    _check_conditions(conditions)
    balancer = backend.load_balancers[listener.load_balancer_arn]
    rules = [rule for each in balancer.listeners.values() for rule in each.rules.values() if not rule.is_default]
    if len(rules) >= RULES_A_BALANCER:
        raise _refuse("TooManyRules", "The maximum number of rules for this load balancer has been reached")
    actions = _checked(backend, balancer, listener.protocol, actions, None)
    return _described(_moto["create_rule"](backend, listener_arn, conditions, int(priority), actions, **given))


def modify_rule(backend: Any, rule_arn: str, conditions: list[dict], actions: list[dict]) -> Any:
    rule = backend.describe_rules(None, [rule_arn])[0]
    if rule.is_default:
        raise _refuse("OperationNotPermitted", f"Default rule '{rule_arn}' cannot be modified")
    _check_conditions(conditions or [])
    if actions:
        listener = backend.describe_listeners(None, [rule.listener_arn])[0]
        balancer = backend.load_balancers[listener.load_balancer_arn]
        actions = _checked(backend, balancer, listener.protocol, actions, [each.data for each in rule.actions])
    return _described(_moto["modify_rule"](backend, rule_arn, conditions, actions))


def _described(rule: Any) -> Any:
    """Hosts and paths are described in both spellings, however they were given."""
    for condition in rule.conditions:
        name = {"host-header": "HostHeaderConfig", "path-pattern": "PathPatternConfig"}.get(condition["Field"])
        if name:
            values = condition.get("Values") or condition[name]["Values"]
            condition |= {"Values": values, name: {"Values": values}}
    return rule


def delete_rule(backend: Any, arn: str) -> Any:
    rule = backend.describe_rules(None, [arn])[0]
    if rule.is_default:
        raise _refuse("OperationNotPermitted", f"Default rule '{arn}' cannot be deleted")
    return _moto["delete_rule"](backend, arn)


def describe_rules(backend: Any, listener_arn: str | None, rule_arns: list[str] | None) -> list[Any]:
    """In the order in which they are evaluated."""
    return sorted(_moto["describe_rules"](backend, listener_arn, rule_arns), key=order_of)


def order_of(rule: Any) -> tuple[bool, int]:
    """The default rule comes last; its priority is the word "default"."""
    return rule.is_default, 0 if rule.is_default else int(rule.priority)


def set_rule_priorities(backend: Any, rule_priorities: list[dict]) -> list[Any]:
    """Rules may change places with each other; those that are not named keep theirs."""
    wanted = {each["RuleArn"]: int(each["Priority"]) for each in rule_priorities}
    rules = describe_rules(backend, None, list(wanted))
    if any(rule.is_default for rule in rules):
        raise _refuse("OperationNotPermitted", "The priority of a default rule cannot be changed")
    if len(set(wanted.values())) < len(wanted):
        raise _refuse("PriorityInUse", "A priority was specified more than once")
    for rule in rules:
        others = [each for each in describe_rules(backend, rule.listener_arn, None) if each.arn not in wanted]
        if wanted[rule.arn] in [each.priority for each in others]:
            raise _refuse("PriorityInUse", f"Priority '{wanted[rule.arn]}' is currently in use")
    for rule in rules:
        rule.priority = wanted[rule.arn]
    return rules


# ---- pages -----------------------------------------------------------------------------------------------------------


def _paged(name: str, key: str, identity: str) -> Any:
    def describe(response: Any) -> Any:
        answer = _moto[name](response)
        found = list(answer.result[key])
        marker, size = response._get_param("Marker"), int(response._get_param("PageSize") or PAGE)
        first = next((n + 1 for n, each in enumerate(found) if getattr(each, identity) == marker), 0)
        answer.result[key] = found[first : first + size]
        if len(found) > first + size:
            answer.result["NextMarker"] = getattr(found[first + size - 1], identity)
        return answer

    describe.__name__ = name
    return describe


def install() -> None:
    from moto.elbv2.models import ELBv2Backend
    from moto.elbv2.responses import ELBV2Response

    for owner, functions in (
        (
            ELBv2Backend,
            (
                create_listener,
                modify_listener,
                create_rule,
                modify_rule,
                delete_rule,
                describe_rules,
                set_rule_priorities,
            ),
        ),
        (
            ELBV2Response,
            (
                _paged("describe_listeners", "Listeners", "arn"),
                _paged("describe_target_groups", "TargetGroups", "arn"),
            ),
        ),
    ):
        for function in functions:
            _moto[function.__name__] = getattr(owner, function.__name__)
            setattr(owner, function.__name__, function)
