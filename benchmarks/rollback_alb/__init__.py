# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version that the load balancer leads to is bad, the one before still runs (regami runbook 2, emergency rollback)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant
from ..race import wait
from ..user import ask

HERE = Path(__file__).resolve().parent
REGION, BAD, API = "us-east-1", "v3-erroring", "/v1/*"

SWITCH = {
    "env": "sandbox",
    "from_target_group_arn": "{{ here.green_target_group_arn }}",
    "to_target_group_arn": "{{ here.target_group_arn }}",
}
OURS = Contestant(
    "alb_switch_target", ("ansible-playbook", str(HERE / "verb.yml"), "-e", json.dumps(SWITCH)), in_repository=True
)
# With what no other contestant does: guard, lease, preflight and the error count of the record.
PLAYBOOK = Contestant(
    "playbooks/rollback_deployment.yml",
    ("ansible-playbook", "playbooks/rollback_deployment.yml", "-e", json.dumps({**SWITCH, "strategy": "alb"})),
    in_repository=True,
)
CLI = Contestant("runbook 2, AWS CLI", ("bash", str(HERE / "runbook2.sh")))
MODULES = Contestant(
    "amazon.aws modules", ("ansible-playbook", "-i", "localhost,", "-e", "@facts.json", str(HERE / "modules.yml"))
)
BOTO = Contestant("bare boto3 script", (sys.executable, str(HERE / "bare_boto3.py")))


def arrange(sandbox: Sandbox, place: Path) -> dict[str, str]:
    """After a blue/green deployment: the default action and the rule for the API, which wins over it, lead to the new group;
    no listener refers to the old one any more."""
    facts = sandbox.state["regions"][REGION] | sandbox.control("green", tag=BAD)
    elbv2 = sandbox.boto("elbv2", REGION)
    balancer = elbv2.describe_load_balancers(LoadBalancerArns=[facts["load_balancer_arn"]])["LoadBalancers"][0]
    forward = [{"Type": "forward", "TargetGroupArn": facts["green_target_group_arn"]}]
    elbv2.modify_listener(ListenerArn=facts["listener_arn"], DefaultActions=forward)
    elbv2.create_rule(
        ListenerArn=facts["listener_arn"],
        Priority=10,
        Conditions=[{"Field": "path-pattern", "PathPatternConfig": {"Values": [API]}}],
        Actions=forward,
    )
    wait(lambda: _version(sandbox) == BAD, "users do not get the bad version")
    (place / "subnets.json").write_text(json.dumps([zone["SubnetId"] for zone in balancer["AvailabilityZones"]]))
    return {
        "region": REGION,
        "load_balancer": balancer["LoadBalancerName"],
        "listener_arn": facts["listener_arn"],
        "blue_arn": facts["target_group_arn"],
        "blue_name": facts["target_group_arn"].split("/")[1],
        "api_path": API,
        "subnets_file": str(place / "subnets.json"),
        "cluster": facts["cluster"],
        "service": facts["service"],
        "alb_url": facts["alb_url"],
        "alb_address": facts["alb_url"].removeprefix("http://").partition(":")[0],
        "log_group": facts["log_group"],
        "public_name": sandbox.state["public_name"],
        "public_url": sandbox.state["public_url"],
    }


def is_over(sandbox: Sandbox) -> bool:
    """Ten requests of each kind, twenty answers of the version before."""
    return all(_version(sandbox, path) == "v2" for path in ("/health", "/v1/rows/1") for _ in range(10))


def _version(sandbox: Sandbox, path: str = "/health") -> str | None:
    answer = ask(sandbox, "GET", path)
    return answer[1].get("X-App-Version") if answer else None


CONTEST = Contest(
    name="rollback_alb",
    contestants=(OURS, CLI, MODULES, PLAYBOOK, BOTO),
    arrange=arrange,
    is_over=is_over,
    limits={CLI.name: 0.3, MODULES.name: 0.3},
)
