# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files a playbook is made of: its own, and those of the tasks and roles that it may include."""

from __future__ import annotations

import re
from pathlib import Path


def reached(playbook: Path) -> set[Path]:
    """The files whose tasks may run; where the name of one is a template, all that it can mean."""
    playbooks, roles = playbook.parent, playbook.parent.parent / "roles"
    found: set[Path] = set()
    left = [playbook, *playbook.with_suffix("").rglob("*.yml")]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        text = re.sub(r"(?m)^\s*#.*$", "", path.read_text(encoding="utf-8"))
        for role in re.findall(r"name: sre\.runbooks\.(\w+)\n", text):
            left += [*(roles / role / "tasks").glob("*.yml"), *(roles / role / "defaults").glob("*.yml")]
            left += [*(roles / role / "handlers").glob("*.yml"), *(roles / role / "vars").glob("*.yml")]
        joined = re.sub(r"' ~ \w+ ~ '", "*", text)
        for name in re.findall(r"(?:\.\./)*[\w*][\w*/]*\.yml", joined + re.sub(r"(\{\{[^{}]*\}\})+", "*", joined)):
            left += _there(path.parent, name) or _there(playbooks, name)
    return found


def _there(folder: Path, pattern: str) -> list[Path]:
    while pattern.startswith("../"):
        folder, pattern = folder.parent, pattern[3:]
    inside = folder.name != "playbooks" or "/" in pattern
    return [path for path in folder.glob(pattern) if not path.stem.endswith(".meta")] if inside else []
