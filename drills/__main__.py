# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m drills SCENARIO: something breaks in a sandbox, somebody recovers, and it is scored how that went.

With --env a real environment is broken, by an experiment that its inventory names.

SCENARIO is a name, a kind (outage, performance, database, security), `random`, `list`, or `history`, which draws the trend of
all drills anew. Exit code 1: it was not recovered.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sandbox.client import Sandbox, SandboxError

from . import history, report, staging
from .collection import REPOSITORY, drill_watch
from .exercise import Exercise
from .scenario import Breakage, DrillError, Scenario, choose, listed, read

# Nobody is to know when it begins, either.
CALM_SECONDS = (5.0, 30.0)
SETTINGS = {"promotion_seconds": 10, "dns_ttl": 5}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m drills", description=__doc__)
    parser.add_argument("scenario", metavar="SCENARIO")
    parser.add_argument("--auto", action="store_true", help="nobody recovers: the playbooks are run by themselves")
    parser.add_argument("--seed", type=int, metavar="N", help="what is chosen, so that it can be had again")
    parser.add_argument(
        "--minutes", type=float, default=30, metavar="N", help="the drill is ended after N (default 30)"
    )
    parser.add_argument("--env", metavar="NAME", help="a real environment that is there for it, instead of a sandbox")
    parser.add_argument(
        "--consent", default="", metavar="ID", help="with --env: the id of the account in which something is broken"
    )
    default = os.environ.get("SRE_DRILL_REPORTS") or REPOSITORY / "drill-reports"
    parser.add_argument(
        "--reports", type=Path, default=default, metavar="FOLDER", help="default $SRE_DRILL_REPORTS, else drill-reports"
    )
    args = parser.parse_args(argv)
    if args.scenario == "list":
        print("\n".join(listed(read().values())))
        return 0
    if args.scenario == "history":
        print(history.write(args.reports, time.time()))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the end by a service manager cleans up, too
    if args.env:
        result = staging.hold(args.scenario, args.env, args.consent, args.minutes, by(args))
        folder = folder_of(args, result["scenario"])
        folder.mkdir(parents=True, mode=0o700)
    else:
        result, folder = hold(args, *choose(args.scenario, read(), random.Random(args.seed)))
    report.write(folder, result)
    page = history.write(args.reports, time.time())
    tell(f"report: {os.path.relpath(folder / report.HTML)}, all drills: {os.path.relpath(page)}")
    print((folder / report.MARKDOWN).read_text())
    recovered = result["outcome"] == drill_watch.RECOVERED
    figures = {
        "seconds": result["recovery_seconds"],
        "lost_writes": result["users"]["lost_writes"],
        "wrong_turns": result["wrong_turns"],
        "points": result["score"]["points"],
        "report": os.path.relpath(folder / report.HTML),
    }
    print(
        f"{'RECOVERED' if recovered else 'NOT RECOVERED'} "
        + " ".join(f"{key}={value}" for key, value in figures.items())
    )
    return 0 if recovered else 1


def hold(args: argparse.Namespace, scenario: Scenario, breakage: Breakage) -> tuple[dict[str, Any], Path]:
    """In a sandbox of its own, which is gone afterwards, however it ends."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="sre-drill-"))
        os.chmod(home, 0o711)  # PostgreSQL's user passes through
        sandbox = Sandbox(Path(home) / "sandbox")
        stack.callback(sandbox.down)
        tell("starting two regions: PostgreSQL with a replica, the application, load balancers, DNS")
        sandbox.up(**SETTINGS)
        folder = folder_of(args, scenario.name)
        exercise = Exercise(sandbox, scenario, breakage, folder, by(args), tell, 60 * args.minutes)
        exercise.begin()
        tell("all is well: users are served")
        if not args.auto:
            invite(exercise)
            time.sleep(random.uniform(*CALM_SECONDS))
        return exercise.run(args.auto), folder


def folder_of(args: argparse.Namespace, scenario: str) -> Path:
    """Of the report, named by this moment."""
    return args.reports.resolve() / f"{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}-{scenario}"


def by(args: argparse.Namespace) -> str:
    return history.BY_ITSELF if args.auto else getpass.getuser()


def invite(exercise: Exercise) -> None:
    """How the responder comes into the sandbox from another terminal."""
    shell = exercise.folder / "env.sh"
    lines = [f"cd {shlex.quote(str(REPOSITORY))}", f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in exercise.environment.items()]
    lines += [f"source {shlex.quote(str(exercise.sandbox.home / 'env.sh'))}"]
    shell.write_text("\n".join(lines) + "\n")
    tell("something is going to break. You are on call; in another terminal:")
    print(f"    source {shell}")
    print("    ansible-playbook playbooks/triage.yml -e env=sandbox    # env=sandbox_fleet for regami-fleet")
    print("Ctrl-C here gives up.", flush=True)


def tell(line: str) -> None:
    print(f">>> {line}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DrillError, SandboxError) as error:
        sys.exit(f"drill: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
