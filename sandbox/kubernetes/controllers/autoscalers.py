# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HorizontalPodAutoscalers in a cluster without a metrics server: they keep their target within its bounds.

https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
"""

from __future__ import annotations

import copy

from .. import events, fields
from ..resources import AUTOSCALERS, BY_KIND, Resource
from ..store import Store, now

COMPONENT = "horizontal-pod-autoscaler"
MANAGER = "kube-controller-manager"


class Autoscalers:
    def __init__(self, store: Store) -> None:
        self._store = store

    def sync(self) -> None:
        for scaler in self._store.list(AUTOSCALERS):
            reference = scaler["spec"]["scaleTargetRef"]
            resource = BY_KIND.get((reference.get("apiVersion", "apps/v1"), reference["kind"]))
            place = scaler["metadata"]["namespace"], reference["name"]
            target = self._store.find(resource, *place) if resource and resource.scale else None
            if target is None:
                self._no_target(scaler, reference)
            else:
                self._mind(scaler, resource, target)

    def _mind(self, scaler: dict, resource: Resource, target: dict) -> None:
        least, most = scaler["spec"].get("minReplicas", 1), scaler["spec"]["maxReplicas"]
        replicas = target["spec"].get("replicas", 0)
        if replicas == 0:
            # Somebody has put it to sleep: that turns the scaler off.
            message = "scaling is disabled since the replica count of the target is zero"
            self._report(
                scaler, target, 0, [("AbleToScale", "True", "SucceededGetScale", _ABLE)], "ScalingDisabled", message
            )
            return
        wanted = min(max(replicas, least), most)
        if wanted != replicas:
            self._scale(scaler, resource, target, wanted, "above" if replicas > most else "below")
        message = (
            "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for "
            "resource cpu: no metrics server"
        )
        self._report(
            scaler,
            target,
            wanted,
            [("AbleToScale", "True", "SucceededGetScale", _ABLE)],
            "FailedGetResourceMetric",
            message,
        )

    def _scale(self, scaler: dict, resource: Resource, target: dict, wanted: int, side: str) -> None:
        bound = "maxReplicas" if side == "above" else "minReplicas"
        changed = copy.deepcopy(target)
        changed["spec"]["replicas"] = wanted
        self._store.replace(resource, fields.updated(resource, target, changed, MANAGER, "scale"))
        why = f"Current number of replicas {side} Spec.{bound[0].upper()}{bound[1:]}"
        message = f"New size: {wanted}; reason: {why}"
        events.record(self._store, AUTOSCALERS, scaler, "SuccessfulRescale", message, COMPONENT)

    def _no_target(self, scaler: dict, reference: dict) -> None:
        name = f'{reference["kind"].lower()}s.apps "{reference["name"]}" not found'
        message = f"the HPA controller was unable to get the target's current scale: {name}"
        self._report(scaler, None, 0, [("AbleToScale", "False", "FailedGetScale", message)], None, "")

    def _report(
        self,
        scaler: dict,
        target: dict | None,
        wanted: int,
        able: list[tuple[str, str, str, str]],
        inactive: str | None,
        message: str,
    ) -> None:
        before = {each["type"]: each for each in scaler["status"].get("conditions") or []}
        found = [*able, *([("ScalingActive", "False", inactive, message)] if inactive else [])]
        conditions = []
        for kind, value, reason, text in found:
            known = before.get(kind)
            moment = known["lastTransitionTime"] if known and known["status"] == value else now()
            conditions.append(
                {"type": kind, "status": value, "lastTransitionTime": moment, "reason": reason, "message": text}
            )
        status = {"desiredReplicas": wanted, "currentMetrics": None, "conditions": conditions}
        if target is not None:
            status["currentReplicas"] = target["spec"].get("replicas", 0)
        self._store.change(AUTOSCALERS, scaler, lambda it: it.update(status=status))


_ABLE = "the HPA controller was able to get the target's current scale"
