# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An EC2 instance of an Auto Scaling group as a real process of the application, with the states of its lifecycle.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
"""

from __future__ import annotations

import base64
import re
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from .. import builds, connection_tracking, elbv2, instances, zones
from ..addresses import Addresses

if TYPE_CHECKING:
    from ..processes import Process
    from ..world import World

START_SECONDS = 20.0  # until the application must accept connections
STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL

_addresses = Addresses(32)


def settings_of(user_data: str) -> dict[str, str]:
    """The variables that user data exports, as a script of cloud-init would."""
    return dict(re.findall(r"^export (\w+)=(\S*)$", base64.b64decode(str(user_data)).decode(), re.MULTILINE))


class Machine:
    """What runs on one instance. Its methods are called with the world's lock held."""

    def __init__(self, world: World, state: Any, version: int, user_data: str) -> None:
        self._world = world
        self.id, self.version, self.instance = state.instance.id, version, state.instance
        self.instance_type, self.region = state.instance.instance_type, state.auto_scaling_group.region
        self.subnet_id = state.instance.subnet_id
        self.zone = zones.of_subnet(self.region, self.subnet_id)
        self.settings = settings_of(user_data)
        # As in a VPC, each instance has an address of its own and all listen on the same port; inside, behind its interface.
        self.port = elbv2.APP_PORT
        self.address, self._inside = _addresses.free([self.port]), _addresses.free([self.port])
        self._interface = instances.first_interface(state.instance).id
        self.born = time.monotonic()
        self.in_service_since: float | None = None
        self._process: Process | None = None
        self.join(state)

    def join(self, state: Any) -> None:
        """Become one of a group."""
        self._state, self._since = state, time.monotonic()
        self.group_arns = list(state.auto_scaling_group.target_group_arns)
        state.lifecycle_state, state.version = "Pending", self.version

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def process(self) -> Process | None:
        return self._process if self.pid else None

    @property
    def lifecycle(self) -> str:
        return self._state.lifecycle_state

    @property
    def is_active(self) -> bool:
        return self.lifecycle in ("Pending", "InService")

    @property
    def is_healthy(self) -> bool:
        """In service, and passing the checks of each load balancer."""
        return self.lifecycle == "InService" and all(
            (target := elbv2.target(arn, self.id)) is not None and target.state == "healthy" for arn in self.group_arns
        )

    def advance(self, grace: float) -> None:
        """Take the next step if it is time for it. `grace`: seconds in service before a health check counts."""
        ended = self._process is not None and self._process.poll() is not None
        if self.lifecycle == "Pending":
            if self._process is None:
                self._boot()
            elif ended or time.monotonic() - self._since > START_SECONDS:
                self._state.health_status = "Unhealthy"
            elif self._accepts():
                self._enter_service()
        elif self.lifecycle == "InService":
            age = time.monotonic() - self.in_service_since
            states = [target.state for arn in self.group_arns if (target := elbv2.target(arn, self.id))]
            if ended or (age > grace and "unhealthy" in states):
                self._state.health_status = "Unhealthy"
        elif self.lifecycle in ("Terminating", "Detaching") and any(
            elbv2.target(arn, self.id) for arn in self.group_arns
        ):
            pass  # requests in hand are answered first
        elif self.lifecycle == "Detaching":
            self._state.lifecycle_state = "Detached"
        elif self.lifecycle == "Terminating":
            if ended or self._process is None:
                self._state.lifecycle_state = "Terminated"
            elif time.monotonic() - self._since > STOP_SECONDS:
                self._process.kill()
            else:
                self._process.signal(signal.SIGTERM)

    def terminate(self) -> None:
        """Leave the load balancers, drain, end."""
        self._leave("Terminating")

    def detach(self) -> None:
        """Leave the load balancers, drain, and run on as nobody's."""
        self._leave("Detaching")

    def _leave(self, lifecycle: str) -> None:
        if self.is_active:
            for arn in self.group_arns:
                elbv2.deregister(self.region, arn, self.id)
            self._state.lifecycle_state, self._since = lifecycle, time.monotonic()

    def signal(self, number: int) -> None:
        if self._process and self._process.poll() is None:
            self._process.signal(number)

    def kill(self) -> None:
        connection_tracking.detach(self._interface)
        if self._process and self._process.poll() is None:
            self._process.kill()

    def _boot(self) -> None:
        environment = self.settings | builds.environment_of(
            f"regami-fleet:{self.settings.get('APP_VERSION', 'latest')}"
        )
        environment |= {"APP_HOST": self._inside, "APP_PORT": str(self.port), "APP_TASK": self.id}
        environment["DATABASE_PASSWORD"] = self._world.secret("db_app")
        log = self._world.home / "fleet" / f"{self.id}.log"
        log.parent.mkdir(exist_ok=True)
        self._process = self._world.spawn(
            f"instance {self.id}", [sys.executable, "-m", "sandbox.app"], env=environment, log=log, region=self.region
        )
        connection_tracking.attach(self.region, self._interface, self.address, self._inside, self.port)
        if zones.is_down(self.zone):
            self._process.pause()

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex((self._inside, self.port)) == 0

    def _enter_service(self) -> None:
        self._state.lifecycle_state, self.in_service_since = "InService", time.monotonic()
        elbv2.hosts[self.id], elbv2.zones_of[self.id] = self.address, self.zone
        suspended = {each["ProcessName"] for each in self._state.auto_scaling_group.suspended_processes}
        if "AddToLoadBalancer" not in suspended:
            for arn in self.group_arns:
                elbv2.register(self.region, arn, self.id, self.port)
