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
  - Nothing is done, and RV(notes) says so, where the last deployment was rolled back already, or never got any traffic. A rollback
    that was itself taken back, as an undo does, counts as a deployment again.
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
  leaving:
    description:
      - Id of the deployment that shall be taken back. Refuse if that would be another one, since somebody has deployed
        meanwhile.
    type: str
  accept_moved_image:
    description:
      - Deploy a revision again although the tag of one of its images means another image now than when it was deployed.
        B(Risk:) what starts is not what worked.
    type: bool
    default: false
  accept_unknown_image:
    description:
      - Deploy a revision again although the registry of one of its images cannot be asked whether it still has it. Only
        Amazon ECR is asked. An image that the present tasks use under the same name counts as known.
    type: bool
    default: false
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
  description:
    - The same verb with the deployment that was taken back. One that had not got all of the traffic begins anew, as its own
      configuration has it. Empty where nothing was changed.
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

import time
from functools import partial

from ansible_collections.sre.runbooks.plugins.module_utils import codedeploy, ecs, registry
from ansible_collections.sre.runbooks.plugins.module_utils import codedeploy_rollback as way_back
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module
from ansible_collections.sre.runbooks.plugins.module_utils.waiting import Pace

# Seconds that giving traffic back usually takes, and deploying again, with tasks that start and turn healthy.
USUAL_RETURN = 30
USUAL_DEPLOYMENT = 180
# Seconds after which a stopped deployment that says nothing of a rollback has none.
ROLLBACK_WITHIN = 20

# CodeDeploy does not say how often it may be asked: seldom, once it takes longer.
PACE = Pace(first=0.2, longest=5.0, growth=1.6)

SERVICES = ("codedeploy", "ecs", "ecr", "elbv2", "dynamodb")
ARGUMENTS = dict(
    application=dict(type="str", required=True),
    deployment_group=dict(type="str", required=True),
    deployment=dict(type="str"),
    leaving=dict(type="str"),
    accept_moved_image=dict(type="bool", default=False),
    accept_unknown_image=dict(type="bool", default=False),
    deployment_config=dict(type="str", default="CodeDeployDefault.ECSAllAtOnce"),
    ignore_alarms=dict(type="bool", default=True),
)


class CodedeployRollback(Verb):
    """Stop a deployment with rollback, or deploy an earlier revision again."""

    plan = staticmethod(way_back.plan)

    def __init__(self, module):
        super().__init__(module)
        self.group = codedeploy.Group(self.aws, self.params["application"], self.params["deployment_group"])
        self.service = self.info = self.left = self.rollback = None
        self.pace = None  # the configuration of what was taken back half way

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
        latest = seen["latest"] or {}
        seen["takes_back"] = bool(latest) and codedeploy.is_active(latest) and self._takes_back(latest)
        seen["goal"] = self._goal(seen["wanted"] or self._last_good(seen["bad"]), seen["service"])
        seen["keeps"] = codedeploy.minutes_kept(info)
        if self.left is None:
            self.left = (seen["bad"] or latest).get("deploymentId")
            self.pace = latest["deploymentConfigName"] if codedeploy.is_half_way(latest, seen["service"]) else None
        elif latest and codedeploy.is_rollback(latest) and codedeploy.rollback_of(latest) == self.left:
            self.rollback = latest["deploymentId"]
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
            if deployment["status"] != "Succeeded":
                return self._standing(self._undone(deployment), service, weights)
            return None if self._takes_back(deployment) else deployment
        if deployment["status"] == "Succeeded" or codedeploy.is_in_production(deployment, service, weights):
            return deployment
        return None

    def _takes_back(self, deployment):
        """Does it take back what somebody deployed? To roll a rollback back is to deploy, as an undo does."""
        return codedeploy.is_rollback(deployment) and not self._takes_back(self._undone(deployment))

    def _undone(self, rollback):
        return self.group.deployment(codedeploy.rollback_of(rollback))

    def _last_good(self, bad):
        """What to deploy again in place of `bad`: not asked where stopping it does."""
        if bad is None or codedeploy.is_active(bad):
            return None
        return self.group.succeeded_before(
            bad["createTime"], lambda each: each.get("revision") not in (None, bad["revision"])
        )

    def _goal(self, chosen, service):
        """A deployment as far as deploying it again needs it; None for None."""
        if chosen is None:
            return None
        if not chosen.get("revision"):
            raise Refusal(
                f"CodeDeploy does not say what {chosen['deploymentId']} deployed: give another one as deployment"
            )
        revision = self.group.revision(chosen)
        appspec = self.group.appspec(revision)
        name = codedeploy.task_definition(appspec)
        found = together(
            definition=lambda: self.service.definition(name),
            present=lambda: self.service.definition(codedeploy.serving(service)),
        )
        in_use = _images_of(found["present"]).values()
        return {
            "id": chosen["deploymentId"],
            "revision": revision,
            "task_definition": ecs.short(name),
            "definition": (found["definition"] or {}).get("taskDefinition", {}),
            "images": together(
                **{
                    container: partial(
                        registry.look, self.aws, image, ran_at=chosen.get("startTime"), in_use=image in in_use
                    )
                    for container, image in _images_of(found["definition"]).items()
                }
            ),
            "hooks": sorted({hook for each in appspec.get("Hooks") or () for hook in each}),
        }

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
            pace=PACE,
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
                self._find_ours(description, error)
                return
            raise
        self.rollback = answer["deploymentId"]

    def _find_ours(self, description, error):
        """CreateDeployment has no token: after a lost answer the deployment that is in its way may be the one it made."""
        others = self.group.deployments(self.group.active())
        self.rollback = next((each["deploymentId"] for each in others if each.get("description") == description), None)
        if self.rollback is None:
            raise Stop(
                f"another deployment of {self.group.name} began meanwhile ({'; '.join(map(way_back.created, others))}): hold the "
                f"pipeline and look at that deployment; the same command again would stop it with rollback"
            ) from error

    def settle(self, deployment=None):
        self.rollback = deployment or self.rollback
        ecs.follow(
            self.wait,
            self.service,
            way_back.is_restored,
            way_back.failure,
            f"{self.group.name}: {self.rollback}",
            USUAL_DEPLOYMENT,
            PACE,
            way_back.progress,
            ours=lambda service: codedeploy.made_by(service, self.rollback).get("id"),
            also=lambda _service: together(
                deployment=lambda: self.group.deployment(self.rollback),
                events=lambda: self.group.events(self.rollback, self.info["ecsServices"][0]),
                weights=lambda: self.group.weights(self.info),
            ),
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
        if self.pace:
            # It goes as it went, step by step and with its alarms, and not at once to all users.
            arguments |= {"deployment_config": self.pace, "ignore_alarms": False}
        return [{"verb": "sre.runbooks.codedeploy_rollback", "arguments": arguments}]

    def is_change(self, steps):
        return any(step["do"] != "settle" for step in steps)

    def view(self, observed):
        latest, service = observed["latest"] or {}, observed["service"]
        return {
            "deployment": latest.get("deploymentId"),
            "status": latest.get("status"),
            "task_definition": ecs.short(codedeploy.serving(service)),
            "traffic": codedeploy.traffic(service, observed["weights"]),
        }

    def returned(self):
        return {"deployment_id": self.rollback}


def _images_of(described):
    """{container: image} of a DescribeTaskDefinition answer, or of None."""
    containers = described["taskDefinition"]["containerDefinitions"] if described else ()
    return {each["name"]: each["image"] for each in containers}


def main():
    run(verb_module(ARGUMENTS), CodedeployRollback)


if __name__ == "__main__":
    main()
