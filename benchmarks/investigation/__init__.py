# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users get errors since a deployment: why? (regami runbook 4, mangu 1 and 3.4, courtcase scenario 2)."""

from __future__ import annotations

from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant
from ..race import wait

HERE = Path(__file__).resolve().parent
REGION, FAILURES = "us-east-1", 20

OURS = Contestant("cause_assess", ("ansible-playbook", str(HERE / "verb.yml"), "-e", "env=sandbox"), in_repository=True)
# With what no other contestant does: the guard, and all of it as a page with charts.
PLAYBOOK = Contestant(
    "playbooks/high_error_rate.yml",
    ("ansible-playbook", "playbooks/high_error_rate.yml", "-e", "env=sandbox"),
    in_repository=True,
)
CLI = Contestant("runbook 4, AWS CLI", ("bash", str(HERE / "runbook4.sh")))


def arrange(sandbox: Sandbox, _place: Path) -> dict[str, str]:
    facts = sandbox.state["regions"][REGION]
    sandbox.control("load", action="start")
    sandbox.fault("bad-build", build="erroring")
    wait(
        lambda: sandbox.control("load", action="report")["failed_requests"] >= FAILURES,
        "users do not get the bad version",
    )
    return {
        "region": REGION,
        "load_balancer": facts["load_balancer_arn"].partition(":loadbalancer/")[2],
        "target_group_arn": facts["target_group_arn"],
        "cluster": facts["cluster"],
        "service": facts["service"],
        "family": facts["task_family"],
        "db_instance": facts["db_instance"],
        "alb_address": facts["alb_url"].removeprefix("http://").partition(":")[0],
        "log_group": facts["log_group"],
        "public_url": sandbox.state["public_url"],
    }


CONTEST = Contest(name="investigation", contestants=(OURS, CLI, PLAYBOOK), arrange=arrange, limits={CLI.name: 0.3})
