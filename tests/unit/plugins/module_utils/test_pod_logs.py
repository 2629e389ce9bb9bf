# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs of pods: of every container, of the run before a restart, and of what cannot be read."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api, log_search, pod_logs
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop

SHOP = {"namespace": "shop", "selector": "app=api", "terms": None, "context": "prod", "host": None}


def pod(name: str, *containers: tuple[str, int, str]) -> dict:
    """`containers`: name, restarts, state."""
    statuses = [{"name": each, "restartCount": restarts, "state": {state: {}}} for each, restarts, state in containers]
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"containerStatuses": statuses},
    }


class Cluster:
    """Pods, and their logs by (pod, container, whether the run before)."""

    def __init__(self, pods: list[dict], logs: dict) -> None:
        self.pods, self.logs, self.queries = pods, logs, []

    def read(self, path: str, **query: object) -> object:
        if path.endswith("/pods"):
            assert query == {"labelSelector": "app=api"}
            return {"items": self.pods}
        self.queries.append(query)
        found = self.logs[path.split("/")[-2], query["container"], "previous" in query]
        if isinstance(found, Exception):
            raise found
        return found


def search(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, **wanted: object) -> pod_logs.Found:
    monkeypatch.setattr(kubernetes_api, "Cluster", lambda _options: cluster)
    return pod_logs.search({**SHOP, **wanted}, ["ERROR"], 1763719200.0)


def test_lines_of_all_containers_and_of_the_run_before(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = {
        ("api-1", "app", False): "2025-11-21T10:00:01.123456789Z INFO on\n2025-11-21T10:00:02Z ERROR now\n",
        ("api-1", "app", True): "2025-11-21T10:00:00.5Z ERROR out of memory\nunable to retrieve container logs\n",
        ("api-1", "proxy", False): "2025-11-21T10:00:03Z ERROR upstream\n",
    }
    cluster = Cluster([pod("api-1", ("app", 1, "running"), ("proxy", 0, "running"))], logs)
    found = search(monkeypatch, cluster)
    assert [(each.at, each.stream, each.message) for each in found.events] == [
        (1763719202000, "api-1 app", "ERROR now"),
        (1763719200500, "api-1 app before", "ERROR out of memory"),
        (1763719203000, "api-1 proxy", "ERROR upstream"),
    ]
    assert {each.group for each in found.events} == {"pods app=api of shop"}
    assert (found.total, found.complete_before, found.unread) == (3, True, ())
    assert all(
        query["sinceTime"] == "2025-11-21T10:00:00Z" and query["timestamps"] == "true" for query in cluster.queries
    )
    assert search(monkeypatch, cluster, terms=["upstream"]).total == 1


def test_one_container_that_cannot_be_read_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = {
        ("api-1", "app", False): "2025-11-21T10:00:02Z ERROR now\n",
        ("api-2", "app", False): Stop("missing permission"),
    }
    pods = [
        pod("api-1", ("app", 0, "running")),
        pod("api-2", ("app", 0, "running")),
        pod("api-3", ("app", 0, "waiting")),
    ]
    found = search(monkeypatch, Cluster(pods, logs))
    assert found.total == 1
    assert found.unread == ("api-2 app of shop: missing permission",)
    told = log_search.told([(pod_logs.named(SHOP), found)], None, (1763719200, 1763719260))
    assert told["blind"] == ["api-2 app of shop: missing permission"]
    assert told["searched"] == [
        {"name": "pods app=api of shop", "region": "prod", "matched": 1, "read": 1, "by": "pod logs"}
    ]


@pytest.mark.parametrize(
    ("pods", "logs", "part"),
    [
        ([], {}, "no pod of namespace shop has app=api: check selector and namespace"),
        ([pod("api-1", ("app", 0, "running"))], {("api-1", "app", False): Stop("denied")}, "api-1 app of shop: denied"),
        ([pod("api-1", ("app", 0, "waiting"))], {}, "the pods app=api have no containers yet"),
    ],
)
def test_nothing_to_read_is_said(monkeypatch: pytest.MonkeyPatch, pods: list, logs: dict, part: str) -> None:
    with pytest.raises(Stop, match=part):
        search(monkeypatch, Cluster(pods, logs))


def test_a_log_that_is_cut_does_not_tell_what_was_there_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_logs, "LINES", 2)
    logs = {("api-1", "app", False): "2025-11-21T10:00:02Z ERROR now\n2025-11-21T10:00:03Z ERROR now\n"}
    assert not search(monkeypatch, Cluster([pod("api-1", ("app", 0, "running"))], logs)).complete_before
