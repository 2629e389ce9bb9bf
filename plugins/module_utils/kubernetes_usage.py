# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the pods of a workload use of what they may have, where the cluster measures that (metrics-server does).

https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

from decimal import Decimal

from . import kubernetes_api as api
from . import kubernetes_workload as workloads
from .aws import together
from .errors import Stop
from .hotspots import Part
from .kubernetes_reader import Reader

METRICS = "/apis/metrics.k8s.io/v1beta1"
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}


def quantity(text):
    """Pure: the number that 250m, 64Mi or 1e3 stand for."""
    number = text.rstrip("".join({letter for suffix in SUFFIXES for letter in suffix} - {"E"}))
    if number.endswith("E"):
        number = number[:-1]
    return float(Decimal(number) * SUFFIXES[text[len(number) :]])


def read(given):
    """[Part] of the pods of a workload, given as kubernetes_reader.WORKLOAD_ARGUMENT.

    Raises:
        Stop: the cluster does not answer, has no such workload, or does not measure.
    """
    cluster = api.Cluster(given)
    reader = Reader(cluster, given["kind"], given["namespace"], given["name"])
    look = together(seen=reader.look, used=lambda: _used(cluster, given["namespace"]))
    return parts(look["seen"]["pods"], look["used"])


def _used(cluster, namespace):
    try:
        return cluster.read(api.objects(namespace, "pods", api=METRICS))["items"]
    except api.NotFound as error:
        raise Stop(f"the cluster serves no metrics.k8s.io: install metrics-server ({error})") from error


def parts(pods, used):
    """Pure: [Part] of those that are there, by what their containers use of their limits, or else of their requests."""
    by_name = {each["metadata"]["name"]: each["containers"] for each in used}
    return [
        Part(
            "pod",
            pod["metadata"]["name"],
            _percent(pod, by_name.get(pod["metadata"]["name"]), "cpu"),
            _percent(pod, by_name.get(pod["metadata"]["name"]), "memory"),
            restarts=sum(each.get("restartCount", 0) for each in pod["status"].get("containerStatuses", [])),
        )
        for pod in pods
        if workloads.is_live(pod)
    ]


def _percent(pod, containers, resource):
    """Of the container that has least left; None where nothing is measured or nothing is set."""
    used = {each["name"]: quantity(each["usage"][resource]) for each in containers or () if resource in each["usage"]}
    shares = []
    for container in pod["spec"]["containers"]:
        wanted = container.get("resources", {})
        may = wanted.get("limits", {}).get(resource) or wanted.get("requests", {}).get(resource)
        if may and quantity(may) and container["name"] in used:
            shares.append(round(100 * used[container["name"]] / quantity(may), 1))
    return max(shares, default=None)
