# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that closes a load balancer to its users, and opens it again: pure functions on what was observed.

Rules of our own are put in front of all others, and answer by themselves. Nothing that was there is replaced, so nothing can
be lost: to open is to take ours away. Only where the first numbers are taken do other rules get later ones, in the same order;
each keeps its number in a tag. Our rules are known by a tag, too, so that any controller opens what another one has closed.

What is observed is a dict:
    listeners: [`elbv2.listeners` entry], tags: {ARN: {key: value}} of the balancer and of every rule but the default ones
    most: how many rules the balancer may have (None: unknown), stamp: the time, as it is written into the tag
"""

from __future__ import annotations

import ipaddress

from . import elbv2
from .errors import Refusal
from .verb import Plan, Step

# The tag of our rules: the state and since when; and that of rules that gave way: the number that they had.
TRAFFIC, NUMBER = "sre.runbooks/traffic", "sre.runbooks/priority"
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
VALUES_A_RULE = 5
# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_FixedResponseActionConfig.html
LONGEST_BODY = 1024
# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html
LAST_NUMBER = 50000
EVERYTHING = ({"Field": "path-pattern", "Values": ["*"]},)
# https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/
CONTROLLER, STACKS = "elbv2.k8s.aws/cluster", ("ingress.k8s.aws/stack", "service.k8s.aws/stack")
OPEN, PARTLY = "open", "partly"

PAGES = {
    "blocked": ("text/plain", "The service is not available."),
    "maintenance": (
        "text/html",
        "<!doctype html><html lang=en><meta charset=utf-8><title>Maintenance</title><h1>Back soon</h1>"
        "<p>This service is being worked on. Please try again in a few minutes.</p></html>",
    ),
}


def plan(observed, wanted):
    """The steps that are left on each listener.

    Raises:
        Refusal: the state cannot be reached, or would not last.
    """
    listeners = observed["listeners"]
    if not listeners:
        raise Refusal(f"{_name(wanted)} has no listener: it serves nobody")
    _refuse_managed(observed, wanted)
    if wanted["state"] == OPEN:
        made = [_opened(each, observed) for each in listeners]
        steps, notes = sum((each[0] for each in made), ()), sum((each[1] for each in made), ())
    else:
        conditions = _conditions(allowed(wanted["allow_from"]))
        steps = sum((_closed(each, observed, wanted, conditions) for each in listeners), ())
        _refuse_too_many(observed, conditions)
        notes = _remarks(view(observed), steps, wanted)
    returned = {"status_code": None if wanted["state"] == OPEN else wanted["status_code"]}
    return Plan(steps, _after(observed, wanted) if steps else {}, (*_managed_notes(observed, wanted), *notes), returned)


# --- closing ---


def allowed(addresses):
    """Networks of people who are let through.

    Raises:
        Refusal: one is none, or nobody would be left out.
    """
    networks = []
    for each in addresses:
        try:
            networks.append(ipaddress.ip_network(each.strip(), strict=False))
        except ValueError as error:
            raise Refusal(
                f"allow_from has {each!r}, which is no address range: say for example 203.0.113.7/32"
            ) from error
    if any(network.prefixlen == 0 for network in networks):
        raise Refusal("allow_from lets everybody through, so nothing would be closed: name the addresses of responders")
    return networks


def others(networks):
    """Every network but these, as few as there can be; empty where `networks` is."""
    if not networks:
        return []
    rest = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    for network in networks:
        rest = [
            part
            for each in rest
            for part in (
                each.address_exclude(network)
                if each.version == network.version and network.subnet_of(each)
                else ()
                if each.version == network.version and each.subnet_of(network)
                else (each,)
            )
        ]
    return sorted(rest, key=lambda each: (each.version, each))


def _conditions(networks):
    """Conditions of the rules that together match every request but those from `networks`.

    A rule has no "not", and a rule in front that let responders through would have to be a copy of every rule behind it. So
    ours name all other addresses, as many as a rule takes.
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html#source-ip-conditions
    """
    rest = [str(each) for each in others(networks)]
    if not rest:
        return [EVERYTHING]
    return [
        ({"Field": "source-ip", "SourceIpConfig": {"Values": rest[first : first + VALUES_A_RULE]}},)
        for first in range(0, len(rest), VALUES_A_RULE)
    ]


def answer(wanted):
    """The action of our rules.

    Raises:
        Refusal: AWS would not take it.
    """
    kind, text = PAGES[wanted["state"]]
    if wanted["body"] is not None:
        kind, text = wanted["content_type"] or kind, wanted["body"]
    if len(text.encode()) > LONGEST_BODY:
        raise Refusal(
            f"body has {len(text.encode())} bytes, a load balancer sends {LONGEST_BODY} at most: shorten it, and lead to "
            f"what is elsewhere by its address"
        )
    if wanted["status_code"] // 100 not in (2, 4, 5):
        raise Refusal(f"status_code is {wanted['status_code']}: a load balancer answers by itself with 2XX, 4XX or 5XX")
    config = {"StatusCode": str(wanted["status_code"]), "ContentType": kind, "MessageBody": text}
    return {"Type": "fixed-response", "FixedResponseConfig": config}


def _closed(listener, observed, wanted, conditions):
    own, rest = _split(listener, observed["tags"])
    action, place = answer(wanted), f"port {listener['Port']}"
    steps = _make_room(place, own, rest, observed, len(conditions))
    changes = _changes(own, conditions, action, wanted["state"], observed)
    if changes:
        steps += (
            Step(
                "close",
                f"{place}: answer with {wanted['status_code']} {_whom(wanted)}",
                _shown(own, observed["tags"]),
                _told(wanted),
                {"listener": listener["ListenerArn"], "changes": changes, "action": action},
            ),
        )
    return steps


def _changes(own, conditions, action, state, observed):
    """[(what, ARN or number, conditions)] that make our rules the wanted ones.

    The first rule takes every request until the others are right, so that in between nobody gets through who must not.
    """
    now = [(_canonical(rule["Conditions"]), _answer_of(rule), _state(rule, observed["tags"])) for rule in own]
    goal = [(_canonical(each), action["FixedResponseConfig"], state) for each in conditions]
    if now == goal:
        return ()
    later = []
    for number, each in enumerate(conditions[1:], 2):
        if number > len(own):
            later.append(("create", number, each))
        elif now[number - 1] != goal[number - 1]:
            later.append(("change", own[number - 1]["RuleArn"], each))
    later += [("remove", rule["RuleArn"], ()) for rule in own[len(conditions) :]]
    whole = (_canonical(EVERYTHING), *goal[0][1:])
    first = []
    if not own:
        first.append(("create", 1, EVERYTHING))
    elif now[0] != whole and (later or len(conditions) == 1):
        first.append(("change", own[0]["RuleArn"], EVERYTHING))
    if len(conditions) > 1 and (first or now[0] != goal[0]):
        later.append(("narrow", own[0]["RuleArn"] if own else None, conditions[0]))
    return (*first, *later)


def _make_room(place, own, rest, observed, count):
    """Our rules come first, whatever others have put in front of them; the others keep their order."""
    numbers = {rule["RuleArn"]: number for number, rule in enumerate(own, 1)}
    free = max(count, len(own)) + 1
    for rule in rest:
        numbers[rule["RuleArn"]] = max(int(rule["Priority"]), free)
        free = numbers[rule["RuleArn"]] + 1
    if free > LAST_NUMBER + 1:
        raise Refusal(f"{place} has rules up to {LAST_NUMBER}, and none can give way: give its last ones lower numbers")
    moving = [rule for rule in own + rest if numbers[rule["RuleArn"]] != int(rule["Priority"])]
    if not moving:
        return ()
    theirs = [rule for rule in rest if rule in moving]
    kept = {rule["RuleArn"]: rule["Priority"] for rule in theirs if NUMBER not in observed["tags"][rule["RuleArn"]]}
    new = {rule["RuleArn"]: numbers[rule["RuleArn"]] for rule in moving}
    before, after = [int(rule["Priority"]) for rule in moving], [numbers[rule["RuleArn"]] for rule in moving]
    what = f"{place}: rules {_listed(before)} become {_listed(after)}, so that ours come first"
    return (Step("renumber", what, before, after, {"kept": kept, "numbers": new}),)


# --- opening ---


def _opened(listener, observed):
    """Steps and notes."""
    own, rest = _split(listener, observed["tags"])
    place, steps, notes = f"port {listener['Port']}", (), ()
    if own:
        before = _shown(own, observed["tags"])
        arns = [rule["RuleArn"] for rule in reversed(own)]
        steps += (Step("remove", f"{place}: take our rules away", before, None, {"arns": arns}),)
    moved = [rule for rule in rest if NUMBER in observed["tags"][rule["RuleArn"]]]
    if moved:
        numbers = {rule["RuleArn"]: int(observed["tags"][rule["RuleArn"]][NUMBER]) for rule in moved}
        wished = [numbers.get(rule["RuleArn"], int(rule["Priority"])) for rule in rest]
        if wished != sorted(set(wished)):
            notes += (
                f"{place}: somebody has changed the order of its rules since it was closed, so they keep the numbers that they "
                f"have ({_listed([rule['Priority'] for rule in moved])}, before that {_listed(numbers.values())})",
            )
            numbers = {}
        new = {rule["RuleArn"]: numbers[rule["RuleArn"]] for rule in moved if _differs(rule, numbers)}
        before, after = [int(rule["Priority"]) for rule in moved], list(numbers.values()) or None
        what = f"{place}: give {_count(moved)} the numbers of before" if new else f"{place}: forget former numbers"
        arguments = {"numbers": new, "forget": [rule["RuleArn"] for rule in moved]}
        steps += (Step("give_back", what, before, after, arguments),)
    for rule in rest:
        if _canonical(rule["Conditions"]) in (_canonical(EVERYTHING), _canonical(_PATHS)) and _answer_of(rule):
            code = _answer_of(rule)["StatusCode"]
            notes += (
                f"{place} rule {rule['Priority']} answers every request with {code}, and is none of ours: it stays",
            )
    return steps, notes


_PATHS = ({"Field": "path-pattern", "Values": ["/*"]},)


def _differs(rule, numbers):
    return numbers.get(rule["RuleArn"], int(rule["Priority"])) != int(rule["Priority"])


# --- gates and remarks ---


def _refuse_managed(observed, wanted):
    if _manager(observed) and wanted["when_managed"] == "refuse":
        raise Refusal(
            f"{_name(wanted)} is managed by {_manager(observed)}, which removes rules that it does not know: close the ingress "
            f"(sre.runbooks.k8s_traffic), or say when_managed=note"
        )


def _managed_notes(observed, wanted):
    if _manager(observed):
        yield f"{_name(wanted)} is managed by {_manager(observed)}, which may put back what is changed here"


def _manager(observed):
    tags = observed["tags"].get(observed["balancer"], {})
    cluster, of = tags.get(CONTROLLER), next((tags[key] for key in STACKS if key in tags), "whose object is not named")
    return cluster and f"the AWS Load Balancer Controller of {cluster} ({of})"


def _refuse_too_many(observed, conditions):
    if observed["most"] is None:
        return
    split = [_split(each, observed["tags"]) for each in observed["listeners"]]
    there = sum(len(rest) for _own, rest in split)
    needed = sum(max(len(own), len(conditions)) for own, _rest in split)
    if there + needed > observed["most"]:
        raise Refusal(
            f"allow_from takes {len(conditions)} rules on each of {len(split)} listeners, {there} are there, and a load balancer "
            f"has {observed['most']} at most: name fewer or wider ranges"
        )


def _remarks(before, steps, wanted):
    if not steps:
        yield f"{_name(wanted)} is {wanted['state']} since {before['since']}"
        return
    if before["state"] not in (OPEN, wanted["state"]):
        yield f"{_name(wanted)} was {before['state']} since {before['since']}"
    yield "requests in hand are answered, and upgraded connections (WebSocket) last until they end"
    if wanted["allow_from"]:
        yield "allow_from is compared with who connects: behind a proxy or CloudFront that is not the user"


# --- for people ---


def view(observed):
    """{state, since, allow_from, listeners} as they are."""
    found = [(f"port {each['Port']}", _split(each, observed["tags"])[0]) for each in observed["listeners"]]
    states = {_state(rule, observed["tags"]) for _place, own in found for rule in own}
    closed = [bool(own) for _place, own in found]
    since = [_tag(rule, observed["tags"]).partition(" ")[2] for _place, own in found for rule in own]
    return {
        "state": OPEN if not any(closed) else states.pop() if all(closed) and len(states) == 1 else PARTLY,
        "since": min(since, default=None),
        "allow_from": next((let_through(own) for _place, own in found if own), []),
        "listeners": {place: _shown(own, observed["tags"]) for place, own in found},
    }


def given(observed):
    """The answer of our rules as arguments of the verb."""
    own = next(own for own in (_split(each, observed["tags"])[0] for each in observed["listeners"]) if own)
    config = _answer_of(own[0])
    return {
        "status_code": int(config["StatusCode"]),
        "content_type": config["ContentType"],
        "body": config["MessageBody"],
    }


def let_through(own):
    """Whom our rules leave out: every address that they do not name."""
    named = [
        ipaddress.ip_network(value)
        for rule in own
        for condition in rule["Conditions"]
        if condition["Field"] == "source-ip"
        for value in _values(condition)
    ]
    whole = any(_canonical(rule["Conditions"]) == _canonical(EVERYTHING) for rule in own)
    return [] if whole else [str(each) for each in _merged(others(named))]


def _merged(networks):
    """As few networks as there can be; the two versions apart."""
    for version in (4, 6):
        yield from ipaddress.collapse_addresses(each for each in networks if each.version == version)


def _after(observed, wanted):
    closed = wanted["state"] != OPEN
    told = _told(wanted) if closed else None
    return {
        "state": wanted["state"],
        "since": observed["stamp"] if closed else None,
        "allow_from": [str(each) for each in _merged(allowed(wanted["allow_from"]))] if closed else [],
        "listeners": {f"port {each['Port']}": told for each in observed["listeners"]},
    }


def _shown(own, tags):
    """What our rules on a listener do; None where there are none."""
    if not own:
        return None
    known = _answer_of(own[0]) or {}
    return {
        "state": _state(own[0], tags),
        "status_code": int(known.get("StatusCode", 0)),
        "allow_from": let_through(own),
    }


def _told(wanted):
    networks = [str(each) for each in _merged(allowed(wanted["allow_from"]))]
    return {"state": wanted["state"], "status_code": wanted["status_code"], "allow_from": networks}


def _whom(wanted):
    return "every request" + (f" but those from {', '.join(wanted['allow_from'])}" if wanted["allow_from"] else "")


def _listed(numbers):
    return ", ".join(str(each) for each in numbers)


def _count(rules):
    return f"{len(rules)} rule{'' if len(rules) == 1 else 's'}"


def _name(wanted):
    return elbv2.short_name(wanted["load_balancer_arn"])


# --- rules ---


def _split(listener, tags):
    """Our rules and all others but the default one, each in the order of evaluation."""
    rules = [rule for rule in listener["Rules"] if not rule["IsDefault"]]
    own = [rule for rule in rules if TRAFFIC in tags[rule["RuleArn"]]]
    return own, [rule for rule in rules if rule not in own]


def _tag(rule, tags):
    return tags[rule["RuleArn"]][TRAFFIC]


def _state(rule, tags):
    return _tag(rule, tags).partition(" ")[0]


def _answer_of(rule):
    """What a rule answers by itself, None where it does not."""
    return next((each["FixedResponseConfig"] for each in rule["Actions"] if each["Type"] == "fixed-response"), None)


def _canonical(conditions):
    return sorted((each["Field"], tuple(sorted(_values(each)))) for each in conditions)


def _values(condition):
    """They stand in a field of the kind of condition, or, of the older kinds, in Values."""
    config = next((value for key, value in condition.items() if key.endswith("Config")), condition)
    found = config.get("Values") or []
    return [each if isinstance(each, str) else f"{each.get('Key')}={each['Value']}" for each in found]
