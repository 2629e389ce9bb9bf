# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking a service what a user would ask, and judging the answer.

The standard library speaks HTTP here because it lets a connection go to one address under another name, so that the
Host header and the TLS server name stay those of the URL.
"""

from __future__ import annotations

import functools
import http.client
import json
import re
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from . import dns
from .aws import code_of, explain
from .errors import Stop, Unreachable
from .masking import masked, snippet

# A request with one of these changes nothing. https://www.rfc-editor.org/rfc/rfc9110#name-safe-methods
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Bytes of an answer that are looked at.
LONGEST_ANSWER = 256 * 1024
LOG_PATTERN = "?ERROR ?Exception"


@dataclass(frozen=True)
class Seen:
    """What one request met: `status` is None where there was no answer, and `text` then says why."""

    status: int | None
    text: str
    seconds: float = 0.0


def request(check, dns_servers=()):
    """Send one check once; returns Seen, whatever happens.

    Args:
        check: {url, method, headers, json, secret_json, body, within} as the module takes it.
        dns_servers: who is asked for the host of the URL; empty for the resolver of this machine.
    """
    started = time.monotonic()
    try:
        status, text = _exchange(check, dns_servers, started + check["within"])
    except ssl.SSLError as error:
        status, text = None, f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or error}"
    except socket.gaierror as error:
        status, text = None, f"the name does not resolve ({error.strerror})"
    except TimeoutError:
        status, text = None, f"no answer within {check['within']:g} s"
    except (OSError, http.client.HTTPException) as error:
        status, text = None, f"no answer ({getattr(error, 'strerror', None) or type(error).__name__})"
    except ValueError as error:
        status, text = None, f"this request cannot be sent: {error}"
    except Unreachable as error:
        status, text = None, str(error)
    return Seen(status, text, round(time.monotonic() - started, 3))


def _exchange(check, dns_servers, deadline):
    url = urlsplit(check["url"])
    port = url.port or (443 if url.scheme == "https" else 80)
    connection = http.client.HTTPConnection(url.hostname, port)
    # The socket is ours, to an address of ours; the connection only speaks over it.
    connection.sock = sock = _connect(url, port, dns_servers, deadline)
    try:
        body, headers = _body(check)
        host = {} if any(name.lower() == "host" for name in headers) else {"Host": url.netloc.rpartition("@")[2]}
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request(check["method"], path, body=body, headers={**host, **headers})
        sock.settimeout(_left(deadline))
        response = connection.getresponse()
        content = b""
        while len(content) < LONGEST_ANSWER:
            sock.settimeout(_left(deadline))
            chunk = response.read1(16384)
            if not chunk:
                break
            content += chunk
        return response.status, content.decode("utf-8", "replace")
    finally:
        connection.close()


def _connect(url, port, dns_servers, deadline):
    addresses = [url.hostname]
    if dns_servers and not _is_address(url.hostname):
        addresses = sorted(dns.resolve(url.hostname, dns_servers) or dns.resolve(url.hostname, dns_servers, "AAAA"))
        if not addresses:
            raise Unreachable(f"{', '.join(dns_servers)} has no address of {url.hostname}")
    problem = None
    for address in addresses:
        try:
            plain = socket.create_connection((address, port), timeout=_left(deadline))
        except OSError as error:
            problem = error
            continue
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme != "https":
            return plain
        try:
            return _trust().wrap_socket(plain, server_hostname=url.hostname)
        except BaseException:
            plain.close()
            raise
    raise problem


@functools.cache
def _trust():
    """The authorities to trust: reading them takes longer than a request."""
    return ssl.create_default_context()


def _is_address(host):
    return ":" in host or re.fullmatch(r"[\d.]+", host) is not None


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _body(check):
    """(bytes or None, headers)"""
    headers = {name: str(value) for name, value in (check["headers"] or {}).items()}
    if check["body"] is not None:
        return check["body"].encode(), headers
    if check["json"] is None and check["secret_json"] is None:
        return None, headers
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return json.dumps({**(check["json"] or {}), **(check["secret_json"] or {})}).encode(), headers


def fault(check, seen):
    """Pure: what is wrong with the answer `seen` to `check`, for people; None where it is as expected."""
    if seen.status is None:
        return seen.text or "no answer"
    if seen.status not in check["expect_status"]:
        return f"answered {seen.status}: {snippet(seen.text)}" if seen.text.strip() else f"answered {seen.status}"
    if check["expect_json"] is not None:
        try:
            answer = json.loads(seen.text)
        except ValueError:
            return f"answered {seen.status} without JSON: {snippet(seen.text)}"
        if missing := _missing(check["expect_json"], answer):
            return f"answered {seen.status}, but {missing}"
    return None


def _missing(expected, found, path=""):
    """Pure: the first part of `expected` that `found` has not, as text; a list must be equal, a dict may have more."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            at = f"{path}.{name}" if path else str(name)
            if name not in found:
                return f"{at} is missing"
            if missing := _missing(value, found[name], at):
                return missing
        return None
    if expected == found and isinstance(expected, bool) == isinstance(found, bool):
        return None
    name = path.rpartition(".")[2]
    shown = snippet(json.dumps(masked({name: found})[name]), 80)
    return f"{path or 'the answer'} is {shown} instead of {json.dumps(masked({name: expected})[name])}"


@dataclass
class Trial:
    """One check over several looks."""

    check: dict
    dns_servers: tuple = ()
    tries: int = 0
    passed: int = 0
    seconds: float = 0.0
    status: int | None = None
    problem: str | None = "not asked yet"

    def look(self):
        """Ask once more and remember how it went."""
        seen = request(self.check, self.dns_servers)
        self.tries += 1
        self.status, self.seconds, self.problem = seen.status, seen.seconds, fault(self.check, seen)
        self.passed = 0 if self.problem else self.passed + 1

    def is_over(self, passes):
        """Whether it passed often enough in a row, or may not be tried again."""
        return self.passed >= passes or bool(self.check["attempts"] and self.tries >= self.check["attempts"])

    def verdict(self, passes):
        """The entry of this check in `verification`."""
        problem = self.problem
        if problem is None and self.passed < passes:
            problem = f"passed {self.passed} times in a row, {passes} needed"
        return {
            "name": self.check["name"],
            "ok": problem is None,
            "status": self.status,
            "seconds": self.seconds,
            "seen": problem or f"answered {self.status}" + (f" at try {self.tries}" if self.tries > passes else ""),
        }


def skipped(check):
    """The entry of a check that check mode leaves out."""
    return {
        "name": check["name"],
        "ok": None,
        "status": None,
        "seconds": 0.0,
        "seen": f"not asked in check mode: {check['method']} may change something",
    }


def parse_time(since):
    """Seconds since the epoch of a number or an ISO 8601 time; without a zone it is UTC. Raises Stop on anything else."""
    try:
        return float(since)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise Stop(
            f"since: {since} is no time: give seconds since the epoch or ISO 8601 (2026-01-31T03:15:00Z)"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def count_errors(aws, group, since, enough):
    """(number, first lines) of the ERROR lines in a log group; stops counting beyond `enough`.

    Args:
        group: {name, region}.
        since: seconds since the epoch.

    Raises:
        Stop: the log cannot be read, in words.
    """
    count, lines, page = 0, [], {}
    while count <= enough:
        try:
            found = aws.read(
                "logs",
                "filter_log_events",
                region=group["region"],
                logGroupName=group["name"],
                startTime=int(since * 1000),
                filterPattern=LOG_PATTERN,
                **page,
            )
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                raise Stop(f"there is no log group {group['name']} in {group['region']}") from error
            if code_of(error):
                raise Stop(explain(error)) from error
            raise
        count += len(found["events"])
        lines += [event["message"] for event in found["events"][:3]]
        if not found.get("nextToken"):
            break
        page = {"nextToken": found["nextToken"]}
    return count, lines[:3]


def judge_log(group, count, lines, allowed):
    """Pure: (ok, seen) of a log group."""
    many = f"{count} ERROR lines, {allowed} allowed"
    return (True, many) if count <= allowed else (False, f"{many}: {snippet(lines[0])}")
