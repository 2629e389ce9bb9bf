# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""In a run that only reads nothing is sent that may change something, whichever way it goes."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api, postgres, read_only, redis_cache, web
from ansible_collections.sre.runbooks.plugins.module_utils.errors import WouldChange


@pytest.fixture(autouse=True)
def only_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(read_only.VARIABLE, "true")


def test_http() -> None:
    message = {"url": "http://localhost:1/v1/rows", "headers": {}, "within": 1}
    with pytest.raises(WouldChange, match="POST localhost"):
        web.request({**message, "method": "POST"})
    assert web.request({**message, "method": "GET"}).status is None


def test_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    path, sent = "/apis/apps/v1/namespaces/shop/deployments/web", []
    cluster = object.__new__(kubernetes_api.Cluster)
    monkeypatch.setattr(cluster, "_send", lambda *request: sent.append(request))
    monkeypatch.setattr(cluster, "_result", lambda *_answer: None)
    with pytest.raises(WouldChange):
        cluster.change("PATCH", path, [])
    with pytest.raises(AttributeError):  # of the answer that there is not
        cluster.change("PATCH", path, [], dryRun="All")
    assert [query for *_request, query in sent] == [{"dryRun": "All"}]


def test_redis() -> None:
    with pytest.raises(WouldChange), redis_cache.asked("cache:6379", change=True):
        pass
    with redis_cache.asked("cache:6379"):
        pass


def test_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {}

    class Connection:
        autocommit = False

    def connect(**arguments: str) -> Connection:
        said.update(arguments)
        return Connection()

    monkeypatch.setattr(postgres.psycopg2, "connect", connect)
    login = type("Login", (), {"user": "a", "sslmode": "require", "root_cert": None, "password": lambda *_at: "x"})()
    database = object.__new__(postgres.Database)
    vars(database).update(host="h", port=1, name="d", _login=login, _region="r", _connect_within=1, _answer_within=1)
    database.connect()
    assert said["options"].endswith("default_transaction_read_only=on")
