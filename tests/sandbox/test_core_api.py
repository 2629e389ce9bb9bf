# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoint: injected failures as botocore reads them, the call log, what moto lacks, concurrency, a cut region."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from core_helpers import PRIMARY, instance, wait_until

from sandbox import server
from sandbox.wire import Call

ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=10)

# A read in each protocol: query XML, EC2's XML, REST XML, JSON 1.0, JSON 1.1, and CloudWatch which speaks two.
READS = {
    "rds": ("describe_db_instances", {}),
    "ec2": ("describe_vpcs", {}),
    "route53": ("list_hosted_zones", {}),
    "dynamodb": ("list_tables", {}),
    "ecs": ("list_clusters", {}),
    "cloudwatch": ("list_metrics", {}),
    "sts": ("get_caller_identity", {}),
}
CODES = {
    ("throttle", "rds"): "Throttling",
    ("throttle", "ec2"): "RequestLimitExceeded",
    ("throttle", "route53"): "Throttling",
    ("throttle", "dynamodb"): "ThrottlingException",
    ("throttle", "ecs"): "ThrottlingException",
    ("denied", "rds"): "AccessDenied",
    ("denied", "ec2"): "UnauthorizedOperation",
    ("denied", "route53"): "AccessDenied",
    ("denied", "ecs"): "AccessDeniedException",
    ("denied", "sts"): "AccessDenied",
    ("expired-token", "rds"): "ExpiredToken",
    ("expired-token", "dynamodb"): "ExpiredTokenException",
    ("expired-token", "sts"): "ExpiredToken",
    ("error500", "rds"): "InternalFailure",
    ("error500", "route53"): "InternalFailure",
    ("error500", "ecs"): "InternalServerError",
}


@pytest.fixture
def healed(sandbox):
    yield sandbox
    sandbox.heal()


def read(sandbox, service):
    verb, arguments = READS[service]
    return getattr(sandbox.boto(service, config=ONCE), verb)(**arguments)


@pytest.mark.parametrize(("kind", "service"), CODES)
def test_an_injected_error_is_parsed_by_botocore(healed, kind, service):
    healed.fault("api", service=service, action="*", kind=kind, count=1)
    with pytest.raises(ClientError) as caught:
        read(healed, service)
    assert caught.value.response["Error"]["Code"] == CODES[kind, service]
    if kind == "denied":
        assert f"{service}:{caught.value.operation_name}" in str(caught.value)
    assert (caught.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 500) == (kind == "error500")
    read(healed, service)  # the count is used up


def test_cloudwatch_errors_are_parsed_whatever_its_protocol(healed):
    healed.fault("api", service="cloudwatch", action="ListMetrics", kind="throttle", count=1)
    with pytest.raises(ClientError) as caught:
        read(healed, "cloudwatch")
    assert caught.value.response["Error"]["Code"] in ("Throttling", "ThrottlingException")


def test_a_code_of_choice(healed):
    healed.fault("api", service="route53", action="*", kind="throttle", code="PriorRequestNotComplete", count=1)
    with pytest.raises(ClientError, match="PriorRequestNotComplete"):
        read(healed, "route53")


def test_rules_match_action_and_region(healed):
    healed.fault("api", service="rds", action="Promote*", kind="denied", region="us-west-2")
    healed.boto("rds", "us-west-2").describe_db_instances()
    with pytest.raises(ClientError, match="AccessDenied"):
        healed.boto("rds", "us-west-2").promote_read_replica(DBInstanceIdentifier="regami-db-replica")
    with pytest.raises(ClientError, match="InvalidDBInstanceState"):
        healed.boto("rds", "us-east-1").promote_read_replica(DBInstanceIdentifier="regami-db-primary")


def test_latency_does_not_hold_up_other_calls(healed):
    healed.fault("api", service="ecs", action="*", kind="latency", seconds=4)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(read, healed, "ecs")
        for _ in range(5):
            read(healed, "sts")
        assert not slow.done()
        slow.result()
    entry = next(call for call in reversed(healed.calls()) if call["service"] == "ecs")
    assert entry["fault"] == "latency" and entry["seconds"] >= 4


def _put(sandbox, name, config=ONCE):
    sandbox.boto("dynamodb", config=config).put_item(TableName="sre-incident-locks", Item={"name": {"S": name}})


def _has(sandbox, name):
    return "Item" in sandbox.boto("dynamodb").get_item(TableName="sre-incident-locks", Key={"name": {"S": name}})


def test_a_reset_applies_nothing_and_a_lost_answer_applies_all(healed):
    healed.fault("api", service="dynamodb", action="PutItem", kind="reset", count=1)
    with pytest.raises(ConnectionClosedError):
        _put(healed, "reset")
    assert not _has(healed, "reset")
    healed.fault("api", service="dynamodb", action="PutItem", kind="lost-answer", count=1)
    with pytest.raises(ConnectionClosedError):
        _put(healed, "lost")
    assert _has(healed, "lost")


def test_clients_retry_an_injected_500(healed):
    before = len(healed.calls())
    healed.fault("api", service="sts", action="*", kind="error500", count=1)
    healed.boto("sts").get_caller_identity()
    assert [call["status"] for call in healed.calls(before)] == [500, 200]


def test_the_log_tells_changes_from_reads(sandbox):
    before = len(sandbox.calls())
    instance(sandbox, *PRIMARY)
    _put(sandbox, "logged")
    entries = sandbox.calls(before)
    assert [(e["service"], e["action"], e["region"], e["status"], e["mutation"]) for e in entries] == [
        ("rds", "DescribeDBInstances", "us-east-1", 200, False),
        ("dynamodb", "PutItem", "us-east-1", 200, True),
    ]
    assert '"PutItem"' in (sandbox.home / "calls.jsonl").read_text().splitlines()[-1]


def test_what_moto_lacks_is_a_clear_refusal_and_not_retried(sandbox):
    before = len(sandbox.calls())
    with pytest.raises(ClientError, match="sandbox does not know rds DescribeIntegrations"):
        sandbox.boto("rds").describe_integrations()
    assert len(sandbox.calls(before)) == 1


def test_a_cut_region_is_silent_and_the_other_is_not(healed):
    healed.fault("region-cut", region="us-east-1")
    impatient = Config(retries={"total_max_attempts": 1}, read_timeout=0.5)
    with pytest.raises(ReadTimeoutError):
        healed.boto("rds", config=impatient).describe_db_instances()
    patient = time.monotonic()
    with pytest.raises(ConnectionClosedError):
        healed.boto("sts", config=ONCE).get_caller_identity()
    assert 2.5 < time.monotonic() - patient < 6
    assert healed.boto("sts", "us-west-2").get_caller_identity()["Account"] == "123456789012"
    healed.heal("region-cut")
    assert instance(healed, *PRIMARY)["DBInstanceStatus"] == "available"


def test_a_cut_region_takes_its_database_along(healed):
    import psycopg2
    from core_helpers import connect

    endpoint = instance(healed, *PRIMARY)["Endpoint"]
    healed.fault("region-cut", region="us-east-1")
    with pytest.raises(psycopg2.OperationalError, match="time"):
        psycopg2.connect(
            host=endpoint["Address"], port=endpoint["Port"], user="nobody", dbname="regami", connect_timeout=2
        )
    healed.heal("region-cut")
    connect(healed, *PRIMARY, seconds=20)


def test_the_wrong_account(healed):
    healed.fault("wrong-account")
    identity = healed.boto("sts").get_caller_identity()
    assert identity["Account"] == "999999999999" and "999999999999" in identity["Arn"]
    healed.heal("wrong-account")
    assert healed.boto("sts").get_caller_identity()["Account"] == "123456789012"


def test_conditional_writes_of_many_are_never_both_accepted(sandbox):
    """Each writer raises a number from what it last read; accepted changes must add up."""
    key = {"TableName": "sre-incident-locks", "Key": {"name": {"S": "counter"}}}
    clients = [sandbox.boto("dynamodb", "us-west-2") for _ in range(8)]
    clients[0].put_item(TableName="sre-incident-locks", Item={"name": {"S": "counter"}, "n": {"N": "0"}})

    def number(client):
        return int(client.get_item(**key)["Item"]["n"]["N"])

    def count_up(client):
        accepted = 0
        for _ in range(40):
            seen = number(client)
            try:
                client.update_item(
                    **key,
                    UpdateExpression="SET n = :next",
                    ConditionExpression="n = :seen",
                    ExpressionAttributeValues={":seen": {"N": str(seen)}, ":next": {"N": str(seen + 1)}},
                )
                accepted += 1
            except client.exceptions.ConditionalCheckFailedException:
                pass
        return accepted

    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        accepted = sum(pool.map(count_up, clients))
    assert 0 < accepted < 8 * 40, "they did get in each other's way"
    assert accepted == number(clients[0])


def test_moto_is_never_entered_twice_at_once():
    """It is not safe under concurrent writes; how seldom it breaks makes a test through the network worthless."""
    inside, overlaps = [], []

    def handler(call):
        overlaps.append(len(inside))
        inside.append(call)
        time.sleep(0.05)
        inside.pop()

    world = SimpleNamespace(lock=threading.RLock(), gates=[], handlers={"probe": handler}, after_change=[])
    scope = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/probe/aws4_request, SignedHeaders=host, Signature=0"
    call = Call("POST", "/", {"authorization": scope, "x-amz-target": "Probe.Do"}, b"{}")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server._dispatch(SimpleNamespace(world=world), call).status, range(4)))
    assert answers == [200] * 4
    assert overlaps == [0] * 4


def test_the_password_is_in_secrets_manager_of_both_regions(sandbox):
    values = {
        sandbox.boto("secretsmanager", region).get_secret_value(SecretId=facts["database_secret_arn"])["SecretString"]
        for region, facts in sandbox.state["regions"].items()
    }
    assert values == {(sandbox.home / "secrets" / "db_app").read_text()}


def aws(sandbox, command):
    """The AWS CLI as a person types it, after `source env.sh`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shell = ["bash", "-c", f"source {sandbox.home / 'env.sh'}; {command}"]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_runbook_1_as_typed(fresh_sandbox):
    """Steps 1, 2 and 4 of the runbook."""
    fresh_sandbox.fault("primary-killed")
    wait_until(lambda: instance(fresh_sandbox, *PRIMARY)["DBInstanceStatus"] == "failed", "failed")
    at_primary = "aws rds describe-db-instances --db-instance-identifier regami-db-primary --region us-east-1"
    at_replica = "--db-instance-identifier regami-db-replica --region us-west-2"
    status = f"{at_primary} --query 'DBInstances[0].DBInstanceStatus'"
    assert aws(fresh_sandbox, status) == (0, '"failed"', "")
    code, answer, _ = aws(
        fresh_sandbox,
        f"aws rds describe-db-instances {at_replica} "
        "--query 'DBInstances[0].[DBInstanceStatus,ReadReplicaSourceDBInstanceIdentifier]' --output text",
    )
    assert (code, answer.split("\t")) == (
        0,
        ["available", "arn:aws:rds:us-east-1:123456789012:db:regami-db-primary"],
    )
    code, _, errors = aws(fresh_sandbox, f"aws rds promote-read-replica --backup-retention-period 7 {at_replica}")
    assert (code, errors) == (0, "")
    time.sleep(1)  # else the CLI looks again only after 30 s
    assert aws(fresh_sandbox, f"aws rds wait db-instance-available {at_replica}") == (0, "", "")
    code, _, errors = aws(fresh_sandbox, f"aws rds promote-read-replica {at_replica}")
    assert code != 0 and "InvalidDBInstanceState" in errors
