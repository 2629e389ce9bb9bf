# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a name answers, asked of the servers that matter instead of whatever this machine has cached."""

from __future__ import annotations

import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    HAS_DNSPYTHON = True
except ImportError:
    HAS_DNSPYTHON = False

from .errors import Stop, Unreachable

# Seconds that one server has for its answer.
TIMEOUT = 2
PORT = 53


@dataclass(frozen=True)
class Answer:
    """The values of one question; `ttl` in seconds is exact only where `authoritative`, else what a cache has left."""

    values: frozenset
    ttl: int = 0
    authoritative: bool = False


def plain(name):
    """A name or address as it is compared: short form of addresses, lower case, no final dot, `*` as itself."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().rstrip(".").replace("\\052", "*")


def parse_server(server):
    """(host, port) of `host`, `host:port`, `::1` or `[::1]:port`; raises Stop on anything else."""
    host, separator, port = server.rpartition(":")
    if not separator or (":" in host and not host.endswith("]")):
        host, port = server, PORT
    host = host.strip("[]")
    if not host or not str(port).isdigit() or not 0 < int(port) < 65536:
        raise Stop(f"{server} is not a DNS server: write host or host:port")
    return host, int(port)


def ask(server, name, record_type="A"):
    """One question to one server.

    Args:
        server: as `parse_server` takes it; None asks the resolver of this machine.
        name, record_type: the question.

    Returns:
        Answer; without values where the name or the type does not exist.

    Raises:
        Unreachable: no answer within TIMEOUT, or the server does not answer for this name (REFUSED, SERVFAIL).
    """
    if server is None:
        return _ask_resolver(name, record_type)
    host, port = parse_server(server)
    question = dns.message.make_query(name, record_type)
    try:
        answer, _tcp = dns.query.udp_with_fallback(question, _address(host, port), timeout=TIMEOUT, port=port)
    except (dns.exception.DNSException, OSError) as error:
        raise Unreachable(f"DNS server {server} gave no answer ({type(error).__name__})") from error
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Unreachable(f"DNS server {server} does not answer for {name} ({dns.rcode.to_text(answer.rcode())})")
    found = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.from_text(record_type)]
    return Answer(
        frozenset(plain(value.to_text()) for rrset in found for value in rrset),
        min((rrset.ttl for rrset in found), default=0),
        bool(answer.flags & dns.flags.AA),
    )


def _ask_resolver(name, record_type):
    import dns.resolver  # twice as slow to import as all the rest, and seldom asked

    try:
        found = dns.resolver.resolve(name, record_type, lifetime=2 * TIMEOUT).rrset
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return Answer(frozenset())
    except (dns.exception.DNSException, OSError) as error:
        raise Unreachable(f"the resolver of this machine gave no answer for {name} ({type(error).__name__})") from error
    return Answer(frozenset(plain(value.to_text()) for value in found), found.ttl)


def _address(host, port):
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][4][0]


def ask_all(servers, name, record_type="A"):
    """The same question to all servers side by side; returns [Answer] of those that answered.

    Raises:
        Unreachable: none of them answered.
    """

    def one(server):
        try:
            return ask(server, name, record_type)
        except Unreachable as error:
            return error

    with ThreadPoolExecutor(max_workers=max(len(servers), 1)) as pool:
        answers = list(pool.map(one, servers))
    heard = [answer for answer in answers if isinstance(answer, Answer)]
    if not heard:
        raise answers[0] if answers else Unreachable(f"there is no DNS server to ask for {name}")
    return heard


def resolve(name, servers, record_type="A"):
    """The values of `name` from the first of `servers` (None: this machine's resolver) that has any.

    Raises:
        Unreachable: none has any, and at least one did not answer.
    """
    problem = None
    for server in servers:
        try:
            values = ask(server, name, record_type).values
        except Unreachable as error:
            problem = problem or error
        else:
            if values:
                return values
    if problem:
        raise problem
    return frozenset()
