# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m benchmarks: each runbook against the AWS CLI and the modules of amazon.aws on the same incident.

All run against one sandbox in which AWS takes no time of its own (promotion, Route 53's INSYNC and the TTL of its records are
0 s; ours alone waits for the last two), one after the other in each round, each from the same start. Exit code 1: a limit is
missed, or a contestant did not recover.

Whether Python finds compiled modules decides more than anything else here: without them a command of the AWS CLI takes
three times as long, a module of Ansible twice. By default that is as this machine has it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from sandbox.client import Sandbox, SandboxError

from . import (
    db_failover,
    disk_cleanup,
    ecs_rollback,
    investigation,
    log_errors,
    pg_kill_queries,
    rollback_alb,
    s3_restore,
    verb_cost,
)
from .contest import NotRecovered
from .race import Race
from .report import found_compiled, print_contest, summary

CONTESTS = {
    each.name: each
    for each in (
        db_failover.CONTEST,
        disk_cleanup.CONTEST,
        ecs_rollback.CONTEST,
        investigation.CONTEST,
        log_errors.CONTEST,
        *pg_kill_queries.CONTESTS,
        rollback_alb.CONTEST,
        s3_restore.CONTEST,
        verb_cost.CONTEST,
    )
}
# What Python is told. https://docs.python.org/3/using/cmdline.html#envvar-PYTHONPYCACHEPREFIX
BYTECODE = {"none": {"PYTHONDONTWRITEBYTECODE": "1"}, "cached": {"PYTHONDONTWRITEBYTECODE": ""}}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("contests", nargs="*", metavar="CONTEST", help=f"of {', '.join(CONTESTS)} (default all)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each contestant (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and all figures to FILE")
    parser.add_argument(
        "--bytecode",
        choices=BYTECODE,
        help="for all alike: every process compiles what it imports, or finds it cached by a first round that is not counted",
    )
    parser.add_argument("--only", metavar="TEXT", help="only contestants whose name contains TEXT")
    args = parser.parse_args(argv)
    if unknown := set(args.contests) - CONTESTS.keys():
        parser.error(f"no contest {', '.join(sorted(unknown))}: there are {', '.join(CONTESTS)}")
    chosen = {
        contest: [each for each in contest.contestants if not args.only or args.only in each.name]
        for name, contest in CONTESTS.items()
        if not args.contests or name in args.contests
    }
    folder = Path(tempfile.mkdtemp(prefix="sre-bench-"))
    folder.chmod(0o711)  # PostgreSQL's user passes through
    sandbox = Sandbox(folder / "sandbox")
    try:
        sandbox.up(promotion_seconds=0, dns_ttl=0, insync_seconds=0)
        environment = (
            {**BYTECODE[args.bytecode], "PYTHONPYCACHEPREFIX": str(folder / "bytecode")} if args.bytecode else {}
        )
        race, runs = Race(sandbox, folder, environment), []
        for number in range(0 if args.bytecode == "cached" else 1, args.rounds + 1):
            for contest, contestant in [(contest, each) for contest, some in chosen.items() for each in some]:
                run = race.run(contest, contestant)
                print(
                    f"round {number}: {contest.name}: {run.contestant}: {run.seconds:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
                runs += [run] if number else []
    except (NotRecovered, SandboxError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    finally:
        sandbox.down()
    shutil.rmtree(folder, ignore_errors=True)  # kept after an error, for its output
    results = {}
    for contest in [contest for contest, some in chosen.items() if some]:
        own = [run for run in runs if run.contest == contest.name]
        results[contest.name] = summary(contest, own)
        print_contest(contest, own, results[contest.name])
    print(
        f"\nmedian of {args.rounds}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, "
        f"compiled modules: {args.bytecode or found_compiled()}"
    )
    if args.json:
        args.json.write_text(json.dumps({"runs": [run.as_dict() for run in runs], **results}, indent=1) + "\n")
    return 0 if all(limit["kept"] for figures in results.values() for limit in figures["limits"]) else 1


if __name__ == "__main__":
    sys.exit(main())
