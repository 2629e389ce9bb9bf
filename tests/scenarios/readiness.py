# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What readiness.yml says of an environment, and ways of being unready."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runbook import Result
from world import EAST, World, wait_until

# Of what concerns every scenario that was looked at.
ALL = "all"


@dataclass(frozen=True)
class Look:
    """One run of readiness.yml, and what it came to: {(host, scenario): {level, findings}}."""

    run: Result
    verdicts: dict[tuple[str, str], dict[str, Any]]

    @property
    def flagged(self) -> dict[str, str]:
        """{scenario: level} of what is not simply ready."""
        return {
            scenario: said["level"] for (_host, scenario), said in self.verdicts.items() if said["level"] != "ready"
        }

    def of_each(self, expected: dict[str, Any]) -> dict[str, Any]:
        """{scenario: what is expected of it}, where that of ALL is expected of every scenario."""
        return {name: expected[ALL] for _host, name in self.verdicts} if ALL in expected else expected

    @property
    def findings(self) -> list[dict[str, str]]:
        """All findings, one of several scenarios once."""
        told = {}
        for said in self.verdicts.values():
            for each in said["findings"]:
                told.setdefault((each["check"], each["resource"], each["because"]), each)
        return list(told.values())


def look(world: World, *flags: str, **variables: Any) -> Look:
    run = world.runbook.run("readiness", *flags, **variables)
    said = json.loads((run.folder / "readiness.json").read_text())["verdicts"]
    return Look(run, {(each["host"], each["scenario"]): each for each in said})


def begin(world: World) -> None:
    """A healthy environment. On the first day the revision before the present one is deregistered: deploy another."""
    world.begin()
    names = world.names(EAST)
    newest = world.aws("ecs").list_task_definitions(familyPrefix="regami-api", sort="DESC")["taskDefinitionArns"][0]
    world.aws("ecs").update_service(cluster=names["cluster"], service=names["service"], taskDefinition=newest)
    wait_until(lambda: world.is_settled(EAST), f"{newest} is deployed")


@dataclass(frozen=True)
class Way:
    """One way of being unready.

    Attributes:
        spoil: breaks it.
        flagged: {scenario: level}, and no other scenario is flagged; or {ALL: level}.
        check, resource, because: of the one finding; `because` and `resource` as far as they are the same in every world.
        prove: runs the real playbook and sees that the verdict was true.
        scenario: what is looked at.
        said: what else readiness.yml is told.
    """

    name: str
    spoil: Callable[[World], Any]
    flagged: dict[str, str]
    check: str
    resource: str
    because: str
    prove: Callable[[World], None]
    scenario: str = "all"
    said: dict[str, Any] = field(default_factory=dict)

    def show(self, world: World) -> None:
        """Broken it is found, named rightly and nothing else is flagged; and the real playbook agrees."""
        begin(world)
        self.spoil(world)
        seen = look(world, scenario=self.scenario, **self.said)
        assert seen.flagged == seen.of_each(self.flagged), seen.run.output
        (finding,) = seen.findings
        assert (finding["check"], self.resource in finding["resource"]) == (self.check, True), finding
        assert self.because in finding["because"] and finding["fix"], finding
        # Where the inventory names a bucket for records, its own goes there.
        changes = [each for each in seen.run.mutations if not each.startswith("s3:PutObject ")]
        assert changes == seen.run.lease_calls == []
        self.prove(world)


def refuses(playbook: str, words: str, **variables: Any) -> Callable[[World], None]:
    """The proof that the real playbook changes nothing, and says so."""

    def prove(world: World) -> None:
        run = world.runbook.run(playbook, **variables)
        assert run.returncode == 2 and run.mutations == [], run.output
        assert any(words in complaint for complaint in run.complaints), run.complaints

    return prove
