# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recovery API of the ECS service in the first region (recovery_app.py), under a name and an address of its own.

It has one snapshot, of what the service ran on the first day, as a pipeline takes it before each deployment.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from . import elbv2, route53
from .faults import Fault
from .recovery_app import as_snapshot

if TYPE_CHECKING:
    from .processes import Process
    from .world import World

NAME = "recovery.regami.test"
ADDRESS = "127.0.3.10"
SLOW_SECONDS = 4.0
FAULTS = ("down", "slow", "error", "refused", "lost-answer")

_process: Process | None = None


def seed(world: World) -> None:
    route53.create(
        world, [{"Name": NAME, "Type": "A", "TTL": world.settings.dns_ttl, "ResourceRecords": [{"Value": ADDRESS}]}]
    )
    world.state["recovery_api"] = {
        "url": f"http://{NAME}:{elbv2.http_port()}",
        "token_file": str(world.home / "secrets" / "recovery_api"),
    }


def start(world: World) -> None:
    global _process
    facts, snapshots = world.state["regions"][world.regions[0]], world.home / "recovery.json"
    if not snapshots.exists():
        with world.lock:
            service = next(iter(world.backend("ecs", world.regions[0]).services.values()))
            first = as_snapshot(datetime.now(UTC), service.task_definition, service.desired_count)
        snapshots.write_text(json.dumps([first]))
    settings = {
        "host": ADDRESS,
        "port": elbv2.http_port(),
        "endpoint_url": world.endpoint_url,
        "region": world.regions[0],
        "app_url": facts["alb_url"],
        "app_host": world.state["public_name"],
        "token": world.secret("recovery_api"),
        "fault_file": str(world.home / "recovery.fault"),
        "slow_seconds": SLOW_SECONDS,
        "snapshots_file": str(snapshots),
    }
    _process = world.spawn(
        "recovery API",
        [sys.executable, "-m", "sandbox.recovery_app"],
        env={"RECOVERY_SETTINGS": json.dumps(settings)},
        log=world.home / "recovery.log",
        region=world.regions[0],
    )


def stop(world: World) -> None:
    _end()
    for name in ("recovery.fault", "recovery.json"):
        (world.home / name).unlink(missing_ok=True)


def _end() -> None:
    global _process
    if _process:
        _process.kill()
        _process = None


def status(world: World) -> list[dict]:
    state = "serving" if _process and _process.poll() is None else "down"
    return [{"region": world.regions[0], "kind": "recovery API", "name": NAME, "state": state, "detail": ADDRESS}]


def _break(world: World, kind: str) -> None:
    if kind not in FAULTS:
        raise ValueError(f"the recovery API knows no fault {kind!r}: one of {', '.join(FAULTS)}")
    if kind == "down":
        _end()
    else:
        (world.home / "recovery.fault").write_text(kind)


def _heal(world: World) -> None:
    (world.home / "recovery.fault").unlink(missing_ok=True)
    if _process is None:
        start(world)


faults = {
    "recovery-api": Fault(
        f"the service's own recovery API suffers KIND: {', '.join(FAULTS)}; refused: it fails, politely",
        _break,
        _heal,
        ("kind",),
    )
}
