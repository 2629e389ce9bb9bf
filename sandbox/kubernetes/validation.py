# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server refuses, as far as somebody in an incident may send it.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ (names)
https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#writing-a-deployment-spec
"""

from __future__ import annotations

import re
from typing import Any

from . import errors, selectors
from .defaults import TEMPLATED
from .resources import (
    AUTOSCALERS,
    DAEMON_SETS,
    DEPLOYMENT_CONFIGS,
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_SELECTING = (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS)
# What of a StatefulSet's spec an update may change.
_STATEFUL_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)

Problem = tuple[str, str, str]  # field, reason, message
_REQUIRED = "FieldValueRequired", "Required value"


def check(resource: Resource, item: dict, before: dict | None = None) -> None:
    """Raises Invalid with every problem. `before`: the object that is to be updated."""
    name = item["metadata"].get("name", "")
    problems: list[Problem] = []
    if not _NAME.fullmatch(name) or len(name) > 253:
        problems.append(("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {_NAME_MESSAGE}'))
    spec = item.get("spec")
    if resource in TEMPLATED or resource in (PODS, AUTOSCALERS):
        problems += _spec_problems(resource, spec if isinstance(spec, dict) else {})
        if before is not None:
            problems += _change_problems(resource, before["spec"], spec if isinstance(spec, dict) else {})
    if problems:
        raise errors.invalid(resource, name, problems)


def _spec_problems(resource: Resource, spec: dict) -> list[Problem]:
    if resource == PODS:
        return _container_problems(spec, "spec")
    if resource == AUTOSCALERS:
        return _autoscaler_problems(spec)
    problems: list[Problem] = []
    for name in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        value = spec.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            problems.append(
                (f"spec.{name}", "FieldValueInvalid", f"Invalid value: {value}: must be greater than or equal to 0")
            )
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    if resource in _SELECTING:
        selector = spec.get("selector")
        if not selector:
            problems.append(("spec.selector", *_REQUIRED))
        if not selector or not selectors.of_object(selector)(labels or {}):
            shown = "map[string]string" + (_as_go(labels) if labels else "(nil)")
            problems.append(
                (
                    "spec.template.metadata.labels",
                    "FieldValueInvalid",
                    f"Invalid value: {shown}: `selector` does not match template `labels`",
                )
            )
    if resource != DEPLOYMENT_CONFIGS or template:
        problems += _container_problems(template.get("spec") or {}, "spec.template.spec")
    if resource == DEPLOYMENTS:
        problems += _strategy_problems(spec)
    return problems


def _strategy_problems(spec: dict) -> list[Problem]:
    strategy = spec.get("strategy") or {}
    kind = strategy.get("type")
    if kind not in ("RollingUpdate", "Recreate"):
        message = f'Unsupported value: "{kind}": supported values: "Recreate", "RollingUpdate"'
        return [("spec.strategy.type", "FieldValueNotSupported", message)]
    if kind == "Recreate" and strategy.get("rollingUpdate"):
        message = "Forbidden: may not be specified when strategy `type` is 'Recreate'"
        return [("spec.strategy.rollingUpdate", "FieldValueForbidden", message)]
    rolling = strategy.get("rollingUpdate") or {}
    if all(str(rolling.get(name)) in ("0", "0%") for name in ("maxSurge", "maxUnavailable")):
        message = f"Invalid value: {rolling['maxUnavailable']}: may not be 0 when `maxSurge` is 0"
        return [("spec.strategy.rollingUpdate.maxUnavailable", "FieldValueInvalid", message)]
    return []


def _autoscaler_problems(spec: dict) -> list[Problem]:
    problems: list[Problem] = []
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas")
    if not isinstance(most, int) or most < 1:
        problems.append(
            ("spec.maxReplicas", "FieldValueInvalid", f"Invalid value: {most or 0}: must be greater than 0")
        )
    elif most < least:
        message = f"Invalid value: {most}: must be greater than or equal to `minReplicas`"
        problems.append(("spec.maxReplicas", "FieldValueInvalid", message))
    if not (spec.get("scaleTargetRef") or {}).get("kind"):
        problems.append(("spec.scaleTargetRef.kind", *_REQUIRED))
    if not (spec.get("scaleTargetRef") or {}).get("name"):
        problems.append(("spec.scaleTargetRef.name", *_REQUIRED))
    return problems


def _container_problems(pod: dict, where: str) -> list[Problem]:
    containers = pod.get("containers")
    if not containers:
        return [(f"{where}.containers", *_REQUIRED)]
    problems: list[Problem] = []
    seen = set()
    for number, container in enumerate(containers):
        field = f"{where}.containers[{number}]"
        problems += [(f"{field}.{name}", *_REQUIRED) for name in ("name", "image") if not container.get(name)]
        if container.get("name") in seen:
            message = f'Duplicate value: "{container["name"]}"'
            problems.append((f"{field}.name", "FieldValueDuplicate", message))
        seen.add(container.get("name"))
        for place, port in enumerate(container.get("ports") or []):
            if not isinstance(port.get("containerPort"), int):
                problems.append((f"{field}.ports[{place}].containerPort", *_REQUIRED))
    return problems


def _change_problems(resource: Resource, before: dict, spec: dict) -> list[Problem]:
    if resource in _SELECTING and resource != STATEFUL_SETS and spec.get("selector") != before.get("selector"):
        shown = f"Invalid value: {_as_go(spec.get('selector'))}: field is immutable"
        return [("spec.selector", "FieldValueInvalid", shown)]
    if resource == STATEFUL_SETS:
        fixed = {name: value for name, value in spec.items() if name not in _STATEFUL_MUTABLE}
        if fixed != {name: value for name, value in before.items() if name not in _STATEFUL_MUTABLE}:
            named = ", ".join(f"'{name}'" for name in _STATEFUL_MUTABLE[:-1])
            message = (
                f"Forbidden: updates to statefulset spec for fields other than {named} and "
                f"'{_STATEFUL_MUTABLE[-1]}' are forbidden"
            )
            return [("spec", "FieldValueForbidden", message)]
    if resource == PODS:
        names = ("containers", "nodeName", "serviceAccountName", "restartPolicy", "terminationGracePeriodSeconds")
        if any(_without_image(spec.get(name)) != _without_image(before.get(name)) for name in names):
            message = "Forbidden: pod updates may not change fields other than the images of its containers"
            return [("spec", "FieldValueForbidden", message)]
    return []


def _without_image(value: Any) -> Any:
    if isinstance(value, list):
        return [{key: each for key, each in item.items() if key != "image"} for item in value]
    return value


def _as_go(value: Any) -> str:
    """A map as Go prints it."""
    return "{" + ", ".join(f'"{key}":"{each}"' for key, each in sorted((value or {}).items())) + "}"
