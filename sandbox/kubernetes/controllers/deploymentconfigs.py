# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenShift's DeploymentConfigs: a ReplicationController for each version, which a deployer brings up or gives up.

https://docs.redhat.com/en/documentation/openshift_container_platform/4.16/html/building_applications/deployments
"""

from __future__ import annotations

import copy
import json
import time
from typing import Any

from .. import events
from ..resources import DEPLOYMENT_CONFIGS, PODS, REPLICATION_CONTROLLERS
from ..store import Store, now, owner_reference, timestamp
from . import rolling
from .rolling import Bounds, Group
from .workloads import same_template

COMPONENT = "deploymentconfig-controller"
PREFIX = "openshift.io/"
NAME, VERSION = f"{PREFIX}deployment-config.name", f"{PREFIX}deployment-config.latest-version"
PHASE, REASON = f"{PREFIX}deployment.phase", f"{PREFIX}deployment.status-reason"
CANCELLED, ENCODED = f"{PREFIX}deployment.cancelled", f"{PREFIX}encoded-deployment-config"
LABELS = ("deployment", "deploymentconfig")


def version_of(controller: dict) -> int:
    return int(controller["metadata"]["annotations"][VERSION])


def phase_of(controller: dict) -> str:
    """New, Running, Complete or Failed."""
    return controller["metadata"]["annotations"][PHASE]


def controllers_of(store: Store, config: dict) -> list[dict]:
    """Oldest version first."""
    return sorted(store.owned(REPLICATION_CONTROLLERS, config), key=version_of)


def template_of(controller: dict) -> dict:
    """The template that the config had: without what tells its pods apart."""
    template = copy.deepcopy(controller["spec"]["template"])
    for name in LABELS:
        template["metadata"].get("labels", {}).pop(name, None)
    for name in (NAME, VERSION, f"{PREFIX}deployment.name"):
        template["metadata"].get("annotations", {}).pop(name, None)
    if not template["metadata"].get("annotations", True):
        del template["metadata"]["annotations"]
    return template


def deploy(store: Store, config: dict, cause: str, message: str) -> dict:
    """Count the version on; the controller goes on from there."""

    def change(fresh: dict) -> None:
        status = fresh.setdefault("status", {})
        status["latestVersion"] = status.get("latestVersion", 0) + 1
        status["details"] = {"message": message, "causes": [{"type": cause}]}

    return store.change(DEPLOYMENT_CONFIGS, config, change)


class DeploymentConfigs:
    def __init__(self, store: Store) -> None:
        self._store = store

    def sync(self) -> None:
        for config in self._store.list(DEPLOYMENT_CONFIGS):
            if "deletionTimestamp" in config["metadata"]:
                continue
            config = self._triggered(config)
            known = controllers_of(self._store, config)
            latest = config["status"].get("latestVersion", 0)
            if latest and (not known or version_of(known[-1]) < latest):
                self._store.create(REPLICATION_CONTROLLERS, self._new(config, latest))
                known = controllers_of(self._store, config)
            for each in known[:-1]:
                if phase_of(each) in ("New", "Running"):
                    self._fail(each, "newer deployment was found running")
            if known:
                self._advance(config, known[-1], known[:-1])
            self._forget(config)
            self._report(config)

    def _triggered(self, config: dict) -> dict:
        kinds = {each["type"] for each in config["spec"].get("triggers") or []}
        known = controllers_of(self._store, config)
        same = bool(known) and same_template(template_of(known[-1]), config["spec"]["template"], "")
        pending = bool(known) and version_of(known[-1]) < config["status"].get("latestVersion", 0)
        if "ConfigChange" in kinds and not same and not pending and not config["spec"].get("paused"):
            return deploy(self._store, config, "ConfigChange", "config change")
        return config

    def _new(self, config: dict, version: int) -> dict:
        metadata, spec = config["metadata"], config["spec"]
        name = f"{metadata['name']}-{version}"
        labels = {"deployment": name, "deploymentconfig": metadata["name"]}
        template = copy.deepcopy(spec["template"])
        template["metadata"].setdefault("labels", {}).update(labels)
        template["metadata"].setdefault("annotations", {}).update(
            {NAME: metadata["name"], VERSION: str(version), f"{PREFIX}deployment.name": name}
        )
        encoded = {"kind": "DeploymentConfig", "apiVersion": DEPLOYMENT_CONFIGS.group_version, **config}
        annotations = {NAME: metadata["name"], VERSION: str(version), PHASE: "New", ENCODED: json.dumps(encoded)}
        return {
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": {**(metadata.get("labels") or {}), NAME: metadata["name"]},
                "annotations": annotations,
                "ownerReferences": [owner_reference(DEPLOYMENT_CONFIGS.group_version, "DeploymentConfig", config)],
            },
            "spec": {
                "replicas": 0,
                "selector": {**(spec.get("selector") or {}), **labels},
                "template": template,
                **({"minReadySeconds": spec["minReadySeconds"]} if spec.get("minReadySeconds") else {}),
            },
            "status": {"replicas": 0},
        }

    # ---- the deployer ----------------------------------------------------------------------------------------------

    def _advance(self, config: dict, new: dict, old: list[dict]) -> None:
        replicas, strategy = config["spec"]["replicas"], config["spec"]["strategy"]
        phase = phase_of(new)
        if phase == "New":
            self._mark(new, "Running")
            what = f'Created new replication controller "{new["metadata"]["name"]}" for version {version_of(new)}'
            events.record(self._store, DEPLOYMENT_CONFIGS, config, "DeploymentCreated", what, COMPONENT)
        elif phase == "Running":
            if new["metadata"]["annotations"].get(CANCELLED) == "true":
                self._fail(new, "cancelled by the user")
            elif time.time() - timestamp(new["metadata"]["creationTimestamp"]) > _timeout(strategy):
                self._fail(new, "deployer timed out")
            elif self._move(replicas, strategy, new, old):
                self._mark(new, "Complete")
        elif phase == "Complete":
            self._scale(new, replicas)
        elif phase == "Failed":
            # The last version that was completed serves again.
            self._scale(new, 0)
            good = [each for each in old if phase_of(each) == "Complete"]
            for each in old:
                self._scale(each, replicas if good and each is good[-1] else 0)

    def _move(self, replicas: int, strategy: dict, new: dict, old: list[dict]) -> bool:
        """One step from the old to the new; whether that was the last."""
        if strategy["type"] == "Recreate":
            for each in old:
                self._scale(each, 0)
            if not any(self._store.owned(PODS, each) for each in old):
                self._scale(new, replicas)
        else:
            params = strategy["rollingParams"]
            bounds = Bounds.of(replicas, params["maxSurge"], params["maxUnavailable"])
            groups = [_group(each) for each in old]
            size = rolling.grown(replicas, bounds, _group(new), groups)
            if size != new["spec"]["replicas"]:
                self._scale(new, size)
            else:
                for each, left in zip(old, rolling.shrunk(replicas, bounds, _group(new), groups), strict=True):
                    self._scale(each, left)
        left = sum(each["spec"]["replicas"] for each in old)
        return _group(new) == Group(replicas, replicas) and not left

    def _scale(self, controller: dict, size: int) -> None:
        self._store.change(REPLICATION_CONTROLLERS, controller, lambda it: it["spec"].update(replicas=size))

    def _mark(self, controller: dict, phase: str, reason: str = "") -> None:
        annotations = {PHASE: phase, **({REASON: reason} if reason else {})}
        self._store.change(
            REPLICATION_CONTROLLERS, controller, lambda it: it["metadata"]["annotations"].update(annotations)
        )

    def _fail(self, controller: dict, reason: str) -> None:
        self._mark(controller, "Failed", reason)

    def _forget(self, config: dict) -> None:
        old = [each for each in controllers_of(self._store, config)[:-1] if not each["spec"]["replicas"]]
        for each in old[: max(0, len(old) - config["spec"].get("revisionHistoryLimit", 10))]:
            self._store.delete(REPLICATION_CONTROLLERS, each)

    # ---- status ----------------------------------------------------------------------------------------------------

    def _report(self, config: dict) -> None:
        known = controllers_of(self._store, config)

        def total(name: str) -> int:
            return sum(each["status"].get(name, 0) for each in known)

        available = total("availableReplicas")
        counts = {
            "replicas": total("replicas"),
            "updatedReplicas": known[-1]["status"].get("replicas", 0) if known else 0,
            "availableReplicas": available,
            "readyReplicas": total("readyReplicas"),
            "unavailableReplicas": max(0, sum(each["spec"]["replicas"] for each in known) - available),
        }

        def change(fresh: dict) -> None:
            status = fresh.setdefault("status", {})
            status.update(counts, observedGeneration=config["metadata"]["generation"])
            status.setdefault("latestVersion", 0)
            for condition in _conditions(config, known, available):
                _set(status, *condition)

        self._store.change(DEPLOYMENT_CONFIGS, config, change)


def _group(controller: dict) -> Group:
    return Group(controller["spec"]["replicas"], controller["status"].get("availableReplicas", 0))


def _timeout(strategy: dict) -> float:
    params: dict[str, Any] = strategy.get("rollingParams") or strategy.get("recreateParams") or {}
    return float(params.get("timeoutSeconds", 600))


def _conditions(config: dict, known: list[dict], available: int) -> list[tuple[str, str, str, str]]:
    replicas = config["spec"]["replicas"]
    enough = available >= replicas and bool(replicas)
    has = "has" if enough else "does not have"
    found = [("Available", "True" if enough else "False", "", f"Deployment config {has} minimum availability.")]
    if known:
        name, phase = known[-1]["metadata"]["name"], phase_of(known[-1])
        message = f'replication controller "{name}"'
        found.append(
            {
                "Complete": (
                    "Progressing",
                    "True",
                    "NewReplicationControllerAvailable",
                    f"{message} successfully rolled out",
                ),
                "Failed": ("Progressing", "False", "ProgressDeadlineExceeded", f"{message} has failed progressing"),
            }.get(phase, ("Progressing", "True", "ReplicationControllerUpdated", f"{message} is progressing"))
        )
    return found


def _set(status: dict, kind: str, value: str, reason: str, message: str) -> None:
    conditions = status.setdefault("conditions", [])
    known = next((each for each in conditions if each["type"] == kind), None)
    moment = now()
    if known is not None and (known["status"], known.get("reason", ""), known["message"]) == (value, reason, message):
        return
    same = known is not None and known["status"] == value
    new = {
        "type": kind,
        "status": value,
        "lastUpdateTime": moment,
        "lastTransitionTime": known["lastTransitionTime"] if same else moment,
        **({"reason": reason} if reason else {}),
        "message": message,
    }
    status["conditions"] = [each for each in conditions if each["type"] != kind] + [new]
