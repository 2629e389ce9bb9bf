# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m benchmarks: the database failover against the AWS CLI, the modules of amazon.aws and a bare script.

All run against one sandbox in which AWS takes no time of its own (promotion, Route 53's INSYNC and the TTL of its records are
0 s; ours alone waits for the last two), one after the other in each round, each from the same start: the primary database
is killed. Exit code 1: a limit is missed, or a contestant did not recover.

Whether Python finds compiled modules decides more than anything else here: without them a command of the AWS CLI takes
three times as long, a module of Ansible twice. By default that is as this machine has it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

from sandbox.client import Sandbox, SandboxError

from .contestants import ALL, AS_MODULES, BOTO, EMPTY_HERE, IN_CONTROLLER, LIMITS, OURS, TASKS
from .race import NotRecovered, Race, Run

# What Python is told. https://docs.python.org/3/using/cmdline.html#envvar-PYTHONPYCACHEPREFIX
BYTECODE = {"none": {"PYTHONDONTWRITEBYTECODE": "1"}, "cached": {"PYTHONDONTWRITEBYTECODE": ""}}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each contestant (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and the ratios to FILE")
    parser.add_argument(
        "--bytecode",
        choices=BYTECODE,
        help="for all alike: every process compiles what it imports, or finds it cached by a first round that is not counted",
    )
    parser.add_argument("--only", metavar="TEXT", help="only contestants whose name contains TEXT")
    args = parser.parse_args(argv)
    chosen = [each for each in ALL if not args.only or args.only in each.name]
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
            for contestant in chosen:
                run = race.run(contestant)
                print(f"round {number}: {contestant.name}: {run.seconds:.1f} s", file=sys.stderr, flush=True)
                runs += [run] if number else []
    except (NotRecovered, SandboxError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    finally:
        sandbox.down()
    shutil.rmtree(folder, ignore_errors=True)  # kept after an error, for its output
    results = {each.name: [run for run in runs if run.contestant == each.name] for each in chosen}
    figures = summary(results)
    print_table(results, figures, args.bytecode or found_compiled())
    if args.json:
        args.json.write_text(json.dumps({"runs": [run.as_dict() for run in runs], **figures}, indent=1) + "\n")
    return 0 if all(limit["kept"] for limit in figures["limits"]) else 1


def seconds(runs: list[Run]) -> float:
    return median(run.seconds for run in runs)


def summary(results: dict[str, list[Run]]) -> dict:
    """Ratios of the medians, and what one verb costs beyond an empty play; only of those that took part."""
    ours = results.get(OURS.name)
    limits: list[dict] = []
    figures: dict = {"limits": limits}
    if ours:
        for other, limit in LIMITS.items():
            if other.name in results:
                ratio = round(seconds(ours) / seconds(results[other.name]), 3)
                limits.append({"to": other.name, "ratio": ratio, "limit": limit, "kept": ratio <= limit})
        if BOTO.name in results:
            figures["ratio_to_bare_boto3"] = round(seconds(ours) / seconds(results[BOTO.name]), 2)
    if all(each.name in results for each in (EMPTY_HERE, IN_CONTROLLER, AS_MODULES)):
        floor = seconds(results[EMPTY_HERE.name])
        for name, each in (("controller", IN_CONTROLLER), ("module", AS_MODULES)):
            figures[f"seconds_per_verb_{name}"] = round((seconds(results[each.name]) - floor) / TASKS, 3)
    return figures


def found_compiled() -> str:
    """Of which packages Python finds compiled modules on this machine as it is."""
    found = []
    for name in ("ansible", "awscli", "botocore"):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and Path(importlib.util.cache_from_source(spec.origin)).exists():
            found.append(name)
    return ", ".join(found) or "none"


def print_table(results: dict[str, list[Run]], figures: dict, compiled: str) -> None:
    width = max(len(name) for name in results)
    ours = results.get(OURS.name)
    print(f"{'':{width}}  seconds     min - max      cpu  AWS calls  to ours")
    for name, runs in results.items():
        times = [run.seconds for run in runs]
        to_ours = f"{median(times) / seconds(ours):7.2f}" if ours else ""
        cpu, calls = (median(getattr(run, key) for run in runs) for key in ("cpu_seconds", "calls"))
        print(
            f"{name:{width}}  {median(times):7.2f}  {min(times):5.2f} - {max(times):5.2f}  {cpu:7.2f}  {calls:9.0f}  {to_ours}"
        )
    rounds = len(next(iter(results.values())))
    print(
        f"\nmedian of {rounds}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, compiled modules: {compiled}"
    )
    for limit in figures["limits"]:
        verdict = "kept" if limit["kept"] else "MISSED"
        print(f"ours to {limit['to']}: {limit['ratio']:.2f}, limit {limit['limit']}: {verdict}")
    if "ratio_to_bare_boto3" in figures:
        print(f"ours to {BOTO.name}: {figures['ratio_to_bare_boto3']:.2f}")
    if "seconds_per_verb_controller" in figures:
        inside, outside = figures["seconds_per_verb_controller"], figures["seconds_per_verb_module"]
        print(f"one verb: {inside:.2f} s in the controller's process, {outside:.2f} s as a module")


if __name__ == "__main__":
    sys.exit(main())
