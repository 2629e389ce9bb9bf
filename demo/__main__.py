# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: kill the primary database under write load, run the runbook, show what it did and what users felt."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sandbox.client import Sandbox, SandboxError

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = ["ansible-playbook", "playbooks/db_failover.yml", "-e", "env=sandbox"]
# Enough acknowledged writes to show that none of them goes missing unnoticed.
WRITES_BEFORE = 40
# Seconds for the users to find their way back after the run.
PATIENCE = 60


def main() -> int:
    incidents = REPOSITORY / "incidents"
    before = set(incidents.glob("*")) if incidents.exists() else set()
    with tempfile.TemporaryDirectory(prefix="sre-demo-") as home:
        os.chmod(home, 0o711)
        sandbox = Sandbox(Path(home) / "sandbox")
        with contextlib.ExitStack() as stack:
            tell("starting two regions: PostgreSQL with a replica, the application, load balancers, DNS")
            sandbox.up(promotion_seconds=20, dns_ttl=5)
            stack.callback(sandbox.down)
            sandbox.control("load", action="start")
            report = wait_for(sandbox, lambda seen: seen["acknowledged_writes"] >= WRITES_BEFORE)
            tell(
                f"users write through {sandbox.state['public_name']}: {report['acknowledged_writes']} writes acknowledged"
            )
            killed = time.time()
            sandbox.fault("primary-killed")
            tell("the primary database is killed (SIGKILL)")
            tell("$ " + " ".join(COMMAND))
            run = subprocess.run(
                COMMAND, cwd=REPOSITORY, env={**os.environ, "SRE_SANDBOX_HOME": str(sandbox.home)}, check=False
            )
            writes = sandbox.control("load", action="report")["acknowledged_writes"]
            seen = wait_for(sandbox, lambda now: run.returncode != 0 or now["acknowledged_writes"] > writes)
            sandbox.control("load", action="stop")
            seen = sandbox.control("load", action="report")
    return conclude(run.returncode, seen, killed, newest(incidents, before))


def tell(line: str) -> None:
    print(f"\n>>> {line}", flush=True)


def wait_for(sandbox: Sandbox, enough) -> dict:
    """The load generator's report once it is enough, or what there is when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = sandbox.control("load", action="report")
        if enough(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(0.2)


def newest(incidents: Path, before: set[Path]) -> Path | None:
    """The record that the run wrote."""
    made = sorted(set(incidents.glob("*/report.json")) - {path / "report.json" for path in before})
    return made[-1] if made else None


def conclude(returncode: int, users: dict, killed: float, report: Path | None) -> int:
    """Add what users saw to the run's report; the last line says it all."""
    figures = {key: users[key] for key in ("rto_seconds", "acknowledged_writes", "lost_writes")}
    recovered = returncode == 0 and report is not None and users["rto_seconds"] is not None
    if report is not None:
        record = json.loads(report.read_text())
        recovered = recovered and record["outcome"] == "recovered"
        record.update(figures)
        report.write_text(json.dumps(record, indent=2) + "\n")
        tell("what users saw")
        for line in picture(report.parent, killed, users):
            print(line)
        if record["unfenced"]:
            print(
                "  the old primary is UNFENCED: it could not be reached (playbooks/db_reprotect.yml is the next step)"
            )
    shown = " ".join(f"{key}={value}" for key, value in figures.items())
    where = os.path.relpath(report) if report else "none"
    print(f"\n{'RECOVERED' if recovered else 'NOT RECOVERED'} {shown} report={where}", flush=True)
    return 0 if recovered else 1


def picture(folder: Path, killed: float, users: dict) -> list[str]:
    sys.path.insert(0, str(REPOSITORY / ".ansible" / "collections"))
    from ansible_collections.sre.runbooks.plugins.module_utils import record, timeline

    marks = [(killed, "primary database killed")]
    for key, text in (
        ("last_ack_before", "users: last acknowledged write"),
        ("first_ack_after", "users: writes are acknowledged again"),
    ):
        if users[key] is not None:
            marks.append((users[key], text))
    return timeline.draw(record.events(folder), marks)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SandboxError as error:
        sys.exit(f"NOT RECOVERED {error}")
