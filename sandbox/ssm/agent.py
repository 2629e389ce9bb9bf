# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of one instance, and the instance itself: a root of its own on a small tmpfs, with its own processes.

Started by machine.py as the first process of its namespaces, by `unshare`:
    python -m sandbox.ssm.agent SOCKET FOLDER MEGABYTES INODES INSTANCE REGION
What belongs to this machine (/usr and Python) is mounted read-only; all else is the instance's, /var/log and the rest of
what a script cleans first of all. Listens on an abstract socket; a connection is one script:
    {"script", "timeout"} -> {"code", "stdout", "stderr"}; it is killed when the asking side hangs up.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

TOOLS = Path(__file__).resolve().parent / "tools"
PATH = "/opt/tools:/opt/python:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What an agent keeps to itself, as ext4 keeps some of its blocks for root: a full disk does not stop it yet.
RESERVE = "/var/lib/amazon"
# https://github.com/aws/amazon-ssm-agent/issues/90
NO_ROOM = "Plugin with name aws:runShellScript not found. Step name: aws:runShellScript"


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, stdout=subprocess.DEVNULL)


def _borrow(source: Path, root: Path) -> None:
    """The same thing at the same path inside, read-only."""
    place = root / source.relative_to("/")
    if source.is_symlink():
        place.symlink_to(os.readlink(source))
    elif source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        _mount("--bind", str(source), str(place))
        _mount("-o", "remount,bind,ro", str(place))


def build(root: Path, megabytes: int, inodes: int) -> None:
    """Make the instance's file system and move into it. Raises CalledProcessError or OSError."""
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m,nr_inodes={inodes},mode=755", "disk", str(root))
    for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "etc"):
        _borrow(Path("/", name), root)
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        _borrow(Path(sys.base_prefix), root)
    for folder in ("dev", "proc", "run", "tmp", "root", "opt/tools", "opt/python", "var/log", RESERVE.strip("/")):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for device in ("null", "zero", "full", "random", "urandom"):
        (root / "dev" / device).touch()
        _mount("--bind", f"/dev/{device}", str(root / "dev" / device))
    _mount("-t", "proc", "proc", str(root / "proc"))
    _mount("-t", "tmpfs", "-o", "size=256k,mode=755", "run", str(root / "run"))
    _mount("-t", "tmpfs", "-o", "size=256k,mode=700", "reserve", str(root / RESERVE.strip("/")))
    _mount("--bind", str(TOOLS), str(root / "opt/tools"))
    _mount("-o", "remount,bind,ro", str(root / "opt/tools"))
    interpreter = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    (root / "opt/python/python3").symlink_to(interpreter)
    os.chroot(root)
    os.chdir("/")


class Agent:
    def __init__(self, instance_id: str, region: str) -> None:
        self._folder = Path(RESERVE, "ssm", instance_id, "document/orchestration")
        self._environment = {
            "PATH": PATH,
            "HOME": "/root",
            "AWS_SSM_INSTANCE_ID": instance_id,
            "AWS_SSM_REGION_NAME": region,
        }

    def serve(self, listener: socket.socket) -> None:
        while True:
            connection, _address = listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r") as lines:
            asked = json.loads(lines.readline())
            try:
                path = self._write_down(asked["script"])
            except OSError:
                answer = {"code": 1, "stdout": NO_ROOM, "stderr": ""}
            else:
                answer = self._run(path, asked["timeout"], connection)
                path.unlink()
            try:
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                pass  # nobody waits for it any more

    def _write_down(self, script: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{time.monotonic_ns()}_script.sh"
        path.write_text(script)
        path.chmod(0o700)
        return path

    def _run(self, path: Path, timeout: float, connection: socket.socket) -> dict:
        process = subprocess.Popen(
            ["sh", "-c", str(path)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        watcher = threading.Thread(target=_watch, args=(process, connection), daemon=True)
        watcher.start()
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            stdout, stderr = process.communicate()
            return {"code": None, "stdout": stdout, "stderr": stderr}
        return {"code": process.returncode, "stdout": stdout, "stderr": stderr}


def _watch(process: subprocess.Popen, connection: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while process.poll() is None:
            # Whoever has the answer hangs up too, and what the script has left running on purpose goes on.
            if selector.select(0.1) and process.poll() is None:
                _kill(process)
                return


def _kill(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def main(name: str, folder: str, megabytes: str, inodes: str, instance_id: str, region: str) -> None:
    build(Path(folder), int(megabytes), int(inodes))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + name)
    listener.listen(16)
    Agent(instance_id, region).serve(listener)


if __name__ == "__main__":
    main(*sys.argv[1:])
