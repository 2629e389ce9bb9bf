#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_rollback
version_added: 0.1.0
short_description: Roll an ECS service back to the revision that was good
description:
  - Finds the last revision that completed a deployment before the present one, checks that it can still run, goes there
    and waits until that very deployment is complete. Revisions of the family that were never deployed, and those whose
    deployment failed, are no candidates.
  - The history comes from the service deployments and service revisions of ECS, which reach back 90 days; where that API
    does not answer, from the deployments and events of the service itself. Where neither tells, the verb refuses and
    names the ACTIVE revisions to choose from.
  - A deployment in progress that would fall back to the wanted revision is stopped with a rollback, which is what ECS
    undoes fastest, with the very images that ran before. In all other cases the service is updated to the revision.
  - Where the last deployment already went back, by this verb, a person or the circuit breaker of ECS, nothing is changed.
    So the same task can be repeated, and a second responder finds it done.
  - Only the task definition is changed. The desired count is never sent, since scaling owns it; platform version, network
    and load balancers stay as they are. (A deployment in progress that is stopped takes back all that it was to change.)
  - The wait ends early when the deployment fails, its circuit breaker gives up on it, somebody deploys in between, or its
    tasks fail again and again, with the reasons of the stopped tasks, the health of the targets and the last events.
  - While it waits it asks less and less often, at most every 5 seconds, so that 50 services can be rolled back at once
    within the request quotas of ECS.
  - B(Risk:) all tasks of the service are replaced, and users meet older code.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service. ECS itself must roll it out, not CodeDeploy or an external controller.
    type: str
    required: true
  task_definition:
    description:
      - Go to this revision (C(family:revision) or ARN) instead of finding one. Its family must be one that the service
        runs or ran. RV(undo) uses it to bring back what was left.
    type: str
  leaving:
    description:
      - The revision (C(family:revision) or ARN) that shall be left. If another one was deployed since, the verb refuses
        instead of undoing that too. RV(leaving) of a first run in check mode is what to give to the second.
    type: str
  accept_moved_image:
    description:
      - Go to a revision although the tag of one of its images means another image now than when the revision ran.
        B(Risk:) what then runs is not what was good before, and with a tag like V(latest) it may be what was to be left.
    type: bool
    default: false
  accept_unknown_image:
    description:
      - Go to a revision although the registry of one of its images cannot be asked whether it still has it. Only Amazon
        ECR is asked. An image that the present revision uses under the same name counts as known.
    type: bool
    default: false
  migrations:
    description:
      - Schema migrations that older code cannot live with. Going back across one of them is refused.
      - By default none is known, and nothing is checked.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: How the migration is called.
        type: str
        required: true
      revision:
        description: Number of the first revision of the service's family that was made for the new schema.
        type: int
        required: true
  accept_migrations:
    description:
      - Names of O(migrations) across which to go back all the same, for example since they were undone.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ecs:DescribeServices), C(ecs:ListServiceDeployments), C(ecs:DescribeServiceDeployments),
    C(ecs:DescribeServiceRevisions), C(ecs:DescribeTaskDefinition), C(ecs:ListTaskDefinitions), C(ecs:ListTasks),
    C(ecs:DescribeTasks), C(ecs:StopServiceDeployment), C(ecs:UpdateService), C(ecr:DescribeImages) and
    C(elasticloadbalancing:DescribeTargetHealth), and C(iam:PassRole) on the roles of the task definition.
seealso:
  - module: sre.runbooks.codedeploy_rollback
  - module: sre.runbooks.ecs_repoint
"""

EXAMPLES = r"""
- name: Back to the revision that was good
  sre.runbooks.ecs_rollback:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Back to a revision that a person knows to be good
  sre.runbooks.ecs_rollback:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    task_definition: regami-api:1
    wait_timeout: 900

- name: Not across a migration that the old code cannot live with
  sre.runbooks.ecs_rollback:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    migrations:
      - {name: 0042_drop_email, revision: 42}
"""

RETURN = r"""
task_definition_arn:
  description: The revision that the service is to run.
  returned: unless refused
  type: str
  sample: arn:aws:ecs:us-east-1:123456789012:task-definition/regami-api:41
leaving:
  description: The revision that is left, null where nothing tells. Give it as O(leaving) to a later run.
  returned: unless refused
  type: str
  sample: regami-api:42
before:
  description: The service as found. C(images) has the image of each container with its digest, where that is known.
  returned: unless refused
  type: dict
  sample:
    desired: 2
    running: 2
    task_definition: regami-api:42
    images: {app: "123456789012.dkr.ecr.us-east-1.amazonaws.com/regami-api:v42@sha256:0d6f…"}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample:
    desired: 2
    running: 2
    task_definition: regami-api:41
    images: {app: "123456789012.dkr.ecr.us-east-1.amazonaws.com/regami-api:v41@sha256:77c1…"}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: update, what: "roll regami-service back to regami-api:41", before: "regami-api:42", after: "regami-api:41"}
    - {do: settle, what: "wait until regami-service runs regami-api:41", before: null, after: null}
undo:
  description: The same verb with the revision that was left; empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ecs_rollback
      arguments:
        cluster: regami-cluster
        service: regami-service
        region: us-east-1
        task_definition: "regami-api:42"
notes:
  description: Why this revision, overrides used, and what else a person should know.
  returned: success
  type: list
  elements: str
  sample: ["regami-api:41 is the last revision that completed a deployment on 2026-11-20 at 16:02 before regami-api:42"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 141.7
"""

import re
from functools import partial

try:
    from botocore.exceptions import ClientError
except ImportError:
    pass

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, registry, releases
from ansible_collections.sre.runbooks.plugins.module_utils.aws import DENIED, code_of, explain, is_denied, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.task_definition import family, number, short
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module
from ansible_collections.sre.runbooks.plugins.module_utils.waiting import Pace

SERVICES = ("ecs", "ecr", "elbv2", "dynamodb")
# Seconds that a rolling deployment of a few tasks behind a load balancer usually takes.
USUAL_ROLLOUT = 180
# For 50 services rolled back at once: the bucket for reads of services holds 100 calls and refills by 20 a second, for an
# account and region. A look is one call, so the first looks use up the burst, and the longest pause takes half of what
# refills.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
PACE = Pace(lead=0.7, first=1.4, longest=5.0, growth=1.8)
# Where another verb, or another system, does what ECS refuses.
USE_INSTEAD = {
    "CODE_DEPLOY": "use sre.runbooks.codedeploy_rollback (or aws deploy stop-deployment --auto-rollback-enabled)",
    "EXTERNAL": "let the system that owns its task sets go back",
}
# The deployment has ended, or has no revision to fall back to, or the role may not stop it: an update does the same.
CANNOT_STOP = (*DENIED, "UnsupportedFeatureException", "InvalidParameterException", "ClientException")
ENDED_MEANWHILE = ("ConflictException", "ServiceDeploymentNotFoundException")

ARGUMENTS = dict(
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    task_definition=dict(type="str"),
    leaving=dict(type="str"),
    accept_moved_image=dict(type="bool", default=False),
    accept_unknown_image=dict(type="bool", default=False),
    migrations=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(name=dict(type="str", required=True), revision=dict(type="int", required=True)),
    ),
    accept_migrations=dict(type="list", elements="str", default=[]),
)


class EcsRollback(Verb):
    """Go back to the revision that was good."""

    def __init__(self, module):
        super().__init__(module)
        self.names = {"cluster": self.params["cluster"], "service": self.params["service"]}
        self.service = ecs.Service(self.aws, **self.names)
        self.history = releases.History(self.aws, self.service)
        self.choice = None  # made at the first look: what the doing changes must not make another
        self.definition, self.images, self.shown = {}, {}, {}
        self.deployment = self.stopping = None
        self.may_stop = True
        self.known = set()  # deployments that this run has seen

    @property
    def goal(self):
        return self.choice.goal

    # ---- looking ---------------------------------------------------------------------------------------------------

    def observe(self):
        found = together(service=self.service.describe, listed=self.history.listed)
        service = found["service"]
        if ecs.controller(service) in USE_INSTEAD:
            return {"service": service}
        self.known |= {each["id"] for each in service["deployments"]}
        past = self.history.releases(service, found["listed"])
        if self.choice is None:
            self.choice, self.newest = self._choose(service, past), past[0].task_definition
            if isinstance(found["listed"], ClientError):
                self.notes.append(
                    f"the history of deployments was not to be had ({code_of(found['listed'])}): "
                    f"the service's own deployments and events told"
                )
            self._look_at_images(service, past)
        elif past[0].task_definition not in (self.goal, self.newest):
            raise Stop(_somebody_else(service, past[0].task_definition))
        return {
            "service": service,
            "releases": past,
            "choice": self.choice,
            "definition": self.definition,
            "images": self.images,
            "may_stop": self.may_stop,
        }

    def _choose(self, service, past):
        given = self.params["task_definition"] and _as_arn(self.params["task_definition"], service, past)
        in_family = ()
        if not given and releases.before(past) is None:
            in_family = self.service.family(family(service["taskDefinition"]))
        return releases.choose(past, service["taskDefinition"], given, self.params["leaving"], in_family)

    def _look_at_images(self, service, past):
        """What the present revision runs, and what the registry has of the goal's images."""
        present, goal = service["taskDefinition"], releases.last_of(past, self.goal)
        here = releases.last_of(past, present).images
        asked = {"definition": lambda: self.service.definition(self.goal)}
        if not here:  # ECS has not noted them
            asked["present"] = lambda: self.service.definition(present)
        found = together(**asked)
        here = here or _images_of(found["present"])
        self.definition = (found["definition"] or {}).get("taskDefinition", {})
        in_use = {name for name, _digest in here.values()}
        looks = {}
        for container, (name, _digest) in _images_of(found["definition"]).items():
            ran = goal.images.get(container, (name, None))[1]
            looks[container] = partial(registry.look, self.aws, name, ran, goal.at, in_use=name in in_use)
        self.images = together(**looks)
        self.shown = {
            present: {container: registry.text(*image) for container, image in here.items()},
            self.goal: {container: str(image) for container, image in self.images.items()},
        }

    def observe_end(self):
        return {"service": self.service.describe()}

    # ---- planning --------------------------------------------------------------------------------------------------

    @staticmethod
    def plan(observed, wanted):
        service = observed["service"]
        name, owner = service["serviceName"], ecs.controller(service)
        if owner in USE_INSTEAD:
            raise Refusal(f"{name} is deployed by {owner}, and ECS refuses to roll it back: {USE_INSTEAD[owner]}")
        choice, newest = observed["choice"], observed["releases"][0]
        change, notes = _change(observed), [choice.why]
        if change is not None:
            stops = change.do == "stop"
            notes += [
                *_definition_gate(choice.goal, observed["definition"], observed["releases"]),
                *registry.gate(choice.goal, observed["images"], wanted, "task_definition", by_digest=stops),
                *_migration_gate(choice, wanted),
            ]
        steps = [change] if change else []
        present = ecs.primary(service)
        if steps or newest.outcome == releases.RETURNING or not ecs.is_rolled_out(service, present):
            returning = newest.arn if newest.outcome == releases.RETURNING else None
            steps.append(
                Step(
                    "settle",
                    f"wait until {name} runs {short(choice.goal)}",
                    arguments={"returning": returning},
                    waits=True,
                )
            )
        returned = {"task_definition_arn": choice.goal, "leaving": choice.leaving and short(choice.leaving)}
        after = {"task_definition": short(choice.goal)}
        if observed["images"]:
            after["images"] = {container: str(image) for container, image in observed["images"].items()}
        return Plan(tuple(steps), after, tuple(notes), returned)

    # ---- doing -----------------------------------------------------------------------------------------------------

    def stop(self, arn):
        """Let ECS roll the deployment in progress back. https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopServiceDeployment.html"""
        self.stopping = arn
        try:
            self.aws.change("ecs", "stop_service_deployment", serviceDeploymentArn=arn, stopType="ROLLBACK")
        except ClientError as error:
            if code_of(error) in ENDED_MEANWHILE:
                raise Overtaken("the deployment in progress ended before it could be stopped") from error
            if code_of(error) not in CANNOT_STOP:
                raise
            self.may_stop, self.stopping = False, None
            why = explain(error) if is_denied(error) else code_of(error)
            self.notes.append(f"the deployment in progress could not be stopped ({why}): it was replaced")
            raise Overtaken("the deployment in progress cannot be stopped") from error

    def update(self, force):
        # forceNewDeployment: without it ECS leaves a failed deployment of the same revision as it is.
        more = {"forceNewDeployment": True} if force else {}
        answer = self.aws.change("ecs", "update_service", **self.names, taskDefinition=self.goal, **more)
        ours = ecs.primary(answer["service"])
        self.deployment, self.stopping = ours["id"], None
        for each in answer["service"]["deployments"]:
            if each["id"] not in self.known and each is not ours:
                self.notes.append(
                    f"somebody began to deploy {short(each['taskDefinition'])} while this run looked: "
                    f"the rollback replaced it ({each['id']})"
                )

    def settle(self, returning=None):
        """Wait for what `update` or `stop` began, or an earlier run did."""
        returning = self.stopping or returning
        name, what = ecs.short(self.names["service"]), short(self.goal)
        if returning is None and self.deployment is None:
            self._find_deployment()
        ecs.follow(
            self.wait,
            self.service,
            lambda seen: _is_back(seen, self.goal) if returning else ecs.is_complete(seen["service"], self.deployment),
            lambda seen: (
                _rollback_failure(seen, self.goal) if returning else ecs.rollout_failure(seen, self.deployment)
            ),
            f"{name} goes back to {what}",
            USUAL_ROLLOUT,
            PACE,
            ours=None if returning else lambda _service: self.deployment,
            also=partial(self._look_at_rollback, returning) if returning else None,
            # ECS may go back under the id that an older deployment had, whose failures are none of this one's.
            since_now=returning is not None,
        )

    def _look_at_rollback(self, arn, service):
        """How ECS's way back stands; not asked while its deployment says itself that it goes on."""
        goes_on = (ecs.primary(service) or {}).get("rolloutState") == "IN_PROGRESS"
        return {"rollback": {} if goes_on else self.history.deployment(arn)}

    def _find_deployment(self):
        service = self.service.describe()
        present = ecs.primary(service)
        if present is None or present["taskDefinition"] != self.goal:
            raise Stop(_somebody_else(service, service["taskDefinition"]))
        self.deployment = present["id"]

    # ---- telling ---------------------------------------------------------------------------------------------------

    def undo(self, before, done):
        arguments = dict(self.names, region=self.aws.region, task_definition=before["task_definition"])
        return [{"verb": "sre.runbooks.ecs_rollback", "arguments": arguments}]

    def view(self, observed):
        service = observed["service"]
        return {
            "desired": service["desiredCount"],
            "running": service["runningCount"],
            "task_definition": short(service.get("taskDefinition", "")),
            "images": self.shown.get(service.get("taskDefinition"), {}),
        }


def _as_arn(given, service, past):
    """The ARN of what a person calls `family:revision` or gives as an ARN."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+:[1-9][0-9]*", short(given)):
        raise Refusal(f"task_definition {given} names no revision: give family:revision, for example regami-api:41")
    here = service["taskDefinition"]
    families = {family(each.task_definition) for each in past} | {family(here)}
    if family(given) not in families:
        raise Refusal(
            f"{short(given)} is of another family than {family(here)}, which {service['serviceName']} runs: "
            f"check task_definition"
        )
    return f"{here.rpartition('/')[0]}/{short(given)}"


def _somebody_else(service, arn):
    return (
        f"somebody else is rolling {service['serviceName']} out to {short(arn)}: "
        f"look at that deployment first, then run again"
    )


def _images_of(described):
    """{container: (image, None)} of a DescribeTaskDefinition answer, or of None."""
    containers = described["taskDefinition"]["containerDefinitions"] if described else []
    return {each["name"]: (each["image"], None) for each in containers}


def _change(observed):
    """The one step that brings the service on its way to the goal, or None where it is there or on its way."""
    service, past, goal = observed["service"], observed["releases"], observed["choice"].goal
    newest, present = past[0], ecs.primary(service) or {}
    name, before, after = service["serviceName"], short(service["taskDefinition"]), short(goal)
    falls_back = releases.returns_to(past) == goal
    if newest.outcome == releases.RETURNING and falls_back:
        return None
    can_stop = newest.outcome == releases.RUNNING and newest.arn and falls_back and observed["may_stop"]
    if can_stop and newest.task_definition != goal:
        what = f"stop the deployment of {short(newest.task_definition)} in {name}, which goes back to {after}"
        return Step("stop", what, short(newest.task_definition), after, {"arn": newest.arn})
    is_there = present.get("taskDefinition", service["taskDefinition"]) == goal
    has_failed = present.get("rolloutState") == "FAILED"
    if is_there and not has_failed:
        return None
    return Step("update", f"roll {name} back to {after}", before, after, {"force": is_there})


def _definition_gate(goal, definition, past):
    """No service can go to a revision that was deregistered."""
    if definition.get("status", "INACTIVE") == "ACTIVE":
        return []
    others = [each for each in releases.completed(past) if each not in (goal, past[0].task_definition)]
    instead = (
        f"; or give another revision as task_definition ({', '.join(map(short, others))} completed too)"
        if others
        else ""
    )
    what = "was deregistered (INACTIVE)" if definition else "does not exist any more"
    how = "register it again under a new number (describe-task-definition, register-task-definition) and give that as task_definition"
    raise Refusal(
        f"{short(goal)} {what}, so no service can go to it: {how if definition else 'register it anew'}{instead}"
    )


def _migration_gate(choice, wanted):
    """Raises Refusal where a migration lies between the goal and what is left; else notes."""
    notes = []
    for each in wanted["migrations"]:
        name, first = each["name"], each["revision"]
        if not choice.leaving or not _crosses(choice, first):
            continue
        if name not in wanted["accept_migrations"]:
            raise Refusal(
                f"migration {name} came with revision {first}, and {short(choice.goal)} was made for the schema before it: "
                f"undo or bridge the migration first, then say accept_migrations={name}"
            )
        notes.append(f"override accept_migrations: {short(choice.goal)} runs on a schema that has had {name}")
    return notes


def _crosses(choice, first):
    # Numbers of another family say nothing about the schema: then it may be crossed.
    return family(choice.goal) != family(choice.leaving) or number(choice.goal) < first <= number(choice.leaving)


def _is_back(seen, goal):
    """Has ECS gone back, and is the service complete there?"""
    status, service = seen["rollback"].get("status"), seen["service"]
    if status == "SUCCESSFUL":
        raise Overtaken("the deployment was complete before it could be stopped")
    return (
        status == "ROLLBACK_SUCCESSFUL"
        and service["taskDefinition"] == goal
        and ecs.is_rolled_out(service, ecs.primary(service))
    )


def _rollback_failure(seen, goal):
    """Why ECS will not come back to the goal, or None while it may."""
    entry, service = seen["rollback"], seen["service"]
    if entry.get("status") in ("ROLLBACK_FAILED", "STOPPED"):
        return f"ECS could not go back ({entry['status']}: {entry.get('statusReason') or 'no reason given'})"
    if entry.get("status") == "ROLLBACK_SUCCESSFUL" and service["taskDefinition"] != goal:
        return f"the way back was replaced: {service['serviceName']} now goes to {short(service['taskDefinition'])}"
    return ecs.too_many(seen)


def main():
    run(verb_module(ARGUMENTS), EcsRollback)


if __name__ == "__main__":
    main()
