#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: codedeploy_rollback
version_added: 0.2.0
short_description: Take a blue/green deployment of CodeDeploy to an ECS service back
description:
  - A deployment that has not ended is stopped with rollback. That gives the production traffic back to the original tasks,
    which still run, within seconds. It works as long as the deployment waits to terminate them.
  - After that, the revision of an earlier deployment is deployed again, all at once. Default is the last one that
    succeeded before the present one with another revision.
  - Done is when all production traffic goes to the tasks of that revision, they are steady, and the rollback, which is a
    deployment of its own, has succeeded or only waits to terminate the tasks that it replaced.
  - Nothing is done, and RV(notes) says so, where the last deployment was rolled back already, or never got any traffic.
  - B(Risk:) a deployment that is stopped is lost, be it the mend that a pipeline is just rolling out. The plan
    (C(--check --diff)) names it, and who created it.
options:
  application:
    description: Name of the CodeDeploy application.
    type: str
    required: true
  deployment_group:
    description: Name of its deployment group. The ECS service and the load balancer are read from it.
    type: str
    required: true
  deployment:
    description:
      - Id of the deployment to go back to. Its revision is deployed again, unless the service serves that already.
    type: str
  deployment_config:
    description:
      - How the traffic moves when a revision is deployed again. The default moves it at once, as soon as the new tasks
        are healthy. It is not asked where a deployment is stopped, for CodeDeploy then moves all traffic at once.
    type: str
    default: CodeDeployDefault.ECSAllAtOnce
  ignore_alarms:
    description:
      - Whether the deployment of the earlier revision leaves out the alarms of the deployment group. In an incident they
        ring, and would stop the very deployment that is to silence them.
    type: bool
    default: true
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - It serves deployment groups of the compute platform ECS. Those of EC2, on-premises and Lambda are refused.
  - An earlier deployment can be used as long as its task definition is ACTIVE. The hooks of its AppSpec run again.
seealso:
  - name: Redeploy and roll back a deployment with CodeDeploy
    description: AWS documentation.
    link: https://docs.aws.amazon.com/codedeploy/latest/userguide/deployments-rollback-and-redeploy.html
"""

EXAMPLES = r"""
- name: Give the traffic back to what worked, be the deployment still going on or over
  sre.runbooks.codedeploy_rollback:
    application: regami-codedeploy
    deployment_group: regami-deployment-group
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Go back to what a certain deployment had deployed
  sre.runbooks.codedeploy_rollback:
    application: regami-codedeploy
    deployment_group: regami-deployment-group
    region: us-east-1
    deployment: d-A1B2C3D4E
"""

RETURN = r"""
rolled_back:
  description: Id of the deployment that was taken back; null where there was nothing to do.
  returned: when the gates are open
  type: str
  sample: d-1NNWZG91L
deployment_id:
  description: Id of the deployment that is the rollback; null in check mode and where there was nothing to do.
  returned: unless refused
  type: str
  sample: d-0U9J0T91L
before:
  description:
    - The last deployment and what it says, the task definition of the primary task set, and the percentage of the
      production traffic that each task definition gets.
  returned: unless refused
  type: dict
  sample: {deployment: d-1NNWZG91L, status: InProgress, task_definition: "regami-web:41", traffic: {"regami-web:41": 90, "regami-web:42": 10}}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {deployment: d-0U9J0T91L, status: Succeeded, task_definition: "regami-web:41", traffic: {"regami-web:41": 100}}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: stop, what: "stop d-1NNWZG91L with rollback, which gives its traffic back to regami-web:41", before: InProgress,
       after: Stopped}
    - {do: settle, what: "wait until regami-web serves as before d-1NNWZG91L", before: null, after: null}
undo:
  description: The same verb with the deployment that was taken back; empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.codedeploy_rollback
      arguments:
        application: regami-codedeploy
        deployment_group: regami-deployment-group
        region: us-east-1
        deployment: d-1NNWZG91L
notes:
  description: What a person should know, for example until when the next deployment is refused.
  returned: success
  type: list
  elements: str
  sample: ["d-1NNWZG91L was created by user at 2026-11-21 14:02:11 UTC"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 6.8
"""

import datetime
import time

from ansible_collections.sre.runbooks.plugins.module_utils import codedeploy, ecs
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that giving traffic back usually takes, and deploying again, with tasks that start and turn healthy.
USUAL_RETURN, USUAL_DEPLOYMENT = 30, 180
# Seconds after which a stopped deployment that says nothing of a rollback has none.
ROLLBACK_WITHIN = 20

SERVICES = ("codedeploy", "ecs", "elbv2", "dynamodb")
ARGUMENTS = dict(
    application=dict(type="str", required=True),
    deployment_group=dict(type="str", required=True),
    deployment=dict(type="str"),
    deployment_config=dict(type="str", default="CodeDeployDefault.ECSAllAtOnce"),
    ignore_alarms=dict(type="bool", default=True),
)


class CodedeployRollback(Verb):
    """Stop a deployment with rollback, or deploy an earlier revision again."""

    def __init__(self, module):
        super().__init__(module)
        self.group = codedeploy.Group(self.aws, self.params["application"], self.params["deployment_group"])
        self.service = self.info = self.left = self.rollback = None

    # ---- what is there ----

    def observe(self):
        found = together(info=self.group.describe, active=self.group.active)
        self.info = info = found["info"]
        if info["computePlatform"] != "ECS":
            raise Refusal(
                f"{self.group.name} deploys to {info['computePlatform']}, and this verb serves ECS only: redeploy the last "
                f"revision that worked with aws deploy create-deployment"
            )
        named = info["ecsServices"][0]
        self.service = ecs.Service(self.aws, named["clusterName"], named["serviceName"])
        seen = together(
            service=self.service.describe,
            weights=lambda: self.group.weights(info),
            latest=lambda: self._latest(found["active"]),
            wanted=lambda: self.group.deployment(self.params["deployment"]) if self.params["deployment"] else None,
        )
        seen["bad"] = self._standing(seen["latest"], seen["service"], seen["weights"])
        seen["goal"] = self._goal(seen["wanted"] or self._last_good(seen["bad"]))
        seen["keeps"] = codedeploy.minutes_kept(info)
        if self.left is None:
            self.left = (seen["bad"] or seen["latest"] or {}).get("deploymentId")
        return seen

    def _latest(self, active):
        """The last deployment; a rollback comes after what it rolls back, whatever the group's summary says yet."""
        attempted = self.info.get("lastAttemptedDeployment", {}).get("deploymentId")
        ids = list(dict.fromkeys([*active, *([attempted] if attempted else [])]))
        newest = next(iter(self.group.deployments(ids)), None) if ids else None
        follower = (newest or {}).get("rollbackInfo", {}).get("rollbackDeploymentId")
        return self.group.deployment(follower) if follower else newest

    def _standing(self, deployment, service, weights):
        """The deployment that is there to be taken back: None where the last one was taken back already, or got nothing."""
        if deployment is None or codedeploy.is_active(deployment):
            return deployment
        if codedeploy.is_rollback(deployment):
            undone = self.group.deployment(codedeploy.rollback_of(deployment))
            if deployment["status"] != "Succeeded":
                return self._standing(undone, service, weights)
            # To roll a rollback back is to deploy.
            return deployment if codedeploy.is_rollback(undone) else None
        if deployment["status"] == "Succeeded" or codedeploy.is_in_production(deployment, service, weights):
            return deployment
        return None

    def _last_good(self, bad):
        """What to deploy again in place of `bad`: not asked where stopping it does."""
        if bad is None or codedeploy.is_active(bad):
            return None
        return self.group.succeeded_before(
            bad["createTime"], lambda each: each.get("revision") not in (None, bad["revision"])
        )

    def _goal(self, chosen):
        """A deployment as far as deploying it again needs it; None for None."""
        if chosen is None:
            return None
        revision = self.group.revision(chosen)
        appspec = self.group.appspec(revision)
        name = codedeploy.task_definition(appspec)
        return {
            "id": chosen["deploymentId"],
            "revision": revision,
            "task_definition": ecs.short(name),
            "problem": self._problem(name),
            "hooks": sorted({hook for each in appspec.get("Hooks") or () for hook in each}),
        }

    def _problem(self, name):
        """Why no task of this task definition would start, or None."""
        try:
            found = self.aws.read("ecs", "describe_task_definition", taskDefinition=name)["taskDefinition"]
        except Exception as error:
            if code_of(error) == "ClientException":  # how ECS says "there is none"
                return "does not exist"
            raise
        return None if found.get("status", "ACTIVE") == "ACTIVE" else "was deregistered"

    # ---- what to do ----

    @staticmethod
    def plan(observed, wanted):
        service, latest, bad, goal = (observed[key] for key in ("service", "latest", "bad", "goal"))
        _refuse_controller(service)
        if latest is None:
            raise Refusal(f"{wanted['deployment_group']} has never deployed anything: there is nothing to roll back")
        if bad is None and goal is None:
            return Plan(notes=(_nothing_to_do(latest, service),), returned={"rolled_back": None})
        if codedeploy.is_active(latest):
            return _leave_active(observed)
        if goal is None:
            raise Refusal(
                f"no deployment of another revision has succeeded before {bad['deploymentId']}: there is nothing to go back "
                f"to; roll forward, or name a deployment that did not succeed as deployment"
            )
        if _serves(goal, observed):
            note = f"{service['serviceName']} serves {goal['task_definition']}, which {goal['id']} deployed, already"
            return Plan(notes=(note,), returned={"rolled_back": None})
        return _deploy(observed, (bad or latest)["deploymentId"])

    # ---- doing it ----

    def stop(self, deployment):
        try:
            self.aws.change("codedeploy", "stop_deployment", deploymentId=deployment, autoRollbackEnabled=True)
        except Exception as error:
            if code_of(error) == "DeploymentAlreadyCompletedException":
                raise Overtaken(f"{deployment} ended before it was stopped") from error
            raise
        ended_at = None

        def is_stopped(seen):
            nonlocal ended_at
            if codedeploy.is_active(seen):
                return False
            ended_at = ended_at or time.monotonic()
            return bool(seen.get("rollbackInfo")) or time.monotonic() - ended_at > ROLLBACK_WITHIN

        self.wait(
            lambda: self.group.deployment(deployment),
            is_stopped,
            f"{deployment} stops",
            usual=USUAL_RETURN,
            state=lambda seen: seen["status"],
        )

    def deploy(self, revision, description):
        alarms = {"overrideAlarmConfiguration": {"enabled": False}} if self.params["ignore_alarms"] else {}
        try:
            answer = self.aws.change(
                "codedeploy",
                "create_deployment",
                applicationName=self.group.application,
                deploymentGroupName=self.group.name,
                deploymentConfigName=self.params["deployment_config"],
                revision=revision,
                description=description,
                **alarms,
            )
        except Exception as error:
            if code_of(error) == "DeploymentLimitExceededException":
                other = "; ".join(_created(each) for each in self.group.deployments(self.group.active()))
                raise Stop(
                    f"another deployment of {self.group.name} began meanwhile ({other}): hold the pipeline; the same "
                    f"command again would stop that deployment with rollback"
                ) from error
            raise
        self.rollback = answer["deploymentId"]

    def settle(self, deployment=None):
        self.rollback = deployment or self.rollback
        groups = ecs.target_groups(self.service.describe())
        known = None

        def look():
            nonlocal known
            seen = together(
                service=self.service.describe,
                weights=lambda: self.group.weights(self.info),
                deployment=lambda: self.group.deployment(self.rollback),
                targets=lambda: self.service.targets(groups),
                stops=self.service.stops,
                events=lambda: self.group.events(self.rollback),
            )
            known = set(seen["stops"]) if known is None else known  # failures from before this run
            seen["stops"] = [why for arn, (_task_set, why) in seen["stops"].items() if arn not in known]
            return seen

        ecs.watch(
            self.wait,
            look,
            _is_restored,
            _failure,
            f"{self.group.name}: {self.rollback}",
            USUAL_DEPLOYMENT,
            state=_progress,
        )

    def undo(self, before, done):
        if not self.is_change(done):
            return []
        arguments = dict(
            application=self.group.application,
            deployment_group=self.group.name,
            region=self.aws.region,
            deployment=self.left,
        )
        return [{"verb": "sre.runbooks.codedeploy_rollback", "arguments": arguments}]

    def is_change(self, steps):
        return any(step["do"] != "settle" for step in steps)

    def view(self, observed):
        latest, service = observed["latest"] or {}, observed["service"]
        return {
            "deployment": latest.get("deploymentId"),
            "status": latest.get("status"),
            "task_definition": ecs.short(service["taskDefinition"]),
            "traffic": codedeploy.traffic(service, observed["weights"]),
        }

    def returned(self):
        return {"deployment_id": self.rollback}


def _refuse_controller(service):
    use = {
        "ECS": "sre.runbooks.ecs_rollback (strategy=ecs)",
        "EXTERNAL": "the system that owns its task sets",
    }.get(ecs.controller(service))
    if use:
        raise Refusal(
            f"{service['serviceName']} is deployed by {ecs.controller(service)}, not by CodeDeploy: use {use}"
        )


def _leave_active(observed):
    """A deployment goes on: wait for it where it is the rollback, else stop it."""
    service, latest, goal = observed["service"], observed["latest"], observed["goal"]
    name, id_ = service["serviceName"], latest["deploymentId"]
    if codedeploy.is_rollback(latest) and (goal is None or not codedeploy.is_ours(latest) or _leads_to(latest, goal)):
        left = codedeploy.rollback_of(latest)
        if _is_traffic_restored(latest, observed):
            return Plan(
                notes=(f"{id_} has rolled {left} back already", *_kept(observed)), returned={"rolled_back": left}
            )
        # What a rollback of CodeDeploy ends in is known at its end only.
        again = goal is not None and not codedeploy.is_ours(latest)
        settle = Step(
            "settle", f"wait until {id_} has rolled {left} back", arguments={"deployment": id_}, look_again=again
        )
        return Plan((settle,), notes=_kept(observed), returned={"rolled_back": left})
    back = codedeploy.original(service, id_)
    what = f"stop {id_} with rollback, which gives its traffic back to {back}"
    steps = [
        Step("stop", what, latest["status"], "Stopped", {"deployment": id_}, look_again=True),
        Step("settle", f"wait until {name} serves {back}"),
    ]
    if goal and goal["task_definition"] != back:
        then = _deploy(observed, id_)
        return Plan((*steps, *then.steps), then.after, (_created(latest), *then.notes), {"rolled_back": id_})
    return Plan(tuple(steps), _serving(back), (_created(latest),), {"rolled_back": id_})


def _deploy(observed, left):
    """Deploy the goal again in place of `left`."""
    name, goal = observed["service"]["serviceName"], observed["goal"]
    if goal["problem"]:
        raise Refusal(
            f"{goal['task_definition']}, which {goal['id']} deployed, {goal['problem']}: give another deployment that {name} "
            f"can go back to as deployment"
        )
    revision = goal["task_definition"]
    what = f"deploy {revision} to {name} again, which {goal['id']} deployed"
    arguments = {"revision": goal["revision"], "description": f"{codedeploy.MARK}{left} to {goal['id']}"}
    here = ecs.short(codedeploy.primary(observed["service"]).get("taskDefinition", ""))
    notes = _kept(observed)
    if goal["hooks"]:
        notes += (f"the hooks of its AppSpec run again: {', '.join(goal['hooks'])}",)
    steps = (Step("deploy", what, here, revision, arguments), Step("settle", f"wait until {name} serves {revision}"))
    return Plan(steps, _serving(revision), notes, {"rolled_back": left})


def _leads_to(rollback, goal):
    return rollback["description"].endswith(f" to {goal['id']}")


def _serves(goal, seen):
    primary = codedeploy.primary(seen["service"])
    return ecs.short(primary.get("taskDefinition", "")) == goal["task_definition"] and codedeploy.is_whole(
        seen["service"], seen["weights"]
    )


def _serving(revision):
    return {"task_definition": revision, "traffic": {revision: 100}}


def _is_restored(seen):
    """Has the rollback ended well, or does it only wait to terminate what it replaced?"""
    if not codedeploy.is_whole(seen["service"], seen["weights"]):
        return False
    return seen["deployment"]["status"] == "Succeeded" or _is_traffic_restored(seen["deployment"], seen)


def _is_traffic_restored(rollback, seen):
    """Is this deployment, which goes on, through with the traffic?"""
    primary = codedeploy.primary(seen["service"])
    return primary.get("externalId") == rollback["deploymentId"] and codedeploy.is_whole(
        seen["service"], seen["weights"]
    )


def _failure(seen):
    """Why the rollback will not end well, or None while it may."""
    deployment = seen["deployment"]
    if deployment["status"] in ("Failed", "Stopped"):
        return f"it ended {deployment['status']}: {codedeploy.trouble(deployment, seen['events'])}"
    if len(seen["stops"]) >= ecs.STOPPED_TOO_OFTEN:
        return f"{len(seen['stops'])} of its tasks failed one after the other; CodeDeploy itself would try for an hour"
    return None


def _progress(seen):
    """What was seen of a rollback, in a few words."""
    at = next((each["lifecycleEventName"] for each in seen["events"] if each["status"] == "InProgress"), None)
    shares = codedeploy.traffic(seen["service"], seen["weights"])
    parts = [seen["deployment"]["status"] + (f" at {at}" if at else "")]
    parts += [f"{share} % of the traffic to {revision}" for revision, share in shares.items()]
    parts += [f"{ecs.tasks(len(seen['stops']))} failed"] if seen["stops"] else []
    return ", ".join(parts)


def _created(deployment):
    at = deployment["createTime"].astimezone(datetime.UTC)
    return f"{deployment['deploymentId']} was created by {deployment['creator']} at {at:%Y-%m-%d %H:%M:%S} UTC"


def _kept(observed):
    """What is left when the traffic is back."""
    minutes = observed["keeps"]
    if not minutes:
        return ()
    return (
        f"the tasks that are replaced stay {minutes} minutes more, in which the deployment group refuses another "
        f"deployment; stopping this one with rollback would go back to them",
    )


def _nothing_to_do(latest, service):
    here = ecs.short(codedeploy.primary(service).get("taskDefinition", service["taskDefinition"]))
    id_, further = latest["deploymentId"], "to go further back, give deployment"
    if codedeploy.is_rollback(latest):
        undone = codedeploy.rollback_of(latest)
        return f"{id_} has rolled {undone} back already, and {service['serviceName']} serves {here}: {further}"
    return f"{id_} ended {latest['status']} and has no traffic, and {service['serviceName']} serves {here}: {further}"


def main():
    run(verb_module(ARGUMENTS), CodedeployRollback)


if __name__ == "__main__":
    main()
