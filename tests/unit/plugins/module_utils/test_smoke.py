# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks against a real HTTP server on the loopback interface."""

from __future__ import annotations

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
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import smoke
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable


class Handler(BaseHTTPRequestHandler):
    """Echoes what it was asked; the path names other behaviours."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path == "/silent":
            time.sleep(1)
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

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are part of the tests."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Quiet(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def check(url: str, **more: object) -> dict:
    return {
        "name": "check",
        "url": url,
        "method": "GET",
        "headers": None,
        "json": None,
        "secret_json": None,
        "body": None,
        "expect_status": [200],
        "expect_json": None,
        "within": 0.4,
        "attempts": None,
        **more,
    }


def echo(seen: smoke.Seen) -> dict:
    return json.loads(seen.text)


def test_a_post_carries_its_json_with_the_secret_fields(port: int) -> None:
    given_json = {"email": "oncall@example.com"}
    seen = smoke.request(
        check(f"http://127.0.0.1:{port}/login?a=1", method="POST", json=given_json, secret_json={"password": "x"})
    )
    assert (seen.status, echo(seen)["method"], echo(seen)["path"]) == (200, "POST", "/login?a=1")
    assert json.loads(echo(seen)["body"]) == {"email": "oncall@example.com", "password": "x"}
    assert echo(seen)["headers"]["Content-Type"] == "application/json"


def test_a_name_resolved_elsewhere_keeps_its_host_header(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        smoke.dns, "resolve", lambda name, servers: asked.append((name, servers)) or frozenset({"127.0.0.1"})
    )
    seen = smoke.request(check(f"http://api.regami.test:{port}/"), ("127.0.0.1:5353",))
    assert echo(seen)["headers"]["Host"] == f"api.regami.test:{port}"
    assert asked == [("api.regami.test", ("127.0.0.1:5353",))]


def test_headers_win_over_what_is_sent_by_itself(port: int) -> None:
    seen = smoke.request(check(f"http://127.0.0.1:{port}/", headers={"host": "api.regami.test", "X-Number": 5}))
    assert (echo(seen)["headers"]["host"], echo(seen)["headers"]["X-Number"]) == ("api.regami.test", "5")


@pytest.mark.parametrize("path", ["/", "/chunked"])
def test_an_answer_is_read_to_its_end(port: int, path: str) -> None:
    assert echo(smoke.request(check(f"http://127.0.0.1:{port}{path}")))["path"] == path


def test_a_head_has_no_body_and_a_redirect_is_not_followed(port: int) -> None:
    assert smoke.request(check(f"http://127.0.0.1:{port}/", method="HEAD")).text == ""
    assert smoke.request(check(f"http://127.0.0.1:{port}/moved")).status == 302


@pytest.mark.parametrize("path", ["/silent", "/dribble"])
def test_time_is_up_even_where_the_answer_dribbles(port: int, path: str) -> None:
    seen = smoke.request(check(f"http://127.0.0.1:{port}{path}"))
    assert (seen.status, seen.text) == (None, "no answer within 0.4 s")


def test_what_hinders_a_request_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    assert smoke.request(check(f"http://127.0.0.1:{closed}/")).text == "no answer (Connection refused)"
    assert "cannot be sent" in smoke.request(check("http://127.0.0.1:99999999/")).text

    def unreachable(*_arguments: object) -> frozenset:
        raise Unreachable("DNS server x gave no answer")

    monkeypatch.setattr(smoke.dns, "resolve", unreachable)
    assert smoke.request(check("http://api.regami.test/"), ("x",)).text == "DNS server x gave no answer"
    monkeypatch.setattr(smoke.dns, "resolve", lambda *arguments: frozenset())
    assert smoke.request(check("http://api.regami.test/"), ("x",)).text == "x has no address of api.regami.test"


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
    smoke._trust.cache_clear()
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
    smoke._trust.cache_clear()


def test_tls_is_verified_against_the_name_of_the_url(tls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke.dns, "resolve", lambda name, servers: frozenset({"127.0.0.1"}))
    seen = smoke.request(check(f"https://api.regami.test:{tls}/", within=5), ("x",))
    assert echo(seen)["headers"]["Host"] == f"api.regami.test:{tls}"
    assert "TLS failed: Hostname mismatch" in smoke.request(check(f"https://other.test:{tls}/", within=5), ("x",)).text


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (smoke.Seen(200, '{"database": "connected", "writable": true, "more": [1]}'), None),
        (smoke.Seen(None, "no answer (Connection refused)"), "no answer (Connection refused)"),
        (smoke.Seen(503, '{"token": "hush"} down'), 'answered 503: {"token": ********} down'),
        (smoke.Seen(503, ""), "answered 503"),
        (smoke.Seen(200, "<html>"), "answered 200 without JSON: <html>"),
        (smoke.Seen(200, '{"database": "connected"}'), "answered 200, but writable is missing"),
        (
            smoke.Seen(200, '{"database": "connected", "writable": false}'),
            "answered 200, but writable is false instead of true",
        ),
        (
            smoke.Seen(200, '{"database": "connected", "writable": 1}'),
            "answered 200, but writable is 1 instead of true",
        ),
        (smoke.Seen(200, "[]"), "answered 200, but the answer is [] instead of"),
    ],
)
def test_an_answer_is_judged_by_status_and_content(seen: smoke.Seen, problem: str | None) -> None:
    found = smoke.fault(check("http://x/", expect_json={"database": "connected", "writable": True}), seen)
    assert found == problem if problem is None else found.startswith(problem)


def test_a_secret_that_differs_is_not_shown() -> None:
    found = smoke.fault(
        check("http://x/", expect_json={"a": {"token": "right"}}), smoke.Seen(200, '{"a": {"token": "hush"}}')
    )
    assert found == 'answered 200, but a.token is "********" instead of "********"'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON, st.dictionaries(st.text(), JSON))
def test_a_dict_with_more_than_expected_passes(value: object, more: dict) -> None:
    assert smoke._missing({"value": value}, {**more, "value": value}) is None


def trial(monkeypatch: pytest.MonkeyPatch, *statuses: int, **more: object) -> smoke.Trial:
    left = list(statuses)
    monkeypatch.setattr(smoke, "request", lambda check, servers: smoke.Seen(left.pop(0), "", 0.01))
    return smoke.Trial(check("http://x/", **more))


def test_passes_are_counted_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    there = trial(monkeypatch, 200, 503, 200, 200)
    over = []
    for _look in range(4):
        there.look()
        over.append(there.is_over(passes=2))
    assert over == [False, False, False, True]
    assert there.verdict(2) == {
        "name": "check",
        "ok": True,
        "status": 200,
        "seconds": 0.01,
        "seen": "answered 200 at try 4",
    }


def test_a_check_is_tried_no_more_often_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = trial(monkeypatch, 503, attempts=1)
    there.look()
    assert there.is_over(passes=1)
    assert there.verdict(1)["ok"] is False


def test_too_few_passes_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    there = trial(monkeypatch, 200)
    there.look()
    assert there.verdict(3) == {
        "name": "check",
        "ok": False,
        "status": 200,
        "seconds": 0.01,
        "seen": "passed 1 times in a row, 3 needed",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767225600", 1767225600.0),
        ("1767225600.5", 1767225600.5),
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00+01:00", 1767225600.0),
        ("2026-01-01 00:00:00", 1767225600.0),
    ],
)
def test_a_time_is_a_number_or_iso_8601(text: str, seconds: float) -> None:
    assert smoke.parse_time(text) == seconds


def test_anything_else_is_no_time() -> None:
    with pytest.raises(Stop, match="since: yesterday is no time"):
        smoke.parse_time("yesterday")


class Logs:
    """Pages of events."""

    def __init__(self, *pages: object) -> None:
        self.pages, self.calls = list(pages), []

    def read(self, service: str, operation: str, region: str, **arguments: object) -> dict:
        assert (service, operation, region) == ("logs", "filter_log_events", "us-west-2")
        self.calls.append(arguments)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


GROUP = {"name": "/ecs/regami-api", "region": "us-west-2"}
BAD = {"events": [{"message": "ERROR one"}, {"message": "ERROR two"}], "nextToken": "more"}


def count(logs: Logs, allowed: int) -> tuple[int, list[str]]:
    return smoke.count_errors(logs, GROUP, 1767225600.5, allowed)


def test_error_lines_are_counted_over_empty_pages() -> None:
    logs = Logs({"events": [], "nextToken": "more"}, {"events": [{"message": "ERROR one"}]})
    assert count(logs, 5) == (1, ["ERROR one"])
    first, second = logs.calls
    assert first == {
        "logGroupName": "/ecs/regami-api",
        "startTime": 1767225600500,
        "filterPattern": "?ERROR ?Exception",
    }
    assert second == dict(first, nextToken="more")


def test_counting_ends_where_it_is_clear_that_there_are_too_many() -> None:
    logs = Logs(BAD)
    assert count(logs, 1)[0] == 2
    assert not logs.pages


def test_a_log_group_that_is_not_there_is_named() -> None:
    error = ClientError({"Error": {"Code": "ResourceNotFoundException"}, "ResponseMetadata": {}}, "FilterLogEvents")
    with pytest.raises(Stop, match="there is no log group /ecs/regami-api in us-west-2"):
        count(Logs(error), 0)


def test_a_log_that_may_not_be_read_is_told_in_words() -> None:
    error = ClientError({"Error": {"Code": "AccessDeniedException"}, "ResponseMetadata": {}}, "FilterLogEvents")
    error.sre_call = ("logs", "filter_log_events", "us-west-2")
    with pytest.raises(Stop, match="missing permission logs:FilterLogEvents in us-west-2"):
        count(Logs(error), 0)


def test_a_log_is_judged_by_what_is_allowed() -> None:
    assert smoke.judge_log(GROUP, 1, ["x"], 1) == (True, "1 ERROR lines, 1 allowed")
    hidden = smoke.judge_log(GROUP, 2, ["ERROR password=hush"], 1)
    assert hidden == (False, "2 ERROR lines, 1 allowed: ERROR password=********")


@given(st.ip_addresses())
def test_an_address_is_not_asked_of_dns(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert smoke._is_address(str(address))
