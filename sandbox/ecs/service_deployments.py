# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls about service deployments and service revisions.

A region that does not have them yet answers UnsupportedFeatureException, or an older endpoint UnknownOperationException:
the fault `service-deployments-unknown`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..faults import Fault
from . import deployments, failure_detection, state
from .definitions import paged
from .deployments import Deployment, Revision, ServiceDeployment

DESCRIBED_AT_ONCE = 20
_refusal = ""  # the error code of a region without these calls


def _available() -> None:
    from moto.ecs.exceptions import ECSException

    if _refusal:
        raise ECSException(_refusal, "The specified task isn't supported in this Region.")


def list_service_deployments(response: Any) -> Any:
    from moto.core.responses import ActionResult

    _available()
    wanted = response._get_param
    service = response.ecs_backend._get_service(wanted("cluster") or "default", wanted("service").split("/")[-1])
    created, statuses = wanted("createdAt") or {}, wanted("status")
    found = [
        each
        for each in deployments.history.get(service.arn, ())
        if (not statuses or each.status in statuses)
        and ("after" not in created or each.created_at.timestamp() > _seconds(created["after"]))
        and ("before" not in created or each.created_at.timestamp() < _seconds(created["before"]))
    ]
    page, more = paged(response, found, 20)
    return ActionResult({"serviceDeployments": [_brief(each) for each in page], **more})


def describe_service_deployments(response: Any) -> Any:
    from moto.core.responses import ActionResult

    _available()
    known = {each.arn: each for each in _all(response)}
    arns = _limited(response._get_param("serviceDeploymentArns"), "serviceDeploymentArns")
    return ActionResult(
        {
            "serviceDeployments": [_described(known[arn]) for arn in arns if arn in known],
            "failures": _missing(arn for arn in arns if arn not in known),
        }
    )


def describe_service_revisions(response: Any) -> Any:
    from moto.core.responses import ActionResult

    _available()
    known = {each.target.revision.arn: each.target.revision for each in _all(response)}
    arns = _limited(response._get_param("serviceRevisionArns"), "serviceRevisionArns")
    return ActionResult(
        {
            "serviceRevisions": [_revision(known[arn]) for arn in arns if arn in known],
            "failures": _missing(arn for arn in arns if arn not in known),
        }
    )


def stop_service_deployment(response: Any) -> Any:
    """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stop-service-deployment.html

    ABORT is in the API's model, but its documentation calls ROLLBACK the only valid value.
    """
    from moto.core.responses import ActionResult
    from moto.ecs.exceptions import ECSException, InvalidParameterException

    _available()
    arn, kind = response._get_param("serviceDeploymentArn"), response._get_param("stopType") or "ROLLBACK"
    if kind != "ROLLBACK":
        raise InvalidParameterException(f"stopType {kind} is not supported.")
    found = next((each for each in _all(response) if each.arn == arn), None)
    if found is None:
        raise ECSException("ServiceDeploymentNotFoundException", "Service deployment not found.")
    if not found.is_ongoing:
        raise ECSException("ConflictException", f"The service deployment is in state {found.status}: it has ended.")
    if found.status in ("PENDING", "IN_PROGRESS"):
        found.become("ROLLBACK_REQUESTED", "A rollback was requested with StopServiceDeployment.")
        state.wake.set()
    return ActionResult({"serviceDeploymentArn": arn})


RESPONSE = (
    list_service_deployments,
    describe_service_deployments,
    describe_service_revisions,
    stop_service_deployment,
)


# ---- what the answers show -----------------------------------------------------------------------------------------


def _all(response: Any) -> Iterator[ServiceDeployment]:
    """Those of the region that was asked."""
    for kept in deployments.history.values():
        for each in kept:
            if each.service.region_name == response.region:
                yield each


def _limited(arns: list[str], name: str) -> list[str]:
    from moto.ecs.exceptions import InvalidParameterException

    if not 0 < len(arns) <= DESCRIBED_AT_ONCE:
        raise InvalidParameterException(f"{name} must have between 1 and {DESCRIBED_AT_ONCE} entries.")
    return arns


def _missing(arns: Iterator[str]) -> list[dict]:
    return [{"arn": arn, "reason": "MISSING"} for arn in arns]


def _seconds(moment: Any) -> float:
    return moment.timestamp() if hasattr(moment, "timestamp") else float(moment)


def _brief(each: ServiceDeployment) -> dict:
    brief = {
        "serviceDeploymentArn": each.arn,
        "serviceArn": each.service.arn,
        "clusterArn": each.service.cluster_arn,
        "createdAt": each.created_at,
        "startedAt": each.started_at,
        "finishedAt": each.finished_at,
        "targetServiceRevisionArn": each.target.revision.arn,
        "status": each.status,
        "statusReason": each.reason or None,
    }
    return {name: value for name, value in brief.items() if value is not None}


def _described(each: ServiceDeployment) -> dict:
    described = _brief(each)
    del described["targetServiceRevisionArn"]
    counts = each.end or {"target": each.target.summary(), "sources": [source.summary() for source in each.sources]}
    breaker, alarms = (each.configuration.get(name) or {} for name in ("deploymentCircuitBreaker", "alarms"))
    described |= {
        "updatedAt": each.updated_at,
        "sourceServiceRevisions": counts["sources"],
        "targetServiceRevision": counts["target"],
        "deploymentConfiguration": each.configuration,
        "deploymentCircuitBreaker": {
            "status": _monitor(each, "circuit breaker", breaker),
            "failureCount": each.failures,
            "threshold": failure_detection.threshold(breaker, each.service.desired_count),
        },
        "alarms": {
            "status": _monitor(each, "alarms", alarms),
            "alarmNames": alarms.get("alarmNames", []),
            "triggeredAlarmNames": each.alarms,
        },
    }
    return described | {
        name: value for name, value in (("stoppedAt", each.stopped_at), ("rollback", each.rollback)) if value
    }


def _monitor(each: ServiceDeployment, monitor: str, configured: dict) -> str:
    """A ServiceDeploymentRollbackMonitorsStatus."""
    if not configured.get("enable"):
        return "DISABLED"
    if each.triggered_by == monitor:
        return "TRIGGERED"
    return "MONITORING" if each.is_ongoing else "MONITORING_COMPLETE"


def _revision(revision: Revision) -> dict:
    definition = revision.service._backend.describe_task_definition(revision.task_definition)
    images = [
        {"containerName": each["name"], "image": each["image"]}
        | ({"imageDigest": revision.images[each["name"]]} if each["name"] in revision.images else {})
        for each in definition.container_definitions
    ]
    return {
        "serviceRevisionArn": revision.arn,
        "serviceArn": revision.service.arn,
        "clusterArn": revision.service.cluster_arn,
        "taskDefinition": revision.task_definition,
        "launchType": revision.launch_type,
        "platformVersion": revision.platform_version,
        "platformFamily": Deployment.platform_family,
        "loadBalancers": revision.load_balancers,
        "networkConfiguration": revision.network_configuration,
        "containerImages": images,
        "guardDutyEnabled": False,
        "serviceConnectConfiguration": {"enabled": False},
        "createdAt": revision.created_at,
    }


# ---- a region without these calls ----------------------------------------------------------------------------------


def refuse(world: Any, code: str = "UnsupportedFeatureException") -> None:
    global _refusal
    _refusal = code


def allow(world: Any) -> None:
    global _refusal
    _refusal = ""


faults = {
    "service-deployments-unknown": Fault(
        "ECS refuses the calls about service deployments (--code UnknownOperationException: as an older endpoint)",
        refuse,
        allow,
        options=("code",),
    )
}
