# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes iam/<playbook>.json from what sandboxes have seen playbooks need (a file that SRE_SANDBOX_OBSERVED named).

`--add` keeps what the policies allow already: for who has run some tests and not all.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from .policy import actions_of, policy

HERE = Path(__file__).parent
PLAYBOOKS = HERE.parent / "playbooks"


def observed(path: Path) -> dict[str, set[str]]:
    """{playbook: permissions}, of the playbooks of this collection."""
    found = defaultdict(set)
    for line in path.read_text().splitlines():
        seen = json.loads(line)
        if (PLAYBOOKS / f"{seen['playbook']}.yml").exists():
            found[seen["playbook"]].add(seen["action"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m iam", description=__doc__)
    parser.add_argument("observed", type=Path, help="the file of what was seen")
    parser.add_argument("--add", action="store_true", help="keep what the policies allow already")
    given = parser.parse_args()
    for playbook, actions in sorted(observed(given.observed).items()):
        path = HERE / f"{playbook}.json"
        if given.add and path.exists():
            actions |= actions_of(json.loads(path.read_text()))
        path.write_text(json.dumps(policy(playbook, actions), indent=2) + "\n")
        print(f"{path.relative_to(HERE.parent)}: {len(actions)} permissions")


main()
