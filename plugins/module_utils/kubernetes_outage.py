# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a workload and its pods tell of an outage (alchemorsel 1, "Investigation"). Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from . import kubernetes_history as history
from . import kubernetes_workload as workloads
from .masking import snippet
from .outage import Workload

# A pod younger than so many seconds that does not serve yet is one that starts.
STARTS_WITHIN = 60


def workload(kind, seen, now):
    """outage.Workload of one of the kinds of kubernetes_workload.

    Args:
        kind: kubernetes_workload.Kind.
        seen: {workload, revisions, pods} of `kubernetes_reader.Reader.look`.
        now: seconds since the epoch.
    """
    found, revisions = seen["workload"], seen["revisions"]
    present = history.current(found, revisions) or next(iter(revisions), None)
    progress = kind.progress(found, present)
    live = [pod for pod in seen["pods"] if workloads.is_live(pod)]
    # Those that are left of another revision go, whatever is wrong with them.
    troubles = [each for pod in live if present and present.owns(pod) and (each := workloads.trouble(pod))]
    troubled = {each.pod for each in troubles}
    waiting = [pod for pod in live if workloads.unready(pod) and pod["metadata"]["name"] not in troubled]
    starting = [pod for pod in waiting if now - _seconds(pod["metadata"]["creationTimestamp"]) < STARTS_WITHIN]
    refused = [f"pods cannot be created: {snippet(present.failure)}"] if present and present.failure else []
    return Workload(
        name=found["metadata"]["name"],
        wanted=workloads.wanted(found),
        running=sum(
            pod["status"].get("phase") == "Running" and pod["metadata"]["name"] not in troubled for pod in live
        ),
        serving=sum(workloads.unready(pod) is None for pod in live),
        release=present.shown() if present else ", ".join(history.images(found["spec"]["template"])),
        released=_seconds(history.began(present, revisions)) if present else None,
        # That nothing rolls out while it is paused is what somebody wanted.
        rollout=None if found["spec"].get("paused") or not progress.failure else snippet(progress.failure),
        rolling=not progress.done and any(not present.owns(pod) for pod in live if present),
        # What the kubelet quotes may come from the application; names are ours to show, "sessions" for one.
        failures=(*(str(replace(each, why=snippet(each.why))) for each in troubles), *refused),
        waiting=tuple(workloads.unready(pod) for pod in waiting if pod not in starting),
        starting=len(starting),
        restart_helps=bool(troubles) and not refused and all(each.crashed for each in troubles),
    )


def _seconds(moment):
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
