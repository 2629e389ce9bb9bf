# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that moves a public name: pure functions on what was observed.

What is observed is a dict:
    sets: record sets of the name (the record way), names: other names of the zone when there are none
    controls: {arn: "On" or "Off"} (the way of routing controls)
    targets: [{arn, region, seen}], seen = `elbv2.target_health` or the Stop that reading it raised
    answers: [frozenset] that the name servers give now, or the Unreachable that asking them raised
    cached: whether only a cache could be asked
    expected: frozenset of values that the name shall answer with, empty where nothing names them
    ttl: seconds that resolvers keep the old answer
"""

from __future__ import annotations

from . import elbv2
from .arc import plan_controls
from .errors import Refusal, Stop
from .route53 import plan_records, serving, shown
from .verb import Plan, Step


def plan(observed, wanted):
    """The steps that are left: the move and the wait for users to follow, which an interrupted run may have left over."""
    moves, after = _by_controls(observed, wanted) if wanted["routing_controls"] else _by_records(observed, wanted)
    notes = _dns_notes(observed)
    if moves:
        notes = (*_closed_gates(observed["targets"], wanted), *notes)
    if is_askable(observed):
        after["answers"] = sorted(observed["expected"])
    behind = is_askable(observed) and not has_moved(observed["answers"], observed["expected"])
    return Plan((*moves, _follow(observed, wanted, moves)) if moves or behind else (), after, notes)


def _follow(observed, wanted, moves):
    waits = []
    if is_askable(observed):
        waits.append(f"the name servers answer for {wanted['record']} with {listed(observed['expected'])}")
    if moves:
        waits.append(f"resolvers have forgotten the old answer ({observed['ttl']} s)")
    return Step("follow", f"wait until {' and '.join(waits)}", waits=True)


def _by_records(observed, wanted):
    moved = plan_records(observed["sets"], wanted, observed["names"])
    if not moved:
        return (), {}
    before, after = sets_view(observed["sets"]), sets_view(moved)
    step = Step(
        "move_records",
        f"move {wanted['record']} from {before['serves']} to {after['serves']} in one change batch",
        before["sets"],
        after["sets"],
        {"old": observed["sets"], "new": list(moved)},
    )
    return (step,), after


def _by_controls(observed, wanted):
    states = plan_controls(observed["controls"], wanted["routing_controls"])
    if not states:
        return (), {}
    step = Step(
        "move_controls",
        f"move {wanted['record']} by its routing controls: one on, one off, in one call",
        observed["controls"],
        states,
        {"states": states},
    )
    return (step,), {"controls": states}


def sets_view(sets):
    """{serves, sets} of a name for people; `serves` is None where several sets share the traffic."""
    serve = serving(sets)
    return {"serves": serve and _id(serve), "sets": {_id(record): shown(record) for record in sets}}


def _id(record):
    return record.get("SetIdentifier") or shown(record)


def _closed_gates(targets, wanted):
    """The gate "the target serves first": raises Refusal, or returns notes where the override opens it."""
    problems = []
    for group in targets:
        where, seen = f"target group {elbv2.short(group['arn'])} in {group['region']}", group["seen"]
        if isinstance(seen, Stop):
            problems.append(f"{where} cannot be asked: {seen}")
            continue
        healthy = sum(target["state"] == "healthy" for target in seen)
        if healthy < wanted["min_healthy_targets"]:
            rest = ", ".join(
                f"{target['target']} {target['state']} {target['reason']}".strip()
                for target in seen
                if target["state"] != "healthy"
            )
            problems.append(
                f"{where} has {healthy} healthy targets, {wanted['min_healthy_targets']} needed "
                f"({rest or 'it has no others'})"
            )
    if not targets:
        return ("no target_groups given: nothing checked that the target serves",)
    if problems and not wanted["allow_unhealthy_target"]:
        raise Refusal(
            f"{wanted['record']} stays where it is: {'; '.join(problems)}. Start the service there first, or set "
            f"allow_unhealthy_target to move the name all the same"
        )
    return tuple(f"allow_unhealthy_target: {problem}" for problem in problems)


def _dns_notes(observed):
    if isinstance(observed["answers"], Stop):
        return (f"nobody saw the new answer: {observed['answers']}",)
    if not observed["expected"]:
        return ("nothing names the addresses that the name shall answer with, so the new answer is not waited for",)
    return (
        ("the name servers of the zone could not be asked, only a resolver that caches",) if observed["cached"] else ()
    )


def is_askable(observed):
    """Whether the move can be seen in the answers."""
    return bool(observed["expected"]) and not isinstance(observed["answers"], Stop)


def has_moved(answers, expected):
    """Whether every name server answers with the target. A load balancer may give some of its addresses only."""
    return all(values & expected for values in answers)


def listed(*values):
    return ", ".join(sorted(frozenset().union(*values))) or "nothing"
