# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named failures, and rules that make the AWS API misbehave."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World

KINDS = ("latency", "throttle", "error500", "reset", "lost-answer", "denied", "expired-token")


@dataclass(frozen=True)
class Fault:
    """A failure that a person can cause: `apply(world, **args)` starts it, `heal(world)` ends it.

    `parameters` names the arguments in the order in which they are typed; `options` those given as --name value.
    """

    description: str
    apply: Callable[..., None]
    heal: Callable[[World], None]
    parameters: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass
class Rule:
    """What happens to API calls that match. Empty `count` means for ever; `probability` is tossed for each call."""

    kind: str
    service: str = "*"
    action: str = "*"
    region: str = "*"
    count: int | None = None
    probability: float = 1.0
    seconds: float = 1.0
    code: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of API fault {self.kind!r}: one of {', '.join(KINDS)}")

    def matches(self, service: str, action: str, region: str) -> bool:
        return (
            self.count != 0
            and fnmatchcase(service, self.service)
            and fnmatchcase(action, self.action)
            and fnmatchcase(region, self.region)
            and random.random() < self.probability
        )


@dataclass
class Rules:
    """The rules in force. Every matching latency is added up; of the others the first wins."""

    rules: list[Rule] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, service: str, action: str, region: str) -> tuple[float, Rule | None]:
        """Seconds to wait and the rule to apply to one call; uses up the counts."""
        seconds, chosen = 0.0, None
        with self.lock:
            for rule in self.rules:
                if (rule.kind == "latency" or chosen is None) and rule.matches(service, action, region):
                    if rule.count is not None:
                        rule.count -= 1
                    if rule.kind == "latency":
                        seconds += rule.seconds
                    else:
                        chosen = rule
            self.rules = [rule for rule in self.rules if rule.count != 0]
        return seconds, chosen

    def add(self, rule: Rule) -> None:
        with self.lock:
            self.rules.append(rule)

    def clear(self) -> None:
        with self.lock:
            self.rules = []


def _api(
    world: World,
    service: str,
    action: str,
    kind: str,
    region: str = "*",
    count: str | int | None = None,
    probability: str | float = 1.0,
    seconds: str | float = 1.0,
    code: str | None = None,
) -> None:
    count = None if count is None else int(count)
    world.rules.add(Rule(kind, service, action, region, count, float(probability), float(seconds), code))


def _cut(world: World, region: str) -> None:
    if region not in world.regions:
        raise ValueError(f"unknown region {region!r}: one of {', '.join(world.regions)}")
    world.cut_regions.add(region)
    for process in world.processes:
        if process.region == region:
            process.pause()


def _uncut(world: World) -> None:
    for process in world.processes:
        if process.region in world.cut_regions:
            process.resume()
    world.cut_regions.clear()
    world.uncut()


faults = {
    "api": Fault(
        f"calls of SERVICE ACTION (globs) suffer KIND: {', '.join(KINDS)}",
        _api,
        lambda world: world.rules.clear(),
        ("service", "action", "kind"),
        ("region", "count", "probability", "seconds", "code"),
    ),
    "region-cut": Fault("REGION answers nothing: API, databases, services", _cut, _uncut, ("region",)),
}
