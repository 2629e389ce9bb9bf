# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each way in which a dependency can be down, against real sockets on the loopback interface."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from botocore import exceptions as boto_errors

from ansible_collections.sre.runbooks.plugins.module_utils import dependencies, web
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal

AWS = SimpleNamespace(region="us-east-1")


def entry(**given: object) -> dict:
    """A dependency as the module gets it, defaults filled in."""
    found = ArgumentSpecValidator(dependencies.ARGUMENTS).validate({"dependencies": [{"name": "it", **given}]})
    assert not found.error_messages
    return found.validated_parameters["dependencies"][0]


def ask(aws: object = AWS, servers: tuple = (), **given: object) -> dict:
    return dependencies.assess(aws, [entry(**{"within": 2, **given})], servers)[0]


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that gives each connection to `answer`, after a TLS handshake with `context`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _address = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), sock:
                secured = context.wrap_socket(sock, server_side=True) if context else sock
                with secured:
                    answer(secured)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@contextlib.contextmanager
def full() -> Iterator[int]:
    """The port of a listener whose queue is full: the kernel drops what comes, as a security group does."""
    with socket.socket() as listener, contextlib.ExitStack() as kept:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _each in range(3):
            client = kept.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]


@pytest.fixture
def unused() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def redis(lines: list[str], heard: list[bytes]) -> Callable[[socket.socket], None]:
    """A Redis that has an answer for each command in turn."""

    def answer(sock: socket.socket) -> None:
        for line in lines:
            heard.append(sock.recv(4096))
            sock.sendall(line.encode() + b"\r\n")

    return answer


@pytest.mark.parametrize(
    ("kind", "more"),
    [("redis", {}), ("postgresql", {}), ("url", {"url": "http://127.0.0.1:{port}/"})],
)
def test_the_network_says_no_in_the_same_words_for_each_kind(kind: str, more: dict, unused: int) -> None:
    def given(port: int) -> dict:
        where = {} if kind == "url" else {"host": "127.0.0.1", "port": port}
        return {"kind": kind, **where, **{key: value.format(port=port) for key, value in more.items()}}

    found = ask(**given(unused))
    assert (found["ok"], found["fault"], found["seconds"]) == (False, "refused", None)
    assert found["reason"] == f"127.0.0.1:{unused} refuses connections: nothing listens there"
    with full() as port:
        found = ask(**given(port), within=0.3)
    assert found["fault"] == "filtered"
    assert "within 0.3 s: a security group, a network ACL or a route drops it" in found["reason"]
    with serving(lambda sock: time.sleep(0.6)) as port:
        assert ask(**given(port), within=0.3)["fault"] == "silent"


def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.dns, "resolve", lambda *arguments: frozenset())
    found = ask(servers=("127.0.0.1:5353",), kind="redis", host="gone.regami.test")
    assert (found["fault"], found["reason"]) == (
        "unresolved",
        "the name gone.regami.test does not resolve: 127.0.0.1:5353 has no address of gone.regami.test",
    )


def test_all_are_asked_at_once_and_a_resolver_that_hangs_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.socket, "getaddrinfo", lambda *arguments, **options: time.sleep(30))
    wanted = [entry(kind="redis", host=f"host{number}", within=0.2) for number in range(5)]
    started = time.monotonic()
    found = dependencies.assess(AWS, wanted)
    assert time.monotonic() - started < 3
    assert [(each["fault"], each["reason"]) for each in found] == [("silent", "no answer within 0.2 s")] * 5


def test_a_redis_that_answers() -> None:
    heard: list[bytes] = []
    with serving(redis(["+OK", "+PONG"], heard)) as port:
        found = ask(kind="redis", host="127.0.0.1", port=port, login_user="app", login_password="pw é")
    assert (found["ok"], found["reason"], found["fault"], found["certificate_days"]) == (True, None, None, None)
    assert 0 <= found["seconds"] < 2
    assert heard == [b"*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$5\r\npw \xc3\xa9\r\n", b"*1\r\n$4\r\nPING\r\n"]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("-NOAUTH Authentication required.", "denied"),
        ("-WRONGPASS invalid username-password pair or user is disabled.", "denied"),
        ("-LOADING Redis is loading the dataset in memory", "starting"),
        ("-ERR max number of clients reached", "exhausted"),
        ("HTTP/1.1 400 Bad Request", "error"),
    ],
)
def test_a_redis_that_answers_and_does_not_serve(answer: str, fault: str) -> None:
    with serving(redis([answer], [])) as port:
        found = ask(kind="redis", host="127.0.0.1", port=port)
    assert (found["ok"], found["fault"]) == (False, fault)
    assert answer.removeprefix("-") in found["reason"]


def test_a_redis_that_hangs_up() -> None:
    with serving(lambda sock: None) as port:
        found = ask(kind="redis", host="127.0.0.1", port=port)
    assert found["fault"] == "closed"


def test_postgresql_without_a_login_is_asked_whether_a_postmaster_lives() -> None:
    def answers(text: bytes) -> Callable[[socket.socket], None]:
        def answer(sock: socket.socket) -> None:
            assert sock.recv(8) == dependencies.SSL_REQUEST
            sock.sendall(text)

        return answer

    with serving(answers(b"N")) as port:
        given = {"kind": "postgresql", "host": "127.0.0.1", "port": port}
        assert ask(**given, sslmode="prefer")["ok"]
        found = ask(**given)
        assert (found["fault"], found["reason"]) == ("tls", f"127.0.0.1:{port} has no TLS, and sslmode is require")
    with serving(answers(b"HTTP/1.1 400")) as port:
        assert ask(kind="postgresql", host="127.0.0.1", port=port)["fault"] == "closed"


def certificate(folder: Path, ends_in: datetime.timedelta) -> Path:
    """Key and certificate, for localhost, of nobody but itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - datetime.timedelta(days=30), now + ends_in)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "tls.pem"
    path.write_bytes(secret + made.public_bytes(encoding))
    return path


def http(status: str) -> Callable[[socket.socket], None]:
    def answer(sock: socket.socket) -> None:
        if sock.recv(4096):
            sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhm".encode())

    return answer


def secure(path: Path, answer: Callable[[socket.socket], None]) -> contextlib.AbstractContextManager[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return serving(answer, context)


def test_the_days_that_a_certificate_lasts(tmp_path: Path) -> None:
    path = certificate(tmp_path, datetime.timedelta(days=10))
    with secure(path, http("200 OK")) as port:
        found = ask(kind="url", url=f"https://localhost:{port}/health", ssl_root_cert=str(path))
        assert (found["ok"], found["certificate_days"]) == (True, 10.0)
        assert next(dependencies.words([found], 14)) == "the certificate of it expires in 10 days"
        stranger = ask(kind="url", url=f"https://localhost:{port}/health")
    assert (stranger["fault"], stranger["certificate_days"]) == ("tls", 10.0)
    assert "is not trusted: self-signed certificate" in stranger["reason"].replace("self signed", "self-signed")
    with secure(path, redis(["+PONG"], [])) as port:
        found = ask(kind="redis", host="localhost", port=port, tls=True, ssl_root_cert=str(path))
    assert (found["ok"], found["certificate_days"]) == (True, 10.0)


def test_a_certificate_that_expired_a_moment_ago(tmp_path: Path) -> None:
    path = certificate(tmp_path, datetime.timedelta(seconds=-20))
    with secure(path, http("200 OK")) as port:
        found = ask(kind="url", url=f"https://localhost:{port}/health", ssl_root_cert=str(path))
    assert (found["fault"], str(found["certificate_days"])) == ("certificate_expired", "0.0")
    assert "UTC (0 min ago)" in found["reason"]


def test_a_certificate_that_expired_is_named_with_its_date(tmp_path: Path) -> None:
    path = certificate(tmp_path, datetime.timedelta(days=-3))
    ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
    with secure(path, http("200 OK")) as port:
        found = ask(kind="url", url=f"https://localhost:{port}/health", ssl_root_cert=str(path))
    assert (found["ok"], found["fault"], found["certificate_days"]) == (False, "certificate_expired", -3.0)
    assert found["reason"].startswith(f"the certificate of localhost:{port} expired on {ended:%Y-%m-%d} ")
    assert found["reason"].endswith("(3 days ago): have it renewed")


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        ("200 OK", None),
        ("302 Found", None),
        ("429 Too Many Requests", "throttled"),
        ("503 Service Unavailable", "error"),
        ("401 Unauthorized", "denied"),
        ("404 Not Found", "error"),
    ],
)
def test_what_an_api_answers(status: str, fault: str | None) -> None:
    with serving(http(status)) as port:
        found = ask(kind="url", url=f"http://127.0.0.1:{port}/pay?token=hunter22")
        assert ask(kind="url", url=f"http://127.0.0.1:{port}/", expect_status=[int(status[:3])])["ok"]
    assert (found["ok"], found["fault"]) == (fault is None, fault)
    assert "hunter22" not in str(found)
    if fault:
        assert f"answers {status[:3]} hm" in found["reason"]


def refused(code: str, status: int) -> boto_errors.ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto_errors.ClientError(answer, "ListObjectsV2")


class Bucket:
    """An S3 client that gives or raises what it was made with."""

    def __init__(self, head: object, listed: object) -> None:
        self._head, self._listed = head, listed

    def head_bucket(self, **_wanted: object) -> dict:
        return self._give(self._head)

    def list_objects_v2(self, **_wanted: object) -> dict:
        return self._give(self._listed)

    def _give(self, what: object) -> dict:
        if isinstance(what, Exception):
            raise what
        return what


@pytest.mark.parametrize(
    ("head", "listed", "fault", "reason"),
    [
        ({"BucketRegion": "us-east-1"}, {}, None, None),
        ({"BucketRegion": "eu-west-1"}, {}, "wrong_region", "the bucket uploads is in eu-west-1, not in us-east-1"),
        (refused("404", 404), refused("NoSuchBucket", 404), "missing", "there is no bucket uploads"),
        (
            refused("403", 403),
            refused("AccessDenied", 403),
            "denied",
            "missing permission s3:ListBucket on uploads in us-east-1: no",
        ),
        ({}, refused("SlowDown", 503), "throttled", "S3 throttles requests to uploads"),
        ({}, refused("InternalError", 500), "error", "InternalError"),
        ({}, boto_errors.ConnectTimeoutError(endpoint_url="s3"), "filtered", "no connection to S3 in us-east-1"),
        ({}, boto_errors.EndpointConnectionError(endpoint_url="s3"), "refused", "got no answer"),
    ],
)
def test_what_a_bucket_says(head: object, listed: object, fault: str | None, reason: str | None) -> None:
    aws = SimpleNamespace(region="us-east-1", client=lambda *arguments, **options: Bucket(head, listed))
    found = ask(aws, kind="s3", bucket="uploads")
    assert (found["ok"], found["fault"]) == (fault is None, fault)
    assert reason is None or reason in found["reason"]


def test_what_cannot_be_asked_is_neither_up_nor_down() -> None:
    aws = SimpleNamespace(
        region="us-east-1", client=lambda *arguments, **options: Bucket({}, boto_errors.NoCredentialsError())
    )
    assert ask(aws, kind="s3", bucket="uploads")["ok"] is None
    found = ask(kind="redis", host="127.0.0.1", login_user="app", login_password_variable="NO_SUCH_VARIABLE")
    assert (found["ok"], found["fault"]) == (None, None)
    assert "there is no environment variable NO_SUCH_VARIABLE" in found["reason"]
    with serving(http("200 OK")) as port:
        found = ask(kind="url", url=f"https://127.0.0.1:{port}/", ssl_root_cert="/no/such/file")
    assert (found["ok"], found["reason"]) == (
        None,
        "ssl_root_cert /no/such/file cannot be read: No such file or directory",
    )


def test_a_mistake_in_the_inventory_is_no_outage() -> None:
    with pytest.raises(Refusal, match=r"dependency it: ftp://x is no URL"):
        dependencies.refuse_malformed([entry(kind="url", url="ftp://x")], ())
    with pytest.raises(Refusal, match="login_iam is for PostgreSQL"):
        dependencies.refuse_malformed([entry(kind="redis", host="x", login_iam=True)], ())
