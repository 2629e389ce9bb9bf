# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports: two sandboxes on one machine never want the same, also while nobody listens on it."""

from __future__ import annotations

import socket
import subprocess
import sys

from sandbox import addresses

# Takes every port that it can get, says them, and keeps them until its input ends.
_TAKE_ALL = """
import sys
from sandbox.addresses import free_port
ports = []
try:
    while True:
        ports.append(free_port("127.0.0.1", keep=True))
except OSError:
    print(*ports, flush=True)
sys.stdin.read()
"""


def test_processes_share_no_port():
    processes = [
        subprocess.Popen([sys.executable, "-c", _TAKE_ALL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        taken = [set(map(int, each.stdout.readline().split())) for each in processes]
    finally:
        for each in processes:
            each.communicate()
    assert all(len(ports) > 400 for ports in taken)
    assert len(set.union(*taken)) == sum(map(len, taken))


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        free = other.getsockname()[1]
        other.close()
        monkeypatch.setattr(addresses, "_share", lambda: [server.getsockname()[1], free])
        assert {addresses.free_port("127.0.0.1") for _ in range(10)} == {free}
