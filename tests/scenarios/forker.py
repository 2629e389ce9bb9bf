# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook as a process of its own whose Python and libraries are loaded already, which is a third of a short run.

One process loads them and forks for every run. As a script it is that process; `start` is the other side.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

# What most runs load.
LOADED = (
    "ansible.cli.playbook",
    "ansible.executor.playbook_executor",
    "ansible.plugins.strategy.linear",
    "boto3",
    "dns.resolver",
    "psycopg2",
    "requests",
)


class Forked:
    """A run, with the part of subprocess.Popen that is needed."""

    def __init__(self, forker: socket.socket, request: dict) -> None:
        self._status, theirs = socket.socketpair()
        read, write = os.pipe()
        socket.send_fds(forker, [json.dumps(request).encode() + b"\n"], [write, theirs.fileno()])
        os.close(write)
        theirs.close()
        self.stdout = os.fdopen(read, encoding="utf-8", errors="replace")
        self.pid = int(self._status.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs; what it wrote is still to be read."""
        return self._await(0)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """All that it wrote, once it has ended. Raises subprocess.TimeoutExpired."""
        output: list[str] = []
        reader = threading.Thread(target=lambda: output.append(self.stdout.read()), daemon=True)
        reader.start()
        if self._await(timeout) is None:
            raise subprocess.TimeoutExpired("ansible-playbook", timeout)
        reader.join(timeout)
        self._status.close()
        return "".join(output), None

    def _await(self, seconds: float) -> int | None:
        if self.returncode is None:
            self._status.settimeout(seconds)
            try:
                self.returncode = os.waitstatus_to_exitcode(int(self._status.recv(32)))
            except (TimeoutError, BlockingIOError):
                pass
        return self.returncode


def start(arguments: list[str], directory: Path, environment: dict[str, str]) -> Forked:
    """ansible-playbook with `arguments`, in a session of its own, as subprocess.Popen would start it."""
    request = {"arguments": arguments, "directory": str(directory), "environment": environment}
    return Forked(_forker(environment["ANSIBLE_CONFIG"]), request)


@functools.cache
def _forker(configuration: str) -> socket.socket:
    """Ends with this process, since nobody holds the other end of its socket then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        env=environment | {"ANSIBLE_CONFIG": configuration},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()
    return ours


def main(requests: socket.socket) -> None:
    """Fork for each request until the other side is gone, and tell how each run ended."""
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # what is loaded stays, so that no run copies it when it collects garbage
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    while True:
        for key, _events in selector.select():
            if key.fileobj is requests:
                message, descriptors, _flags, _address = socket.recv_fds(requests, 1 << 20, 2)
                if not message:
                    return
                pid = os.fork()
                if pid == 0:
                    _run(json.loads(message), descriptors[0])
                os.close(descriptors[0])
                status = socket.socket(fileno=descriptors[1])
                status.send(str(pid).encode())
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))
            else:
                pid, status = key.data
                selector.unregister(key.fileobj)
                os.close(key.fileobj)
                try:
                    status.send(str(os.waitpid(pid, 0)[1]).encode())
                except BrokenPipeError:
                    pass  # a test that failed has let go of it
                status.close()


def _run(request: dict, output: int) -> NoReturn:
    """In the child: all that an engineer's shell gives, then ansible-playbook."""
    status = 1
    try:
        atexit._clear()  # the folder for temporary files belongs to the process that forks
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 1024)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        random.seed()
        sys.argv = ["ansible-playbook", *request["arguments"]]
        sys.modules["ansible.cli.playbook"].main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
