# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an on-call engineer types by hand: the AWS CLI and curl, as in the runbook of the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from compute_helpers import EAST, WEST, dig, facts, http_call, wait_steady
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


@pytest.mark.soak
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


@pytest.mark.soak
def test_runbook_of_the_rollback_as_typed(fresh_sandbox):
    sandbox, service = fresh_sandbox, "--cluster regami-cluster --services regami-service"
    wait = f"ecs wait services-stable {service} --region {EAST}"  # looks every 15 s
    sandbox.fault("bad-build", build="erroring")
    wait_steady(sandbox, EAST)
    aws(sandbox, wait)
    answers = {http_call(facts(sandbox, EAST)["alb_url"], "/v1/rows/1")[0] for _ in range(4)}
    assert answers == {500, 404}

    recent = aws(sandbox, "ecs list-task-definitions --family-prefix regami-api --sort DESC --max-results 5")
    assert [arn.rpartition("/")[2] for arn in recent["taskDefinitionArns"]] == [
        "regami-api:5",
        "regami-api:4",  # "previous (known good)" for whoever counts back; it never ran
        "regami-api:3",
        "regami-api:1",
    ]
    back = "ecs update-service --cluster regami-cluster --service regami-service --task-definition regami-api:3"
    updated = aws(sandbox, f"{back} --force-new-deployment --region {EAST}")["service"]
    assert [each["status"] for each in updated["deployments"]] == ["PRIMARY", "ACTIVE"]
    query = "--query services[0].[deployments,events[0:3]]"
    deployments, events = aws(sandbox, f"ecs describe-services {service} --region {EAST} {query}")
    assert (deployments[0]["id"], len(events)) == (updated["deployments"][0]["id"], 3)
    wait_steady(sandbox, EAST)
    aws(sandbox, wait)
    names = "--cluster regami-cluster --service-name regami-service"
    listed = aws(sandbox, f"ecs list-tasks {names} --desired-status RUNNING --region {EAST}")["taskArns"]
    query = "--query tasks[0].taskDefinitionArn"
    running = aws(sandbox, f"ecs describe-tasks --cluster regami-cluster --tasks {listed[0]} --region {EAST} {query}")
    assert (len(listed), running.rpartition("/")[2]) == (2, "regami-api:3")
    healthy = {"status": "ok", "database": "connected", "writable": True}
    assert http_call(facts(sandbox, EAST)["alb_url"], "/health?check=db") == (200, healthy)

    # What the runbooks look at to find the cause.
    events = aws(sandbox, "logs filter-log-events --log-group-name /ecs/regami-api --filter-pattern ERROR")["events"]
    assert len(events) == 2 and all("GET /v1/rows/1" in event["message"] for event in events)
    counts = "--query services[0].{Status:status,Running:runningCount,Desired:desiredCount}"
    counted = aws(sandbox, f"ecs describe-services {service} {counts}")
    assert counted == {"Status": "ACTIVE", "Running": 2, "Desired": 2}
    balancer = facts(sandbox, EAST)["load_balancer_arn"].partition(":loadbalancer/")[2]
    now = datetime.now(UTC)
    response_times = aws(
        sandbox,
        "cloudwatch get-metric-statistics --namespace AWS/ApplicationELB --metric-name TargetResponseTime "
        f"--dimensions Name=LoadBalancer,Value={balancer} --start-time {now - timedelta(hours=1):%Y-%m-%dT%H:%M:%S} "
        f"--end-time {now + timedelta(minutes=1):%Y-%m-%dT%H:%M:%S} --period 60 --statistics Average Maximum",
    )["Datapoints"]
    assert response_times and all(0 < point["Average"] <= point["Maximum"] for point in response_times)

    # What the runbook does not know, and ECS keeps.
    aws(sandbox, "ecs update-service --cluster regami-cluster --service regami-service --task-definition regami-api:4")
    going_on = aws(sandbox, "ecs list-service-deployments --cluster regami-cluster --service regami-service")
    arn = going_on["serviceDeployments"][0]["serviceDeploymentArn"]
    described = aws(sandbox, f"ecs describe-service-deployments --service-deployment-arns {arn}")["serviceDeployments"]
    assert described[0]["targetServiceRevision"]["requestedTaskCount"] == 2

    images = aws(sandbox, "ecr describe-images --repository-name regami-api --image-ids imageTag=v2")["imageDetails"]
    assert images[0]["imageTags"] == ["v2"] and images[0]["imageDigest"].startswith("sha256:")
    aws(sandbox, "ecr batch-delete-image --repository-name regami-api --image-ids imageTag=v1")
    assert "ImageNotFoundException" in aws(
        sandbox, "ecr describe-images --repository-name regami-api --image-ids imageTag=v1", code=255
    )
