# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments: a ReplicaSet for each template, a rolling update from one to the next, and a verdict on its progress.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

from .. import events, selectors
from ..errors import ApiError
from ..names import template_hash
from ..resources import DEPLOYMENTS, PODS, REPLICA_SETS
from ..store import Store, now, owner_reference, place_of, timestamp
from . import rolling
from .rolling import Bounds, Group
from .workloads import active_pods, same_template

COMPONENT = "deployment-controller"
PREFIX = "deployment.kubernetes.io/"
REVISION, HISTORY = f"{PREFIX}revision", f"{PREFIX}revision-history"
DESIRED, MAXIMUM = f"{PREFIX}desired-replicas", f"{PREFIX}max-replicas"
# Annotations of a Deployment that do not go on to its ReplicaSets.
OWN = (REVISION, HISTORY, DESIRED, MAXIMUM, "kubectl.kubernetes.io/last-applied-configuration")
HASH = "pod-template-hash"


@dataclass
class Rollout:
    """A Deployment with its ReplicaSets as they are now; `new` is None until it has one for its template."""

    deployment: dict
    new: dict | None
    old: list[dict]  # oldest first

    @property
    def all(self) -> list[dict]:
        return [*self.old, *([self.new] if self.new else [])]

    @property
    def bounds(self) -> Bounds:
        return bounds_of(self.deployment)

    @property
    def active(self) -> list[dict]:
        return [each for each in self.all if each["spec"]["replicas"] > 0]


def bounds_of(deployment: dict) -> Bounds:
    spec = deployment["spec"]
    update = spec["strategy"].get("rollingUpdate")
    if spec["strategy"]["type"] != "RollingUpdate" or update is None:
        return Bounds(0, 0)
    return Bounds.of(spec["replicas"], update["maxSurge"], update["maxUnavailable"])


def revision_of(item: dict) -> int:
    value = (item["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(value) if value.isdigit() else 0


def _group(replica_set: dict) -> Group:
    return Group(replica_set["spec"]["replicas"], replica_set["status"].get("availableReplicas", 0))


class Deployments:
    def __init__(self, store: Store) -> None:
        self._store = store

    def sync(self) -> None:
        for deployment in self._store.list(DEPLOYMENTS):
            self.sync_one(deployment)

    def sync_one(self, deployment: dict) -> None:
        """One step. What it changes is seen, and gone on from, at the next look."""
        self._adopt(deployment)
        if "deletionTimestamp" in deployment["metadata"]:
            self._report(self._look(deployment))
            return
        deployment = self._note_pause(deployment)
        rollout = self._look(deployment)
        if deployment["spec"].get("paused") or self._is_being_scaled(rollout):
            self._resize(rollout)
            self._report(self._look(deployment))
        elif deployment["spec"]["strategy"]["type"] == "Recreate":
            self._recreate(rollout)
        else:
            self._roll(rollout)

    # ---- its ReplicaSets -------------------------------------------------------------------------------------------

    def _look(self, deployment: dict) -> Rollout:
        deployment = self._store.get(DEPLOYMENTS, *place_of(deployment))
        owned = sorted(
            self._store.owned(REPLICA_SETS, deployment),
            key=lambda each: (timestamp(each["metadata"]["creationTimestamp"]), revision_of(each)),
        )
        template = deployment["spec"]["template"]
        new = next((each for each in owned if same_template(each["spec"]["template"], template)), None)
        return Rollout(deployment, new, [each for each in owned if each is not new])

    def _adopt(self, deployment: dict) -> None:
        """Orphans that its selector matches become its own."""
        matches = selectors.of_object(deployment["spec"]["selector"])
        reference = owner_reference(DEPLOYMENTS.group_version, DEPLOYMENTS.kind, deployment)
        for each in self._store.list(REPLICA_SETS, deployment["metadata"]["namespace"], matches):
            if not each["metadata"].get("ownerReferences") and "deletionTimestamp" not in deployment["metadata"]:
                self._store.change(REPLICA_SETS, each, lambda it: it["metadata"].update(ownerReferences=[reference]))

    def _with_new(self, rollout: Rollout) -> Rollout:
        """The same with a ReplicaSet for the template, made if need be, and with its revision counted on."""
        deployment = rollout.deployment
        revision = max((revision_of(each) for each in rollout.old), default=0) + 1
        if rollout.new is None:
            new = self._create_new(rollout, revision)
            self._condition(deployment, "NewReplicaSetCreated", f'Created new replica set "{new["metadata"]["name"]}"')
            size = new["spec"]["replicas"]
            if size:
                self._say_scaled(deployment, new, 0, size)
        else:
            self._store.change(REPLICA_SETS, rollout.new, lambda it: _follow(it, deployment, revision))
            new = self._store.get(REPLICA_SETS, *place_of(rollout.new))
            if _condition_of(deployment, "Progressing") is None:
                self._condition(deployment, "FoundNewReplicaSet", f'Found new replica set "{new["metadata"]["name"]}"')
        number = str(revision_of(new))
        self._store.change(
            DEPLOYMENTS, deployment, lambda it: it["metadata"].setdefault("annotations", {}).update({REVISION: number})
        )
        return self._look(deployment)

    def _create_new(self, rollout: Rollout, revision: int) -> dict:
        """Another hash is tried when a ReplicaSet of somebody else has the name."""
        while True:
            try:
                return self._store.create(REPLICA_SETS, self._new_replica_set(rollout, revision))
            except ApiError:
                count = rollout.deployment["status"].get("collisionCount", 0) + 1
                rollout.deployment = self._store.change(
                    DEPLOYMENTS, rollout.deployment, lambda it, count=count: it["status"].update(collisionCount=count)
                )

    def _new_replica_set(self, rollout: Rollout, revision: int) -> dict:
        deployment = rollout.deployment
        spec, metadata = deployment["spec"], deployment["metadata"]
        template = copy.deepcopy(spec["template"])
        hashed = template_hash(template, deployment["status"].get("collisionCount", 0))
        template["metadata"].setdefault("labels", {})[HASH] = hashed
        selector = copy.deepcopy(spec["selector"])
        selector.setdefault("matchLabels", {})[HASH] = hashed
        if spec["strategy"]["type"] == "RollingUpdate":
            old = [_group(each) for each in rollout.old]
            replicas = rolling.grown(spec["replicas"], rollout.bounds, Group(0, 0), old)
        else:
            replicas = spec["replicas"]
        replica_set = {
            "metadata": {
                "name": f"{metadata['name']}-{hashed}",
                "namespace": metadata["namespace"],
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner_reference(DEPLOYMENTS.group_version, DEPLOYMENTS.kind, deployment)],
            },
            "spec": {"replicas": replicas, "selector": selector, "template": template},
            "status": {"replicas": 0},
        }
        _follow(replica_set, deployment, revision)
        _annotate_sizes(replica_set, deployment)
        return replica_set

    def _scale(self, rollout: Rollout, replica_set: dict, size: int) -> bool:
        """Whether its number of pods changed."""
        before = replica_set["spec"]["replicas"]

        def change(fresh: dict) -> None:
            fresh["spec"]["replicas"] = size
            _annotate_sizes(fresh, rollout.deployment)

        self._store.change(REPLICA_SETS, replica_set, change)
        if size != before:
            self._say_scaled(rollout.deployment, replica_set, before, size)
        return size != before

    def _say_scaled(self, deployment: dict, replica_set: dict, before: int, size: int) -> None:
        way = "up" if size > before else "down"
        name = replica_set["metadata"]["name"]
        what = f"Scaled {way} replica set {name} from {before} to {size}"
        events.record(self._store, DEPLOYMENTS, deployment, "ScalingReplicaSet", what, COMPONENT)

    # ---- strategies ------------------------------------------------------------------------------------------------

    def _roll(self, rollout: Rollout) -> None:
        rollout = self._with_new(rollout)
        replicas, bounds = rollout.deployment["spec"]["replicas"], rollout.bounds
        new, old = _group(rollout.new), [_group(each) for each in rollout.old]
        moved = self._scale(rollout, rollout.new, rolling.grown(replicas, bounds, new, old))
        if not moved:
            sizes = rolling.shrunk(replicas, bounds, new, old)
            for each, size in zip(rollout.old, sizes, strict=True):
                if size != each["spec"]["replicas"]:
                    moved = self._scale(rollout, each, size) or moved
        if not moved and _is_complete(rollout.deployment, rollout.deployment["status"]):
            self._forget_old(rollout)
        self._report(self._look(rollout.deployment))

    def _recreate(self, rollout: Rollout) -> None:
        """No pod of the new template before the last of the old ones has ended."""
        moved = False
        for each in rollout.old:
            moved = (each["spec"]["replicas"] > 0 and self._scale(rollout, each, 0)) or moved
        ended = ("Succeeded", "Failed")
        left = [
            pod
            for each in rollout.old
            for pod in self._store.owned(PODS, each)
            if pod["status"].get("phase") not in ended
        ]
        if not moved and not left:
            rollout = self._with_new(rollout)
            self._scale(rollout, rollout.new, rollout.deployment["spec"]["replicas"])
            if _is_complete(rollout.deployment, rollout.deployment["status"]):
                self._forget_old(rollout)
        self._report(self._look(rollout.deployment))

    def _is_being_scaled(self, rollout: Rollout) -> bool:
        wanted = str(rollout.deployment["spec"]["replicas"])
        return any(
            (each["metadata"].get("annotations") or {}).get(DESIRED) not in (None, wanted) for each in rollout.active
        )

    def _resize(self, rollout: Rollout) -> None:
        """https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#proportional-scaling"""
        replicas = rollout.deployment["spec"]["replicas"]
        if rollout.new is not None:
            revision = max((revision_of(each) for each in rollout.old), default=0) + 1
            self._store.change(REPLICA_SETS, rollout.new, lambda it: _follow(it, rollout.deployment, revision))
            rollout = self._look(rollout.deployment)
        active = rollout.active
        if len(active) <= 1:
            latest = active or rollout.all[-1:]
            for each in latest:
                self._scale(rollout, each, replicas)
            return
        if rollout.new is not None and _group(rollout.new) == Group(replicas, replicas):
            for each in rollout.old:
                if each["spec"]["replicas"]:
                    self._scale(rollout, each, 0)
            return
        limit = replicas + rollout.bounds.surge if replicas else 0
        sizes = [each["spec"]["replicas"] for each in active]
        change = limit - sum(sizes)
        # The largest first; of equal ones the newest gains first and the oldest loses first.
        places = sorted(range(len(active)), key=lambda n: (-sizes[n], -n if change > 0 else n))
        remembered = [int((active[n]["metadata"].get("annotations") or {}).get(MAXIMUM, 0)) for n in places]
        spread = rolling.proportional([sizes[n] for n in places], change, limit, remembered)
        for place, size in zip(places, spread, strict=True):
            self._scale(rollout, active[place], size)

    def _forget_old(self, rollout: Rollout) -> None:
        """Keep as many old ReplicaSets as the history may have."""
        limit = rollout.deployment["spec"].get("revisionHistoryLimit", 10)
        empty = [
            each
            for each in rollout.old
            if each["spec"]["replicas"] == 0
            and not each["status"].get("replicas")
            and not active_pods(self._store, each)
        ]
        surplus = len(rollout.old) - limit
        for each in sorted(empty, key=revision_of)[: max(0, surplus)]:
            self._store.delete(REPLICA_SETS, each)

    # ---- status ----------------------------------------------------------------------------------------------------

    def _report(self, rollout: Rollout) -> None:
        status = _status(rollout, time.time())
        self._store.change(DEPLOYMENTS, rollout.deployment, lambda fresh: fresh.update(status=status))

    def _condition(self, deployment: dict, reason: str, message: str, value: str = "True") -> None:
        def change(fresh: dict) -> None:
            fresh.setdefault("status", {})
            _set_condition(fresh["status"], "Progressing", value, reason, message)

        self._store.change(DEPLOYMENTS, deployment, change)

    def _note_pause(self, deployment: dict) -> dict:
        """A paused rollout has no deadline, and begins its time anew when it goes on."""
        paused, known = bool(deployment["spec"].get("paused")), _condition_of(deployment, "Progressing")
        is_noted = known is not None and known["reason"] == "DeploymentPaused"
        if known is not None and known["reason"] == "ProgressDeadlineExceeded":
            return deployment
        if paused and not is_noted:
            self._condition(deployment, "DeploymentPaused", "Deployment is paused", "Unknown")
        elif not paused and is_noted:
            self._condition(deployment, "DeploymentResumed", "Deployment is resumed", "Unknown")
        return self._store.get(DEPLOYMENTS, *place_of(deployment))


def _follow(replica_set: dict, deployment: dict, revision: int) -> None:
    """Take over the Deployment's annotations, and the revision; one that comes back remembers its earlier numbers."""
    if deployment["spec"].get("minReadySeconds"):
        replica_set["spec"]["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    else:
        replica_set["spec"].pop("minReadySeconds", None)
    annotations = replica_set["metadata"].setdefault("annotations", {})
    given = deployment["metadata"].get("annotations") or {}
    annotations.update({key: value for key, value in given.items() if key not in OWN})
    before = annotations.get(REVISION)
    if before is None or (before.isdigit() and int(before) < revision):
        annotations[REVISION] = str(revision)
        if before is not None:
            known = annotations.get(HISTORY)
            annotations[HISTORY] = f"{known},{before}" if known else before


def _annotate_sizes(replica_set: dict, deployment: dict) -> None:
    replicas = deployment["spec"]["replicas"]
    replica_set["metadata"].setdefault("annotations", {}).update(
        {DESIRED: str(replicas), MAXIMUM: str(replicas + bounds_of(deployment).surge)}
    )


def _condition_of(deployment: dict, kind: str) -> dict | None:
    conditions = deployment.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), None)


def _set_condition(status: dict, kind: str, value: str, reason: str, message: str) -> None:
    """Put it last, unless it says the same already; the time of transition moves with the status only."""
    conditions = status.get("conditions") or []
    known = next((each for each in conditions if each["type"] == kind), None)
    if known is not None and (known["status"], known["reason"]) == (value, reason):
        return
    moment = now()
    new = {
        "type": kind,
        "status": value,
        "lastUpdateTime": moment,
        "lastTransitionTime": known["lastTransitionTime"] if known and known["status"] == value else moment,
        "reason": reason,
        "message": message,
    }
    status["conditions"] = [each for each in conditions if each["type"] != kind] + [new]


def _status(rollout: Rollout, moment: float) -> dict[str, Any]:
    """The status that the observed ReplicaSets make. `moment`: seconds since the epoch."""
    deployment = rollout.deployment
    before = deployment.get("status") or {}

    def total(name: str) -> int:
        return sum(each["status"].get(name, 0) for each in rollout.all)

    available = total("availableReplicas")
    counts = {
        "replicas": total("replicas"),
        "updatedReplicas": rollout.new["status"].get("replicas", 0) if rollout.new else 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(each["spec"]["replicas"] for each in rollout.all) - available),
    }
    status: dict[str, Any] = {"observedGeneration": deployment["metadata"]["generation"]}
    status |= {name: number for name, number in counts.items() if number}
    if "collisionCount" in before:
        status["collisionCount"] = before["collisionCount"]
    status["conditions"] = copy.deepcopy(before.get("conditions") or [])
    enough = available >= deployment["spec"]["replicas"] - rollout.bounds.unavailable
    if enough:
        message = "Deployment has minimum availability."
        _set_condition(status, "Available", "True", "MinimumReplicasAvailable", message)
    else:
        message = "Deployment does not have minimum availability."
        _set_condition(status, "Available", "False", "MinimumReplicasUnavailable", message)
    if not deployment["spec"].get("paused"):
        _judge_progress(rollout, before, status, moment)
    return status


def _judge_progress(rollout: Rollout, before: dict, status: dict, moment: float) -> None:
    deployment = rollout.deployment
    known = _condition_of(deployment, "Progressing")
    is_over = (
        status.get("replicas", 0) == status.get("updatedReplicas", 0)
        and known is not None
        and known["reason"] == "NewReplicaSetAvailable"
    )
    if deployment["spec"].get("progressDeadlineSeconds") is None or is_over:
        return
    name = rollout.new["metadata"]["name"] if rollout.new else None
    subject = f'ReplicaSet "{name}"' if name else f'Deployment "{deployment["metadata"]["name"]}"'
    if _is_complete(deployment, status):
        _set_condition(
            status, "Progressing", "True", "NewReplicaSetAvailable", f"{subject} has successfully progressed."
        )
    elif _is_progressing(before, status):
        if known is not None and known["status"] == "True":
            # Each step is progress and begins the deadline anew, though status and reason stay.
            conditions = [each for each in status["conditions"] if each["type"] != "Progressing"]
            renewed = {**known, "lastUpdateTime": now(), "reason": "ReplicaSetUpdated"}
            status["conditions"] = [*conditions, renewed | {"message": f"{subject} is progressing."}]
        else:
            _set_condition(status, "Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.")
    elif _has_timed_out(deployment, known, moment):
        message = f"{subject} has timed out progressing."
        _set_condition(status, "Progressing", "False", "ProgressDeadlineExceeded", message)


def _is_complete(deployment: dict, status: dict) -> bool:
    replicas = deployment["spec"]["replicas"]
    return (
        status.get("updatedReplicas", 0) == replicas
        and status.get("replicas", 0) == replicas
        and status.get("availableReplicas", 0) == replicas
        and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    )


def _is_progressing(before: dict, status: dict) -> bool:
    def grew(name: str) -> bool:
        return status.get(name, 0) > before.get(name, 0)

    old_before = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    old_now = status.get("replicas", 0) - status.get("updatedReplicas", 0)
    return grew("updatedReplicas") or grew("readyReplicas") or grew("availableReplicas") or old_now < old_before


def _has_timed_out(deployment: dict, known: dict | None, moment: float) -> bool:
    if known is None or known["reason"] == "NewReplicaSetAvailable":
        return False
    if known["reason"] == "ProgressDeadlineExceeded":
        return True
    return moment > timestamp(known["lastUpdateTime"]) + deployment["spec"]["progressDeadlineSeconds"]
