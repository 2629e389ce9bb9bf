# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance with a small file system of its own, in which scripts really run.

It needs root, or user namespaces (https://man7.org/linux/man-pages/man7/user_namespaces.7.html); where there is neither,
its commands fail and say so. Nothing of it can reach the files of the machine that it runs on, which are read-only there.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..patience import PATIENCE
from .agent import NO_ROOM

if TYPE_CHECKING:
    from ..processes import Process
    from ..world import World

MEGABYTES, INODES = 16, 1000
FIRST_DAY = (Path(__file__).resolve().parent / "first_day.sh").read_text()


@functools.cache
def namespaces() -> tuple[str, ...] | None:
    """How to begin a world of its own; None where this machine does not allow it."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = ("unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    try:
        tried = subprocess.run(
            [*command, "mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=9", "none", "/tmp"],
            capture_output=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return command if tried.returncode == 0 else None


def alone() -> tuple[str, ...]:
    """How to begin a program that mounts what nobody else sees. Raises OSError where this machine does not allow it."""
    begin = namespaces()
    if begin is None:
        raise OSError(errno.EPERM, "this machine allows no file systems of its own", "unshare")
    return tuple(each for each in begin if each not in ("--pid", "--fork", "--kill-child", "--mount-proc"))


class Machine:
    """One instance. `run` may be called from several threads."""

    def __init__(self, world: World, instance_id: str, region: str) -> None:
        self._world, self.id, self.region = world, instance_id, region
        self._socket = f"sre-sandbox-{os.getpid()}-{instance_id}"
        self._process: Process | None = None

    def start(self) -> None:
        """Boot, with the files of the first day. Raises RuntimeError where it does not come up."""
        begin = namespaces()
        if begin is None:
            raise RuntimeError("this machine allows no file systems of its own: run as root, or allow user namespaces")
        folder = self._world.home / "ssm" / self.id
        folder.mkdir(parents=True, exist_ok=True)
        arguments = (self._socket, str(folder), str(MEGABYTES), str(INODES), self.id, self.region)
        log = self._world.home / "ssm" / f"{self.id}.log"
        self._process = self._world.spawn(
            f"instance {self.id}",
            [*begin, sys.executable, "-m", "sandbox.ssm.agent", *arguments],
            log=log,
            region=self.region,
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._connect().close()
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the instance does not start: see {log}") from None
                time.sleep(0.01)
        code, _stdout, stderr = self.run(FIRST_DAY, 30)
        if code:
            raise RuntimeError(f"the instance's first day went wrong: {stderr}")

    def run(self, script: str, timeout: float) -> tuple[int | None, str, str]:
        """(exit code, None where its time was up; standard output; standard error)."""
        with self._connect() as connection, connection.makefile("r") as lines:
            connection.sendall(json.dumps({"script": script, "timeout": timeout}).encode() + b"\n")
            line = lines.readline()
        if not line:
            return 1, "", "the instance is gone"
        answer = json.loads(line)
        return answer["code"], answer["stdout"], answer["stderr"]

    @property
    def pids(self) -> list[int]:
        return self._process.tree() if self._process is not None else []

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect("\0" + self._socket)
        except OSError:
            connection.close()
            raise
        return connection


__all__ = ["NO_ROOM", "Machine", "namespaces"]
