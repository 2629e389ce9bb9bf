# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs of pods, of a workload, of an ingress controller or of a job, as `kubectl logs -l SELECTOR` has them (alchemorsel runbook,
"Log Analysis"), and of the run before where a container was started again: that is the one which tells why."""

from __future__ import annotations

from datetime import UTC, datetime

from .aws import tried_together
from .errors import Stop
from .kubernetes_options import CLUSTER_ARGUMENTS
from .log_patterns import Event, Found

# Pods of a selector that are read at most, and lines of each container, its last ones.
MOST, LINES = 50, 20_000

ARGUMENTS = dict(
    pods=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            namespace=dict(type="str", required=True),
            selector=dict(type="str", required=True),
            terms=dict(type="list", elements="str"),
            **CLUSTER_ARGUMENTS,
        ),
    ),
)


def named(wanted):
    """How a selector stands among log groups: {name, region}, the cluster in place of a region."""
    return {
        "name": f"pods {wanted['selector']} of {wanted['namespace']}",
        "region": wanted["context"] or wanted["host"] or "the cluster",
    }


def search(wanted, terms, since):
    """Found: the lines with any of the terms since a moment (seconds of the epoch) of all containers of the pods of a selector.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod

    Args:
        wanted: an entry of ARGUMENTS; its own terms win.

    Raises:
        Stop: no cluster, no such pods, or none of their logs can be read.
    """
    from . import kubernetes_api  # takes a second to load, which most searches need not

    if not kubernetes_api.HAS_KUBERNETES:
        raise Stop("the Python package kubernetes is missing where this runs: pip install kubernetes")
    cluster, terms = kubernetes_api.Cluster(wanted), wanted["terms"] or terms
    path = kubernetes_api.objects(wanted["namespace"], "pods", api="/api/v1")
    pods = cluster.read(path, labelSelector=wanted["selector"])["items"]
    if not pods:
        raise Stop(f"no pod of namespace {wanted['namespace']} has {wanted['selector']}: check selector and namespace")
    newest = sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)[:MOST]
    runs = [run for pod in newest for run in container_runs(pod)]
    found = tried_together(
        {
            f"{pod} {run}": lambda pod=pod, query=query: _read(cluster, path, pod, query, since)
            for pod, run, query in runs
        }
    )
    unread = [f"{name} of {wanted['namespace']}: {error}" for name, error in found.items() if isinstance(error, Stop)]
    if len(unread) == len(found):
        raise Stop(unread[0] if unread else f"the pods {wanted['selector']} have no containers yet")
    logs = {name: lines for name, lines in found.items() if not isinstance(lines, Exception)}
    events = tuple(
        Event(at, named(wanted)["name"], name, message)
        for name, lines in logs.items()
        for at, message in lines
        if any(term in message for term in terms)
    )
    left_out = [f"{len(pods) - MOST} more pods {wanted['selector']} of {wanted['namespace']}, older ones"]
    is_whole = len(pods) <= MOST and all(len(lines) < LINES for lines in logs.values())
    return Found(events, len(events), is_whole, "pod logs", (*unread, *(left_out if len(pods) > MOST else ())))


def container_runs(pod):
    """(pod, container for people, query) of what each container that has begun has written, and had before it was started again."""
    name = pod["metadata"]["name"]
    for status in pod.get("status", {}).get("containerStatuses", []):
        if "waiting" not in status.get("state", {}) or status.get("restartCount"):
            yield name, status["name"], {"container": status["name"]}
        if status.get("restartCount"):
            yield name, f"{status['name']} before", {"container": status["name"], "previous": "true"}


def _read(cluster, path, pod, query, since):
    """[(milliseconds of the epoch, line)]"""
    begin = f"{datetime.fromtimestamp(since, UTC):%Y-%m-%dT%H:%M:%SZ}"
    text = cluster.read(f"{path}/{pod}/log", timestamps="true", sinceTime=begin, tailLines=LINES, **query)
    return [each for line in text.splitlines() if (each := _parsed(line))]


def _parsed(line):
    stamp, _space, message = line.partition(" ")
    try:
        return round(datetime.fromisoformat(stamp).timestamp() * 1000), message
    except ValueError:  # a line that the runtime did not stamp, such as its own complaint
        return None
