# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The primary database is killed (regami runbook 1)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant
from ..race import wait
from ..user import write

HERE = Path(__file__).resolve().parent
# What registers a task definition; the rest of what DescribeTaskDefinition answers is refused.
REGISTERED = {
    "family",
    "taskRoleArn",
    "executionRoleArn",
    "networkMode",
    "containerDefinitions",
    "requiresCompatibilities",
    "cpu",
    "memory",
    "runtimePlatform",
}
REPLAY_SECONDS = 0.5

OURS = Contestant(
    "playbooks/db_failover.yml",
    ("ansible-playbook", "playbooks/db_failover.yml", "-e", "env=sandbox"),
    in_repository=True,
)
CLI = Contestant("runbook 1, AWS CLI", ("bash", str(HERE / "runbook1.sh")))
# A play that has its values in plain variables: the fastest way to give them.
MODULES = Contestant(
    "amazon.aws modules", ("ansible-playbook", "-i", "localhost,", "-e", "@facts.json", str(HERE / "modules.yml"))
)
BOTO = Contestant("bare boto3 script", (sys.executable, str(HERE / "bare_boto3.py")))


def arrange(sandbox: Sandbox, place: Path) -> dict[str, str]:
    """Users have written, then the primary is killed and RDS has noticed."""
    state = sandbox.state
    here, there = state["regions"]["us-east-1"], state["regions"]["us-west-2"]
    wait(lambda: write(sandbox) is not None, "users cannot write before the failure")
    # Without any commit that the replica has replayed nothing tells how far it is behind.
    time.sleep(REPLAY_SECONDS)
    sandbox.fault("primary-killed")
    wait(
        lambda: _row(sandbox, here["db_instance"])["state"] == "failed", "RDS does not notice that the primary is dead"
    )
    (place / "task-definition.json").write_text(json.dumps(_task_definition(sandbox)))
    (place / "failover-to-secondary.json").write_text(json.dumps(_change_batch(state)))
    endpoint = _replica(sandbox)["Endpoint"]
    return {
        "primary_region": "us-east-1",
        "primary_db": here["db_instance"],
        "primary_cluster": here["cluster"],
        "primary_service": here["service"],
        "standby_region": "us-west-2",
        "replica_db": there["db_instance"],
        "db_host": endpoint["Address"],
        "db_port": str(endpoint["Port"]),
        "standby_cluster": there["cluster"],
        "standby_service": there["service"],
        "standby_url": there["alb_url"],
        "standby_alb_address": there["alb_url"].removeprefix("http://").partition(":")[0],
        "standby_alb_dns_name": there["alb_dns_name"],
        "standby_alb_zone_id": there["alb_zone_id"],
        "http_port": str(state["http_port"]),
        "task_family": there["task_family"],
        "task_definition_file": str(place / "task-definition.json"),
        "log_group": there["log_group"],
        "hosted_zone_id": state["hosted_zone_id"],
        "public_name": state["public_name"],
        "public_url": state["public_url"],
    }


def is_over(sandbox: Sandbox) -> bool:
    """A write through the public name is acknowledged by the database that was the replica, and is one no more."""
    replica = _replica(sandbox)
    promoted = f"{replica['Endpoint']['Address']}:{replica['Endpoint']['Port']}"
    return not replica.get("ReadReplicaSourceDBInstanceIdentifier") and write(sandbox) == promoted


def figures(seconds: dict[str, float]) -> dict[str, float]:
    if OURS.name in seconds and BOTO.name in seconds:
        return {"ratio_to_bare_boto3": round(seconds[OURS.name] / seconds[BOTO.name], 2)}
    return {}


def _task_definition(sandbox: Sandbox) -> dict:
    family = sandbox.state["regions"]["us-west-2"]["task_family"]
    described = sandbox.boto("ecs", "us-west-2").describe_task_definition(taskDefinition=family)
    return {name: value for name, value in described["taskDefinition"].items() if name in REGISTERED}


def _replica(sandbox: Sandbox) -> dict:
    name = sandbox.state["regions"]["us-west-2"]["db_instance"]
    rds = sandbox.boto("rds", "us-west-2")
    return rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]


def _row(sandbox: Sandbox, name: str) -> dict:
    return next(row for row in sandbox.status()["rows"] if row["name"] == name)


def _change_batch(state: dict) -> dict:
    """The secondary record set becomes PRIMARY and the other way round, at once."""
    changes = []
    for identifier, failover, region in (("primary", "SECONDARY", "us-east-1"), ("secondary", "PRIMARY", "us-west-2")):
        facts = state["regions"][region]
        alias = {
            "HostedZoneId": facts["alb_zone_id"],
            "DNSName": facts["alb_dns_name"],
            "EvaluateTargetHealth": True,
        }
        record = {"Name": state["public_name"], "Type": "A", "SetIdentifier": identifier, "Failover": failover}
        changes.append({"Action": "UPSERT", "ResourceRecordSet": {**record, "AliasTarget": alias}})
    return {"Changes": changes}


CONTEST = Contest(
    name="db_failover",
    contestants=(OURS, CLI, MODULES, BOTO),
    arrange=arrange,
    is_over=is_over,
    # Issue "Database failover, end to end", Speed.
    limits={CLI.name: 0.3, MODULES.name: 0.3},
    figures=figures,
)
