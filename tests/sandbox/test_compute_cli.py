# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an on-call engineer types by hand: the AWS CLI and curl, as in the runbook of the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from compute_helpers import EAST, WEST, dig, facts, http_call
from core_helpers import instance, wait_until

AWS = Path(sys.executable).with_name("aws")


def aws(sandbox, line, *more, code=0):
    """The answer of one command, JSON where it is; what it complained of when it should fail."""
    done = subprocess.run(
        [AWS, *line.split(), *map(str, more)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(sandbox.home),
            "AWS_ENDPOINT_URL": sandbox.state["endpoint_url"],
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_DEFAULT_REGION": EAST,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    if code:
        return done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_runbook_of_the_failover_as_typed(fresh_sandbox, tmp_path):
    sandbox, zone = fresh_sandbox, fresh_sandbox.state["hosted_zone_id"]
    east = f"--cluster {facts(sandbox, EAST)['cluster']} --service {facts(sandbox, EAST)['service']} --region {EAST}"
    west = f"--cluster {facts(sandbox, WEST)['cluster']} --service {facts(sandbox, WEST)['service']} --region {WEST}"
    stopped = aws(sandbox, f"ecs update-service {east} --desired-count 0")["service"]
    assert stopped["desiredCount"] == 0
    aws(sandbox, f"rds promote-read-replica --db-instance-identifier regami-db-replica --region {WEST}")
    endpoint = instance(sandbox, WEST, "regami-db-replica")["Endpoint"]

    known = aws(sandbox, f"ecs describe-task-definition --task-definition regami-api --region {WEST}")["taskDefinition"]
    for each in known["containerDefinitions"][0]["environment"]:
        if each["name"] == "DATABASE_URL":
            # As the runbook has it, without a user.
            each["value"] = f"postgresql://{endpoint['Address']}:{endpoint['Port']}/regami"
    names = ("family", "networkMode", "cpu", "memory", "containerDefinitions", "requiresCompatibilities")
    (tmp_path / "task-definition.json").write_text(json.dumps({name: known[name] for name in names}))
    file = f"file://{tmp_path}/task-definition.json"
    made = aws(sandbox, f"ecs register-task-definition --cli-input-json {file} --region {WEST}")["taskDefinition"]

    wrong = f"ecs update-service {west} --desired-count 2 --task-definition regami-api:LATEST"
    assert "(ClientException)" in aws(sandbox, wrong, code=255)
    right = f"ecs update-service {west} --desired-count 2 --task-definition regami-api"
    assert aws(sandbox, right)["service"]["taskDefinition"] == made["taskDefinitionArn"]
    aws(sandbox, f"ecs wait services-stable {west.replace('--service', '--services')}")
    url = facts(sandbox, WEST)["alb_url"]
    healthy = {"status": "ok", "database": "connected", "writable": True}
    assert http_call(url, "/health?check=db") == (200, healthy)

    pair = aws(
        sandbox, f"route53 list-resource-record-sets --hosted-zone-id {zone} --start-record-name api.regami.test"
    )["ResourceRecordSets"][:2]
    for each in pair:
        each["Failover"] = "SECONDARY" if each["Failover"] == "PRIMARY" else "PRIMARY"
    changes = [{"Action": "UPSERT", "ResourceRecordSet": each} for each in pair]
    (tmp_path / "failover-to-secondary.json").write_text(json.dumps({"Changes": changes}))
    file = f"file://{tmp_path}/failover-to-secondary.json"
    change = aws(sandbox, f"route53 change-resource-record-sets --hosted-zone-id {zone} --change-batch {file}")
    aws(sandbox, f"route53 wait resource-record-sets-changed --id {change['ChangeInfo']['Id']}")
    assert dig(sandbox, "api.regami.test") == ["127.0.2.10"]

    logs = "logs filter-log-events --log-group-name /ecs/regami-api --filter-pattern listening"
    wait_until(lambda: aws(sandbox, f"{logs} --region {WEST}")["events"], "the application's log")
