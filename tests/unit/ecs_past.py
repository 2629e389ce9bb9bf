# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ECS service that has been deployed before, and the registry that its images came from, in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    ARN,
    FAMILY,
    REGION,
    Region,
    definition,
    deployment,
    refusal,
    revision,
)

REGISTRY = f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
# How what goes on ends well.
ENDS = {
    "IN_PROGRESS": "SUCCESSFUL",
    "ROLLBACK_REQUESTED": "ROLLBACK_SUCCESSFUL",
    "ROLLBACK_IN_PROGRESS": "ROLLBACK_SUCCESSFUL",
}


def image(number: int) -> str:
    return f"{REGISTRY}/{FAMILY}:v{number}"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


class Past(Region):
    """A region whose service was deployed as `deployed` says: (revision, status of the service deployment), oldest first.

    Each revision runs the image of its own tag. The service is where the last deployment has left it.
    """

    def __init__(self, *deployed: tuple[int, str], desired: int = 2) -> None:
        super().__init__(desired=desired)
        self.deployed = [
            {
                "serviceDeploymentArn": f"{ARN}service-deployment/{place}",
                "targetServiceRevisionArn": f"{ARN}service-revision/{place}",
                "status": status,
                "createdAt": NOW + timedelta(hours=place),
                "finishedAt": NOW + timedelta(hours=place, minutes=5),
                "number": number,
            }
            for place, (number, status) in enumerate(deployed, 1)
        ]
        self.revisions = {number: self.made_of(number) for number, _status in deployed}
        self.registry = {number: {"imageDigest": digest(number), "imagePushedAt": NOW} for number in self.revisions}
        last, status = deployed[-1]
        going = {"IN_PROGRESS": "IN_PROGRESS", "STOPPED": "FAILED"}.get(status, "COMPLETED")
        self.completed = [number for number, status in deployed if status == "SUCCESSFUL"]
        present = self.completed[-1] if status.startswith("ROLLBACK") else last
        self.service["taskDefinition"] = revision(present)
        self.service["deployments"] = [deployment(len(deployed), present, rolloutState=going)]

    @staticmethod
    def made_of(number: int) -> dict[str, Any]:
        made = definition(number)
        made["containerDefinitions"][0]["image"] = image(number)
        return made

    def number_at(self, arn: str) -> int:
        return next(each["number"] for each in self.deployed if each["targetServiceRevisionArn"] == arn)

    def begin(self, number: int, status: str = "IN_PROGRESS") -> None:
        """A new service deployment."""
        place = len(self.deployed) + 1
        self.deployed.append(
            {
                "serviceDeploymentArn": f"{ARN}service-deployment/{place}",
                "targetServiceRevisionArn": f"{ARN}service-revision/{place}",
                "status": status,
                "createdAt": NOW + timedelta(hours=place),
                "number": number,
            }
        )

    def comes_to_rest(self) -> None:
        """Whatever goes on ends well."""
        self.service["deployments"][0]["rolloutState"] = "COMPLETED"
        last = self.deployed[-1]
        last["status"] = ENDS.get(last["status"], last["status"])

    # --- ECS ---

    def list_service_deployments(self, cluster: str, service: str, maxResults: int) -> dict[str, Any]:
        hidden = ("number",)
        shown = [{key: value for key, value in each.items() if key not in hidden} for each in self.deployed]
        return {"serviceDeployments": shown}

    def describe_service_revisions(self, serviceRevisionArns: list[str]) -> dict[str, Any]:
        assert len(serviceRevisionArns) <= 20
        return {
            "serviceRevisions": [
                {
                    "serviceRevisionArn": arn,
                    "taskDefinition": revision(number),
                    "containerImages": [
                        {"containerName": "app", "image": image(number), "imageDigest": digest(number)}
                    ],
                }
                for arn in serviceRevisionArns
                for number in [self.number_at(arn)]
            ]
        }

    def describe_service_deployments(self, serviceDeploymentArns: list[str]) -> dict[str, Any]:
        if self.later and self.changes:
            self.later.pop(0)(self)
        (arn,) = serviceDeploymentArns
        found = next(each for each in self.deployed if each["serviceDeploymentArn"] == arn)
        return {"serviceDeployments": [{"status": found["status"], "statusReason": "so it goes"}]}

    def stop_service_deployment(self, serviceDeploymentArn: str, stopType: str) -> dict[str, Any]:
        assert stopType == "ROLLBACK"
        found = next(each for each in self.deployed if each["serviceDeploymentArn"] == serviceDeploymentArn)
        if found["status"] not in ("IN_PROGRESS", "ROLLBACK_REQUESTED"):
            raise refusal("ConflictException", "The deployment has ended.")
        found["status"] = "ROLLBACK_REQUESTED"
        good = self.completed[-1]
        self.service["taskDefinition"] = revision(good)
        self.service["deployments"] = [deployment(1, good, rolloutState="IN_PROGRESS")]
        return {"serviceDeploymentArn": serviceDeploymentArn}

    def update_service(self, forceNewDeployment: bool = False, **arguments: Any) -> dict[str, Any]:
        answer = super().update_service(**arguments)
        number = int(arguments["taskDefinition"].rpartition(":")[2])
        self.begin(number)
        self.service["deployments"][0]["id"] = f"ecs-svc/{len(self.deployed)}"
        return answer

    def list_task_definitions(self, familyPrefix: str, status: str, sort: str, maxResults: int) -> dict[str, Any]:
        return {"taskDefinitionArns": [revision(number) for number in sorted(self.revisions, reverse=True)]}

    # --- ECR ---

    def describe_images(
        self, region: str, registryId: str, repositoryName: str, imageIds: list[dict[str, str]]
    ) -> dict[str, Any]:
        assert (region, registryId, repositoryName) == (REGION, "123456789012", FAMILY)
        (wanted,) = imageIds
        for number, found in self.registry.items():
            if wanted in ({"imageTag": f"v{number}"}, {"imageDigest": found["imageDigest"]}):
                return {"imageDetails": [found]}
        raise refusal("ImageNotFoundException", "The image does not exist.")
