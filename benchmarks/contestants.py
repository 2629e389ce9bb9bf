# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who takes part: each moves the service of one sandbox away from its killed database."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent


@dataclass(frozen=True)
class Contestant:
    """`command` runs in the repository where it needs its ansible.cfg, else in a folder of its own."""

    name: str
    command: tuple[str, ...]
    in_repository: bool = False
    recovers: bool = True  # False: there for information, nothing to recover


OURS = Contestant(
    "playbooks/db_failover.yml",
    ("ansible-playbook", "playbooks/db_failover.yml", "-e", "env=sandbox"),
    in_repository=True,
)
CLI = Contestant("runbook 1, AWS CLI", ("bash", str(HERE / "runbook1.sh")))
# A play that has its values in plain variables: the fastest way to give them.
MODULES = Contestant(
    "amazon.aws modules", ("ansible-playbook", "-i", "localhost,", "-e", "@facts.json", str(HERE / "modules.yml"))
)
BOTO = Contestant("bare boto3 script", (sys.executable, str(HERE / "bare_boto3.py")))

EMPTY = Contestant("empty play", ("ansible-playbook", "-i", "localhost,", str(HERE / "empty.yml")), recovers=False)
EMPTY_HERE = Contestant(
    "empty play, with our ansible.cfg",
    ("ansible-playbook", str(HERE / "empty.yml")),
    in_repository=True,
    recovers=False,
)

TASKS = 5  # in verb_cost.yml
_VERB = ("ansible-playbook", str(HERE / "verb_cost.yml"), "-e", "env=sandbox", "-e")
IN_CONTROLLER = Contestant(
    f"{TASKS} verbs in the controller", (*_VERB, "ansible_connection=local"), in_repository=True, recovers=False
)
AS_MODULES = Contestant(
    f"{TASKS} verbs as modules", (*_VERB, "ansible_connection=process"), in_repository=True, recovers=False
)

ALL = (OURS, CLI, MODULES, BOTO, EMPTY, EMPTY_HERE, IN_CONTROLLER, AS_MODULES)
# The most that ours may take of the wall time of another (issue "Database failover, end to end", Speed).
LIMITS = {CLI: 0.3, MODULES: 0.3}
