# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP as verbs speak it: to the address that chosen name servers give, within a deadline, and never silently elsewhere.

The standard library speaks it, because it lets a connection go to one address under another name, so that the Host
header and the TLS server name stay those of the URL, and because a deadline can then cover a whole answer: other clients
begin to count anew with each packet. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from . import dns, read_only
from .errors import Unreachable

# A request with one of these changes nothing. https://www.rfc-editor.org/rfc/rfc9110#name-safe-methods
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Bytes of an answer that are looked at.
LONGEST_ANSWER = 256 * 1024


@dataclass(frozen=True)
class Seen:
    """What one request met: `status` is None where there was no answer, and `text` then says why.

    `was_sent` is False where it is certain that nobody received the request. The names of `headers` are in small letters.
    """

    status: int | None
    text: str
    seconds: float = 0.0
    was_sent: bool = True
    headers: dict = field(default_factory=dict, compare=False)


def request(message, dns_servers=(), root_cert=None):
    """Send one request once, on a connection of its own; returns Seen, whatever happens.

    Args:
        message: {url, method, headers, json, secret_json, body, within}; within is in seconds, for all of it.
        dns_servers: who is asked for the host of the URL; empty for the resolver of this machine.
        root_cert: file with the certificate authorities to trust; None for those of this machine.
    """
    with contextlib.closing(Line(dns_servers, root_cert)) as line:
        return line.request(message)


class Line:
    """A connection that is kept for the next request to the same host."""

    def __init__(self, dns_servers=(), root_cert=None):
        self._dns_servers, self._root_cert, self._connection = dns_servers, root_cert, None

    def request(self, message):
        """Send one request; returns Seen, whatever happens."""
        if message["method"] not in SAFE_METHODS:
            read_only.refuse(f"{message['method']} {urlsplit(message['url']).hostname}")
        started = time.monotonic()
        try:
            status, text, headers = self._send(message, started + message["within"])
            return Seen(status, text, round(time.monotonic() - started, 3), headers=headers)
        except ssl.SSLError as error:
            text = f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or error}"
        except socket.gaierror as error:
            text = f"the name does not resolve ({error.strerror})"
        except TimeoutError:
            text = f"no answer within {message['within']:g} s"
        except (OSError, http.client.HTTPException) as error:
            text = f"no answer ({getattr(error, 'strerror', None) or type(error).__name__})"
        except ValueError as error:
            text = f"this request cannot be sent: {error}"
        except Unreachable as error:
            text = str(error)
        seen = Seen(None, text, round(time.monotonic() - started, 3), was_sent=self._connection is not None)
        self.close()
        return seen

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, message, deadline):
        if self._connection is not None:
            try:
                return self._exchange(message, deadline)
            except ConnectionError:
                # The other side may close a kept connection at any moment, which is no failure of it.
                # https://www.rfc-editor.org/rfc/rfc9112#name-retrying-requests
                if message["method"] not in SAFE_METHODS:
                    raise
                self.close()
        self._connection = self._connect(urlsplit(message["url"]), deadline)
        return self._exchange(message, deadline)

    def _connect(self, url, deadline):
        """An HTTPConnection whose socket is ours, to an address of ours; it only speaks over it."""
        port = port_of(url)
        connection = http.client.HTTPConnection(url.hostname, port)
        connection.auto_open = False
        connection.sock = connect(url.hostname, port, self._dns_servers, deadline)
        if url.scheme == "https":
            connection.sock = secured(connection.sock, trust(self._root_cert), url.hostname, deadline)
        return connection

    def _exchange(self, message, deadline):
        url, sock = urlsplit(message["url"]), self._connection.sock
        body, headers = _body(message)
        host = {} if any(name.lower() == "host" for name in headers) else {"Host": url.netloc.rpartition("@")[2]}
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        sock.settimeout(left(deadline))
        self._connection.request(message["method"], path, body=body, headers={**host, **headers})
        sock.settimeout(left(deadline))
        response = self._connection.getresponse()
        content, is_whole = b"", False
        while not is_whole and len(content) < LONGEST_ANSWER:
            sock.settimeout(left(deadline))
            chunk = response.read1(16384)
            content, is_whole = content + chunk, not chunk
        if is_whole and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        must_close = response.will_close or not is_whole
        response.close()
        if must_close:
            self.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, content.decode("utf-8", "replace"), headers


def port_of(url):
    """The port of a split URL."""
    return url.port or (443 if url.scheme == "https" else 80)


def connect(host, port, dns_servers, deadline):
    """A connected socket.

    Args:
        dns_servers: who is asked for the host; empty for the resolver of this machine.
        deadline: of `time.monotonic()`.

    Raises:
        OSError: as the last of its addresses says: socket.gaierror, ConnectionRefusedError, TimeoutError...
        Unreachable: the name servers have no address, or do not answer.
    """
    addresses = [host]
    if dns_servers and not _is_address(host):
        addresses = sorted(dns.resolve(host, dns_servers) or dns.resolve(host, dns_servers, "AAAA"))
        if not addresses:
            raise Unreachable(f"{', '.join(dns_servers)} has no address of {host}")
    problem = None
    for address in addresses:
        try:
            plain = socket.create_connection((address, port), timeout=left(deadline))
        except OSError as error:
            problem = error
            continue
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain
    raise problem


def secured(plain, context, host, deadline):
    """The socket after the TLS handshake; closes `plain` where that fails. Raises ssl.SSLError, OSError."""
    try:
        plain.settimeout(left(deadline))
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


@functools.cache
def trust(root_cert=None, check_hostname=True):
    """The authorities to trust: reading them takes longer than a request."""
    context = ssl.create_default_context(cafile=root_cert)
    context.check_hostname = check_hostname
    return context


def _is_address(host):
    return ":" in host or re.fullmatch(r"[\d.]+", host) is not None


def left(deadline):
    """Seconds until `deadline`, of `time.monotonic()`; raises TimeoutError where there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _body(message):
    """(bytes or None, headers)"""
    headers = {name: str(value) for name, value in (message["headers"] or {}).items()}
    if message["body"] is not None:
        return message["body"].encode(), headers
    if message["json"] is None and message["secret_json"] is None:
        return None, headers
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return json.dumps({**(message["json"] or {}), **(message["secret_json"] or {})}).encode(), headers
