# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes over the wire to a Kubernetes API, what is repeated, and what a person reads when it says no."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api
from ansible_collections.sre.runbooks.plugins.module_utils.errors import (
    LostAnswer,
    Overtaken,
    Refusal,
    Stop,
    Throttled,
    Unreachable,
)

WEB = api.objects("shop", "deployments", "web")


class Server(ThreadingHTTPServer):
    """Answers what it is told to, one by one: (status, JSON) or "reset"; then by path."""

    answers: list
    known: dict
    requests: list

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        answer = self.server.answers.pop(0) if self.server.answers else (200, self.server.known.get(self.path, {}))
        if answer == "reset":
            self.close_connection = True
            return
        status, said, *headers = answer
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PATCH = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def running():
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running, monkeypatch):
    running.answers, running.requests, running.known = [], [], {}
    monkeypatch.setattr(api.time, "sleep", lambda _seconds: None)
    return running


@pytest.fixture
def cluster(server):
    return api.Cluster({"host": server.url, "api_key": "t0ken"})


def status(code, message, **more):
    return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}, *more.values()


def test_a_patch_goes_out_once_with_the_token(server, cluster):
    server.answers = [(200, {"metadata": {"name": "web"}})]
    assert cluster.change("PATCH", WEB, [{"op": "test"}], api.JSON_PATCH) == {"metadata": {"name": "web"}}
    ((method, path, headers, body),) = server.requests
    assert (method, path, json.loads(body)) == ("PATCH", WEB, [{"op": "test"}])
    assert headers["authorization"] == "Bearer t0ken" and headers["Content-Type"] == "application/json-patch+json"


def test_reads_are_repeated_and_speak_query_and_text(server, cluster):
    server.answers = [status(500, "etcd"), status(429, "later"), "reset", (200, "line\n")]
    assert cluster.read(f"{WEB}/log", tailLines=3, container="app") == "line\n"
    assert [path for _method, path, _headers, _body in server.requests] == [f"{WEB}/log?tailLines=3&container=app"] * 4


def test_a_busy_api_is_not_taken_for_one_that_is_gone(server, cluster):
    server.answers = [status(429, "later")] * api.READ_TRIES
    with pytest.raises(Throttled):
        cluster.read(WEB)
    server.answers = [status(503, "down")] * api.READ_TRIES
    with pytest.raises(Unreachable, match=r"get deployments.apps web in namespace shop: .* answered 503: down"):
        cluster.read(WEB)


@pytest.mark.parametrize("answer", ["reset", status(500, "timed out"), status(504, "gateway")])
def test_a_change_whose_answer_is_lost_is_not_sent_again(server, cluster, answer):
    server.answers = [answer]
    with pytest.raises(LostAnswer):
        cluster.change("PATCH", WEB, [], api.JSON_PATCH)
    assert len(server.requests) == 1


def test_a_change_that_was_not_looked_at_is_sent_again_when_the_server_wants_it(server, cluster, monkeypatch):
    slept = []
    monkeypatch.setattr(api.time, "sleep", slept.append)
    server.answers = [(*status(429, "too many requests"), ("Retry-After", "1")), (200, {})]
    cluster.change("PATCH", WEB, [], api.JSON_PATCH)
    assert len(server.requests) == 2 and slept == [1.0]


@pytest.mark.parametrize(
    ("code", "message", "raised", "line"),
    [
        (
            401,
            "Unauthorized",
            Stop,
            "does not accept these credentials (patch deployments.apps web in namespace shop: 401)",
        ),
        (
            403,
            'deployments.apps "web" is forbidden: User "jane" cannot patch resource "deployments" in API group "apps"',
            api.Denied,
            "missing permission to patch deployments.apps web in namespace shop: deployments.apps",
        ),
        (403, 'forbidden: User "system:anonymous" cannot patch', api.Denied, "no credentials were sent"),
        (403, 'admission webhook "policy" denied the request: no', api.Denied, "answered 403: admission webhook"),
        (404, 'deployments.apps "web" not found', api.NotFound, "not found"),
        (409, "Operation cannot be fulfilled", Overtaken, "was changed by somebody else meanwhile"),
        (422, "the server rejected our request due to an error in our request", api.Invalid, "rejected our request"),
    ],
)
def test_what_the_api_says_becomes_one_line(server, cluster, code, message, raised, line):
    server.answers = [status(code, message)]
    with pytest.raises(raised) as error:
        cluster.change("PATCH", WEB, [], api.JSON_PATCH)
    assert line in str(error.value) and "\n" not in str(error.value)
    assert len(server.requests) == 1


def test_nobody_there(server):
    with pytest.raises(Unreachable, match=r"the cluster http://127.0.0.1:1 does not answer \(get deployments.apps"):
        api.Cluster({"host": "http://127.0.0.1:1", "api_key": "x"}).read(WEB)


def kubeconfig(folder, server, user):
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "shop",
                "clusters": [{"name": "shop", "cluster": {"server": server.url}}],
                "users": [{"name": "jane", "user": user}],
                "contexts": [{"name": "shop", "context": {"cluster": "shop", "user": "jane"}}],
            }
        )
    )
    return str(path)


def test_a_kubeconfig_with_a_token(server, tmp_path):
    path = kubeconfig(tmp_path, server, {"token": "of-jane"})
    api.Cluster(
        {"kubeconfig": path, "context": "shop", "impersonate_user": "kim", "impersonate_groups": ["a", "b"]}
    ).read(WEB)
    headers = server.requests[0][2]
    assert headers["authorization"] == "Bearer of-jane" and headers["Impersonate-User"] == "kim"


def plugin(folder, *lines):
    script = folder / "plugin"
    script.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    script.chmod(0o700)
    return {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
    }


def test_a_plugin_gives_the_token_and_is_asked_again_when_it_has_expired(server, tmp_path):
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "NUMBER", "expirationTimestamp": "2020-01-01T00:00:00Z"},
    }
    count = tmp_path / "count"
    user = plugin(
        tmp_path, f"echo x >> {count}", f"echo '{json.dumps(credential)}' | sed \"s/NUMBER/$(wc -l < {count})/\""
    )
    cluster = api.Cluster({"kubeconfig": kubeconfig(tmp_path, server, user)})
    cluster.read(WEB)
    cluster.read(WEB)
    first, second = (headers["authorization"] for _method, _path, headers, _body in server.requests)
    assert first.startswith("Bearer ") and first != second


def test_a_plugin_that_fails_is_not_passed_off_as_nobody(server, tmp_path):
    user = plugin(tmp_path, "echo Token has expired and refresh failed >&2", "exit 255")
    with pytest.raises(Stop, match=r"the credential plugin of the kubeconfig failed \(.*Token has expired"):
        api.Cluster({"kubeconfig": kubeconfig(tmp_path, server, user)})
    assert server.requests == []


@pytest.mark.parametrize(
    "params", [{"context": "typo"}, {"kubeconfig": "/nowhere/config"}, {"kubeconfig": {"apiVersion": "v1"}}]
)
def test_no_cluster_is_said_so(server, tmp_path, params):
    given = {"kubeconfig": kubeconfig(tmp_path, server, {"token": "x"})} | params
    with pytest.raises(Stop, match=r"no cluster to talk to: .* set kubeconfig and context for this host"):
        api.Cluster(given)


def knows(server, *groups):
    server.known = {
        "/version": {"major": "1", "minor": "33"},
        "/apis": {
            "kind": "APIGroupList",
            "groups": [
                {"name": each, "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}
                for each in groups
            ],
        },
        "/apis/apps.openshift.io/v1": {
            "kind": "APIResourceList",
            "resources": [
                {"name": "deploymentconfigs", "kind": "DeploymentConfig", "namespaced": True, "verbs": ["get"]},
                {"name": "deploymentconfigs/instantiate", "kind": "DeploymentRequest", "namespaced": True, "verbs": []},
            ],
        },
    }


def test_a_cluster_without_deployment_configs_is_not_openshift(server, cluster):
    knows(server, "apps")
    with pytest.raises(Refusal, match=r"knows no DeploymentConfig: that kind is OpenShift's"):
        api.openshift_path(cluster, "DeploymentConfig", "web", "shop")


def test_openshift_says_where_its_kinds_are(server, cluster):
    knows(server, "apps.openshift.io")
    path = api.openshift_path(cluster, "DeploymentConfig", "web", "shop")
    assert path == "/apis/apps.openshift.io/v1/namespaces/shop/deploymentconfigs/web"


@pytest.mark.parametrize(
    ("method", "path", "spelt"),
    [
        ("GET", "/apis/apps/v1/namespaces/shop/replicasets", "list replicasets.apps in namespace shop"),
        ("GET", "/api/v1/namespaces/shop/pods/web-1/log", "get pods/log web-1 in namespace shop"),
        ("POST", f"{WEB}/instantiate", "create deployments/instantiate.apps web in namespace shop"),
        ("DELETE", "/api/v1/namespaces/shop/pods/web-1", "delete pods web-1 in namespace shop"),
        ("GET", "/api/v1/namespaces/shop", "get namespace shop"),
    ],
)
def test_a_request_is_named_as_a_role_names_it(method, path, spelt):
    assert api.words(method, path) == spelt
