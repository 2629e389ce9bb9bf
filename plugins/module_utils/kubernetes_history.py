# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The revisions of a workload as data, and which of them is the one to go back to. Pure functions.

A Deployment's revisions are its ReplicaSets, a DeploymentConfig's its ReplicationControllers, those of the other kinds are
ControllerRevisions. A template may hold secrets in its environment; only images and causes leave this file.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, replace

from .errors import Refusal

# https://kubernetes.io/docs/reference/labels-annotations-taints/
CHANGE_CAUSE = "kubernetes.io/change-cause"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
_REVISION = "deployment.kubernetes.io/revision"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_FORMER_REVISIONS = "deployment.kubernetes.io/revision-history"
_POD_HASH = "pod-template-hash"
_REVISION_HASH = "controller-revision-hash"
# https://github.com/openshift/api/blob/master/apps/v1/consts.go
_DC_VERSION = "openshift.io/deployment-config.latest-version"
_DC_ENCODED = "openshift.io/encoded-deployment-config"
_DC_PHASE = "openshift.io/deployment.phase"

# Which revision an undo went to and which it left: {"from": name, "to": name, "revision": number before}. The kinds with
# ControllerRevisions give a revision a new number when it comes back, and forget the old one.
MARK = "sre.runbooks/undo"


_SCALED_UP = re.compile(r"Scaled up replica set (\S+)(?: from \d+)? to (\d+)")


@dataclass(frozen=True)
class Revision:
    """One template that a workload had.

    Attributes:
        name, uid: of the object that keeps it.
        numbers: its revision number, and those that it had before it was returned to.
        created: when it was first rolled out, as the API writes times.
        wanted: how many pods it was to have when the controller last cared for it.
        available: how many of its pods serve now.
        cause: its change cause.
        phase: how its rollout ended, for a DeploymentConfig.
        failure: why its pods cannot be created now, a quota for example.
    """

    name: str
    uid: str
    numbers: tuple
    template: dict
    created: str
    wanted: int | None = None
    available: int = 0
    cause: str | None = None
    phase: str | None = None
    failure: str | None = None

    @property
    def number(self):
        return self.numbers[0]

    def shown(self):
        """For people: the number and what it runs."""
        return f"revision {self.number} ({', '.join(images(self.template))})"

    def owns(self, pod):
        """Is this one of its pods?"""
        owners = [owner["name"] for owner in pod["metadata"].get("ownerReferences", [])]
        marked = pod["metadata"].get("labels", {}).get(_REVISION_HASH)
        return self.name in owners or (marked is not None and marked in (self.name, self.name.rpartition("-")[2]))


def images(template):
    """The images of a pod template, init containers left out."""
    return [container["image"] for container in template["spec"]["containers"]]


def from_replica_sets(workload, found):
    """The revisions of a Deployment, newest first. Only what it owns: a neighbour may carry the same labels."""
    return _sorted(
        Revision(
            name=each["metadata"]["name"],
            uid=each["metadata"]["uid"],
            numbers=_numbers(each["metadata"]["annotations"]),
            template=_without(each["spec"]["template"], labels=(_POD_HASH,)),
            created=each["metadata"]["creationTimestamp"],
            wanted=int(each["metadata"]["annotations"].get(_DESIRED, 0)) or None,
            available=each["status"].get("availableReplicas", 0),
            cause=each["metadata"]["annotations"].get(CHANGE_CAUSE),
            failure=_create_failure(each["status"]),
        )
        for each in _owned(workload, found)
        if _REVISION in each["metadata"].get("annotations", {})
    )


def from_controller_revisions(workload, found):
    """The revisions of a StatefulSet or DaemonSet, newest first."""
    return _sorted(
        Revision(
            name=each["metadata"]["name"],
            uid=each["metadata"]["uid"],
            numbers=(each["revision"],),
            template={key: value for key, value in each["data"]["spec"]["template"].items() if key != "$patch"},
            created=each["metadata"]["creationTimestamp"],
            cause=each["metadata"].get("annotations", {}).get(CHANGE_CAUSE),
        )
        for each in _owned(workload, found)
    )


def from_replication_controllers(workload, found):
    """The revisions of a DeploymentConfig, newest first."""
    return _sorted(
        Revision(
            name=each["metadata"]["name"],
            uid=each["metadata"]["uid"],
            numbers=(int(each["metadata"]["annotations"][_DC_VERSION]),),
            template=json.loads(each["metadata"]["annotations"][_DC_ENCODED])["spec"]["template"],
            created=each["metadata"]["creationTimestamp"],
            available=each["status"].get("availableReplicas", 0),
            phase=each["metadata"]["annotations"].get(_DC_PHASE),
        )
        for each in _owned(workload, found)
        if _DC_VERSION in each["metadata"].get("annotations", {})
    )


def counted(revisions, pods):
    """`revisions` with the count of pods that serve, for the kinds whose revisions do not have it themselves."""
    if any(each.available for each in revisions):
        return revisions
    ready = [pod for pod in pods if _is_ready(pod)]
    return [replace(each, available=sum(each.owns(pod) for pod in ready)) for each in revisions]


def never_took_over(workload, revisions, events):
    """{name: why} of the ReplicaSets that never had all their pods, by the events of their Deployment (kept for an hour).

    A rolling update adds pods only as fast as they become available.
    """
    highest, now = {}, current(workload, revisions)
    for event in events:
        found = _SCALED_UP.match(event.get("message", ""))
        if found:
            highest[found[1]] = max(highest.get(found[1], 0), int(found[2]))
    return {
        each.name: f"it never had more than {highest[each.name]} of {each.wanted} pods"
        for each in revisions
        if each is not now and each.wanted and highest.get(each.name, each.wanted) < each.wanted
    }


def current(workload, revisions):
    """The revision that the workload is to have now; None while its controller has not seen the template yet."""
    return next((each for each in revisions if same(each.template, workload["spec"]["template"])), None)


def began(present, revisions):
    """When the workload came to have the template of `present`, restarts aside, as the API writes times.

    For a revision that was returned to nothing says when, but that it was after all others had been created.
    """
    others = [each for each in revisions if each is not present]
    restarts = list(itertools.takewhile(lambda each: restarts_of_one(each.template, present.template), others))
    return max(each.created for each in ([present, *restarts][-1], *others[len(restarts) :]))


def same(one, other):
    """Are two templates the same?"""
    return _normal(one) == _normal(other)


def restarts_of_one(one, other):
    """Are two templates the same but for a restart?"""
    return same(_without(one, annotations=(RESTARTED_AT,)), _without(other, annotations=(RESTARTED_AT,)))


def left_by_us(workload, revisions):
    """The revision that an undo of this collection has left, where the workload still runs what it went to, restarted perhaps;
    else None."""
    mark, by_name = _mark(workload), {each.name: each for each in revisions}
    present = workload["spec"]["template"]
    if mark and mark["to"] in by_name and restarts_of_one(by_name[mark["to"]].template, present):
        return by_name.get(mark["from"])
    return None


def came_between(workload, revisions):
    """A revision that was rolled out after the present one had been before: somebody went back from it, or has shipped the
    present one again. Which of them nothing tells, but for a mark: what an undo left and is here again was shipped again.

    ReplicaSets and ControllerRevisions of equal templates are used again, under a new number, and keep the time of their
    creation.
    """
    now, mark = current(workload, revisions), _mark(workload)
    if now is None or (mark and mark["from"] == now.name):
        return None
    former = max(now.numbers[1:], default=now.number)
    return next((each for each in revisions if each.created > now.created or former < each.number < now.number), None)


def target(workload, revisions, wanted=None, failed=None):
    """The revision to go back to, and what a person should know of the choice: (Revision, [notes]).

    Args:
        wanted: its number; default is the last one that was really available, as far as that can be told.
        failed: {name of a revision: why} of those whose pods are known to have failed.

    Raises:
        Refusal: there is none; the line lists what there is.
    """
    name, failed = workload["metadata"]["name"], failed or {}
    if wanted is not None:
        found = _numbered(workload, revisions, wanted)
        if found is None:
            raise Refusal(f"{name} has no revision {wanted}: {listed(revisions)}")
        return found, (
            [f"revision {wanted} is known to have failed: {failed[found.name]}"] if found.name in failed else []
        )
    others = [each for each in revisions if not restarts_of_one(each.template, workload["spec"]["template"])]
    if not others:
        raise Refusal(
            f"{name} has no earlier revision with another template: {listed(revisions)}: ship a build that works, "
            f"or restart it"
        )
    serving = [each for each in others if each.available]
    bad = {each.name: _known_bad(each, failed) for each in others}
    usable = serving or [each for each in others if not bad[each.name]]
    if not usable:
        told = "; ".join(f"revision {each.number}: {bad[each.name]}" for each in others)
        raise Refusal(
            f"{name} has no earlier revision that is not known to be bad ({told}): give to_revision to take one"
        )
    skipped = [each for each in others if each.number > usable[0].number]
    return usable[0], [
        f"revision {each.number} is passed over: {bad[each.name] or 'it never took over from ' + usable[0].shown()}"
        for each in skipped
    ]


def listed(revisions):
    """What there is to choose from."""
    return "there are: " + ", ".join(each.shown() for each in revisions) if revisions else "it has no history"


def marked(target, now):
    """The annotations that say where an undo went: MARK, and the cause of the revision that comes back."""
    record = {"from": now.name if now else None, "to": target.name, "revision": target.number}
    return {MARK: json.dumps(record), CHANGE_CAUSE: target.cause}


def _known_bad(revision, failed):
    if revision.phase not in (None, "Complete"):
        return f"its rollout ended as {revision.phase}"
    return failed.get(revision.name)


def _numbered(workload, revisions, number):
    found = next((each for each in revisions if each.number == number), None)
    mark = _mark(workload)
    if found is None and mark and mark["revision"] == number:
        found = next((each for each in revisions if each.name == mark["to"]), None)
    return found or next((each for each in revisions if number in each.numbers), None)


def _mark(workload):
    try:
        mark = json.loads(workload["metadata"].get("annotations", {})[MARK])
        return mark if {"from", "to", "revision"} <= mark.keys() else None
    except (KeyError, ValueError, AttributeError):
        return None


def _owned(workload, found):
    uid = workload["metadata"]["uid"]
    return [
        each
        for each in found
        if any(owner["uid"] == uid and owner.get("controller") for owner in each["metadata"].get("ownerReferences", []))
    ]


def _sorted(revisions):
    return sorted(revisions, key=lambda each: each.number, reverse=True)


def _numbers(annotations):
    former = [int(each) for each in annotations.get(_FORMER_REVISIONS, "").split(",") if each]
    return (int(annotations[_REVISION]), *reversed(former))


def _is_ready(pod):
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _create_failure(status):
    """Why a ReplicaSet cannot make its pods, a quota for example."""
    return next(
        (
            each.get("message") or each.get("reason", "")
            for each in status.get("conditions", [])
            if each["type"] == "ReplicaFailure" and each["status"] == "True"
        ),
        None,
    )


def _without(template, labels=(), annotations=()):
    """A template without some of its labels and annotations."""
    metadata = dict(template.get("metadata") or {})
    for key, names in (("labels", labels), ("annotations", annotations)):
        kept = {name: value for name, value in (metadata.get(key) or {}).items() if name not in names}
        metadata.pop(key, None)
        if kept:
            metadata[key] = kept
    return dict(template, metadata=metadata)


def _normal(template):
    """For comparison: an absent time of creation is written as null by some versions and left out by others."""
    template = _without(template)
    return dict(template, metadata={key: value for key, value in template["metadata"].items() if value is not None})
