# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is practised: the files in `scenarios/`, and which of them a word means."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# Courtcase "Regular Drills": these four, each once a month.
KINDS = ("outage", "performance", "database", "security")
FOLDER = Path(__file__).parent / "scenarios"


class DrillError(Exception):
    """One line for a person."""


@dataclass(frozen=True)
class Breakage:
    """One of the things that may break in a scenario.

    `fault` and `arguments` are the sandbox's; `mended_by` names the playbooks that help, after which a change by another one is
    a wrong turn; `answer` is what AUTO=1 types, `{…}` filled from the sandbox's state.
    """

    fault: str
    mended_by: tuple[str, ...]
    answer: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """What it was, for the report."""
        return " ".join([self.fault, *map(str, self.arguments.values())])


@dataclass(frozen=True)
class Scenario:
    """`source`: the runbook's section. `page`: what on-call is told, `{…}` filled from the sandbox's state.

    `target_seconds`: what a practised responder needs from the page until all is well. `users`: whose public name the load goes
    to, `ecs` or `fleet`. `signs`: what else must be well, of steady.SIGNS. `staged`: whether the sandbox furnishes the service
    with its dependencies and a past first, as `fault incident` does.
    """

    name: str
    kind: str
    title: str
    source: str
    page: str
    target_seconds: float
    breakages: tuple[Breakage, ...]
    users: str = "ecs"
    signs: tuple[str, ...] = ()
    staged: bool = False


def read(folder: Path = FOLDER) -> dict[str, Scenario]:
    """Every scenario by its name. Raises DrillError for a file that is none."""
    return {path.stem: parse(path.stem, yaml.safe_load(path.read_text())) for path in sorted(folder.glob("*.yml"))}


def parse(name: str, given: dict[str, Any]) -> Scenario:
    """Raises DrillError in one line that says what is wrong with it."""
    try:
        breakages = tuple(
            Breakage(**{key: tuple(value) if isinstance(value, list) else value for key, value in each.items()})
            for each in given["breakages"]
        )
        rest = {key: value for key, value in given.items() if key != "breakages"}
        scenario = Scenario(name, breakages=breakages, **rest | {"signs": tuple(given.get("signs", ()))})
    except (KeyError, TypeError) as error:
        raise DrillError(f"scenarios/{name}.yml is no scenario: {error}") from error
    if scenario.kind not in KINDS or not breakages:
        raise DrillError(
            f"scenarios/{name}.yml is no scenario: kind is one of {', '.join(KINDS)}, breakages has one or more"
        )
    return scenario


def choose(word: str, scenarios: dict[str, Scenario], dice: random.Random) -> tuple[Scenario, Breakage]:
    """The scenario that `word` means, a kind and `random` meaning one of several, and what breaks in it.

    Raises DrillError when it means none.
    """
    meant = [each for each in scenarios.values() if word in (each.name, each.kind, "random")]
    if not meant:
        raise DrillError(f"no scenario {word!r}: one of {', '.join([*scenarios, *KINDS, 'random'])}")
    scenario = dice.choice(meant)
    return scenario, dice.choice(scenario.breakages)


def listed(scenarios: Iterable[Scenario]) -> list[str]:
    """Lines for a person."""
    return [f"{each.name:18} {each.kind:12} {each.title}" for each in scenarios]
