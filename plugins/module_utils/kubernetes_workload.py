# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of workload: how far a rollout is, when it never will be, which pods are why, and who would undo a change.

Pure functions of objects as the API sends them. A status is believed only once its observedGeneration is the object's.
https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import kubernetes_history as history

# What a container waits for that does not come by itself, or only after minutes in which nobody should wait.
# https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-state-waiting
NEVER = (
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
)
# A container that ended so often with an error is in that loop, also in the moment in which it is started again.
RESTARTS = 2


@dataclass(frozen=True)
class Progress:
    """Where a rollout is. `failure` says why it will not end well; `since` is when that was found, as the API writes it."""

    done: bool
    text: str
    failure: str | None = None
    since: str | None = None


@dataclass(frozen=True)
class Trouble:
    """A container that will not run.

    `previous` tells whether the log of the one before it is the one to read; `crashed` whether it did run, and ended: a new
    pod may do better then, and is not kept waiting.
    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
    """

    pod: str
    container: str
    why: str
    previous: bool
    crashed: bool = False

    def __str__(self):
        return f"pod {self.pod}, container {self.container}: {self.why}"


@dataclass(frozen=True)
class Kind:
    """One kind of workload: its resource and group, where its revisions are kept, and what it can do."""

    name: str
    resource: str
    revisions_in: str
    revisions: Callable
    progress: Callable
    api: str = "/apis/apps/v1"
    revisions_api: str = "/apis/apps/v1"
    pauses: bool = False
    counts: bool = True


def _seen(workload):
    return workload["status"].get("observedGeneration", 0) >= workload["metadata"]["generation"]


_UNSEEN = Progress(False, "not seen by its controller yet")


def _deployment(workload, _now):
    """As kubectl rollout status has it."""
    if not _seen(workload):
        return _UNSEEN
    status, count = workload["status"], wanted(workload)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    all_pods = status.get("replicas", 0)
    text = f"{updated} of {count} updated, {available} available" + (
        f", {all_pods - updated} old" if all_pods > updated else ""
    )
    if updated >= count and all_pods <= updated and available >= updated:
        return Progress(True, text)
    condition = _condition(workload, "Progressing")
    if condition and condition.get("reason") == "ProgressDeadlineExceeded":
        return Progress(
            False, text, f"progress deadline exceeded: {condition['message']}", condition.get("lastUpdateTime")
        )
    return Progress(False, text, _paused(workload))


def _stateful_set(workload, _now):
    """Pods below the partition keep what they have, and are not waited for."""
    if not _seen(workload):
        return _UNSEEN
    status, count = workload["status"], wanted(workload)
    partition = (workload["spec"].get("updateStrategy", {}).get("rollingUpdate") or {}).get("partition") or 0
    updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
    done = (
        updated >= max(count - partition, 0)
        and ready >= count
        and status.get("availableReplicas", ready) >= count
        and status.get("replicas", 0) <= count
        and (partition > 0 or status.get("currentRevision") == status.get("updateRevision"))
    )
    kept = f", those below {partition} keep what they have" if partition else ""
    return Progress(done, f"{updated} of {count} updated, {ready} ready{kept}")


def _daemon_set(workload, _now):
    if not _seen(workload):
        return _UNSEEN
    status = workload["status"]
    count = status.get("desiredNumberScheduled", 0)
    updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    return Progress(
        updated >= count and available >= count, f"{updated} of {count} nodes updated, {available} available"
    )


def _deployment_config(workload, now):
    if not _seen(workload):
        return _UNSEEN
    status, count = workload["status"], wanted(workload)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    text = f"{updated} of {count} updated, {available} available"
    if now is None or now.number < status.get("latestVersion", 0) or now.phase not in ("Complete", "Failed"):
        return Progress(False, f"{text}, rollout {((now and now.phase) or 'new').lower()}", _paused(workload))
    if now.phase == "Failed":
        return Progress(False, text, f"the rollout {now.name} failed")
    return Progress(updated >= count and available >= count and status.get("replicas", 0) <= count, text)


def _paused(workload):
    return "it is paused, so nothing rolls out: resume it (action=resume)" if workload["spec"].get("paused") else None


KINDS = {
    kind.name: kind
    for kind in (
        Kind("Deployment", "deployments", "replicasets", history.from_replica_sets, _deployment, pauses=True),
        Kind("StatefulSet", "statefulsets", "controllerrevisions", history.from_controller_revisions, _stateful_set),
        Kind(
            "DaemonSet",
            "daemonsets",
            "controllerrevisions",
            history.from_controller_revisions,
            _daemon_set,
            counts=False,
        ),
        Kind(
            "DeploymentConfig",
            "deploymentconfigs",
            "replicationcontrollers",
            history.from_replication_controllers,
            _deployment_config,
            api="/apis/apps.openshift.io/v1",
            revisions_api="/api/v1",
            pauses=True,
        ),
    )
}


def wanted(workload):
    """How many pods it is to have."""
    status = workload.get("status", {})
    return (
        workload["spec"].get("replicas", 1)
        if "desiredNumberScheduled" not in status
        else status["desiredNumberScheduled"]
    )


def available(workload):
    """How many of its pods serve, of whatever revision."""
    status = workload.get("status", {})
    return status.get("availableReplicas", status.get("numberAvailable", 0))


def selector(workload):
    """Its pods, as a label selector of a request."""
    chosen = workload["spec"]["selector"]
    if "matchLabels" not in chosen and "matchExpressions" not in chosen:
        return ",".join(f"{key}={value}" for key, value in chosen.items())  # a DeploymentConfig's
    terms = [f"{key}={value}" for key, value in (chosen.get("matchLabels") or {}).items()]
    for each in chosen.get("matchExpressions") or []:
        key, values = each["key"], f"({','.join(each.get('values') or [])})"
        terms.append(
            {
                "In": f"{key} in {values}",
                "NotIn": f"{key} notin {values}",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[each["operator"]]
        )
    return ",".join(terms)


def revision_selector(workload):
    """What keeps its revisions. ReplicationControllers have the labels of the DeploymentConfig, all others its template's."""
    if "latestVersion" in workload["status"]:
        return f"openshift.io/deployment-config.name={workload['metadata']['name']}"
    return selector(workload)


def trouble(pod):
    """Why a pod will not serve, or None while it may."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    status = pod.get("status", {})
    for each in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
        state, restarts = each.get("state", {}), each.get("restartCount", 0)
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        last = (each.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") in NEVER:
            why = [waiting["reason"]] + (
                [_ended(last)] if last else [waiting["message"]] if waiting.get("message") else []
            )
            name, crashed = pod["metadata"]["name"], waiting["reason"] == "CrashLoopBackOff"
            return Trouble(name, each["name"], ": ".join(why), previous=bool(last), crashed=crashed)
        if ended.get("exitCode") and restarts >= RESTARTS:
            return Trouble(pod["metadata"]["name"], each["name"], _ended(ended), previous=False, crashed=True)
    return None


def is_live(pod):
    """One that is there to serve; a pod that was evicted stays listed as failed."""
    gone = pod["metadata"].get("deletionTimestamp") or pod["status"].get("phase") in ("Failed", "Succeeded")
    return not gone


def unready(pod):
    """What keeps a pod from serving, in a few words, or None where nothing does."""
    status = pod.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    placed = conditions.get("PodScheduled", {})
    if placed.get("status") == "False":
        return f"pod {pod['metadata']['name']} is on no node: {placed.get('message') or placed.get('reason', '')}"
    waits = [
        f"container {each['name']} {(each.get('state', {}).get('waiting') or {}).get('reason', 'is not ready')}"
        for each in status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        if not each.get("ready") and (each.get("state", {}).get("terminated") or {}).get("exitCode") != 0
    ]
    return f"pod {pod['metadata']['name']}: {', '.join(waits) or status.get('phase', 'unknown')}"


def _ended(state):
    code = f"exit code {state['exitCode']}" if "exitCode" in state else "ended"
    return code + (f" ({state['reason']})" if state.get("reason") and state["reason"] != "Error" else "")


def stuck(workload, now, pods):
    """Pods of another revision that never became ready and that a StatefulSet waits for before it replaces them.

    https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
    """
    if workload["spec"].get("podManagementPolicy") != "OrderedReady" or now is None:
        return []
    return [
        {"pod": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        for pod in pods
        if not now.owns(pod) and not pod["metadata"].get("deletionTimestamp") and unready(pod)
    ]


def reconcilers(workload):
    """Who puts back what is changed by hand, each with the way to suspend it: [line]."""
    meta = workload["metadata"]
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    writers = {each.get("manager", "") for each in meta.get("managedFields") or []}
    found = []
    app = notes.get("argocd.argoproj.io/tracking-id", "").partition(":")[0] or labels.get("argocd.argoproj.io/instance")
    # https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/
    if app or any(writer.startswith("argocd") for writer in writers):
        app = app or "its application"
        found.append(f"Argo CD ({app}; argocd app set {app} --sync-policy none)")
    # https://fluxcd.io/flux/components/kustomize/kustomizations/#controlling-the-apply-behavior-of-resources
    if notes.get("kustomize.toolkit.fluxcd.io/reconcile") != "disabled":
        for tool, command in (("kustomize", "kustomization"), ("helm", "helmrelease")):
            name = labels.get(f"{tool}.toolkit.fluxcd.io/name")
            if name or f"{tool}-controller" in writers:
                space = labels.get(f"{tool}.toolkit.fluxcd.io/namespace", meta["namespace"])
                found.append(f"Flux ({name or tool}; flux suspend {command} {name or 'NAME'} -n {space})")
    found += [
        f"the operator of {each['kind']} {each['name']}"
        for each in meta.get("ownerReferences") or []
        if each.get("controller")
    ]
    return found


def autoscaler(kind, name, autoscalers):
    """{name, floor, ceiling, reconcilers} of the HorizontalPodAutoscaler that scales this workload, or None."""
    for each in autoscalers:
        scaled = each["spec"]["scaleTargetRef"]
        if (scaled["kind"], scaled["name"]) == (kind, name):
            return {
                "name": each["metadata"]["name"],
                "floor": each["spec"].get("minReplicas", 1),
                "ceiling": each["spec"]["maxReplicas"],
                "reconcilers": reconcilers(each),
            }
    return None


def _condition(workload, kind):
    return next((each for each in workload["status"].get("conditions", []) if each["type"] == kind), None)
