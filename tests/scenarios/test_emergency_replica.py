# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""emergency_replica.yml: users read from a replica made in a hurry, write to the primary, and go back."""

from __future__ import annotations

import json
import urllib.request

from world import EAST, PRIMARY, World

REPLICA = f"{PRIMARY}-emergency"
ROW = 4711


def ask(world: World, path: str, body: dict | None = None) -> dict:
    """Of the service in the first region, as its balancer hands it on."""
    url = world.names(EAST)["alb_url"] + path
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=5) as answer:
        return json.load(answer)


def read_from(world: World) -> set[str]:
    """The servers that the row comes from, of both tasks."""
    return {ask(world, f"/v1/rows/{ROW}")["database"] for _ in range(4)}


def test_reads_go_to_a_replica_and_back(world: World) -> None:
    before = world.snapshot()
    wrote_to = ask(world, "/v1/rows", {"id": ROW, "payload": "x"})["database"]
    assert read_from(world) == {wrote_to}

    planned = world.runbook.run("emergency_replica", "--check", "--diff")
    assert planned.returncode == 0, planned.output
    assert planned.mutations == [] and world.snapshot() == before
    assert f"create {REPLICA}, a db.t3.medium, as a replica of {PRIMARY}" in planned.output

    run = world.runbook.run("emergency_replica")
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    assert world.database(EAST, REPLICA)["ReadReplicaSourceDBInstanceIdentifier"] == PRIMARY
    assert read_from(world) == {world.address(EAST, REPLICA)}
    assert ask(world, "/v1/rows", {"id": ROW + 1, "payload": "y"})["database"] == wrote_to
    assert world.takes_writes(EAST) and world.healthy_targets(EAST) == 2
    password = world.secret("db_app")
    assert password not in run.output and password not in (run.folder / "report.json").read_text()

    back = world.runbook.run("emergency_replica", "--tags", "restore")
    assert back.returncode == 0, back.output
    assert REPLICA not in world.databases(EAST)
    assert read_from(world) == {wrote_to}
    # Reads had left before it went.
    assert back.mutations.index(f"rds:DeleteDBInstance {EAST}") > back.mutations.index(f"ecs:UpdateService {EAST}")


def test_a_service_that_nobody_can_tell_is_refused(untouched: World) -> None:
    refused = untouched.runbook.run("emergency_replica", "-i", "inventories/sandbox", replica_name="regami-db-primary")
    assert refused.returncode == 2 and refused.mutations == []
    assert "follows nobody" in refused.complaints[0] and "nothing was changed" in refused.complaints[0]
