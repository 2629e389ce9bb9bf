# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which errors, how often and since when: a million lines in 50 streams, against the search that the runbooks type."""

from __future__ import annotations

from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant

HERE = Path(__file__).resolve().parent
REGION, GROUP = "us-east-1", "/ecs/regami-crowd"
EVENTS, STREAMS, MINUTES = 1_000_000, 50, 30
# One line of so many is an error.
EACH = 200
ERRORS = [
    "ERROR POST /v1/rows/%d KeyError: 'tenant'",
    "ERROR psycopg2.OperationalError: connection to server failed (request %d)",
    "ERROR [Errno 28] No space left on device: '/var/cache/%d'",
    "CRITICAL worker %d was killed",
]

OURS = Contestant("log_errors", ("ansible-playbook", str(HERE / "verb.yml"), "-e", "env=sandbox"), in_repository=True)
CLI = Contestant("aws logs filter-log-events", ("bash", str(HERE / "search.sh")))


def arrange(sandbox: Sandbox, _place: Path) -> dict[str, str]:
    crowd = {"count": EVENTS, "streams": STREAMS, "minutes": MINUTES, "errors": ERRORS, "each": EACH}
    sandbox.control("log-crowd", region=REGION, name=GROUP, **crowd)
    return {"log_group": GROUP, "minutes": str(MINUTES + 5)}


CONTEST = Contest(name="log_errors", contestants=(OURS, CLI), arrange=arrange)
