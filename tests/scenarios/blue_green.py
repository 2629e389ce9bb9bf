# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""regami-web, which CodeDeploy deploys blue/green."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from runbook import Result, Running
from world import World, wait_until

ACTIVE = ["Created", "Queued", "InProgress", "Baking", "Ready"]
ALL_AT_ONCE = "CodeDeployDefault.ECSAllAtOnce"


@dataclass
class Web:
    """The service; as AWS describes it."""

    ENV: ClassVar = "sandbox_codedeploy"
    world: World

    @property
    def facts(self) -> dict:
        return self.world.sandbox.state["codedeploy"]

    @property
    def group(self) -> dict:
        return {"applicationName": self.facts["application"], "deploymentGroupName": self.facts["deployment_group"]}

    @property
    def codedeploy(self) -> Any:
        return self.world.aws("codedeploy")

    def deployments(self, *statuses: str) -> list[dict]:
        """Newest first."""
        ids = self.codedeploy.list_deployments(**self.group, includeOnlyStatuses=list(statuses))["deployments"]
        found = self.codedeploy.batch_get_deployments(deploymentIds=ids[:25])["deploymentsInfo"] if ids else []
        return sorted(found, key=lambda each: each["createTime"], reverse=True)

    def service(self) -> dict:
        names = {"cluster": self.facts["cluster"], "services": [self.facts["service"]]}
        return self.world.aws("ecs").describe_services(**names)["services"][0]

    def serves(self) -> str:
        return self.service()["taskDefinition"].rpartition("/")[2]

    def weights(self) -> dict[str, int]:
        (listener,) = self.world.aws("elbv2").describe_listeners(ListenerArns=[self.facts["listener_arn"]])["Listeners"]
        groups = listener["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
        return {each["TargetGroupArn"]: each["Weight"] for each in groups}

    def traffic(self) -> dict[str, int]:
        """{revision: percent}, of those that get any."""
        weights = self.weights()
        shares = {
            each["taskDefinition"].rpartition("/")[2]: weights[each["loadBalancers"][0]["targetGroupArn"]]
            for each in self.service()["taskSets"]
            if each["status"] != "DRAINING"
        }
        return {name: share for name, share in shares.items() if share}

    def idle(self) -> None:
        """End what goes on: to its end where it has the traffic, else by a rollback, which ends by itself."""
        for each in self.deployments(*ACTIVE):
            known = {"deploymentId": each["deploymentId"]}
            with suppress(ClientError):  # it ends this very moment
                if each["instanceTerminationWaitTimeStarted"]:
                    self.codedeploy.continue_deployment(**known, deploymentWaitType="TERMINATION_WAIT")
                elif each["creator"] != "codeDeployRollback":
                    self.codedeploy.stop_deployment(**known, autoRollbackEnabled=True)
        wait_until(lambda: not self.deployments(*ACTIVE), "no deployment goes on")
        wait_until(
            lambda: [each["stabilityStatus"] for each in self.service()["taskSets"]] == ["STEADY_STATE"], "steady"
        )

    def ship(self, build: str, stage: str) -> str:
        """A bad build by the pipeline, with its canary; its id."""
        self.world.sandbox.fault("bad-blue-green", build=build, stage=stage)
        return self.deployments()[0]["deploymentId"]

    def redeploy(self, deployment: str, wait: bool = True) -> str:
        """What an earlier deployment deployed, all at once, to its end."""
        revision = self.codedeploy.get_deployment(deploymentId=deployment)["deploymentInfo"]["revision"]
        known = self.codedeploy.get_application_revision(applicationName=self.facts["application"], revision=revision)
        made = self.codedeploy.create_deployment(
            **self.group, revision=known["revision"], deploymentConfigName=ALL_AT_ONCE
        )["deploymentId"]
        if wait:
            self.traffic_moved(made)
            self.idle()
        return made

    def traffic_moved(self, deployment: str) -> None:
        wait_until(
            lambda: any(
                each["status"] == "PRIMARY" and each.get("externalId") == deployment
                for each in self.service()["taskSets"]
            ),
            f"{deployment} has the traffic",
        )

    def start(self, *flags: str, **variables: Any) -> Running:
        return self.world.runbook.start("rollback_deployment", *flags, env=self.ENV, **variables)

    def run(self, *flags: str, **variables: Any) -> Result:
        return self.start(*flags, **variables).wait()

    def creations(self, run: Result) -> list[str]:
        """CreateDeployment and StopDeployment, as far as AWS carried them out."""
        calls = [call for call in run.calls if call["service"] == "codedeploy" and call["mutation"]]
        return [call["action"] for call in calls if call["status"] == 200]
