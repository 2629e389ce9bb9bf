# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a deployment of CodeDeploy to ECS is taken back, and when it has been. Pure functions.

A deployment that goes on is stopped with rollback: the original task set still runs, and gets the traffic within seconds.
After that an earlier revision is deployed again, which starts tasks.
"""

from __future__ import annotations

import datetime

from . import codedeploy, ecs, registry
from .errors import Refusal
from .verb import Plan, Step

USE_INSTEAD = {
    "ECS": "roll it back with sre.runbooks.ecs_rollback (strategy=ecs)",
    "EXTERNAL": "let the system that owns its task sets roll it back",
}


def plan(observed, wanted):
    """What to do.

    Args:
        observed: {service, weights, latest, bad, takes_back, goal, keeps}: DescribeServices entry; ARN of a target group ->
            weight of production traffic; DeploymentInfo of the last deployment, and of the one that is there to be taken
            back (both may be None); whether the last one goes on and takes back what somebody deployed; the deployment to
            deploy again {id, revision, task_definition, definition, images, hooks} or None; minutes that replaced tasks are
            kept.
        wanted: the verb's parameters.

    Raises:
        Refusal: a gate is closed.
    """
    service, latest, bad, goal = (observed[key] for key in ("service", "latest", "bad", "goal"))
    owner = ecs.controller(service)
    if owner in USE_INSTEAD:
        raise Refusal(f"{service['serviceName']} is deployed by {owner}, not by CodeDeploy: {USE_INSTEAD[owner]}")
    if latest is None:
        raise Refusal(f"{wanted['deployment_group']} has never deployed anything: there is nothing to roll back")
    if codedeploy.is_active(latest):
        return _leave_active(observed, wanted)
    if goal is None and bad is None:
        steps = ()
        if codedeploy.is_rollback(latest) and not codedeploy.is_whole(service, observed["weights"]):
            what = f"wait until {service['serviceName']} serves with all its tasks"
            steps = (Step("settle", what, arguments={"deployment": latest["deploymentId"]}),)
        return Plan(steps, notes=(_nothing_to_do(latest, service),), returned={"rolled_back": None})
    if goal is None:
        raise Refusal(
            f"no deployment of another revision succeeded before {bad['deploymentId']}, so there is none to go back to: "
            f"roll forward, or give one that did not succeed as deployment"
        )
    if _serves(goal, observed):
        note = f"{service['serviceName']} serves {goal['task_definition']}, which {goal['id']} deployed, already"
        return Plan(notes=(note,), returned={"rolled_back": None})
    return _deploy(observed, (bad or latest)["deploymentId"], wanted)


def _check_leaving(left, latest, wanted):
    # In the middle of a run the rollback of what was to be left comes last.
    undone = codedeploy.rollback_of(latest) if codedeploy.is_rollback(latest) else None
    if wanted["leaving"] not in (None, left, undone):
        raise Refusal(
            f"{left} would be taken back, and not {wanted['leaving']}: somebody has deployed meanwhile ({created(latest)}): "
            f"look at that deployment first, then run again"
        )


def _leave_active(observed, wanted):
    """A deployment goes on: wait for it where it is the rollback, else stop it."""
    service, latest, goal = observed["service"], observed["latest"], observed["goal"]
    name, number = service["serviceName"], latest["deploymentId"]
    ours, goes_there = codedeploy.is_ours(latest), observed["takes_back"] if goal is None else _leads_to(latest, goal)
    if codedeploy.is_rollback(latest) and (goes_there or not ours):
        left, notes = codedeploy.rollback_of(latest), _kept(observed) if ours else ()
        # What a rollback by CodeDeploy itself leads to is known at its end.
        again = not ours and not goes_there
        what = f"wait until {number} has rolled {left} back"
        settle = Step("settle", what, arguments={"deployment": number}, look_again=again)
        return Plan((settle,), notes=notes, returned={"rolled_back": left})
    _check_leaving(number, latest, wanted)
    back = codedeploy.original(service, number)
    what = f"stop {number} with rollback, which gives its traffic back to {back}"
    steps = (
        Step("stop", what, latest["status"], "Stopped", {"deployment": number}, look_again=True),
        Step("settle", f"wait until {name} serves {back}"),
    )
    then = Plan(after=_serving(back))
    if goal and goal["task_definition"] != back:
        then = _deploy(observed, number, wanted)
    return Plan(steps + then.steps, then.after, (created(latest), *then.notes), {"rolled_back": number})


def _deploy(observed, left, wanted):
    """Deploy the goal again in place of the deployment `left`."""
    _check_leaving(left, observed["latest"], wanted)
    service, goal = observed["service"], observed["goal"]
    name, revision = service["serviceName"], goal["task_definition"]
    if goal["definition"].get("status", "INACTIVE") != "ACTIVE":
        gone = "was deregistered (INACTIVE)" if goal["definition"] else "does not exist any more"
        raise Refusal(
            f"{revision}, which {goal['id']} deployed, {gone}, so no task can start from it: give another one as deployment"
        )
    what = f"deploy {revision} to {name} again, as {goal['id']} did"
    arguments = {"revision": goal["revision"], "description": f"{codedeploy.MARK}{left} to {goal['id']}"}
    notes = [*registry.gate(revision, goal["images"], wanted, "deployment"), *_kept(observed)]
    if goal["hooks"]:
        notes.append(f"the hooks of its AppSpec run again: {', '.join(goal['hooks'])}")
    steps = (
        Step("deploy", what, ecs.short(codedeploy.serving(service)), revision, arguments),
        Step("settle", f"wait until {name} serves {revision}"),
    )
    return Plan(steps, _serving(revision), tuple(notes), {"rolled_back": left})


def _leads_to(rollback, goal):
    return rollback.get("description", "").endswith(f" to {goal['id']}")


def _serves(goal, seen):
    return ecs.short(codedeploy.serving(seen["service"])) == goal["task_definition"] and codedeploy.is_whole(
        seen["service"], seen["weights"]
    )


def _serving(revision):
    return {"task_definition": revision, "traffic": {revision: 100}}


def _kept(observed):
    """What is left when the traffic is back."""
    if not observed["keeps"]:
        return ()
    return (
        f"the tasks that are replaced stay {observed['keeps']} more minutes, in which the deployment group takes no other "
        f"deployment",
    )


def _nothing_to_do(latest, service):
    here, further = ecs.short(codedeploy.serving(service)), "to go further back, give deployment"
    if codedeploy.is_rollback(latest):
        said = f"{latest['deploymentId']} has rolled {codedeploy.rollback_of(latest)} back already"
    else:
        said = f"{latest['deploymentId']} ended {latest['status']} and gets no traffic"
    return f"{said}, and {service['serviceName']} serves {here}: {further}"


def created(deployment):
    """Who made a deployment and when, for a person who must decide about it."""
    at = deployment["createTime"].astimezone(datetime.UTC)
    text = f"{deployment['deploymentId']} was created by {deployment.get('creator', 'nobody known')} at {at:%Y-%m-%d %H:%M:%S} UTC"
    return text + (f" ({deployment['description']})" if deployment.get("description") else "")


# ---- the end -------------------------------------------------------------------------------------------------------


def is_restored(seen):
    """Is the rollback through: ended well, or with nothing left to do but to terminate what it replaced?"""
    deployment = seen["deployment"]
    made = codedeploy.made_by(seen["service"], deployment["deploymentId"])
    through = made.get("status") == "PRIMARY" and all(each["status"] == "Succeeded" for each in seen["events"])
    return codedeploy.is_whole(seen["service"], seen["weights"]) and (through or deployment["status"] == "Succeeded")


def failure(seen):
    """Why the rollback will not end well, or None while it may."""
    deployment = seen["deployment"]
    if deployment["status"] in ("Failed", "Stopped"):
        return f"it ended {deployment['status']}: {codedeploy.trouble(deployment, seen['events'])}"
    if len(seen["stops"]) >= ecs.STOPPED_TOO_OFTEN:
        return f"{len(seen['stops'])} of its tasks failed one after the other, and CodeDeploy would go on for an hour"
    return None


def progress(seen):
    """What was seen of a rollback, in a few words."""
    at = next((each["lifecycleEventName"] for each in seen["events"] if each["status"] == "InProgress"), None)
    parts = [seen["deployment"]["status"] + (f" at {at}" if at else "")]
    shares = codedeploy.traffic(seen["service"], seen["weights"])
    parts += [f"{share} % of the traffic to {revision}" for revision, share in shares.items()]
    parts += [f"{ecs.tasks(len(seen['stops']))} failed"] if seen["stops"] else []
    return ", ".join(parts)
