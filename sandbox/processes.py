# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Child processes that cannot outlive the sandbox, and how to find them when it died without a word.

Every child carries MARK in its environment. PostgreSQL overwrites its environment with its process title, so its
processes are recognised by their working directory, which is the data directory.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "SRE_SANDBOX_CHILD_OF"
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the child, after the change of user (which clears the setting): be killed when the spawning thread ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child and everything it forked. `region` says with which region it is cut off."""

    def __init__(self, name: str, popen: subprocess.Popen, region: str | None) -> None:
        self.name, self.region, self._popen = name, region, popen
        self.pid, self.stdout = popen.pid, popen.stdout

    def poll(self) -> int | None:
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._popen.wait(timeout)

    def tree(self) -> list[int]:
        """This process first, then its descendants."""
        return [self.pid, *descendants(self.pid)] if self.poll() is None else []

    def signal(self, signum: int) -> None:
        for pid in self.tree():
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                pass

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the whole tree; returns when the parent is reaped."""
        self.signal(signal.SIGKILL)
        self.wait()

    def terminate(self, seconds: float = 5.0) -> None:
        """SIGTERM to the parent only, SIGKILL to the tree after `seconds`."""
        if self.poll() is None:
            self.resume()
            self._popen.terminate()
            try:
                self.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()


class Spawner:
    """Starts children from one thread that lives as long as the sandbox.

    PR_SET_PDEATHSIG watches the thread that forked, not the process: a child of a request's thread would die with the
    request.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: list[Process] = []
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            argv, options, done = self._work.get()
            try:
                done.put(subprocess.Popen(argv, **options))
            except OSError as error:
                done.put(error)

    def popen(
        self,
        argv: list[str],
        env: dict[str, str] | None = None,
        user: int | None = None,
        log: Path | None = None,
        stdout: int | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen:
        environment = {**os.environ, **(env or {}), MARK: str(self.home)}
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if log else stdout or subprocess.DEVNULL
        identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        done: queue.SimpleQueue = queue.SimpleQueue()
        try:
            self._work.put(
                (
                    argv,
                    dict(
                        env=environment,
                        cwd=cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        preexec_fn=_die_with_parent,
                        start_new_session=True,
                        **identity,
                    ),
                    done,
                )
            )
            result = done.get()
        finally:
            if log:
                os.close(output)
        if isinstance(result, OSError):
            raise result
        return result

    def spawn(self, name: str, argv: list[str], region: str | None = None, **options) -> Process:
        process = Process(name, self.popen(argv, **options), region)
        self.processes = [p for p in self.processes if p.poll() is None] + [process]
        return process


def _parents() -> dict[int, int]:
    """pid -> parent pid of every process that can be seen."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                    # The command name may hold spaces and parentheses: fields count from the last one.
                    parents[int(entry)] = int(stat.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
    return parents


def descendants(pid: int) -> list[int]:
    parents = _parents()
    found, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += level
    return found


def leftovers(home: Path, data: Path | None) -> Iterator[int]:
    """Processes of the sandbox at `home` with its PostgreSQL directories below `data`, the daemon included."""
    mark = f"{MARK}={home}".encode()
    for pid in _parents():
        if pid == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if mark in environ.read().split(b"\0"):
                    yield pid
                    continue
            if data is not None and Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(data):
                yield pid
        except OSError:
            continue


def end_leftovers(home: Path, data: Path | None, seconds: float = 5.0) -> int:
    """SIGKILL what is left until nothing is; returns how many there were.

    Raises RuntimeError when something survives `seconds`.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + seconds
    while left := [pid for pid in leftovers(home, data) if not is_zombie(pid)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {left} of the sandbox do not end")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        ended.update(left)
        time.sleep(0.02)
    return len(ended)


def is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
