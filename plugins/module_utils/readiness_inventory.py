# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a team has not filled in yet, and which playbooks would stop for it."""

from __future__ import annotations

import os
import re

from .guard import PLACEHOLDER
from .readiness import NOT_READY

# The collection's own playbooks lie beside plugins/.
PLAYBOOKS = os.path.join(os.path.dirname(__file__), "..", "..", "playbooks")


def named_by(scenarios, folder=PLAYBOOKS):
    """{scenario: words in its playbook and the steps of it}; a playbook says itself what it needs of the inventory."""
    return {name: frozenset().union(*map(_words, _files(name, folder))) for name in scenarios}


def _files(name, folder):
    yield os.path.join(folder, f"{name}.yml")
    for base, _folders, files in os.walk(os.path.join(folder, name)):
        yield from (os.path.join(base, each) for each in files)


def _words(path):
    with open(path, encoding="utf-8") as lines:
        return set(re.findall(r"\w+", re.sub(r"(?m)^\s*#.*$", "", lines.read())))


def judge(inventory, named):
    """Pure: a finding for each variable that is still a placeholder and each scenario whose playbook names it.

    Args:
        inventory: {variable: value}.
        named: of `named_by`.
    """
    for variable in sorted(name for name, value in inventory.items() if PLACEHOLDER in str(value)):
        for scenario in sorted(name for name, words in named.items() if variable in words):
            yield {
                "scenario": scenario,
                "level": NOT_READY,
                "check": "inventory",
                "resource": variable,
                "because": f"{variable} is still a placeholder",
                "fix": f"replace {PLACEHOLDER} in the inventory",
            }
