# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database is left in good time: both regions are well, and users write all the while."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import psycopg2
import pytest
from world import EAST, PRIMARY, REPLICA, WEST, World, wait_until


def test_switchover_under_load_loses_nothing(switchover):
    users = switchover.users
    assert switchover.run.returncode == 0, switchover.run.output
    assert users["lost_writes"] == 0
    old, new = users["databases"]
    assert old["acknowledged"] > 10 and new["acknowledged"] > 0
    # Not one acknowledgement of the old database after the first of the new, the pinned writer's included.
    assert users["overlap"] is False and old["last_ack"] < new["first_ack"]


def test_switchover_ends_where_it_should(switchover):
    state = switchover.state
    new, old = state[WEST]["databases"][REPLICA], state[EAST]["databases"][PRIMARY]
    assert (new["source"], new["takes_writes"], new["backups"]) == (None, True, 7)
    assert (old["takes_writes"], old["groups"]) == (False, [f"quarantine-{EAST}"])
    assert "sre.runbooks/fenced-at" in old["tags"]
    assert (state[EAST]["service"]["desired"], state[EAST]["service"]["running"]) == (0, 0)
    assert (state[WEST]["service"]["running"], state[WEST]["service"]["healthy_targets"]) == (2, 2)
    assert state[EAST]["scaling"][0]["MinCapacity"] == 0
    assert state[WEST]["scaling"][0]["MinCapacity"] == 2
    roles = {each["SetIdentifier"]: each["Failover"] for each in state["records"] if each["Name"] == "api.regami.test."}
    assert roles == {"primary": "SECONDARY", "secondary": "PRIMARY"}
    assert state["lease"] == "free"


def test_repointed_revision_keeps_all_else(switchover):
    (before,) = switchover.before[WEST]["service"]["containers"]
    (after,) = switchover.state[WEST]["service"]["containers"]
    urls = {each["name"]: each["value"] for each in after["environment"]}
    assert urls["DATABASE_URL"] == f"postgresql://regami@{REPLICA}/regami"
    assert {key: value for key, value in after.items() if key != "environment"} == {
        key: value for key, value in before.items() if key != "environment"
    }
    assert [each for each in after["environment"] if each["name"] != "DATABASE_URL"] == [
        each for each in before["environment"] if each["name"] != "DATABASE_URL"
    ]
    assert switchover.state[WEST]["service"]["revision_tags"] == switchover.before[WEST]["service"]["revision_tags"]


def test_record_of_a_switchover(switchover):
    report, users = switchover.run.report, switchover.users
    assert report["outcome"] == "recovered"
    assert (report["mode"], report["unfenced"], report["possible_loss_seconds"]) == ("switchover", False, 0.0)
    assert {check["name"] for check in report["verification"]} == {
        "health with the database",
        "login",
        "write",
        f"log /ecs/regami-api {WEST}",
    }
    assert all(check["ok"] for check in report["verification"])
    assert users["rto_seconds"] < report["recovery_seconds"] <= switchover.run.seconds
    # What undoes the run, last change first, and nothing that promises to demote a database.
    assert [each["verb"].rpartition(".")[2] if "verb" in each else each["cannot"] for each in report["undo"]] == [
        "route53_failover",
        "ecs_scale",
        "ecs_repoint",
        "regami-db-replica was promoted, which nothing undoes",
        "ecs_scale",
    ]


def test_it_is_not_taken_back_but_gone_on_with(switchover, any_world):
    run = any_world.runbook.run("undo", run=switchover.run.folder.name)
    (complaint,) = run.complaints
    assert (
        "was promoted, which nothing undoes" in complaint
        and "db_reprotect.yml, then playbooks/db_failover.yml" in complaint
    )
    assert run.mutations == []


def test_plan_is_printed_and_nothing_moves(switchover):
    planned = switchover.planned
    assert planned.returncode == 0, planned.output
    assert planned.mutations == [] and planned.lease_calls == []
    assert planned.report["outcome"] == "planned"
    assert switchover.planned_state == switchover.before
    # Every step that the run then took stands in the plan, in its order.
    taken = [step["what"] for step in switchover.run.report["steps"] if step["do"] not in ("take", "release")]
    places = [planned.output.find(what) for what in taken]
    assert -1 not in places and places == sorted(places), dict(zip(taken, places, strict=True))


def test_run_again_after_success_changes_nothing(switchover):
    again = switchover.again
    assert again.returncode == 0, again.output
    assert again.recap["changed"] == 0
    assert again.mutations == []
    assert again.lease_calls[0] == "PutItem" and again.lease_calls[-1] == "UpdateItem"
    assert again.report["outcome"] == "noop"
    assert all(check["ok"] for check in again.report["verification"]) and len(again.report["verification"]) == 4
    assert again.report["unfenced"] is False
    assert again.report["resumes"] is None
    assert switchover.again_state == switchover.state


def test_old_primary_refuses_writes(world: World):
    """Through the application, past it, and with its security groups opened by mistake."""
    assert world.runbook.run().returncode == 0
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects"), world.app_session(EAST):
        pass
    # A controller that fights back starts the old side again.
    names = world.names(EAST)
    world.aws("ecs", EAST).update_service(cluster=names["cluster"], service=names["service"], desiredCount=1)
    wait_until(lambda: world.healthy_targets(EAST) == 1, "the old side serves")
    row = json.dumps({"id": 7, "payload": "to the old side"}).encode()
    request = urllib.request.Request(f"{names['alb_url']}/v1/rows", row, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(request, timeout=10)
    world.aws("rds", EAST).modify_db_instance(
        DBInstanceIdentifier=PRIMARY, VpcSecurityGroupIds=[names["db_security_group"]], ApplyImmediately=True
    )
    with world.app_session(EAST) as query, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        query("INSERT INTO rows (id, payload) VALUES (8, 'past the application')")
    with world.session(EAST) as query:
        assert query("SELECT id FROM rows WHERE id IN (7, 8)") == []
