# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS to a PostgreSQL that has it: Debian's, where it is installed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, Held
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dependency import ask
from task import kill

FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
pytestmark = pytest.mark.skipif(not FOUND, reason="needs a PostgreSQL with TLS: Debian's package postgresql")


def certificate(folder: Path, name: str, issuer: tuple | None = None) -> tuple:
    """(certificate, key) of `name`, written to `folder`; of an authority where nobody issues it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made, key


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authorities")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authorities: Path) -> Iterator[Cluster]:
    """It takes TLS only, and says that it is localhost."""
    server = Cluster(Path(tmp_path_factory.mktemp("secure")), FOUND[-1].parent, "ssl = on\nmax_connections = 30")
    trusted = certificate(authorities, "trusted")
    certificate(authorities, "stranger")
    made, key = certificate(authorities, "localhost", trusted)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    certificates = {"server.crt": made.public_bytes(serialization.Encoding.PEM).decode(), "server.key": pem}
    server.start(certificates, access="hostssl")
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("sslmode", "host", "authority"),
    [
        ("require", "127.0.0.1", None),
        ("verify-ca", "127.0.0.1", "trusted"),
        ("verify-full", "localhost", "trusted"),
    ],
)
def test_sessions_are_ended_over_tls(
    secure: Cluster, authorities: Path, sslmode: str, host: str, authority: str | None
) -> None:
    root = str(authorities / f"{authority}.crt") if authority else None
    held = Held(secure, "app", "SELECT 1", application="over tls")
    result = kill(secure, applications=["over tls"], login_host=host, sslmode=sslmode, ssl_root_cert=root)
    held.close()
    assert not result["failed"], result["msg"]
    assert [each["outcome"] for each in result["sessions"]] == ["terminated"]


@pytest.mark.parametrize(
    ("sslmode", "host", "authority", "fault"),
    [
        ("require", "127.0.0.1", None, None),
        ("verify-full", "localhost", "trusted", None),
        ("verify-full", "127.0.0.1", "trusted", "tls"),
        ("verify-ca", "127.0.0.1", "trusted", None),
        ("verify-ca", "127.0.0.1", "stranger", "tls"),
    ],
)
def test_a_dependency_is_trusted_as_its_client_trusts_it(
    secure: Cluster, authorities: Path, sslmode: str, host: str, authority: str | None, fault: str | None
) -> None:
    root = str(authorities / f"{authority}.crt") if authority else None
    found = ask(secure, host=host, sslmode=sslmode, ssl_root_cert=root)
    assert (found["ok"], found["fault"]) == (fault is None, fault)
    assert found["certificate_days"] == 0.0


@pytest.mark.parametrize(
    ("sslmode", "host", "authority", "part"),
    [
        ("disable", "127.0.0.1", None, "no encryption"),
        ("verify-ca", "127.0.0.1", "stranger", "certificate verify failed"),
        ("verify-full", "127.0.0.1", "trusted", "does not match host name"),
        ("verify-full", "localhost", "nobody", "does not exist"),
    ],
)
def test_a_server_that_cannot_be_trusted_is_not_logged_in_to(
    secure: Cluster, authorities: Path, sslmode: str, host: str, authority: str | None, part: str
) -> None:
    root = str(authorities / f"{authority}.crt") if authority else None
    result = kill(secure, users=["app"], login_host=host, sslmode=sslmode, ssl_root_cert=root)
    assert result["failed"]
    assert part in result["msg"]
    assert "lives" in result["msg"]
