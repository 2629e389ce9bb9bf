# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of a container, carried out for real.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

# Where a node's own connections to its pods come from, which no policy of the network cuts.
NODE_ADDRESS = "127.0.0.8"

# argv, seconds -> exit status; runs a command with the container's environment.
Execute = Callable[[list[str], float], int]


def port_of(container: dict, port: str | int, default: int) -> int:
    """A number, or the number of the container's port of that name."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    return next((each["containerPort"] for each in container.get("ports") or [] if each.get("name") == port), default)


def once(probe: dict, container: dict, address: str, execute: Execute) -> str | None:
    """Why one probe failed, as the kubelet words it; None when it passed."""
    seconds = float(probe.get("timeoutSeconds", 1))
    if found := probe.get("httpGet"):
        return http_get(found, container, address, seconds)
    if found := probe.get("tcpSocket"):
        port = port_of(container, found["port"], 0)
        with socket.socket() as connection:
            connection.settimeout(seconds)
            connection.bind((NODE_ADDRESS, 0))
            try:
                connection.connect((found.get("host") or address, port))
            except OSError as error:
                return f"dial tcp {address}:{port}: {_reason(error)}"
        return None
    if found := probe.get("exec"):
        try:
            status = execute(found["command"], seconds)
        except subprocess.TimeoutExpired:
            return f"command timed out after {seconds:g}s"
        return None if status == 0 else f"command exited with status {status}"
    return None


def http_get(action: dict, container: dict, address: str, seconds: float) -> str | None:
    host, port = action.get("host") or address, port_of(container, action["port"], 0)
    url = f"http://{host}:{port}{action.get('path', '/')}"
    connection = http.client.HTTPConnection(host, port, timeout=seconds, source_address=(NODE_ADDRESS, 0))
    headers = {"User-Agent": "kube-probe/1.33", "Connection": "close"}
    headers |= {each["name"]: each["value"] for each in action.get("httpHeaders") or []}
    try:
        connection.request("GET", action.get("path", "/"), headers=headers)
        status = connection.getresponse().status
    except TimeoutError:
        return f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    except (OSError, http.client.HTTPException) as error:
        return f'Get "{url}": dial tcp {host}:{port}: {_reason(error)}'
    finally:
        connection.close()
    return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"


def _reason(error: Exception) -> str:
    return f"connect: {error.strerror.lower()}" if isinstance(error, OSError) and error.strerror else str(error)


@dataclass
class Prober:
    """One probe of one run of a container. `passing` is None until the thresholds say something."""

    probe: dict
    started: float  # monotonic, of the container
    longest_period: float  # seconds; the sandbox's time is short, as it is for load balancers
    passing: bool | None = None
    message: str = ""
    _passed: int = 0
    _failed: int = 0
    _next: float = 0.0

    def __post_init__(self) -> None:
        self._next = self.started + float(self.probe.get("initialDelaySeconds", 0))

    def look(self, container: dict, address: str, execute: Execute) -> bool:
        """Probe when it is time to. Whether that was a failure, which is worth an event."""
        if time.monotonic() < self._next:
            return False
        failure = once(self.probe, container, address, execute)
        self._next = time.monotonic() + min(float(self.probe["periodSeconds"]), self.longest_period)
        if failure is None:
            self._passed, self._failed = self._passed + 1, 0
            if self._passed >= self.probe["successThreshold"]:
                self.passing = True
            return False
        self._passed, self._failed, self.message = 0, self._failed + 1, failure
        if self._failed >= self.probe["failureThreshold"]:
            self.passing = False
        return True
