# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deployments of CodeDeploy to an ECS service: which there were, what they deployed, where the traffic goes."""

from __future__ import annotations

import datetime
import json

from ansible.module_utils.common.yaml import HAS_YAML, yaml_load

from . import ecs, elbv2, forwarding
from .aws import code_of, together
from .errors import Refusal, Stop

# https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_DeploymentInfo.html
ACTIVE = ("Created", "Queued", "InProgress", "Baking", "Ready")
# A rollback is a deployment of its own: one that CodeDeploy made, or one of ours, which its description says.
# https://docs.aws.amazon.com/codedeploy/latest/userguide/deployments-rollback-and-redeploy.html
CREATOR, MARK = "codeDeployRollback", "sre.runbooks rolls back "
# BatchGetDeployments takes so many ids.
BATCH = 25
# How far back to look for a deployment that succeeded, in days: no further than needed, since the order of
# ListDeployments is not documented and a busy group has thousands.
WINDOWS = (1, 7, 30, 365)


class Group:
    """One deployment group.

    Args:
        aws: the Aws to ask.
        application, name: as CodeDeploy has them.
    """

    def __init__(self, aws, application, name):
        self._aws, self.application, self.name = aws, application, name
        self._names = {"applicationName": application, "deploymentGroupName": name}

    def _read(self, operation, **arguments):
        return self._aws.read("codedeploy", operation, **arguments)

    def describe(self):
        """DeploymentGroupInfo. Raises Refusal where there is none; the line lists near names."""
        try:
            return self._read("get_deployment_group", **self._names)["deploymentGroupInfo"]
        except Exception as error:
            if code_of(error) == "ApplicationDoesNotExistException":
                there = self._read("list_applications")["applications"]
                raise self._missing("application", self.application, there) from error
            if code_of(error) == "DeploymentGroupDoesNotExistException":
                there = self._read("list_deployment_groups", applicationName=self.application)["deploymentGroups"]
                raise self._missing("deployment group", self.name, there) from error
            raise

    def _missing(self, what, name, there):
        return Refusal(
            f"there is no CodeDeploy {what} {name} in {self._aws.region} ({ecs.near(name, there)}): "
            f"check application, deployment_group and the region of this host in the inventory"
        )

    def active(self):
        """Ids of the deployments that have not ended: one at most, as CodeDeploy allows."""
        return self._ids(includeOnlyStatuses=list(ACTIVE))

    def _ids(self, **filters):
        ids, more = [], {}
        while True:
            answer = self._read("list_deployments", **self._names, **filters, **more)
            ids += answer["deployments"]
            if not answer.get("nextToken"):
                return ids
            more = {"nextToken": answer["nextToken"]}

    def deployments(self, ids):
        """DeploymentInfo of each, newest first."""
        found = []
        for start in range(0, len(ids), BATCH):
            answer = self._read("batch_get_deployments", deploymentIds=ids[start : start + BATCH])
            found += answer["deploymentsInfo"]
        return sorted(found, key=lambda each: each["createTime"], reverse=True)

    def deployment(self, deployment_id):
        """DeploymentInfo. Raises Refusal where there is none, or it belongs to another group."""
        try:
            found = self._read("get_deployment", deploymentId=deployment_id)["deploymentInfo"]
        except Exception as error:
            if code_of(error) in ("DeploymentDoesNotExistException", "InvalidDeploymentIdException"):
                raise Refusal(
                    f"there is no CodeDeploy deployment {deployment_id} in {self._aws.region}: "
                    f"aws deploy list-deployments shows those of {self.name}"
                ) from error
            raise
        if (found["applicationName"], found["deploymentGroupName"]) != (self.application, self.name):
            raise Refusal(f"{deployment_id} is a deployment of {found['deploymentGroupName']}, not of {self.name}")
        return found

    def succeeded_before(self, moment, wanted):
        """The newest deployment that was created before `moment`, succeeded, and is `wanted(it)`; None where there is none."""
        for days in WINDOWS:
            span = {"start": moment - datetime.timedelta(days=days), "end": moment - datetime.timedelta(milliseconds=1)}
            ids = self._ids(includeOnlyStatuses=["Succeeded"], createTimeRange=span)
            found = next(filter(wanted, self.deployments(ids)), None)
            if found is not None:
                return found
        return None

    def revision(self, deployment):
        """The RevisionLocation of a deployment as CreateDeployment takes it: with the AppSpec, which GetDeployment leaves out.

        https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_GetDeployment.html
        """
        revision = deployment["revision"]
        if revision["revisionType"] != "AppSpecContent":
            return revision
        sha256 = revision["appSpecContent"]["sha256"]
        return self._read(
            "get_application_revision",
            applicationName=self.application,
            revision={"revisionType": "AppSpecContent", "appSpecContent": {"sha256": sha256}},
        )["revision"]

    def appspec(self, revision):
        """The AppSpec of a revision as a dict.

        Raises:
            Stop: it cannot be read.
        """
        if revision["revisionType"] == "AppSpecContent":
            return parse(revision["appSpecContent"]["content"])
        at = revision["s3Location"]
        version = {"VersionId": at["version"]} if at.get("version") else {}
        return parse(self._aws.read("s3", "get_object", Bucket=at["bucket"], Key=at["key"], **version)["Body"].read())

    def events(self, deployment_id, service):
        """Lifecycle events of a deployment to `service` (an entry of ecsServices); [] before it has begun."""
        target = f"{service['clusterName']}:{service['serviceName']}"
        try:
            answer = self._read("get_deployment_target", deploymentId=deployment_id, targetId=target)
        except Exception as error:
            if code_of(error) in ("DeploymentNotStartedException", "DeploymentTargetDoesNotExistException"):
                return []
            raise
        return answer["deploymentTarget"]["ecsTarget"].get("lifecycleEvents", [])

    def weights(self, info):
        """{ARN of a target group: weight} summed over the rules of the production listeners that forward to its pair."""
        (pair,) = info["loadBalancerInfo"]["targetGroupPairInfoList"]
        names = {each["name"] for each in pair["targetGroups"]}
        answers = together(
            **{
                arn: lambda arn=arn: self._aws.read("elbv2", "describe_rules", ListenerArn=arn)
                for arn in pair["prodTrafficRoute"]["listenerArns"]
            }
        )
        found = {}
        for rule in [rule for each in answers.values() for rule in each["Rules"]]:
            for arn, weight in forwarding.weights(rule["Actions"]).items():
                if elbv2.short(arn) in names:
                    found[arn] = found.get(arn, 0) + weight
        return found


def parse(text):
    """An AppSpec, which is JSON or YAML. Raises Stop."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    if not HAS_YAML:
        raise Stop("the AppSpec is YAML, and this machine has no PyYAML to read it")
    try:
        return yaml_load(text)
    except Exception as error:  # whatever the library calls it
        raise Stop("the AppSpec is neither JSON nor YAML") from error


def task_definition(appspec):
    """The task definition (ARN or family:revision) that an AppSpec deploys.

    https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-resources.html
    Raises:
        Stop: it names none.
    """
    try:
        return next(iter(appspec["Resources"][0].values()))["Properties"]["TaskDefinition"]
    except (LookupError, TypeError, AttributeError, StopIteration) as error:
        raise Stop("the AppSpec names no task definition") from error


def is_active(deployment):
    return deployment["status"] in ACTIVE


def is_ours(deployment):
    """Did a run of ours create this one, to go back?"""
    return deployment.get("description", "").startswith(MARK)


def is_rollback(deployment):
    return deployment.get("creator") == CREATOR or is_ours(deployment)


def rollback_of(deployment):
    """Id of the deployment that `deployment` rolls back."""
    triggering = deployment.get("rollbackInfo", {}).get("rollbackTriggeringDeploymentId")
    return triggering or deployment.get("description", "").removeprefix(MARK).partition(" ")[0]


def primary(service):
    """The task set that the service is to serve with, {} where it has none."""
    return next((each for each in service.get("taskSets", []) if each["status"] == "PRIMARY"), {})


def made_by(service, deployment_id):
    """The task set that a deployment made, {} where it made none (a rollback by CodeDeploy makes none)."""
    return next((each for each in service.get("taskSets", []) if each.get("externalId") == deployment_id), {})


def target_groups(task_set):
    """As `ecs.target_groups`, of one task set."""
    return [(each["targetGroupArn"],) for each in task_set.get("loadBalancers", [])]


def serving(service):
    """ARN of the task definition that the service is to serve with."""
    return primary(service).get("taskDefinition") or service["taskDefinition"]


def original(service, deployment_id):
    """family:revision that the traffic returns to when this deployment is stopped with rollback."""
    there = [each for each in service.get("taskSets", []) if each["status"] != "DRAINING"]
    kept = next((each for each in there if each.get("externalId") != deployment_id), None)
    return ecs.short(kept["taskDefinition"] if kept else serving(service))


def is_in_production(deployment, service, weights):
    """Does a deployment that did not succeed have any of the traffic?"""
    mine = made_by(service, deployment["deploymentId"])
    return any(weights.get(arn) for arns in target_groups(mine) for arn in arns)


def is_half_way(deployment, service):
    """Does a deployment (DeploymentInfo, {} for none) go on that has tasks of its own, without all of the traffic so far?"""
    if not deployment or not is_active(deployment) or deployment.get("creator") == CREATOR:
        return False
    return made_by(service, deployment["deploymentId"]).get("status") != "PRIMARY"


def minutes_kept(info):
    """Minutes that the replaced task set stays after the traffic has moved."""
    option = info.get("blueGreenDeploymentConfiguration", {}).get("terminateBlueInstancesOnDeploymentSuccess", {})
    return option.get("terminationWaitTimeInMinutes", 0) if option.get("action") == "TERMINATE" else 0


def traffic(service, weights):
    """{family:revision: percent of the production traffic} of the task sets that get any."""
    total = sum(weights.values())
    shares = {}
    for task_set in service.get("taskSets", []):
        weight = sum(weights.get(arn, 0) for arns in target_groups(task_set) for arn in arns)
        if weight and task_set["status"] != "DRAINING":
            name = ecs.short(task_set["taskDefinition"])
            shares[name] = shares.get(name, 0) + round(100 * weight / total)
    return shares


def is_whole(service, weights):
    """Does all production traffic go to the primary task set, and has that all its tasks, healthy?"""
    chosen = primary(service)
    groups = [arn for arns in target_groups(chosen) for arn in arns]
    return (
        bool(groups)
        and all(not weight or arn in groups for arn, weight in weights.items())
        and any(weights.get(arn) for arn in groups)
        and chosen.get("stabilityStatus") == "STEADY_STATE"
    )


def trouble(deployment, events):
    """What CodeDeploy says of a deployment that did not succeed, in one line."""
    error = deployment.get("errorInformation") or {}
    said = [f"{error.get('code', 'no error code')}: {error.get('message', 'no message')}"] if error else []
    for event in events:
        if event["status"] == "Failed":
            found = event.get("diagnostics") or {}
            details = [found.get(key) for key in ("scriptName", "message", "logTail")]
            text = ": ".join(" ".join(each.split()) for each in details if each and each != error.get("message"))
            said.append(f"lifecycle event {event['lifecycleEventName']} failed{f': {text}' if text else ''}")
    return "; ".join(said) or "CodeDeploy gives no reason"
