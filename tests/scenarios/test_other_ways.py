# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to move that not every team has: routing controls in front of the name, Aurora below the service."""

from __future__ import annotations

import json
import subprocess

import pytest
from runbook import BIN, REPOSITORY
from world import EAST, WEST, World


def test_name_moves_by_routing_controls_while_the_control_plane_of_route_53_is_down(world: World) -> None:
    routing, port = world.sandbox.state["routing"], world.sandbox.state["http_port"]
    world.sandbox.fault("api", service="route53", action="*", kind="error500")
    world.sandbox.fault("arc-endpoint", number=1)
    run = world.runbook.run(
        dns_record=routing["name"],
        routing_cluster_endpoints=routing["cluster_endpoints"],
        smoke_tests=[
            {
                "name": "health",
                "url": f"http://{routing['name']}:{port}/health?check=db",
                "expect_json": {"writable": True},
            }
        ],
    )
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    assert not [call for call in run.calls if call["service"] == "route53"]


@pytest.fixture
def aurora(world: World) -> World:
    """A global database whose writer is in us-east-1."""
    writer = world.sandbox.boto("rds", EAST).create_db_cluster(
        DBClusterIdentifier="regami-aurora",
        Engine="aurora-postgresql",
        MasterUsername="regami_admin",
        MasterUserPassword="not-a-secret-1",
    )["DBCluster"]["DBClusterArn"]
    world.sandbox.boto("rds", EAST).create_global_cluster(
        GlobalClusterIdentifier="regami-global", SourceDBClusterIdentifier=writer
    )
    world.sandbox.boto("rds", WEST).create_db_cluster(
        DBClusterIdentifier="regami-aurora-secondary",
        Engine="aurora-postgresql",
        GlobalClusterIdentifier="regami-global",
    )
    return world


def _move(world: World, **arguments) -> dict:
    """The verb, as an engineer would try it alone."""
    arguments = {
        "global_cluster": "regami-global",
        "target_cluster": "regami-aurora-secondary",
        "region": WEST,
        "endpoint_url": world.sandbox.state["endpoint_url"],
        "access_key": "sandbox",
        "secret_key": "sandbox-secret",
        **arguments,
    }
    run = subprocess.run(
        [BIN / "ansible", "localhost", "-m", "sre.runbooks.aurora_global_failover", "-a", json.dumps(arguments)],
        cwd=REPOSITORY,
        env={**world.runbook.environment, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return json.JSONDecoder().raw_decode(run.stdout, run.stdout.index("=> {") + 3)[0]


def _writer(world: World) -> str:
    members = world.sandbox.boto("rds", WEST).describe_global_clusters(GlobalClusterIdentifier="regami-global")
    (arn,) = [each["DBClusterArn"] for each in members["GlobalClusters"][0]["GlobalClusterMembers"] if each["IsWriter"]]
    return arn.rpartition(":")[2]


def test_aurora_writer_switches_over_and_back_by_its_undo(aurora: World) -> None:
    moved = _move(aurora)
    assert (moved["changed"], moved["mode"], moved["unfenced"]) == (True, "switchover", False), moved
    assert _writer(aurora) == "regami-aurora-secondary"
    assert _move(aurora)["changed"] is False
    (undo,) = moved["undo"]
    assert _move(aurora, **undo["arguments"])["changed"] is True
    assert _writer(aurora) == "regami-aurora"


@pytest.mark.soak
def test_aurora_region_that_is_gone_takes_accepted_loss(aurora: World) -> None:
    aurora.sandbox.fault("region-cut", region=EAST)
    refused = _move(aurora)
    assert "accept_unknown_loss=true" in refused["msg"], refused
    assert _writer(aurora) == "regami-aurora"
    moved = _move(aurora, accept_unknown_loss=True)
    assert (moved["mode"], moved["unfenced"]) == ("failover", True), moved
    assert _writer(aurora) == "regami-aurora-secondary"
