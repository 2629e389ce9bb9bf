# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loopback addresses for what listens on a port that is given, pods and instances, and ports for all else."""

from __future__ import annotations

import itertools
import random
import socket
from functools import cache

# Below those of connections going out (net.ipv4.ip_local_port_range), one of which might have taken a port between its choice
# and its use.
PORTS = range(15_000, 32_000)

# A sandbox has so many for itself. Nobody listens on some of them for a second, during a reset or while a server is down, and
# another sandbox that took one then would keep the first from coming back.
SHARE = 500


class Addresses:
    """Those of 127.`first`.0.0 and the 15 networks after it; where among them is left to chance, since another sandbox may
    run beside.
    """

    def __init__(self, first: int) -> None:
        self._first, self._numbers = first, itertools.count(random.randrange(1 << 20))

    def free(self, ports: list[int]) -> str:
        """One on which nobody listens on any of `ports`."""
        while True:
            number = next(self._numbers)
            address = f"127.{self._first + (number >> 16) % 16}.{(number >> 8) % 256}.{number % 254 + 1}"
            if all(_is_free(address, port) for port in ports):
                return address


def free_port(*hosts: str, keep: bool = False) -> int:
    """One of this process's share on which nobody listens on any of `hosts`, for TCP or UDP. With `keep` it is never given again.

    Raises OSError where there is none.
    """
    share = _share()
    for port in random.sample(share, len(share)):
        if all(_is_free(host, port, kind) for host in hosts for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            if keep:
                share.remove(port)
            return port
    raise OSError(f"no port is free on {', '.join(hosts)}")


@cache
def _share() -> list[int]:
    """The ports that are this process's as long as it lives.

    An abstract socket (unix(7)) marks them: it leaves no file, ends with the process, and is seen as far as ports are, in the
    network namespace. Raises OSError where all are marked.
    """
    shares = [PORTS[first : first + SHARE] for first in range(0, len(PORTS), SHARE)]
    for ports in random.sample(shares, len(shares)):
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0sre.runbooks sandbox {ports.start}")
        except OSError:
            mark.close()
            continue
        _marks.append(mark)
        return list(ports)
    raise OSError(f"{len(shares)} sandboxes run here and have all ports: end one of them (python -m sandbox down)")


_marks: list[socket.socket] = []


def _is_free(address: str, port: int, kind: int = socket.SOCK_STREAM) -> bool:
    with socket.socket(type=kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return True  # a port below 1024: the process will say so itself
        except OSError:
            return False
    return True
