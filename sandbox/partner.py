# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody else's API, which the application asks over HTTPS: a real TLS server, with a certificate of the sandbox's own authority.

    GET  /status     {"status": "ok"}
    POST /v1/checks  {"accepted": true}

Its certificate can expire, it can answer 429 to all but a few, and it can be down.
https://www.rfc-editor.org/rfc/rfc6585#section-4
"""

from __future__ import annotations

import ipaddress
import json
import random
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from .addresses import Addresses
from .faults import Fault
from .kubernetes import certificates
from .listener import Handler, Server

if TYPE_CHECKING:
    from .world import World

PORT = 8443
NAME = "partner.regami.test"
RETRY_AFTER = 30
# Of a real API some answers are late: one in so many takes up to so long, in seconds.
USUAL_SECONDS, LATE_ONE_IN, LATE_SECONDS = 0.015, 25, 0.25

_addresses = Addresses(96)
_api: Api | None = None


class _Handler(Handler):
    server: _Server

    def setup(self) -> None:
        # In the thread of the connection: a client that says nothing must not keep others out.
        self.request.settimeout(5)
        self.request = self.server.api.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/status" else 404, {"status": "ok"})

    def do_POST(self) -> None:
        self.body()
        if not self.server.api.admits():
            return self._answer(429, {"error": "rate limit exceeded"}, {"Retry-After": str(RETRY_AFTER)})
        time.sleep(random.uniform(0.05, LATE_SECONDS) if random.randrange(LATE_ONE_IN) == 0 else USUAL_SECONDS)
        return self._answer(200, {"accepted": True})

    def _answer(self, status: int, answer: dict, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(Server):
    api: Api


class Api:
    """The partner's server; `folder` holds its authority's certificate, ca.pem, which its clients trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = _addresses.free([PORT])
        self._key, self._root = certificates.authority("regami partner authority")
        self.context: ssl.SSLContext
        self._one_in, self._asked, self._lock = 1, 0, threading.Lock()
        self._server: _Server | None = None
        self.renew()
        (folder / "ca.pem").write_bytes(certificates.pem(self._root))

    @property
    def url(self) -> str:
        return f"https://{self.address}:{PORT}"

    def renew(self, ended: timedelta | None = None) -> None:
        """Show a new certificate from now on: a good one, or one that has `ended` so long ago."""
        names = [x509.IPAddress(ipaddress.ip_address(self.address)), x509.DNSName(NAME)]
        until = None if ended is None else datetime.now(UTC) - ended
        key, certificate = certificates.signed(NAME, names, self._key, self._root, until)
        self.context = certificates.server_context(self.folder / "server.pem", key, certificate)

    def throttle(self, one_in: int) -> None:
        """Admit one of so many requests."""
        self._one_in = one_in

    def admits(self) -> bool:
        with self._lock:
            self._asked += 1
            return self._asked % self._one_in == 0

    def start(self) -> None:
        self._server = _Server((self.address, PORT), _Handler)
        self._server.api = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="partner", daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.server_close()
            self._server = None


def _running() -> Api:
    assert _api is not None
    return _api


def seed(world: World) -> None:
    global _api
    _api = Api(world.home / "partner")
    world.state["partner"] = {"url": _api.url, "ca_file": str(_api.folder / "ca.pem")}


def start(world: World) -> None:
    _running().start()


def stop(world: World) -> None:
    if _api:
        _api.stop()


def status(world: World) -> list[dict]:
    api = _running()
    return [
        {"region": "", "kind": "partner", "name": NAME, "state": "up" if api._server else "down", "detail": api.url}
    ]


def _up(world: World) -> None:
    if _running()._server is None:
        _running().start()


faults = {
    "partner-certificate-expired": Fault(
        "the certificate of the partner's API has expired (--hours ago, default 1)",
        lambda world, hours="1": _running().renew(timedelta(hours=float(hours))),
        lambda world: _running().renew(),
        (),
        ("hours",),
    ),
    "partner-throttles": Fault(
        "the partner's API answers 429 to all but one of ONE_IN requests",
        lambda world, one_in: _running().throttle(max(1, int(one_in))),
        lambda world: _running().throttle(1),
        ("one_in",),
    ),
    "partner-down": Fault("nothing listens where the partner's API was", lambda world: _running().stop(), _up),
}
