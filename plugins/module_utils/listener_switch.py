# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that moves a load balancer from one target group to another: pure functions on what was observed.

What is observed is a dict:
    places: [{arn, name, actions}] the rules of every listener, default actions included (arn: of the rule, or of the
        listener whose default it is), in the order in which they are evaluated
    groups: {ARN: DescribeTargetGroups entry} of both target groups, targets: {ARN: `elbv2.target_health`}
    services: [DescribeServices entry] of the ECS services that were named, deployments: {id: GetDeployment entry} of those
        that CodeDeploy is at
"""

from __future__ import annotations

from . import codedeploy, ecs, elbv2
from .elbv2 import short
from .errors import Refusal
from .forwarding import GROUPS_AN_ACTION, attached, is_sticky, same, share, shifted, weights
from .verb import Plan, Step


def plan(observed, wanted):
    """The steps that are left; a move that was interrupted goes on from the weights that are found."""
    _check(observed, wanted)
    old, new = wanted["old_target_group_arn"], wanted["new_target_group_arn"]
    goals = {place["arn"]: goal(place, wanted, 100) for place in observed["places"]}
    moving = [place for place in observed["places"] if not same(place["actions"], goals[place["arn"]])]
    if not moving:
        _something_to_do(observed, wanted)
        return Plan()
    notes = (*_closed_gates(observed, wanted), *_remarks(observed, wanted))
    reached = min(
        100 if share(place["actions"], old, new) is None else share(place["actions"], old, new) for place in moving
    )
    steps, actions = [], {place["arn"]: place["actions"] for place in observed["places"]}

    def change(do, what, wished):
        """A step that gives rules the actions `wished`, and the state after it."""
        places = [
            dict(place, actions=actions[place["arn"]], wished=wished[place["arn"]])
            for place in moving
            if place["arn"] in wished and not same(actions[place["arn"]], wished[place["arn"]])
        ]
        for each in places:
            if len(weights(each["wished"])) > GROUPS_AN_ACTION:
                raise Refusal(
                    f"{each['name']} would forward to more than {GROUPS_AN_ACTION} target groups: remove one that gets "
                    f"no requests from it, or set detach_old=true with steps=[100]"
                )
        if places:
            before, after = ({each["name"]: shown(each[key]) for each in places} for key in ("actions", "wished"))
            steps.append(Step(do, what, before, after, {"places": places}))
            actions.update((place["arn"], place["wished"]) for place in places)

    if not _is_healthy(observed["targets"][new], wanted):
        if not is_attached(observed["places"], new):
            first = next(
                place for place in moving if old in weights(place["actions"])
            )  # there is one, or it is attached
            change(
                "attach",
                f"attach {short(new)} to {first['name']} at weight 0, which starts its health checks",
                {first["arn"]: attached(first["actions"], old, new)},
            )
        steps.append(Step("wait_healthy", f"wait until {short(new)} has {_count(wanted)}", waits=True))
    several = len(wanted["steps"]) > 1
    if several and 0 < reached < 100 and reached in wanted["steps"]:
        steps.append(_watch(reached, wanted))
    for percent in wanted["steps"]:
        if percent > reached or percent == 100:
            change(
                "shift",
                f"send {percent} % of the requests for {short(old)} to {short(new)}",
                {
                    place["arn"]: goal(dict(place, actions=actions[place["arn"]]), wanted, percent)
                    for place in moving
                    if percent == 100 or percent > (share(place["actions"], old, new) or 0)
                },
            )
            if several:
                steps.append(_watch(percent, wanted))
    after = [dict(place, actions=actions[place["arn"]]) for place in observed["places"]]
    return Plan(tuple(steps), {"rules": rules_view(after, wanted)}, notes)


def goal(place, wanted, percent):
    """The actions of a rule when `percent` is reached; its own where neither group gets anything from it, and with `restore`
    where it is not named there: an undo moves what was moved, and no rule that led to the group before."""
    old, new, actions = wanted["old_target_group_arn"], wanted["new_target_group_arn"], place["actions"]
    given = {each["arn"]: each["actions"] for each in wanted["restore"]}
    if given and percent == 100:
        return given.get(place["arn"], actions)
    if (given and place["arn"] not in given) or old not in weights(actions) or share(actions, old, new) is None:
        return actions
    return shifted(actions, old, new, percent, wanted["steps"], wanted["detach_old"])


def way_back(found, wanted):
    """{arn: actions} that end this move: as found, or without a request for the new group where it was half way."""
    old, new = wanted["old_target_group_arn"], wanted["new_target_group_arn"]
    back = {}
    for place in found:
        half_way = old in weights(place["actions"]) and share(place["actions"], old, new)
        back[place["arn"]] = shifted(place["actions"], old, new, 0) if half_way else place["actions"]
    return back


def is_attached(places, group):
    """Does a rule of this load balancer refer to the group (its targets are checked then)?"""
    return any(group in weights(place["actions"]) for place in places)


def hopeless(targets, wanted):
    """Why the new group will not become healthy by waiting, or None while it may."""
    if not targets:
        return "it has no target any more"
    coming = [each for each in targets if each["state"] in ("healthy", "initial", "unused")]
    return None if len(coming) >= max(wanted["min_healthy_targets"], 1) else "; ".join(elbv2.troubles(targets))


def worse(seen, wanted):
    """Why requests must not go to the new group any longer, or None. `seen`: {targets, traffic} since the step began."""
    if not _is_healthy(seen["targets"], wanted):
        healthy = ecs.healthy(seen["targets"])
        return f"{healthy} of its targets healthy, {wanted['min_healthy_targets']} needed ({'; '.join(elbv2.troubles(seen['targets'])) or 'it has no others'})"
    traffic = seen["traffic"]
    if traffic and traffic["requests"]:
        percent = 100 * traffic["errors"] / traffic["requests"]
        if percent > wanted["max_error_percent"]:
            return (
                f"{traffic['errors']:.0f} of its {traffic['requests']:.0f} requests failed with a 5xx ({percent:.1f} %, "
                f"max_error_percent is {wanted['max_error_percent']:g})"
            )
    return None


def rules_view(places, wanted):
    """{rule: {target group: weight}} of the rules that name one of the two groups."""
    pair = {wanted["old_target_group_arn"], wanted["new_target_group_arn"]}
    restored = {each["arn"] for each in wanted["restore"]}
    return {
        place["name"]: shown(place["actions"])
        for place in places
        if pair & set(weights(place["actions"])) or place["arn"] in restored
    }


def shown(actions):
    """What the rule forwards to, for people: {target group: weight}."""
    return {short(arn): weight for arn, weight in weights(actions).items()}


def _watch(percent, wanted):
    return Step(
        "watch",
        f"watch {short(wanted['new_target_group_arn'])} for {wanted['step_seconds']} s at {percent:g} %",
        arguments={"percent": percent},
        waits=True,
    )


def _count(wanted):
    count = max(wanted["min_healthy_targets"], 1)
    return f"{count} healthy target{'' if count == 1 else 's'}"


def _is_healthy(targets, wanted):
    return ecs.healthy(targets) >= wanted["min_healthy_targets"]


# --- gates ---


def _check(observed, wanted):
    steps = wanted["steps"]
    if not steps or steps[-1] != 100 or steps != sorted(set(steps)) or steps[0] < 1:
        raise Refusal(f"steps is {steps}: give percentages that rise from 1 at least to 100, such as [10, 50, 100]")
    if wanted["old_target_group_arn"] == wanted["new_target_group_arn"]:
        raise Refusal(f"old and new target group are both {short(wanted['old_target_group_arn'])}: name two")
    if len(steps) > 1 and wanted["step_seconds"] >= wanted["wait_timeout"]:
        raise Refusal(
            f"step_seconds is {wanted['step_seconds']}, wait_timeout {wanted['wait_timeout']}: a step must be shorter"
        )
    there = {place["arn"] for place in observed["places"]}
    gone = [each["arn"] for each in wanted["restore"] if each["arn"] not in there]
    if gone:
        raise Refusal(f"restore names rules that are not there any more: {', '.join(gone)}")


def _something_to_do(observed, wanted):
    """A move that is done leaves nothing to do; a target group that nothing refers to is a mistake."""
    if is_attached(observed["places"], wanted["new_target_group_arn"]) or wanted["restore"]:
        return
    there = sorted({short(arn) for place in observed["places"] for arn in weights(place["actions"])})
    raise Refusal(
        f"no rule of {short_balancer(wanted)} forwards to {short(wanted['old_target_group_arn'])} "
        f"(they forward to: {', '.join(there) or 'nothing'}): check both target groups in the inventory"
    )


def _closed_gates(observed, wanted):
    """Raises Refusal, or returns notes where an override opened a gate."""
    old, new = (observed["groups"][wanted[key]] for key in ("old_target_group_arn", "new_target_group_arn"))
    name, balancer = new["TargetGroupName"], wanted["load_balancer_arn"]
    for key, what in (("VpcId", "VPC"), ("Protocol", "protocol"), ("ProtocolVersion", "protocol version")):
        if old.get(key) != new.get(key):
            raise Refusal(
                f"{name} has {what} {new.get(key)}, {old['TargetGroupName']} has {old.get(key)}: they cannot stand for each other"
            )
    others = [arn for arn in new.get("LoadBalancerArns", []) if arn != balancer]
    if others:
        raise Refusal(
            f"{name} belongs to the load balancer {short_arn(others[0])}, and a target group has only one: "
            f"it cannot serve {short_balancer(wanted)}"
        )
    targets = observed["targets"][new["TargetGroupArn"]]
    registered = [each for each in targets if each["state"] != "draining"]
    if len(registered) < max(wanted["min_healthy_targets"], 1):
        raise Refusal(
            f"{name} has {len(registered)} targets, {max(wanted['min_healthy_targets'], 1)} needed: start its tasks first"
        )
    if is_attached(observed["places"], new["TargetGroupArn"]) and wanted["min_healthy_targets"]:
        why = hopeless(registered, wanted)
        if why:
            raise Refusal(
                f"{name} is not healthy: {why}. {short_balancer(wanted)} stays as it is; min_healthy_targets=0 sends "
                f"requests there all the same"
            )
    busy = [each for each in (_deploying(service, observed) for service in observed["services"]) if each]
    if busy and not wanted["accept_deployment"]:
        raise Refusal(
            f"{'; '.join(busy)}: it moves the listener itself. Roll that deployment back or wait for its end, or set "
            f"accept_deployment=true"
        )
    return tuple(f"accept_deployment: {each}" for each in busy)


def _deploying(service, observed):
    """What deploys the service right now, or None."""
    name, deployments = service["serviceName"], service.get("deployments", [])
    running = [each for each in deployments if each.get("rolloutState") == "IN_PROGRESS"]
    if running:
        return f"ECS is deploying {name} ({ecs.short(running[0]['taskDefinition'])} is in progress)"
    sets = service.get("taskSets", [])
    for each in sets:
        found = observed["deployments"].get(each.get("externalId"))
        if found and codedeploy.is_active(found):
            return f"CodeDeploy is deploying {name} ({found['deploymentId']} is {found['status']})"
    if any(each.get("stabilityStatus") == "STABILIZING" for each in sets):
        return f"a task set of {name} is still stabilizing"
    return None


def _remarks(observed, wanted):
    """What a person should know although nothing is wrong."""
    old, new = (wanted[key] for key in ("old_target_group_arn", "new_target_group_arn"))
    before, after = (ecs.healthy(observed["targets"][arn]) for arn in (old, new))
    if not observed["services"]:
        yield "no services given: nothing checked whether a deployment is under way"
    if not wanted["min_healthy_targets"]:
        yield f"min_healthy_targets is 0: {short(new)} has {after} healthy targets and gets requests all the same"
    elif after and after < before:
        yield f"{short(new)} has {after} healthy targets where {short(old)} has {before}: each gets more requests"
    sticky = [
        place["name"]
        for place in observed["places"]
        if old in weights(place["actions"]) and is_sticky(place["actions"])
    ]
    if sticky and not wanted["restore"]:
        yield f"{', '.join(sticky)}: sticky, so {short(old)} leaves it at the end, or cookies would go on sending clients there"


def short_balancer(wanted):
    return short_arn(wanted["load_balancer_arn"])


def short_arn(arn):
    """`regami-alb` of arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/regami-alb/ID."""
    return arn.split("/")[-2] if arn.count("/") > 1 else arn
