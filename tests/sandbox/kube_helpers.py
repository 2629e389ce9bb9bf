# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes API without a client library: what goes over the wire, and what comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml


class Api:
    """Requests with the credentials of a kubeconfig's current context (a token or a client certificate)."""

    def __init__(self, kubeconfig: str | Path, scratch: Path) -> None:
        config = yaml.safe_load(Path(kubeconfig).read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        self.kubeconfig, self._url, self._session = str(kubeconfig), cluster["server"], requests.Session()
        self._session.trust_env = False  # else REQUESTS_CA_BUNDLE wins over the cluster's own authority
        authority = _file(cluster, "certificate-authority", scratch)
        self._session.verify = authority or not cluster.get("insecure-skip-tls-verify", False)
        if token := user.get("token"):
            self._session.headers["Authorization"] = f"Bearer {token}"
        elif certificate := _file(user, "client-certificate", scratch):
            self._session.cert = certificate, _file(user, "client-key", scratch)

    def call(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **headers: str
    ) -> tuple[int, Any]:
        """HTTP status, and the answer: a document, or text where it is none. A `body` that is a str is sent as it is."""
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        sent = {"Content-Type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = self._session.request(method, self._url + path, data=data, headers=sent, timeout=30)
        is_document = answer.headers.get("Content-Type", "").startswith("application/json")
        return answer.status_code, answer.json() if is_document else answer.text

    def get(self, path: str) -> Any:
        status, answer = self.call("GET", path)
        assert status == 200, answer
        return answer

    def create(self, path: str, body: dict) -> dict:
        status, answer = self.call("POST", path, body)
        assert status == 201, answer
        return answer

    def patch(self, path: str, body: Any, kind: str = "strategic-merge-patch", **headers: str) -> dict:
        status, answer = self.call("PATCH", path, body, f"application/{kind}+json", **headers)
        assert status == 200, answer
        return answer

    @contextmanager
    def watch(self, path: str) -> Iterator[Iterator[dict]]:
        with self._session.get(self._url + path, stream=True, timeout=30) as answer:
            assert answer.status_code == 200, answer.text
            yield (json.loads(line) for line in answer.iter_lines() if line)


def _named(entries: list[dict], name: str) -> dict:
    return next(each for each in entries if each["name"] == name)


def _file(entry: dict, name: str, scratch: Path) -> str | None:
    if f"{name}-data" not in entry:
        return entry.get(name)
    path = scratch / name
    path.write_bytes(base64.b64decode(entry[f"{name}-data"]))
    path.chmod(0o600)
    return str(path)


def condition(item: dict, kind: str) -> tuple[str, str] | None:
    """Status and reason of an object's condition."""
    found = [each for each in item["status"].get("conditions") or [] if each["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else None
