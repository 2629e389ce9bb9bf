# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls that change services."""

from __future__ import annotations

from typing import Any

from . import definitions, deployments, state

# What a service under another controller than ECS does not take from UpdateService: parameter -> what it is.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html
LEFT_TO_CONTROLLERS = {
    "task_definition": "task definition",
    "network_configuration": "network parameters",
    "platform_version": "platform version",
    "load_balancers": "load balancers",
}
ELSEWHERE = {
    "CODE_DEPLOY": "a CODE_DEPLOY deployment controller. Use AWS CodeDeploy to trigger a new deployment.",
    "EXTERNAL": "an EXTERNAL deployment controller. Create a new task set instead.",
}
# A change to one of these starts a deployment.
DEPLOYED = ("network_configuration", "platform_version", "load_balancers")


def controller(service: Any) -> str:
    """ECS, CODE_DEPLOY or EXTERNAL."""
    return service.deployment_controller["type"]


def create_service(response: Any) -> Any:
    from moto.core.utils import camelcase_to_underscores

    if name := response._get_param("taskDefinition"):
        definitions.usable(response.ecs_backend, name)
    result = state.moto["create_service"](response)
    service = result.result["service"]
    for name in ("deploymentConfiguration", "healthCheckGracePeriodSeconds", "enableExecuteCommand"):
        value = response._get_param(name)
        if value is not None:
            setattr(service, camelcase_to_underscores(name), value)
    service.running_count = service.pending_count = 0
    service.created_at, service.steady = state.now(), False
    service.deployments = []
    if controller(service) == "ECS":
        deployments.begin(service)
    state.wake.set()
    return result


def update_service(backend: Any, properties: dict) -> Any:
    from moto.ecs.exceptions import ECSException

    service = backend._get_service(properties.pop("cluster", "default"), properties.pop("service").split("/")[-1])
    if service.status != "ACTIVE":
        raise ECSException("ServiceNotActiveException", "Service was not ACTIVE.")
    definition, force = properties.pop("task_definition", None), properties.pop("force_new_deployment", False)
    _refuse_what_belongs_to_its_controller(service, {"task_definition": definition, **properties}, force)
    new = force or any(properties.get(name) is not None for name in DEPLOYED)
    if definition is not None:
        arn = definitions.usable(backend, definition).arn
        new, service.task_definition = new or arn != service.task_definition, arn
    for name, value in properties.items():
        if value is not None:
            setattr(service, name, value)
    if new:
        deployments.begin(service)
    elif service.deployments:
        service.deployments[0].desired_count = service.desired_count
    service.steady = False
    state.wake.set()
    return service


def _refuse_what_belongs_to_its_controller(service: Any, properties: dict, force: bool) -> None:
    from moto.ecs.exceptions import InvalidParameterException

    if controller(service) == "ECS":
        return
    where = f"on services with {ELSEWHERE[controller(service)]}"
    if force:
        raise InvalidParameterException(f"Cannot force a new deployment {where}")
    for name, what in LEFT_TO_CONTROLLERS.items():
        if properties.get(name) is not None:
            raise InvalidParameterException(f"Unable to update {what} {where}")


def delete_service(backend: Any, cluster_name: str, service_name: str, force: bool) -> Any:
    service = state.moto["delete_service"](backend, cluster_name, service_name.split("/")[-1], force)
    service.desired_count = 0
    state.wake.set()
    return service


BACKEND = (update_service, delete_service)
RESPONSE = (create_service,)
