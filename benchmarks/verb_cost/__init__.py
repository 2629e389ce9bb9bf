# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task costs beyond its work: no incident at all, one AWS call a verb, in both entrances of a verb."""

from __future__ import annotations

from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant

HERE = Path(__file__).resolve().parent
VERBS = 5  # in verbs.yml

_RUN = ("ansible-playbook", str(HERE / "verbs.yml"), "-e", "env=sandbox", "-e")
IN_CONTROLLER = Contestant(f"{VERBS} verbs in the controller", (*_RUN, "ansible_connection=local"), in_repository=True)
AS_MODULES = Contestant(f"{VERBS} verbs as modules", (*_RUN, "ansible_connection=process"), in_repository=True)
EMPTY = Contestant("empty play", ("ansible-playbook", "-i", "localhost,", str(HERE / "empty.yml")))
EMPTY_HERE = Contestant(
    "empty play, with our ansible.cfg", ("ansible-playbook", str(HERE / "empty.yml")), in_repository=True
)


def arrange(_sandbox: Sandbox, _place: Path) -> dict[str, str]:
    return {}


def figures(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds that one verb takes in the controller's process, and as a module in a process of its own."""
    ways = {"seconds_per_verb_in_controller": IN_CONTROLLER, "seconds_per_verb_as_module": AS_MODULES}
    if EMPTY_HERE.name not in seconds:
        return {}
    floor = seconds[EMPTY_HERE.name]
    return {key: round((seconds[way.name] - floor) / VERBS, 3) for key, way in ways.items() if way.name in seconds}


CONTEST = Contest(
    name="verb_cost",
    contestants=(IN_CONTROLLER, AS_MODULES, EMPTY, EMPTY_HERE),
    arrange=arrange,
    figures=figures,
)
