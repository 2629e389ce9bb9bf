# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's recovery API: the runbook's paths, and what it really does to the service."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from compute_helpers import EAST, facts, service
from core_helpers import wait_until

from sandbox.client import Sandbox

ADDRESS = "127.0.3.10"


def ask(sandbox: Sandbox, path: str, body: Any = None, token: str | None = None) -> tuple[int, dict]:
    names = facts(sandbox, EAST)
    path = path.replace("SERVICE", f"{names['cluster']}/{names['service']}")
    if token is None:
        with open(sandbox.state["recovery_api"]["token_file"]) as file:
            token = file.read()
    connection = http.client.HTTPConnection(ADDRESS, sandbox.state["http_port"], timeout=10)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(
            "GET" if body is None else "POST", f"/api/v1/{path}", text, {"Authorization": f"Bearer {token}"}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def answers(sandbox: Sandbox) -> bool:
    try:
        return ask(sandbox, "health/score")[0] == 200
    except OSError:
        return False


def test_it_rolls_the_service_and_keeps_the_state_that_was_left(fresh_sandbox: Sandbox) -> None:
    api = fresh_sandbox
    wait_until(lambda: answers(api), "the recovery API serves")
    before = service(api, EAST)["taskDefinition"]
    (first,) = ask(api, "disaster-recovery/snapshots/SERVICE")[1]["snapshots"]
    api.fault("bad-build", build="unhealthy")
    bad = service(api, EAST)["taskDefinition"]
    # As the API that it stands for: the runbook's "latest" is the name of no snapshot, and an error is a good answer.
    status, answer = ask(api, "disaster-recovery/rollback/SERVICE", {"snapshot_id": "latest", "dry_run": False})
    assert (status, answer["status"], answer["error_message"]) == (200, "failed", "Snapshot latest not found")
    simulated = ask(api, "disaster-recovery/rollback/SERVICE", {"snapshot_id": first["snapshot_id"]})[1]
    assert simulated["changes"] == {"task_definition": before, "desired_count": 2}
    assert service(api, EAST)["taskDefinition"] == bad
    rolled = ask(api, "disaster-recovery/rollback/SERVICE", {"snapshot_id": first["snapshot_id"], "dry_run": False})[1]
    assert rolled["status"] == "completed"
    assert service(api, EAST)["taskDefinition"] == before
    newest = ask(api, "disaster-recovery/snapshots/SERVICE")[1]["snapshots"][0]["snapshot_id"]
    assert newest == rolled["current_snapshot_id"]
    assert (
        ask(api, "disaster-recovery/rollback/SERVICE", {"snapshot_id": newest})[1]["changes"]["task_definition"] == bad
    )
    # A plan goes on by itself; told nothing else it takes the newest snapshot, which is what was just left.
    names = facts(api, EAST)
    plan = {"cluster_name": names["cluster"], "service_name": names["service"]}
    started = ask(api, "disaster-recovery/execute-plan/service_rollback", plan)[1]
    path = f"disaster-recovery/operation/{started['operation_id']}"
    wait_until(lambda: ask(api, path)[1]["status"] == "completed", "the plan is carried out")
    assert service(api, EAST)["taskDefinition"] == bad


def test_it_can_be_down_and_comes_back_with_its_snapshots(sandbox: Sandbox) -> None:
    api = sandbox
    known = ask(api, "disaster-recovery/snapshots/SERVICE")[1]["snapshots"]
    api.fault("recovery-api", kind="down")
    with pytest.raises(OSError):
        ask(api, "health/score")
    api.heal()
    wait_until(lambda: answers(api), "the recovery API serves again")
    assert ask(api, "disaster-recovery/snapshots/SERVICE")[1]["snapshots"] == known
    api.fault("recovery-api", kind="error")
    assert ask(api, "health/score")[0] == 500
    api.heal()
    assert ask(api, "health/score", token="wrong")[0] == 401


def test_it_says_what_is_wrong_with_its_service(fresh_sandbox: Sandbox) -> None:
    api = fresh_sandbox
    wait_until(lambda: answers(api), "the recovery API serves")
    assert ask(api, "diagnostics/issues?severity=critical") == (200, {"total_issues": 0, "issues": []})
    assert ask(api, "monitoring/alerts/status")[1]["status"] == "ok"
    assert ask(api, "resource-optimization/analyze/SERVICE")[1]["tasks"] == {"running": 2, "desired": 2}
    assert ask(api, "health/database")[1]["connected"]
    assert ask(api, "diagnostics/database-connections")[0] == 404
    api.fault("primary-killed")
    (issue,) = ask(api, "diagnostics/issues?severity=critical")[1]["issues"][-1:]
    assert (issue["component"], issue["severity"]) == ("database", "critical")
    assert ask(api, "diagnostics/run-diagnostics")[1]["status"] == "issues_found"
    assert ask(api, "monitoring/alerts/status")[1]["status"] == "alerting"
