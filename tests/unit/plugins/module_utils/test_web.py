# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to a real HTTP server on the loopback interface."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import web
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable


class Handler(BaseHTTPRequestHandler):
    """Echoes what it was asked; the path names other behaviours."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.connections.add(self.client_address)
        if self.path == "/silent":
            time.sleep(1)
            return
        if self.path == "/leaves":  # as a server does that has idled for too long
            self.close_connection = True
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
            return
        echo = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        self.send_response(302 if self.path == "/moved" else 200)
        if self.path == "/moved":
            self.send_header("Location", "/")
        if self.path == "/dribble":
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _byte in range(20):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
            return
        content = json.dumps(echo).encode()
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.connections: set = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are part of the tests."""


@pytest.fixture(scope="module")
def server() -> Iterator[Quiet]:
    with Quiet(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def port(server: Quiet) -> int:
    server.connections.clear()
    return server.server_address[1]


def message(url: str, **more: object) -> dict:
    return {
        "url": url,
        "method": "GET",
        "headers": None,
        "json": None,
        "secret_json": None,
        "body": None,
        "within": 0.4,
        **more,
    }


def echo(seen: web.Seen) -> dict:
    return json.loads(seen.text)


def test_a_post_carries_its_json_with_the_secret_fields(port: int) -> None:
    given_json = {"email": "oncall@example.com"}
    seen = web.request(
        message(f"http://127.0.0.1:{port}/login?a=1", method="POST", json=given_json, secret_json={"password": "x"})
    )
    assert (seen.status, echo(seen)["method"], echo(seen)["path"]) == (200, "POST", "/login?a=1")
    assert json.loads(echo(seen)["body"]) == {"email": "oncall@example.com", "password": "x"}
    assert echo(seen)["headers"]["Content-Type"] == "application/json"


def test_a_name_resolved_elsewhere_keeps_its_host_header(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        web.dns, "resolve", lambda name, servers: asked.append((name, servers)) or frozenset({"127.0.0.1"})
    )
    seen = web.request(message(f"http://api.regami.test:{port}/"), ("127.0.0.1:5353",))
    assert echo(seen)["headers"]["Host"] == f"api.regami.test:{port}"
    assert asked == [("api.regami.test", ("127.0.0.1:5353",))]


def test_headers_win_over_what_is_sent_by_itself(port: int) -> None:
    seen = web.request(message(f"http://127.0.0.1:{port}/", headers={"host": "api.regami.test", "X-Number": 5}))
    assert (echo(seen)["headers"]["host"], echo(seen)["headers"]["X-Number"]) == ("api.regami.test", "5")


@pytest.mark.parametrize("path", ["/", "/chunked"])
def test_an_answer_is_read_to_its_end(port: int, path: str) -> None:
    assert echo(web.request(message(f"http://127.0.0.1:{port}{path}")))["path"] == path


def test_a_head_has_no_body_and_a_redirect_is_not_followed(port: int) -> None:
    assert web.request(message(f"http://127.0.0.1:{port}/", method="HEAD")).text == ""
    assert web.request(message(f"http://127.0.0.1:{port}/moved")).status == 302


@pytest.mark.parametrize("path", ["/silent", "/dribble"])
def test_time_is_up_even_where_the_answer_dribbles(port: int, path: str) -> None:
    seen = web.request(message(f"http://127.0.0.1:{port}{path}"))
    assert (seen.status, seen.text) == (None, "no answer within 0.4 s")


def test_what_hinders_a_request_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    assert web.request(message(f"http://127.0.0.1:{closed}/")).text == "no answer (Connection refused)"
    assert "cannot be sent" in web.request(message("http://127.0.0.1:99999999/")).text

    def unreachable(*_arguments: object) -> frozenset:
        raise Unreachable("DNS server x gave no answer")

    monkeypatch.setattr(web.dns, "resolve", unreachable)
    assert web.request(message("http://api.regami.test/"), ("x",)).text == "DNS server x gave no answer"
    monkeypatch.setattr(web.dns, "resolve", lambda *arguments: frozenset())
    assert web.request(message("http://api.regami.test/"), ("x",)).text == "x has no address of api.regami.test"


def test_an_answer_that_is_cut_short_is_none(port: int) -> None:
    seen = web.request(message(f"http://127.0.0.1:{port}/short"))
    assert (seen.status, seen.text) == (None, "no answer (IncompleteRead)")


def test_it_is_known_whether_a_request_can_have_been_received(port: int) -> None:
    assert web.request(message(f"http://127.0.0.1:{port}/silent")).was_sent
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not web.request(message(f"http://127.0.0.1:{unused.getsockname()[1]}/")).was_sent


def test_a_line_keeps_its_connection_whatever_form_the_answer_has(server: Quiet, port: int) -> None:
    with contextlib.closing(web.Line()) as line:
        for path in ("/", "/chunked", "/moved", "/"):
            assert line.request(message(f"http://127.0.0.1:{port}{path}")).status in (200, 302)
        assert line.request(message(f"http://127.0.0.1:{port}/", method="HEAD")).status == 200
        assert echo(line.request(message(f"http://127.0.0.1:{port}/last")))["path"] == "/last"
    assert len(server.connections) == 1


def test_a_kept_connection_that_was_closed_is_opened_again_for_what_changes_nothing(server: Quiet, port: int) -> None:
    with contextlib.closing(web.Line()) as line:
        for _turn in range(3):
            assert line.request(message(f"http://127.0.0.1:{port}/leaves")).status == 200
        assert len(server.connections) == 3
        seen = line.request(message(f"http://127.0.0.1:{port}/", method="POST"))
        assert (seen.status, seen.was_sent) == (None, True)
        assert line.request(message(f"http://127.0.0.1:{port}/", method="POST")).status == 200


def test_a_line_goes_on_after_a_failure(server: Quiet, port: int) -> None:
    with contextlib.closing(web.Line()) as line:
        assert line.request(message(f"http://127.0.0.1:{port}/silent")).status is None
        assert line.request(message(f"http://127.0.0.1:{port}/")).status == 200


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Port of a TLS server whose certificate is for api.regami.test alone."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api.regami.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("api.regami.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (tmp_path / "tls.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(encoding)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
    web.trust.cache_clear()
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
    web.trust.cache_clear()


def test_tls_is_verified_against_the_name_of_the_url(tls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.dns, "resolve", lambda name, servers: frozenset({"127.0.0.1"}))
    seen = web.request(message(f"https://api.regami.test:{tls}/", within=5), ("x",))
    assert echo(seen)["headers"]["Host"] == f"api.regami.test:{tls}"
    assert "TLS failed: Hostname mismatch" in web.request(message(f"https://other.test:{tls}/", within=5), ("x",)).text


@given(st.ip_addresses())
def test_an_address_is_not_asked_of_dns(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert web._is_address(str(address))
