# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ECS task as a real process, and its way from PROVISIONING to STOPPED.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
"""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import access, builds, ecr, elbv2, subnets, zones
from ..ssm.machine import alone
from ..usage import MEBIBYTE, resident_bytes
from .output import Output

if TYPE_CHECKING:
    from ..processes import Process
    from ..world import World

# A container runs as soon as its process does, whether that listens or not. Starting one takes a moment on AWS, too: a
# good build listens before it has passed.
START_SECONDS = 2.0
STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL
# Of the storage that a task mounts, where AWS gives it 20 GiB and more.
DISK_MEGABYTES = 4

_addresses = itertools.count()
# (started by, subnet) -> how many are there.
_siblings: Counter[tuple[str, str]] = Counter()


class Task:
    """One task of a service. Its methods are called with the world's lock held.

    `service`: moto's, or what else says where and on what it runs. `started_by`: the id of the deployment or of the task
    set that it belongs to. `images`: container name -> digest as far as a task of the same service revision has pulled;
    filled by the first that does.
    """

    def __init__(
        self,
        world: World,
        service: Any,
        started_by: str,
        definition: Any,
        load_balancers: list[dict],
        images: dict[str, str],
    ) -> None:
        from moto.core.utils import utcnow
        from moto.moto_api._internal import mock_random

        self._world, self._utcnow = world, utcnow
        self.region, self.cluster_arn, self.service_name = service.region_name, service.cluster_arn, service.name
        self.started_by, self.definition, self.images = started_by, definition, images
        self.launch_type, self.platform_version = service.launch_type, service.platform_version
        self.group = f"service:{service.name}"
        self.id = mock_random.uuid4().hex
        self.task_arn = f"{service.cluster_arn.replace(':cluster/', ':task/')}/{self.id}"
        self.group_arns = [each["targetGroupArn"] for each in load_balancers if each.get("targetGroupArn")]
        # Each task has an address of its own, as with awsvpc: targets are told apart by their address.
        self.address = f"127.0.{world.regions.index(self.region) + 1}.{20 + next(_addresses) % 230}"
        self.port = world.free_port(self.address)
        network = (getattr(service, "network_configuration", None) or {}).get("awsvpcConfiguration") or {}
        self._subnets, self.subnet = (
            network.get("subnets", ()),
            "",
        )  # those that it may be in, and the one that it is in
        self.zone = ""
        self.status, self.desired = "PROVISIONING", "RUNNING"
        self.times = {"createdAt": utcnow()}
        self.stop_code = self.stopped_reason = self.container_reason = ""
        self.exit_code: int | None = None
        self.digest = ""
        self.running_since: float | None = None
        self._since = time.monotonic()
        self._process: Process | None = None
        self._output: Output | None = None

    # ---- what the service looks at ---------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def process(self) -> Process | None:
        return self._process

    @property
    def vcpus(self) -> float:
        return int(self.definition.cpu or 0) / 1024

    @property
    def is_active(self) -> bool:
        """Meant to run, whether it does yet or not."""
        return self.desired == "RUNNING"

    @property
    def is_ready(self) -> bool:
        """Running, and healthy where load balancers check it."""
        return self.is_active and self.status == "RUNNING" and all(each == "healthy" for each in self._target_states())

    @property
    def has_failed(self) -> bool:
        """Stopped by itself, not by anybody's wish."""
        return self.stop_code in ("EssentialContainerExited", "TaskFailedToStart")

    def _target_states(self) -> list[str]:
        found = [elbv2.target(arn, self.address) for arn in self.group_arns]
        return [each.state if each else "" for each in found]

    def _health(self) -> str:
        """Of its container: the load balancer's check asks the same page."""
        states = set(self._target_states())
        if self.status != "RUNNING" or states - {"healthy", "unhealthy"}:
            return "UNKNOWN"
        return "UNHEALTHY" if "unhealthy" in states else "HEALTHY"

    def unhealthy_group(self) -> str | None:
        """The ARN of a target group whose checks it fails."""
        states = zip(self.group_arns, self._target_states(), strict=True)
        return next((arn for arn, target_state in states if target_state == "unhealthy"), None)

    @property
    def is_drained(self) -> bool:
        return not any(elbv2.target(arn, self.address) for arn in self.group_arns)

    # ---- its life --------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take the next step if it is time for it."""
        self._limit_memory()
        exited = self._process is not None and self._process.poll() is not None
        if self.status == "PROVISIONING":
            self._launch()
        elif exited and self.status != "STOPPED":
            if self.is_active:
                self.stop("EssentialContainerExited", "Essential container in task exited")
            self._ended()
        elif self.status == "PENDING" and self.is_active:
            if self._accepts() or time.monotonic() - self._since > START_SECONDS:
                self._run()
        elif self.status == "DEACTIVATING" and self.is_drained:
            self._become("STOPPING")
            self.times["stoppingAt"] = self._utcnow()
            self._process.signal(signal.SIGTERM)
        elif self.status == "STOPPING" and time.monotonic() - self._since > STOP_SECONDS:
            self._process.kill()

    def _limit_memory(self) -> None:
        """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html"""
        limit = int(self.definition.memory or 0) * MEBIBYTE
        if limit and self.pid is not None and resident_bytes(self.pid) > limit:
            self.container_reason = "OutOfMemoryError: Container killed due to memory usage"
            self._process.kill()

    def stop(self, code: str, reason: str) -> None:
        """Begin to stop: leave the target group, then end. Says nothing to a task that is stopping already."""
        if not self.is_active:
            return
        self.desired, self.stop_code, self.stopped_reason = "STOPPED", code, reason
        if self.running_since:
            for arn in self.group_arns:
                elbv2.deregister(self.region, arn, self.address)
        self._become("DEACTIVATING")
        if self._process is None:
            self._ended()

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()

    def _become(self, status: str) -> None:
        self.status, self._since = status, time.monotonic()

    def _ended(self) -> None:
        if self.subnet:
            _siblings[self.started_by, self.subnet] -= 1
        self._become("STOPPED")
        self.times["stoppedAt"] = self.times["executionStoppedAt"] = self._utcnow()
        self.exit_code = self._process.poll() if self._process else None

    def _launch(self) -> None:
        # Fargate spreads the tasks of a deployment: the one with the fewest of them takes the next.
        subnet = min(
            self._subnets, key=lambda each: (_siblings[self.started_by, each], subnets.taken(each)), default=""
        )
        self.zone = zones.of_subnet(self.region, subnet)
        if subnets.is_full(subnet):
            self.stop(
                "TaskFailedToStart",
                f"Unexpected EC2 error while attempting to Create Network Interface in subnet '{subnet}': "
                "InsufficientFreeAddressesInSubnet",
            )
            return
        self.subnet = subnet
        _siblings[self.started_by, subnet] += 1
        container = self._container()
        environment = {each["name"]: each["value"] for each in container.get("environment", ())}
        try:
            for each in container.get("secrets", ()):
                environment[each["name"]] = self._secret(each["valueFrom"])
        except Exception as error:  # whatever Secrets Manager refuses with ends this task, not the sandbox
            problem = getattr(error, "message", None) or str(error)
            self.stop(
                "TaskFailedToStart",
                f"ResourceInitializationError: unable to pull secrets or registry auth: {problem}",
            )
            return
        try:
            pulled = self._pull(container)
        except ecr.PullError as error:
            self.container_reason = f"CannotPullContainerError: {error}"
            self.stop("TaskFailedToStart", self.container_reason)
            return
        if role := getattr(self.definition, "task_role_arn", None):
            environment = access.credentials(role, self.id, self.region) | environment
        environment |= builds.environment_of(pulled.image, pulled.build)
        environment |= {"APP_HOST": self.address, "APP_PORT": str(self.port), "APP_TASK": self.id}
        try:
            self._process = self._spawn(environment)
        except OSError as error:
            self.container_reason = f"CannotStartContainerError: {error.strerror}: {error.filename}"
            self.stop("TaskFailedToStart", self.container_reason)
            return
        self._output = Output(self._process.stdout)
        if zones.is_down(self.zone):
            self._process.pause()
        self._become("PENDING")

    def _container(self) -> dict:
        """The definition of its container, with what this task was told to have otherwise."""
        return self.definition.container_definitions[0]

    def _spawn(self, environment: dict[str, str], argv: list[str] | None = None, cwd: Path | None = None) -> Process:
        """Run what its image runs by itself, or `argv`. Raises OSError where there is no such program."""
        return self._world.spawn(
            f"task {self.id}",
            self._with_disk(argv or [sys.executable, "-m", "sandbox.app"]),
            env=environment,
            stdout=subprocess.PIPE,
            region=self.region,
            cwd=cwd,
        )

    @property
    def disk(self) -> str:
        """Where its process has a disk of its own mounted; "" where it has none."""
        mounts = self._container().get("mountPoints") or ()
        return next((each["containerPath"] for each in mounts), "")

    def _with_disk(self, argv: list[str]) -> list[str]:
        """The command in a mount namespace of its own, where its task definition mounts storage.

        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-storage.html
        Raises OSError where this machine has no such namespaces.
        """
        if not self.disk:
            return argv
        mount = f'mount -t tmpfs -o size={DISK_MEGABYTES}m none "$0" && exec "$@"'
        return [*alone(), "sh", "-c", mount, self.disk, *argv]

    def _pull(self, container: dict) -> ecr.Pulled:
        """The image by the tag that it was pushed with. Raises ecr.PullError.

        All tasks of a service revision run what its first one found under the tag.
        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html
        """
        consistent = container.get("versionConsistency") != "disabled"
        self.times["pullStartedAt"] = self._utcnow()
        pulled = ecr.pull(container["image"], self.images.get(container["name"]) if consistent else None)
        self.times["pullStoppedAt"] = self._utcnow()
        self.digest = pulled.digest
        if consistent:
            self.images[container["name"]] = pulled.digest
        return pulled

    def _secret(self, value_from: str) -> str:
        """The secret at `arn[:key[:stage[:version]]]`, where `key` picks a field of a JSON secret; or the parameter of an ARN or name.

        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/specifying-sensitive-data.html
        """
        parts = value_from.split(":")
        is_arn = value_from.startswith("arn:")
        region = parts[3] if is_arn else self.region
        is_secret = is_arn and parts[2] == "secretsmanager"
        if region in self._world.cut_regions:
            raise TimeoutError(f"no answer from {'Secrets Manager' if is_secret else 'Systems Manager'} in {region}")
        if not is_secret:
            return self._parameter(parts[5].removeprefix("parameter") if is_arn else value_from, region)
        name, key = ":".join(parts[:7]), "".join(parts[7:8])
        value = self._world.backend("secretsmanager", region).get_secret_value(name, "", "")["SecretString"]
        return json.loads(value)[key] if key else value

    def _parameter(self, name: str, region: str) -> str:
        backend = self._world.backend("ssm", region)
        found = backend.get_parameter(name) or backend.get_parameter(name.removeprefix("/"))
        if found is None:
            raise LookupError(f"unable to retrieve secrets from ssm: invalid parameters: {name}")
        return found.response_object(decrypt=True, region=region)["Value"]

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex((self.address, self.port)) == 0

    def _run(self) -> None:
        self._become("RUNNING")
        self.running_since = time.monotonic()
        self.times["startedAt"] = self._utcnow()
        elbv2.zones_of[self.address] = self.zone
        for arn in self.group_arns:
            elbv2.register(self.region, arn, self.address, self.port)

    # ---- what AWS shows of it --------------------------------------------------------------------------------------

    def new_log_events(self) -> list[dict]:
        """What it wrote since the last call, as PutLogEvents takes it."""
        return self._output.take(ended=self._process.poll() is not None) if self._output else []

    def describe(self) -> dict:
        container = self.definition.container_definitions[0]
        health = self._health() if container.get("healthCheck") else "UNKNOWN"
        described = {
            "taskArn": self.task_arn,
            "clusterArn": self.cluster_arn,
            "taskDefinitionArn": self.definition.arn,
            "group": self.group,
            "startedBy": self.started_by,
            "launchType": self.launch_type,
            "platformVersion": self.platform_version,
            "platformFamily": "Linux",
            "lastStatus": self.status,
            "desiredStatus": self.desired,
            "healthStatus": health,
            "connectivity": "CONNECTED",
            "availabilityZone": self.zone,
            "cpu": self.definition.cpu,
            "memory": self.definition.memory,
            "containers": [
                {
                    "containerArn": f"{self.task_arn.replace(':task/', ':container/')}/{container['name']}",
                    "taskArn": self.task_arn,
                    "name": container["name"],
                    "image": container["image"],
                    "lastStatus": self.status if self.status in ("RUNNING", "STOPPED") else "PENDING",
                    "healthStatus": health,
                    "networkInterfaces": [{"attachmentId": self.id, "privateIpv4Address": self.address}],
                }
            ],
            "attachments": [
                {
                    "id": self.id,
                    "type": "ElasticNetworkInterface",
                    "status": "DELETED" if self.status == "STOPPED" else "ATTACHED",
                    "details": [
                        {"name": "subnetId", "value": self.subnet},
                        {"name": "privateIPv4Address", "value": self.address},
                    ],
                }
            ],
            **self.times,
        }
        shown = described["containers"][0]
        if self.digest:
            shown["imageDigest"] = self.digest
        if self.container_reason:
            shown["reason"] = self.container_reason
        if self.exit_code is not None:
            shown["exitCode"] = self.exit_code if self.exit_code >= 0 else 128 - self.exit_code
        if not self.is_active:
            described |= {"stopCode": self.stop_code, "stoppedReason": self.stopped_reason}
        return described
