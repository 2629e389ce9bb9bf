# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which records Route 53 answers with: routing policies, health, aliases. Pure but for the dice of weighted records.

https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/health-checks-how-route-53-chooses-records.html
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MULTIVALUE_ANSWERS = 8
ALIAS_DEPTH = 8


class Surroundings(Protocol):
    def balancer(self, dns_name: str) -> tuple[str, bool] | None:
        """Address and health of the load balancer of that name."""

    def is_passing(self, health_check_id: str) -> bool: ...


@dataclass(frozen=True)
class Answer:
    name: str
    kind: str  # A, CNAME, ...
    ttl: int
    values: tuple[str, ...]


def canonical(name: str) -> str:
    return name.lower().rstrip(".") + "."


def is_true(value: Any) -> bool:
    return str(value).lower() == "true"


class Zone:
    """The record sets that the name servers have, and how they answer."""

    def __init__(self, records: Sequence[Any], around: Surroundings, alias_ttl: int) -> None:
        self._records, self._around, self._alias_ttl = records, around, alias_ttl

    def has(self, name: str) -> bool:
        return any(record.name == name or record.name.endswith("." + name) for record in self._records)

    def answer(self, name: str, kind: str, depth: int = ALIAS_DEPTH) -> list[Answer]:
        """The answer section; empty when there is no such record. `name` is canonical."""
        chosen = self._choose(self._named(name, kind))
        if not chosen and kind != "CNAME" and (aliases := self._choose(self._named(name, "CNAME"))):
            target = canonical(aliases[0].records[0])
            return [
                Answer(name, "CNAME", int(aliases[0].ttl), (target,)),
                *(self.answer(target, kind, depth - 1) if depth else ()),
            ]
        answers = []
        for record in chosen:
            if not record.alias_target:
                answers.append(Answer(name, kind, int(record.ttl), tuple(record.records)))
            elif balancer := self._around.balancer(record.alias_target["DNSName"]):
                answers.append(Answer(name, kind, self._alias_ttl, (balancer[0],)))
            elif depth:
                target = canonical(record.alias_target["DNSName"])
                answers += [
                    Answer(name, each.kind, each.ttl, each.values) for each in self.answer(target, kind, depth - 1)
                ]
        return answers

    def is_healthy(self, record: Any, depth: int = ALIAS_DEPTH) -> bool:
        if record.health_check_id and not self._around.is_passing(record.health_check_id):
            return False
        alias = record.alias_target
        if not alias or not is_true(alias.get("EvaluateTargetHealth")):
            return True
        if balancer := self._around.balancer(alias["DNSName"]):
            return balancer[1]
        targets = self._named(canonical(alias["DNSName"]), record.type)
        return depth > 0 and any(self.is_healthy(each, depth - 1) for each in targets)

    def _named(self, name: str, kind: str) -> list[Any]:
        return [record for record in self._records if record.name == name and record.type == kind]

    def _choose(self, records: list[Any]) -> list[Any]:
        healthy = [record for record in records if self.is_healthy(record)]
        if any(record.failover for record in records):
            # With nothing healthy left, the primary is as good as any.
            order = {"PRIMARY": 0, "SECONDARY": 1}
            return sorted(healthy or records, key=lambda record: order[record.failover])[:1]
        if any(record.weight is not None for record in records):
            # Records of weight 0 count only when no other is healthy; with nothing healthy, all count as healthy.
            for pool in (healthy, records):
                for some in ([each for each in pool if int(each.weight)], pool):
                    if some:
                        weights = [int(each.weight) or 1 for each in some]
                        return random.choices(some, weights)
        if any(record.multi_value_answer for record in records):
            pool = healthy or records
            return random.sample(pool, min(len(pool), MULTIVALUE_ANSWERS))
        return (healthy or records)[:1]
