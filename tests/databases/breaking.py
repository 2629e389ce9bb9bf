# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line to the server that breaks at one statement: before it arrives, while it is under way, or before its answer comes."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster import HOST, Cluster

Break = Callable[[socket.socket, socket.socket, bytes], None]
# What the server says when it is through with a statement outside of a transaction.
READY = b"Z\x00\x00\x00\x05I"


def not_applied(_client: socket.socket, _server: socket.socket, _statement: bytes) -> None:
    """It gets lost on the way."""


def applied(_client: socket.socket, server: socket.socket, statement: bytes) -> None:
    """The server has answered, and nobody hears it."""
    server.sendall(statement)
    while READY not in server.recv(65536):
        pass


def under_way(client: socket.socket, server: socket.socket, statement: bytes) -> None:
    """The server goes on with it when its client has heard nothing and is gone."""
    server.sendall(statement)
    client.shutdown(socket.SHUT_RDWR)
    applied(client, server, b"")


@contextmanager
def breaking(cluster: Cluster, breaks: dict[bytes, list[Break]]) -> Iterator[int]:
    """The port of a line on which statements with these words break, in these ways one after the other; the rest passes."""
    left = {words: list(ways) for words, ways in breaks.items()}

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection((HOST, cluster.port)) as server, contextlib.suppress(OSError):
            while True:
                for end in select.select([client, server], [], [])[0]:
                    said = end.recv(65536)
                    if not said:
                        return
                    ways = next((left[words] for words in left if end is client and words in said), None)
                    if ways:
                        ways.pop(0)(client, server, said)
                        return
                    (server if end is client else client).sendall(said)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = listener.accept()
                threading.Thread(target=relay, args=(client,), daemon=True).start()

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    assert not any(left.values()), "it never came so far"
