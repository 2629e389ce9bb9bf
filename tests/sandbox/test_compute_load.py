# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load and its verdicts, first on made-up journals, then on a handover that is real."""

from __future__ import annotations

import json

import pytest
from compute_helpers import EAST, WEST, facts, http_call, repoint, tasks, update, wait_healthy
from core_helpers import connect, instance, query, wait_status, wait_until

from sandbox import load
from sandbox.client import SandboxError
from sandbox.writers import Resolver

REPLICA = (WEST, "regami-db-replica")


def acks(database, *times):
    return [{"database": database, "acked": each} for each in times]


def test_handover_without_overlap():
    spans = load.runs(acks("a", 1.0, 1.1, 1.2) + acks("b", 3.0, 3.1))
    assert [(each["database"], each["first_ack"], each["last_ack"]) for each in spans] == [
        ("a", 1.0, 1.2),
        ("b", 3.0, 3.1),
    ]
    assert load.overlaps(spans) == []


def test_single_stray_acknowledgement_is_an_overlap():
    spans = load.runs(acks("a", 1.0, 1.1, 4.5) + acks("b", 4.0, 4.4, 5.0))
    assert [(each["from"], each["to"]) for each in load.overlaps(spans)] == [(4.5, 4.5)]


def test_way_back_is_no_overlap():
    assert load.overlaps(load.runs(acks("a", 1.0, 1.5, 9.0) + acks("b", 4.0, 5.0))) == []


@pytest.mark.parametrize(
    ("acked", "last_failure", "seconds"),
    [
        ([1.0, 1.1, 5.0, 5.1], 4.0, 3.9),
        ([1.0, 1.1], 9.0, None),
        ([], 9.0, None),
        ([], None, 0.0),
        # One refused write after recovery is no outage.
        ([1.0, 5.0, 5.1], 5.2, 4.0),
    ],
)
def test_outage(acked, last_failure, seconds):
    assert load.outage(acked, last_failure)["rto_seconds"] == seconds


def test_what_users_felt():
    answered = [{"sent": at, "acked": at + 0.01 * at, "version": "2" if at > 5 else "1"} for at in range(1, 11)]
    failed = [{"failed": each} for each in (3.2, 3.9, 7.1)]
    seen = load.felt(answered, failed)
    assert (seen["requests"], seen["failed_requests"], seen["error_rate"]) == (13, 3, 0.2308)
    assert (seen["error_seconds"], seen["errors_lasted_seconds"], seen["first_error"]) == (2, 3.9, 3.2)
    assert seen["latency_ms"] == {"p50": 50.0, "p95": 100.0, "p99": 100.0}
    assert (seen["versions"], seen["last_version"]) == ({"1": 5, "2": 5}, "2")


def test_nobody_felt_anything():
    seen = load.felt([], [])
    assert (seen["error_rate"], seen["error_seconds"], seen["latency_ms"]["p50"], seen["last_version"]) == (
        0,
        0,
        None,
        None,
    )


def test_journal_of_a_killed_writer_is_read(tmp_path):
    (tmp_path / "acks").write_text('{"id": 1}\n{"id": 2}\n{"id":')
    assert [each["id"] for each in load.read(tmp_path / "acks")] == [1, 2]


def test_resolver_obeys_the_ttl(fresh_sandbox):
    resolver = Resolver(fresh_sandbox.state["dns"])
    assert resolver.address("api.regami.test") == "127.0.1.10"
    resolver._ask = lambda name: pytest.fail("asked within the TTL")
    assert resolver.address("api.regami.test") == "127.0.1.10"


def wait_for_writes(sandbox, database):
    journal = sandbox.home / "load" / "acks.jsonl"
    wait_until(lambda: any(ack["database"] == database for ack in load.read(journal)[-5:]), f"writes to {database}")


def address(sandbox, region, name):
    found = instance(sandbox, region, name)["Endpoint"]
    return f"{found['Address']}:{found['Port']}"


def test_handover_loses_nothing_and_is_measured(fresh_sandbox):
    """By hand what a planned switchover does, with one writer that never asks DNS again."""
    sandbox = fresh_sandbox
    old, new = address(sandbox, EAST, "regami-db-primary"), address(sandbox, *REPLICA)
    sandbox.control("load", action="start", pinned=True)
    with pytest.raises(SandboxError, match="running already"):
        sandbox.control("load", action="start")
    wait_for_writes(sandbox, old)
    wait_until(lambda: load.read(sandbox.home / "load" / "reads.jsonl"), "a read through the old side")
    update(sandbox, EAST, desiredCount=0)
    wait_until(
        lambda: [task["lastStatus"] for task in tasks(sandbox, EAST, "STOPPED")] == ["STOPPED"] * 2,
        "the old side stops",
    )
    written = query(connect(sandbox, EAST, "regami-db-primary"), "SELECT count(*) FROM rows")
    replica = connect(sandbox, *REPLICA)
    wait_until(lambda: query(replica, "SELECT count(*) FROM rows") == written, "the replica has it all")
    sandbox.boto("rds", WEST).promote_read_replica(DBInstanceIdentifier=REPLICA[1])
    wait_status(sandbox, REPLICA, "available")
    update(sandbox, WEST, desiredCount=2, taskDefinition=repoint(sandbox, WEST, new))
    wait_healthy(sandbox, WEST, 2)
    wait_for_writes(sandbox, new)
    seen = sandbox.control("load", action="stop")
    assert (seen["lost_writes"], seen["overlap"], seen["surviving_database"]) == (0, False, new)
    assert [each["database"] for each in seen["databases"]] == [old, new]
    assert sum(each["acknowledged"] for each in seen["databases"]) == seen["acknowledged_writes"]
    assert 0.1 < seen["rto_seconds"] < 30
    assert seen["errors"]["503"] > 0
    # Users write and read; the writer that keeps to the old address is none of them.
    reads = load.read(sandbox.home / "load" / "reads.jsonl")
    assert "127.0.1.10" in {each["via"] for each in reads}
    assert 0 < seen["failed_requests"] < sum(seen["errors"].values())
    assert 0 < seen["error_rate"] < 1 and seen["error_seconds"] >= 1


def test_report_tells_lost_writes_and_two_primaries(fresh_sandbox):
    """What no run may ever show: the report must not be blind to it."""
    sandbox = fresh_sandbox
    new = address(sandbox, *REPLICA)
    sandbox.control("load", action="start", pinned=True)
    wait_for_writes(sandbox, address(sandbox, EAST, "regami-db-primary"))
    sandbox.boto("rds", WEST).promote_read_replica(DBInstanceIdentifier=REPLICA[1])
    wait_status(sandbox, REPLICA, "available")
    update(sandbox, WEST, desiredCount=1, taskDefinition=repoint(sandbox, WEST, new))
    wait_healthy(sandbox, WEST, 1)
    assert http_call(facts(sandbox, WEST)["alb_url"], "/v1/rows", {"id": 1, "payload": "x"})[1]["database"] == new
    pair = sandbox.boto("route53").list_resource_record_sets(
        HostedZoneId=sandbox.state["hosted_zone_id"], StartRecordName="api.regami.test", MaxItems="2"
    )["ResourceRecordSets"]
    swapped = [dict(each, Failover="SECONDARY" if each["Failover"] == "PRIMARY" else "PRIMARY") for each in pair]
    sandbox.boto("route53").change_resource_record_sets(
        HostedZoneId=sandbox.state["hosted_zone_id"],
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": each} for each in swapped]},
    )
    journal = sandbox.home / "load" / "acks.jsonl"
    # The pinned writer goes on writing to the old one meanwhile.
    wait_until(lambda: sum(ack["database"] == new for ack in load.read(journal)) >= 20, "20 writes to the new one")
    seen = sandbox.control("load", action="stop")
    assert seen["overlap"], json.dumps(seen)
    assert seen["lost_writes"] > 0
    assert seen["surviving_database"] == new
