# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RunTask: tasks that belong to no service. A command that is given really runs, in the folder that the image starts in.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import definitions, state, tasks
from .task import Task

if TYPE_CHECKING:
    from ..processes import Process

# What the image of the application holds besides its program: its migrations.
IMAGE = Path(__file__).resolve().parents[1] / "image"
LONGEST_OVERRIDES = 8192
PARAMETERS = (
    "capacityProviderStrategy",
    "clientToken",
    "cluster",
    "count",
    "group",
    "launchType",
    "networkConfiguration",
    "overrides",
    "platformVersion",
    "startedBy",
    "taskDefinition",
)
# What ECS forgets of a stopped task, and of the token that started it, in seconds.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
KEPT_SECONDS = 3600.0


@dataclass(frozen=True)
class Placement:
    """Where a task of no service runs, and on what."""

    region_name: str
    cluster_arn: str
    launch_type: str
    platform_version: str
    name: str = ""


@dataclass(frozen=True)
class Request:
    """What was asked for under a client token, and the tasks that it started."""

    parameters: str
    tasks: list[Task]


_requests: dict[tuple[str, str], Request] = {}  # (ARN of the cluster, client token)


def forget() -> None:
    _requests.clear()


class OneOff(Task):
    """A task of no service. `overrides`: as given to RunTask."""

    def __init__(
        self, placement: Placement, started_by: str, definition: Any, overrides: dict, group: str | None
    ) -> None:
        super().__init__(state.world, placement, started_by, definition, [], {})
        self.overrides, self.group = overrides, group or f"family:{definition.family}"
        self.stopped_at: float | None = None

    def _override(self) -> dict:
        name = self.definition.container_definitions[0]["name"]
        return next((each for each in self.overrides.get("containerOverrides", ()) if each["name"] == name), {})

    def _container(self) -> dict:
        container = copy.deepcopy(super()._container())
        given = self._override().get("environment", [])
        kept = [each for each in container.get("environment", []) if each["name"] not in {new["name"] for new in given}]
        return container | {"environment": kept + given}

    def _spawn(self, environment: dict[str, str], argv: list[str] | None = None, cwd: Path | None = None) -> Process:
        container = super()._container()
        command = self._override().get("command") or container.get("command")
        if not command:
            return super()._spawn(environment)
        # The programs of the image are those of the sandbox.
        programs = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return super()._spawn(programs | environment, [*container.get("entryPoint", ()), *command], IMAGE)

    def _launch(self) -> None:
        super()._launch()
        if self.status == "PENDING":
            self._run()  # nobody waits until it listens, and it may have ended before the next look

    def _ended(self) -> None:
        super()._ended()
        self.stopped_at = time.monotonic()

    @property
    def is_forgotten(self) -> bool:
        return self.stopped_at is not None and time.monotonic() - self.stopped_at > KEPT_SECONDS

    def describe(self) -> dict:
        return super().describe() | {"overrides": self.overrides}


def _all() -> list[OneOff]:
    return [task for each in tasks.of_service.values() for task in each if isinstance(task, OneOff)]


def unfinished() -> list[OneOff]:
    """Those that have a step before them. What ECS would have forgotten is forgotten here too."""
    for own in tasks.of_service.values():
        own[:] = [task for task in own if not getattr(task, "is_forgotten", False)]
    for key, request in list(_requests.items()):
        if all(task.is_forgotten for task in request.tasks):
            del _requests[key]
    return [task for task in _all() if task.status != "STOPPED"]


def run_task(response: Any) -> Any:
    from moto.core.responses import ActionResult

    backend = response.ecs_backend
    given = {name: value for name in PARAMETERS if (value := response._get_param(name)) is not None}
    cluster = backend._get_cluster(given.get("cluster") or "default")
    parameters = json.dumps({key: value for key, value in given.items() if key != "clientToken"}, sort_keys=True)
    token = (cluster.arn, given.get("clientToken"))
    if known := _requests.get(token):
        if known.parameters != parameters:
            raise _conflict([task.task_arn for task in known.tasks])
        return ActionResult({"tasks": [task.describe() for task in known.tasks], "failures": []})
    definition = definitions.usable(backend, given["taskDefinition"])
    _check(given, definition)
    placement = Placement(
        backend.region_name, cluster.arn, given.get("launchType") or "EC2", given.get("platformVersion") or "1.4.0"
    )
    started = [
        OneOff(placement, given.get("startedBy", ""), definition, given.get("overrides") or {}, given.get("group"))
        for _ in range(int(given.get("count") or 1))
    ]
    tasks.of_service.setdefault(cluster.arn, []).extend(started)
    if token[1]:
        _requests[token] = Request(parameters, started)
    state.wake.set()
    return ActionResult({"tasks": [task.describe() for task in started], "failures": []})


def _check(given: dict, definition: Any) -> None:
    """Raises what AWS answers to parameters that do not fit each other, the task definition or their limits."""
    from moto.ecs.exceptions import InvalidParameterException

    overrides = given.get("overrides") or {}
    known = [container["name"] for container in definition.container_definitions]
    strange = [each["name"] for each in overrides.get("containerOverrides", ()) if each["name"] not in known]
    wrong = [
        message
        for message, is_so in (
            ("count must be between 1 and 10.", not 1 <= int(given.get("count") or 1) <= 10),
            (
                "Specifying both a launch type and capacity provider strategy is not supported.",
                given.get("launchType") and given.get("capacityProviderStrategy"),
            ),
            (
                "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
                definition.network_mode == "awsvpc" and not given.get("networkConfiguration"),
            ),
            (
                f"Container Overrides length must be at most {LONGEST_OVERRIDES}",
                len(json.dumps(overrides, separators=(",", ":"))) > LONGEST_OVERRIDES,
            ),
            (f"Override for container named {', '.join(strange)} is not a container in the TaskDefinition.", strange),
            ("startedBy is invalid.", not re.fullmatch(r"[\w/-]{0,128}", given.get("startedBy", ""), re.ASCII)),
            ("clientToken is invalid.", not re.fullmatch(r"[\x21-\x7e]{0,64}", given.get("clientToken", ""))),
        )
        if is_so
    ]
    if wrong:
        raise InvalidParameterException(wrong[0])


def _conflict(arns: list[str]) -> Exception:
    from moto.ecs.exceptions import ECSException

    return ECSException(
        "ConflictException", f"The client token is in use with another request, which started {', '.join(arns)}."
    )


RESPONSE = (run_task,)
