# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Questions to real DNS servers on the loopback interface."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import dns as asking
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable


class Server(threading.Thread):
    """Answers `records` {(name, type): (ttl, *values)} with authority over UDP, or `rcode` for every question."""

    def __init__(self, records: dict, rcode: int = dns.rcode.NOERROR) -> None:
        super().__init__(daemon=True)
        self.records, self.rcode = records, rcode
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                packet, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            question = dns.message.from_wire(packet)
            answer = dns.message.make_response(question)
            answer.set_rcode(self.rcode)
            answer.flags |= dns.flags.AA
            name, kind = question.question[0].name, dns.rdatatype.to_text(question.question[0].rdtype)
            if found := self.records.get((name.to_text(), kind)):
                answer.answer.append(dns.rrset.from_text(name, found[0], "IN", kind, *found[1:]))
            self.socket.sendto(answer.to_wire(), peer)


@pytest.fixture
def serve() -> Iterator[object]:
    servers = []

    def start(records: dict, rcode: int = dns.rcode.NOERROR) -> str:
        servers.append(Server(records, rcode))
        servers[-1].start()
        return servers[-1].address

    yield start
    for server in servers:
        server.socket.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes questions and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unread:
        unread.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unread.getsockname()[1]}"


EAST = {("api.regami.test.", "A"): (7, "192.0.2.10", "192.0.2.11")}
WEST = {("api.regami.test.", "A"): (7, "198.51.100.20")}


@pytest.mark.parametrize(
    ("server", "parts"),
    [
        ("ns-1.example.com", ("ns-1.example.com", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
    ],
)
def test_a_server_is_a_host_with_or_without_a_port(server: str, parts: tuple) -> None:
    assert asking.parse_server(server) == parts


@pytest.mark.parametrize("server", ["", ":53", "host:", "host:dns", "host:0", "host:99999"])
def test_anything_else_is_no_server(server: str) -> None:
    with pytest.raises(Stop, match="is not a DNS server: write host or host:port"):
        asking.parse_server(server)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("API.Regami.test.", "api.regami.test"),
        ("\\052.regami.test.", "*.regami.test"),
        ("2001:DB8:0::1", "2001:db8::1"),
    ],
)
def test_names_and_addresses_are_compared_in_one_form(name: str, plain: str) -> None:
    assert asking.plain(name) == plain


def test_an_authority_tells_values_and_full_ttl(serve) -> None:
    answer = asking.ask(serve(EAST), "api.regami.test")
    assert answer == asking.Answer(frozenset({"192.0.2.10", "192.0.2.11"}), 7, True)


def test_a_name_that_is_not_there_has_no_values(serve) -> None:
    assert asking.ask(serve(EAST, dns.rcode.NXDOMAIN), "other.regami.test").values == frozenset()
    assert asking.ask(serve(EAST), "api.regami.test", "AAAA").values == frozenset()


def test_a_server_that_refuses_is_no_answer(serve) -> None:
    with pytest.raises(Unreachable, match=r"does not answer for api\.regami\.test \(REFUSED\)"):
        asking.ask(serve(EAST, dns.rcode.REFUSED), "api.regami.test")


def test_silence_ends_after_the_time_out(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT", 0.2)
    with pytest.raises(Unreachable, match=f"DNS server {silent} gave no answer"):
        asking.ask(silent, "api.regami.test")


def test_all_servers_are_asked_and_the_silent_ones_left_out(
    serve, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "TIMEOUT", 0.2)
    answers = asking.ask_all([silent, serve(EAST), serve(WEST)], "api.regami.test")
    assert [sorted(answer.values)[0] for answer in answers] == ["192.0.2.10", "198.51.100.20"]
    with pytest.raises(Unreachable):
        asking.ask_all([silent], "api.regami.test")


def test_the_first_server_with_values_resolves_a_name(serve) -> None:
    assert asking.resolve("api.regami.test", [serve({}), serve(WEST)]) == {"198.51.100.20"}
    assert asking.resolve("api.regami.test", [serve({})]) == frozenset()
    with pytest.raises(Unreachable):
        asking.resolve("api.regami.test", [serve({}), serve({}, dns.rcode.SERVFAIL)])
