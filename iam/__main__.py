# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes iam/<playbook>.json: what sandboxes have seen playbooks need (a file that SRE_SANDBOX_OBSERVED named), and what the code of
their verbs asks besides.

`--add` keeps what the policies allow already: for who has run some tests and not all, or none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLAYBOOKS = HERE.parent / "playbooks"

sys.path.insert(0, str(HERE.parent / ".ansible" / "collections"))
from .asked import WITH_ANOTHER, asked_by, verbs_of  # noqa: E402
from .policy import actions_of, policy  # noqa: E402


def observed(path: Path) -> dict[str, set[str]]:
    """{playbook: permissions}, of the playbooks of this collection."""
    found = defaultdict(set)
    for line in path.read_text().splitlines():
        seen = json.loads(line)
        found[seen["playbook"]].add(seen["action"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m iam", description=__doc__)
    parser.add_argument("observed", nargs="?", type=Path, help="the file of what was seen; not needed with --add")
    parser.add_argument("--add", action="store_true", help="keep what the policies allow already")
    given = parser.parse_args()
    if not given.observed and not given.add:
        parser.error("without a file of what was seen the policies would lose what only runs show: --add keeps it")
    seen = observed(given.observed) if given.observed else {}
    for meta in sorted(PLAYBOOKS.glob("*.meta.yml")):
        playbook = meta.with_suffix("").with_suffix(".yml")
        # What all playbooks share is none, and one without a verb of ours asks AWS nothing and keeps no record.
        if not playbook.exists() or not verbs_of(playbook):
            continue
        path = HERE / f"{playbook.stem}.json"
        actions = set(asked_by(playbook))
        if playbook.stem not in WITH_ANOTHER:
            actions |= seen.get(playbook.stem, set())
            actions |= actions_of(json.loads(path.read_text())) if given.add and path.exists() else set()
        path.write_text(json.dumps(policy(playbook.stem, actions), indent=2) + "\n")
        print(f"{path.relative_to(HERE.parent)}: {len(actions)} permissions")


main()
