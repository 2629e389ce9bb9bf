# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A name server over UDP and TCP, authoritative for the zones it is given. No recursion, no caching."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from .routing import Answer, canonical

# (name, record type) -> the answers, whether the name exists and the zone's SOA; None when it is not ours.
Lookup = Callable[[str, str], tuple[list[Answer], bool, Answer | None] | None]


class NameServer:
    """Serves in threads of its own until closed. Raises OSError when the port is taken."""

    def __init__(self, host: str, port: int, lookup: Lookup) -> None:
        self._servers = [_Udp((host, port), _UdpHandler), _Tcp((host, port), _TcpHandler)]
        for server in self._servers:
            server.lookup = lookup
            threading.Thread(target=server.serve_forever, args=(0.05,), name="name server", daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Udp(socketserver.UDPServer):
    allow_reuse_address = False
    lookup: Lookup


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    lookup: Lookup


class _UdpHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, socket = self.request
        if answer := respond(data, self.server.lookup, 1232):
            socket.sendto(answer, self.client_address)


class _TcpHandler(socketserver.StreamRequestHandler):
    timeout = 10

    def handle(self) -> None:
        try:
            while len(prefix := self.rfile.read(2)) == 2:
                if not (answer := respond(self.rfile.read(struct.unpack("!H", prefix)[0]), self.server.lookup, 65535)):
                    return
                self.wfile.write(struct.pack("!H", len(answer)) + answer)
        except OSError:
            return


def respond(wire: bytes, lookup: Lookup, size: int) -> bytes | None:
    """The answer to one query; None for what is no query. Cut to `size` bytes, with the flag that says so."""
    try:
        query = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return None
    if query.flags & dns.flags.QR:
        return None
    answer = dns.message.make_response(query)
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        answer.set_rcode(dns.rcode.NOTIMP)
        return answer.to_wire()
    question = query.question[0]
    found = lookup(canonical(question.name.to_text()), dns.rdatatype.to_text(question.rdtype))
    if found is None:
        answer.set_rcode(dns.rcode.REFUSED)
        return answer.to_wire()
    records, exists, soa = found
    answer.flags |= dns.flags.AA
    answer.answer = [_rrset(record) for record in records]
    if not records:
        answer.set_rcode(dns.rcode.NOERROR if exists else dns.rcode.NXDOMAIN)
        if soa:
            answer.authority.append(_rrset(soa))
    try:
        return answer.to_wire(max_size=size)
    except dns.exception.TooBig:
        answer.answer.clear()
        answer.flags |= dns.flags.TC
        return answer.to_wire()


def _rrset(record: Answer) -> dns.rrset.RRset:
    return dns.rrset.from_text(record.name, record.ttl, dns.rdataclass.IN, record.kind, *record.values)
