# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loopback addresses for what listens on a port that is given, pods and instances, and ports for all else."""

from __future__ import annotations

import itertools
import random
import socket

# Below those of connections going out (net.ipv4.ip_local_port_range), one of which might have taken a port between its choice
# and its use; by chance, since another sandbox may choose at the same moment.
PORTS = range(15_000, 32_000)


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


def free_port(*hosts: str) -> int:
    """One on which nobody listens on any of `hosts`, for TCP or UDP. Raises OSError where there is none."""
    for port in random.SystemRandom().sample(PORTS, 1000):
        if all(_is_free(host, port, kind) for host in hosts for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            return port
    raise OSError(f"no port is free on {', '.join(hosts)}")


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
