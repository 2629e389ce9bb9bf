# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m benchmarks.diagnosis: sixty incidents of known cause. Exit code 1: fewer were named rightly than the limit says.

Each is played in the sandbox, with users who suffer from it, and judged once by the verb cause_assess. "Cannot tell" counts as
neither right nor wrong: it sends nobody the wrong way.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

from sandbox.client import Sandbox
from sandbox.incidents.causes import CAUSES

from . import incidents, table

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 55 / 60


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    parser.add_argument("causes", nargs="*", metavar="CAUSE", help=f"of {', '.join(CAUSES)} (default all)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="days of each cause (default 5)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="N", help="(default 1)")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="how long users suffer (default: as each cause needs)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer to FILE")
    args = parser.parse_args(argv)
    if unknown := set(args.causes) - CAUSES.keys():
        parser.error(f"no cause {', '.join(sorted(unknown))}: there are {', '.join(CAUSES)}")
    _AnsibleCollectionFinder(paths=[str(REPOSITORY / ".ansible" / "collections")])._install()
    folder = Path(tempfile.mkdtemp(prefix="sre-diagnosis-"))
    sandbox = Sandbox(folder / "sandbox")
    try:
        sandbox.up(metric_seconds=0.5)
        days = range(args.first_seed, args.first_seed + args.seeds)
        outcomes = [_played(sandbox, cause, day, args.seconds) for day in days for cause in args.causes or CAUSES]
    finally:
        sandbox.down()
        shutil.rmtree(folder, ignore_errors=True)
    totals = table.totals(outcomes)
    print("", *table.confusion(outcomes), "", *table.misjudged(outcomes), sep="\n")
    wanted = round(LIMIT * len(outcomes) + 1e-9)
    told = ", ".join(f"{number} {name}" for name, number in totals.items())
    print(f"\n{told} of {len(outcomes)}; limit: at least {wanted} right")
    if args.json:
        args.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1, default=str))
    return 0 if totals["right"] >= wanted else 1


def _played(sandbox: Sandbox, cause: str, seed: int, seconds: float | None) -> incidents.Outcome:
    began = time.monotonic()
    outcome = incidents.play(sandbox, cause, seed, seconds)
    mark = "ok" if outcome.is_right else "cannot tell" if outcome.cannot_tell else f"WRONG: {outcome.named}"
    took = time.monotonic() - began
    print(f"{cause} seed {seed}: {mark} ({outcome.confidence:.2f}), {took:.1f} s, {outcome.felt}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
