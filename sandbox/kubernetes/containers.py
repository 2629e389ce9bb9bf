# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container: a process of the sandbox's application, started, probed, restarted and ended as a kubelet does it.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import builds, ecr
from . import environment, registry
from .probes import Prober, http_get
from .store import now

if TYPE_CHECKING:
    from ..processes import Process
    from .kubelet import PodWorker

# https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restarts and
# https://kubernetes.io/docs/concepts/containers/images/#imagepullbackoff
FIRST_BACK_OFF, LONGEST_BACK_OFF = 10.0, 300.0
CONFIGURATION_RETRY = 1.0
BACK_OFF_SHOWS = 0.5  # after a pull that failed


class Container:
    """Belongs to one PodWorker, whose thread calls it."""

    def __init__(self, worker: PodWorker, spec: dict) -> None:
        self._worker, self.spec = worker, spec
        self.name = spec["name"]
        self.state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self.last: dict[str, Any] = {}
        self.restarts = 0
        self.pulled: ecr.Pulled | None = None
        self.logs: list[Log] = []  # of its runs, oldest first
        self._process: Process | None = None
        self._environment: dict[str, str] = {}
        self._retry_at = 0.0
        self._pulls = 0
        self._backs_off_until = 0.0
        self._probers: dict[str, Prober] = {}
        self._kill_at: float | None = None  # monotonic: SIGKILL then, after SIGTERM
        self.crashes = False  # something about its pod kills it as soon as it runs

    # ---- what the pod looks at -------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return "running" in self.state

    @property
    def pid(self) -> int | None:
        """Of the machine that the sandbox runs on; None where it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def has_ended(self) -> bool:
        return "terminated" in self.state

    @property
    def is_started(self) -> bool:
        return self.is_running and ("startupProbe" not in self._probers or bool(self._probers["startupProbe"].passing))

    @property
    def is_ready(self) -> bool:
        prober = self._probers.get("readinessProbe")
        return self.is_started and (prober is None or bool(prober.passing))

    def status(self) -> dict[str, Any]:
        image = self.spec["image"]
        status = {
            "name": self.name,
            "state": self.state,
            "lastState": self.last,
            "ready": self.is_ready,
            "restartCount": self.restarts,
            "image": image,
            "imageID": f"{repository_of(image)}@{self.pulled.digest}" if self.pulled else "",
            "started": self.is_started,
        }
        if self.logs:
            status["containerID"] = f"containerd://{self._worker.uid}-{self.name}-{self.restarts}"
        return status

    # ---- its life --------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take the next step if it is time for it."""
        if self.logs:
            self.logs[-1].mark()
        if self.crashes:
            self.kill()
        if self._process is not None and (code := self._process.poll()) is not None:
            self._ended(code)
        if self.is_running:
            self._look()
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                self._process.kill()
        elif not self.has_ended and time.monotonic() >= self._retry_at:
            self._start()

    def _start(self) -> None:
        if time.monotonic() < self._backs_off_until or not self._pull():
            return
        try:
            self._environment = environment.of_container(
                self._worker.store, self._worker.pod, self.spec, self._worker.address
            )
        except environment.Missing as error:
            self.state = {"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}}
            self._retry_at = time.monotonic() + CONFIGURATION_RETRY
            self._worker.say("Failed", f"Error: {error}", "Warning")
            return
        self._environment |= builds.environment_of(self.pulled.image)
        self._environment |= {
            "APP_HOST": self._worker.address,
            "APP_PORT": str(self._worker.port_of(self.spec)),
            "APP_TASK": self._worker.pod["metadata"]["name"],
        }
        log = Log(self._worker.folder / f"{self.name}.{self.restarts}.log")
        self._process = self._worker.spawn(
            f"{self._worker.pod['metadata']['name']}/{self.name}",
            [sys.executable, "-m", "sandbox.app"],
            self._environment,
            log.path,
        )
        self.logs.append(log)
        self.state = {"running": {"startedAt": now()}}
        self._kill_at = None
        started = time.monotonic()
        self._probers = {
            name: Prober(self.spec[name], started, self._worker.longest_probe_period)
            for name in ("startupProbe", "livenessProbe", "readinessProbe")
            if name in self.spec
        }
        self._worker.say("Created", f"Created container: {self.name}")
        self._worker.say("Started", f"Started container {self.name}")

    def _pull(self) -> bool:
        image = self.spec["image"]
        if self.pulled:
            return True
        waiting = self.state.get("waiting", {}).get("reason")
        if waiting == "ErrImagePull":
            # The kubelet looks again soon, and finds that it is too early to try again.
            wait = min(FIRST_BACK_OFF * 2 ** (self._pulls - 1), LONGEST_BACK_OFF)
            self._retry_at = time.monotonic() + wait
            message = f'Back-off pulling image "{image}"'
            self.state = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
            self._worker.say("BackOff", message, "Normal")
            self._worker.say("Failed", "Error: ImagePullBackOff", "Warning")
            return False
        self._worker.say("Pulling", f'Pulling image "{image}"')
        try:
            self.pulled = registry.pull(self._worker.world, image)
        except ecr.PullError as error:
            message = f'Failed to pull image "{image}": {error}'
            self._pulls += 1
            self._retry_at = time.monotonic() + BACK_OFF_SHOWS
            self.state = {"waiting": {"reason": "ErrImagePull", "message": str(error)}}
            self._worker.say("Failed", message, "Warning")
            self._worker.say("Failed", "Error: ErrImagePull", "Warning")
            return False
        self._worker.say("Pulled", f'Successfully pulled image "{image}"')
        return True

    def _look(self) -> None:
        startup = self._probers.get("startupProbe")
        due = ["startupProbe"] if startup and not startup.passing else ["livenessProbe", "readinessProbe"]
        for name in due:
            prober = self._probers.get(name)
            if prober is None or self._kill_at is not None:
                continue
            if prober.look(self.spec, self._worker.address, self._execute):
                kind = name.removesuffix("Probe").capitalize()
                self._worker.say("Unhealthy", f"{kind} probe failed: {prober.message}", "Warning")
            if prober.passing is False and name != "readinessProbe":
                kind = name.removesuffix("Probe")
                self._worker.say("Killing", f"Container {self.name} failed {kind} probe, will be restarted")
                self.terminate(float(self._worker.pod["spec"]["terminationGracePeriodSeconds"]))

    def _ended(self, code: int) -> None:
        # A negative code is the signal that ended it.
        status = code if code >= 0 else 128 - code
        ended = {
            "exitCode": status,
            "reason": "Completed" if status == 0 else "Error",
            "startedAt": self.state["running"]["startedAt"],
            "finishedAt": now(),
            "containerID": f"containerd://{self._worker.uid}-{self.name}-{self.restarts}",
        }
        self._process, self._probers = None, {}
        policy = self._worker.pod["spec"]["restartPolicy"]
        if self._worker.is_ending or policy == "Never" or (policy == "OnFailure" and status == 0):
            self.state = {"terminated": ended}
            return
        self.last = {"terminated": ended}
        self.restarts += 1
        # The first restart comes at once, each later one after twice the time.
        wait = 0.0 if self.restarts == 1 else min(FIRST_BACK_OFF * 2 ** (self.restarts - 2), LONGEST_BACK_OFF)
        self._backs_off_until = time.monotonic() + wait
        if wait:
            pod = self._worker.pod["metadata"]
            message = f"back-off {_duration(wait)} restarting failed container={self.name} pod={pod['name']}_{pod['namespace']}({pod['uid']})"
            self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
            what = f"Back-off restarting failed container {self.name} in pod {pod['name']}_{pod['namespace']}({pod['uid']})"
            self._worker.say("BackOff", what, "Warning")
        else:
            self.state = {"waiting": {"reason": "ContainerCreating"}}

    # ---- its end ---------------------------------------------------------------------------------------------------

    def before_stop(self, seconds: float) -> None:
        """Its preStop hook, for at most `seconds`."""
        hook = (self.spec.get("lifecycle") or {}).get("preStop") or {}
        if not self.is_running or not hook:
            return
        if sleep := hook.get("sleep"):
            self._worker.pause(min(float(sleep["seconds"]), seconds))
        elif action := hook.get("httpGet"):
            if failure := http_get(action, self.spec, self._worker.address, seconds):
                self._worker.say("FailedPreStopHook", f"PreStopHook failed: {failure}", "Warning")
        elif action := hook.get("exec"):
            try:
                status = self._execute(action["command"], seconds)
            except subprocess.TimeoutExpired:
                return
            if status != 0:
                self._worker.say("FailedPreStopHook", f"PreStopHook failed: exit status {status}", "Warning")

    def terminate(self, grace: float) -> None:
        """SIGTERM now, SIGKILL after `grace` seconds."""
        if self._process is not None and self._process.poll() is None:
            self._process.resume()
            self._process.signal(signal.SIGTERM)
            self._kill_at = time.monotonic() + grace

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def freeze(self, frozen: bool) -> None:
        if self._process is not None:
            self._process.pause() if frozen else self._process.resume()

    def _execute(self, argv: list[str], seconds: float) -> int:
        """Run a command as the container would; 127 when there is no such program."""
        try:
            process = self._worker.spawn(f"exec {self.name}", argv, self._environment, None)
        except OSError:
            return 127
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def repository_of(image: str) -> str:
    """The name without tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _duration(seconds: float) -> str:
    """As Go prints it: 10s, 2m40s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class Log:
    """What one run of a container wrote, and when each part of it was there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._marks: list[tuple[int, float]] = []  # size and time, growing

    def mark(self) -> None:
        try:
            size = os.stat(self.path).st_size
        except OSError:
            return
        if size > (self._marks[-1][0] if self._marks else 0):
            self._marks.append((size, time.time()))

    def lines(self, first: int = 0) -> list[tuple[int, float, bytes]]:
        """(end, time, line) of the complete lines from byte `first` on."""
        self.mark()
        try:
            with open(self.path, "rb") as file:
                file.seek(first)
                text = file.read()
        except OSError:
            return []
        found, end, mark = [], first, 0
        for line in text[: text.rfind(b"\n") + 1].splitlines(keepends=True):
            end += len(line)
            while mark < len(self._marks) - 1 and self._marks[mark][0] < end:
                mark += 1
            found.append((end, self._marks[mark][1] if self._marks else time.time(), line))
        return found
