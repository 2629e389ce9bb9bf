# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox seen from outside: started, told to fail, asked and ended. Used by the command line, tests and the demo."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from .postgres import remove_shared_memory
from .processes import MARK, end_leftovers

REPOSITORY = Path(__file__).resolve().parent.parent


# boto3 makes clients for one thread at a time.
_making = threading.Lock()


@functools.cache
def _session() -> Any:
    """Kept, since a session reads the models of each service anew."""
    import boto3

    return boto3.Session(aws_access_key_id="sandbox", aws_secret_access_key="sandbox")


class SandboxError(Exception):
    """One line for a person."""


class Sandbox:
    """The sandbox whose state is in `home` (default: $SRE_SANDBOX_HOME, else .sandbox in the repository)."""

    def __init__(self, home: str | Path | None = None) -> None:
        self.home = Path(home or os.environ.get("SRE_SANDBOX_HOME") or REPOSITORY / ".sandbox").resolve()
        self._clients: dict[tuple[str, str, str], Any] = {}

    # ---- life -----------------------------------------------------------------------------------------------------

    def up(self, stays: bool = False, **settings: float) -> dict:
        """Start it and wait until it serves; returns the state. Clears what a crashed one left behind.

        `stays`: when this process ends; else it goes with it, files included, even if this one is killed.
        `settings`: see sandbox.world.Settings. Raises SandboxError when it is up already or does not start.
        """
        if self.is_up():
            raise SandboxError(f"the sandbox in {self.home} is up already: `reset` brings back its first state")
        self.clean()
        self.home.mkdir(parents=True, mode=0o711)  # PostgreSQL's user passes through
        with open(self.home / "daemon.log", "ab") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "sandbox.daemon", str(self.home), json.dumps(settings)],
                cwd=REPOSITORY,
                env={**os.environ, MARK: str(self.home)},
                stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        (self.home / "daemon.pid").write_text(str(daemon.pid))
        answer = daemon.stdout.readline().decode().strip()
        daemon.stdout.close()
        if answer != "ready":
            raise SandboxError(f"the sandbox did not start: {answer or 'it died'}; see {self.home / 'daemon.log'}")
        # Kept: so its pipe stays open, its end is noticed, and it does not stay a zombie of ours.
        self._daemon = daemon
        return self.state

    def down(self) -> int:
        """End everything and remove the home folder; returns the number of processes that had to be killed."""
        try:
            self._control("POST", "down", {}, timeout=5)
            deadline = time.monotonic() + 10
            while self.is_up() and time.monotonic() < deadline:
                time.sleep(0.02)
        except SandboxError:
            pass
        return self.clean()

    def clean(self) -> int:
        """Kill what is left of this sandbox and remove its files."""
        data = self.postgres_home
        ended = end_leftovers(self.home, data)
        if data is not None:
            for folder in data.glob("data-*"):
                remove_shared_memory(folder)
            shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)
        return ended

    @property
    def postgres_home(self) -> Path | None:
        """Where PostgreSQL's files are: below home, or elsewhere when its user cannot get there."""
        try:
            return Path((self.home / "postgres.path").read_text())
        except OSError:
            return None

    def is_up(self) -> bool:
        try:
            self._control("GET", "faults", timeout=5)
            return True
        except SandboxError:
            return False

    def reset(self) -> dict:
        self._control("POST", "reset", {})
        return self.state

    # ---- what it knows and does -----------------------------------------------------------------------------------

    @property
    def state(self) -> dict:
        """sandbox.json."""
        try:
            return json.loads((self.home / "sandbox.json").read_text())
        except OSError as error:
            raise SandboxError(f"no sandbox in {self.home}: `python -m sandbox up` starts one") from error

    def status(self) -> dict:
        return self._control("GET", "status")

    def faults(self) -> dict:
        return self._control("GET", "faults")

    def fault(self, name: str, **args: Any) -> None:
        self._control("POST", "fault", {"name": name, **args})

    def heal(self, name: str | None = None) -> list[str]:
        return self._control("POST", "heal", {"name": name})

    def calls(self, since: int = 0) -> list[dict]:
        """The API calls from number `since` on."""
        return self._control("GET", f"calls?{urlencode({'since': since})}")

    def control(self, verb: str, **args: Any) -> Any:
        """What a part offers, such as control("load", action="start")."""
        return self._control("POST", verb, args)

    def boto(self, service: str, region: str = "us-east-1", **options: Any) -> Any:
        """A boto3 client with the inventory's credentials; one without options is made once."""
        address = self.state["endpoint_url"]
        with _making:
            if options:
                return _session().client(service, region, endpoint_url=address, **options)
            key = (service, region, address)
            if key not in self._clients:
                self._clients[key] = _session().client(service, region, endpoint_url=address)
            return self._clients[key]

    def _control(self, method: str, verb: str, args: dict | None = None, timeout: float = 120) -> Any:
        address = urlsplit(self.state["endpoint_url"])
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
        try:
            connection.request(method, f"/_sandbox/{verb}", None if args is None else json.dumps(args))
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SandboxError(f"the sandbox in {self.home} does not answer: `up` starts it again") from error
        finally:
            connection.close()
        if response.status != 200:
            raise SandboxError(answer["error"])
        return answer
