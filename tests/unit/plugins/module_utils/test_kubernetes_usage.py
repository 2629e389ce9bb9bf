# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What pods use of what they may have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api, kubernetes_usage
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250m", 0.25),
        ("12345678n", 0.012345678),
        ("2", 2),
        ("0.5", 0.5),
        ("128Mi", 128 * 2**20),
        ("1G", 10**9),
        ("3E", 3 * 10**18),
        ("2Ei", 2 * 2**60),
        ("1e3", 1000),
        ("0", 0),
    ],
)
def test_quantities(text: str, number: float) -> None:
    assert kubernetes_usage.quantity(text) == pytest.approx(number)


def pod(name: str, restarts: int = 0, **containers: dict) -> dict:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": key, "resources": value} for key, value in containers.items()]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "app", "restartCount": restarts}]},
    }


def used(name: str, **containers: tuple[str, str]) -> dict:
    usage = [{"name": key, "usage": {"cpu": cpu, "memory": memory}} for key, (cpu, memory) in containers.items()]
    return {"metadata": {"name": name}, "containers": usage}


def test_a_pod_is_as_full_as_its_fullest_container() -> None:
    limits, requests = {"cpu": "500m", "memory": "128Mi"}, {"cpu": "100m"}
    full = pod("p-1", 4, app={"limits": limits}, proxy={"requests": requests})
    unknown, gone = pod("p-2", app={"limits": limits}), pod("p-3", app={})
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = kubernetes_usage.parts([full, unknown, gone], [used("p-1", app=("250m", "64Mi"), proxy=("90m", "9Mi"))])
    assert [(each.kind, each.name, each.cpu, each.memory, each.restarts) for each in found] == [
        ("pod", "p-1", 90.0, 50.0, 4),
        ("pod", "p-2", None, None, 0),
    ]


def test_a_cluster_that_does_not_measure_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str, **_query: str) -> dict:
        raise kubernetes_api.NotFound(f"there is no {path}")

    monkeypatch.setattr(kubernetes_usage.api, "Cluster", lambda _given: SimpleNamespace(read=read))
    monkeypatch.setattr(kubernetes_usage.Reader, "look", lambda _self: {"pods": []})
    with pytest.raises(Stop, match=r"serves no metrics\.k8s\.io: install metrics-server"):
        kubernetes_usage.read({"kind": "Deployment", "namespace": "shop", "name": "api"})
