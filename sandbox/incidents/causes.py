# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong, for real, and how it is put right. What differs from seed to seed is who did it, when, and which of two ways."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import cloudtrail, distress, elasticache, partner
from ..faults import Rule
from ..patience import wait_until
from . import stage

if TYPE_CHECKING:
    from ..processes import Process
    from ..world import World

PEOPLE = ("a.lindt", "j.okafor", "m.silva", "terraform", "k.tanaka")
# Visitors of a spike, and how many rows all of them write a second.
VISITORS, VISITS = 30, 150.0
# A host whose neighbours take its processors: how long it gets none, and how long it gets them, in seconds. Health checks,
# which wait for 2 s, pass.
STILL, RUNS = 0.5, 0.01
SOME = 3
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Scene:
    """One incident. `way`: which of two, by its seed; `kept`: what its end needs of its beginning."""

    world: World
    seed: int
    dice: random.Random
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def way(self) -> int:
        return self.seed % 2

    def person(self, service: str) -> Any:
        """A client of somebody of the team."""
        return cloudtrail.client_of(self.world, self.dice.choice(PEOPLE), service, self.world.regions[0])


@dataclass(frozen=True)
class Cause:
    """`seconds`: how long users suffer, once `is_there` (where that takes its time) says so; `minutes` (from, to): what all of it
    stands for.
    """

    begin: Callable[[Scene], None]
    end: Callable[[Scene], None]
    seconds: float = 6.0
    minutes: tuple[float, float] = (5, 15)
    is_there: Callable[[Scene], Callable[[], Any]] | None = None


def wait_for(true: Callable[[], Any] | None) -> None:
    if true is not None:
        wait_until(true, "the incident shows")


def forget(world: World) -> None:
    for each in _visitors:
        each.kill()
    _visitors.clear()


def _users_fail(scene: Scene) -> Callable[[], bool]:
    """Whether some of them have, since now."""
    errors = scene.world.home / "load" / "errors.jsonl"

    def so_far() -> int:
        return errors.read_bytes().count(b"\n") if errors.exists() else 0

    before = so_far()
    return lambda: so_far() >= before + SOME


# ---- builds --------------------------------------------------------------------------------------------------------


def _ship(build: str, scene: Scene) -> None:
    stage.deploy(scene.world, stage.release(scene.world, build, scene.dice.randrange(10, 99)))


def _shipped(scene: Scene) -> Callable[[], bool]:
    """Whether the new build has taken over."""

    def is_over() -> bool:
        with scene.world.lock:
            own = stage.service(scene.world)
            return len(own.deployments) == 1 and own.running_count == stage.TASKS

    return is_over


def _ship_and_wait(build: str, scene: Scene) -> None:
    _ship(build, scene)
    wait_for(_shipped(scene))


def _nothing(scene: Scene) -> None:
    """What was deployed is replaced in any case."""


def _killed_for_memory(scene: Scene) -> Callable[[], bool]:
    from ..ecs import tasks

    def is_there() -> bool:
        with scene.world.lock:
            own = tasks.of_service[stage.service(scene.world).arn]
            return any(task.container_reason.startswith("OutOfMemory") and task.status == "STOPPED" for task in own)

    return is_there


# ---- the database --------------------------------------------------------------------------------------------------


def _lock_and_read(scene: Scene) -> None:
    distress.hold("locking_report", scene.world, 1)


def _unlock(scene: Scene) -> None:
    distress.let_go("locking_report", scene.world)


def _exhaust(scene: Scene) -> None:
    if scene.way:
        distress.hold("leak", scene.world)
    else:
        _ship_and_wait("leaking", scene)


def _let_go(scene: Scene) -> None:
    if scene.way:
        distress.let_go("leak", scene.world)


def _rules(scene: Scene) -> tuple[str, list]:
    group = scene.world.state["regions"][scene.world.regions[0]]["db_security_group"]
    ec2 = scene.world.client("ec2", scene.world.regions[0])
    return group, ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]


def _revoke(scene: Scene) -> None:
    group, rules = _rules(scene)
    scene.kept["rules"] = rules
    scene.person("ec2").revoke_security_group_ingress(GroupId=group, IpPermissions=rules)


def _authorize(scene: Scene) -> None:
    group, rules = _rules(scene)
    if not rules:
        scene.person("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=scene.kept["rules"])


# ---- the other dependencies ----------------------------------------------------------------------------------------


def _fault_of(part: Any, name: str, **arguments: Any) -> tuple[Callable[[Scene], None], Callable[[Scene], None]]:
    fault = part.faults[name]
    return lambda scene: fault.apply(scene.world, **arguments), lambda scene: fault.heal(scene.world)


def _deny(scene: Scene) -> None:
    if scene.way:
        scene.person("iam").delete_role_policy(RoleName=stage.ROLE, PolicyName=stage.POLICY)
        return
    statement = {
        "Sid": "OnlyFromTheOffice",
        "Effect": "Deny",
        "Principal": {"AWS": f"arn:aws:iam::{scene.world.account_id}:role/{stage.ROLE}"},
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{stage.BUCKET}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    scene.person("s3").put_bucket_policy(Bucket=stage.BUCKET, Policy=policy)


def _permit(scene: Scene) -> None:
    stage.grant(scene.world)
    if not scene.way:
        scene.world.client("s3", scene.world.regions[0]).delete_bucket_policy(Bucket=stage.BUCKET)


def _throttle(scene: Scene) -> None:
    if scene.way:
        scene.world.rules.add(Rule("throttle", "s3", "PutObject", code="SlowDown", probability=0.85))
    else:
        partner.faults["partner-throttles"].apply(scene.world, one_in=scene.dice.randint(3, 8))


def _unthrottle(scene: Scene) -> None:
    scene.world.rules.clear()
    partner.faults["partner-throttles"].heal(scene.world)


# ---- tasks ---------------------------------------------------------------------------------------------------------


def _disk_of(task: Any) -> Path:
    return Path(f"/proc/{task.pid}/root{task.disk}")


def _fill(scene: Scene) -> None:
    """A debug setting that somebody forgot writes every request to a file of its own."""
    for task in stage.running(scene.world):
        # A page that a journal has begun is taken whole: there is room in it.
        journal = _disk_of(task) / "journal.log"
        with open(journal, "ab") as file:
            file.write(b"\n" * (-file.tell() % PAGE))
        try:
            with open(_disk_of(task) / "requests.dump", "wb", buffering=0) as file:
                while file.write(b"\x01" * 65536):
                    pass
        except OSError:
            continue  # it is full, as it is to be


def _empty(scene: Scene) -> None:
    for task in stage.running(scene.world):
        (_disk_of(task) / "requests.dump").unlink(missing_ok=True)


def _spoil(scene: Scene) -> None:
    """The host of one task: its disk turns read-only after errors, or it hardly gets a processor."""
    task = scene.kept["task"] = scene.dice.choice(stage.running(scene.world))
    if scene.way:
        _remount(task, "ro")
        return
    process = task.process

    def stutter() -> None:
        while scene.kept.get("task") is task and process.poll() is None:
            process.pause()
            try:
                scene.world.pause(STILL)
            finally:
                process.resume()
            scene.world.pause(RUNS)

    scene.kept["thread"] = scene.world.background(stutter)


def _mend(scene: Scene) -> None:
    task = scene.kept.pop("task", None)
    if "thread" in scene.kept:
        scene.kept["thread"].join(2 * STILL)
    elif task is not None and task.pid:
        _remount(task, "rw")


def _remount(task: Any, mode: str) -> None:
    user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
    enter = ("nsenter", "--target", str(task.pid), "--mount", *user)
    subprocess.run([*enter, "mount", "-o", f"remount,{mode}", task.disk], check=True, capture_output=True)


# ---- users ---------------------------------------------------------------------------------------------------------

_visitors: list[Process] = []


def _rush(scene: Scene) -> None:
    """Many more users, beside those that are always there."""
    world = scene.world
    folder = world.home / "visitors"
    folder.mkdir(exist_ok=True)
    options = {
        "dns": world.state["dns"],
        "name": world.state["public_name"],
        "port": world.state["http_port"],
        "first": int(time.time()) * 1_000_000,
        "writers": VISITORS,
        "rate": VISITS,
        "pinned": None,
        "readers": 0,
        "reads": 0,
        "retry": 0.5,
    }
    argv = [sys.executable, "-m", "sandbox.writers", str(folder), json.dumps(options)]
    _visitors.append(world.spawn("visitors", argv, log=folder / "log"))


def _go_home(scene: Scene) -> None:
    forget(scene.world)


_bad = partial(_ship_and_wait, "erroring")
CAUSES = {
    "bad_deployment": Cause(_bad, _nothing),
    "slow_query": Cause(_lock_and_read, _unlock, 7.0),
    "memory_leak": Cause(partial(_ship, "bloating"), _nothing, 3.0, (20, 28), _killed_for_memory),
    "pool_exhausted": Cause(_exhaust, _let_go, 6.0, is_there=_users_fail),
    "redis_down": Cause(*_fault_of(elasticache, "redis-down")),
    "s3_denied": Cause(_deny, _permit),
    "bad_host": Cause(_spoil, _mend, 9.0),
    "network_rule": Cause(_revoke, _authorize, 7.0, is_there=_users_fail),
    "throttled_api": Cause(_throttle, _unthrottle),
    "traffic_spike": Cause(_rush, _go_home, 9.0),
    "disk_full": Cause(_fill, _empty, is_there=_users_fail),
    "certificate_expired": Cause(*_fault_of(partner, "partner-certificate-expired")),
}
