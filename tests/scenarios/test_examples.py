# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example of every verb runs as it is printed: in check mode, against the two regions, changing nothing."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess

import pytest
import yaml
from runbook import BIN, REPOSITORY, read_timeline
from world import EAST, WEST, World

# Examples that the first day of the two regions rightly refuses, and the words that say why.
REFUSED = {
    "Let the cluster in the other region write": "there is no global database regami-global",
    "Host and port are two variables of one container": "DB_HOST",
    "Point a simple alias at another load balancer": "admin.regami.test",
    "Protect the promoted database again": "is itself a replica",
    "As a last resort, to 0 and back": "there is no StatefulSet alchemorsel-worker",
    # Not there, or nothing there that it could plan.
    "Deploy the version before, by Terraform": " terraform ",
    # Nothing was deployed since the only snapshot was taken.
    "Back to the last other snapshot": "none of the 1 snapshots",
    "Back to a snapshot that a person knows to be good, by a recovery plan if need be": "has no snapshot 20240112_143000",
    # The release before it was taken back for good.
    "Back to the revision that was good": "regami-api:2 was deregistered",
    "Not across a migration that the old code cannot live with": "regami-api:2 was deregistered",
    # No run has changed anything here, and no incident was opened.
    # Nothing was proposed.
    "Somebody approves it": "there is no proposal",
    # No look has come to anything before, and there is no Jira.
    "Is all of it ready": "readiness_report comes first",
    "Where alarms see it": "readiness_report comes first",
    "Somebody has it on the desk": "Jira: no answer",
    "Write a line": "no incident is open in prod",
    "Close it": "no incident is open in prod",
    "Write the review of an incident": "knows no incident 2026-11-21-checkout-fails",
    "Find what the last run changed": "no run of env=prod in",
    # There is no such task, and no such instance in the group.
    "Another task for the one that is hot": "ECS knows no task 0123456789abcdef0123456789abcdef",
    "Another instance for the one that is hot": "regami-fleet has no instance",
    # Nobody has uploaded anything yet.
    "The photos as they were before the clean-up job": "nothing is, or was, below",
    "The whole bucket from its backup": "nothing is, or was, below",
    # Backups begin with the first day, and nothing was restored on it.
    "Everything that was committed up to that second": "can be restored to any time from",
    "What this night's snapshot holds": "there is no snapshot rds:regami-db-primary-2024-01-15-03-00",
    "The damaged one back in its place": "there is no regami-db-restored",
    # Nobody has been seen to steal anything.
    "No former session of the tasks' role does anything any more": "there is no role regami-batch",
    "Give a user its keys back": "there is no user deploy",
    # It drains nothing yet, so nothing is there to serve: in check mode as in truth.
    "Move the public name to the standby region": "0 healthy targets",
    "Move it by routing controls, without the control plane in us-east-1": "0 healthy targets",
}


def examples() -> list[dict]:
    """Those that run a verb."""
    found = []
    for module in sorted((REPOSITORY / "plugins" / "modules").glob("*.py")):
        for node in ast.parse(module.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "EXAMPLES":
                found += yaml.safe_load(node.value.value)
    return [task for task in found if any(key.startswith("sre.runbooks.") for key in task)]


def fitted(task: dict, state: dict) -> dict:
    """Identifiers that AWS gives, and the addresses of the sandbox, in place of the printed ones."""
    east, west = state["regions"][EAST], state["regions"][WEST]
    text = json.dumps(task)
    for printed, real in (
        ("Z1234567890ABC", state["hosted_zone_id"]),
        (r"arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/[\w/-]+", west["target_group_arn"]),
        (r"arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/regami-tg/\w+", east["target_group_arn"]),
        (r"arn:aws:elasticloadbalancing:us-east-1:\d+:targetgroup/regami-tg-green/\w+", east["green_target_group_arn"]),
        (r"arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/[\w/-]+", east["load_balancer_arn"]),
        ("regami-cache.abc123.use1.cache.amazonaws.com", east["cache_host"]),
        ("d-A1B2C3D4E", state["codedeploy"]["first_deployment"]),
        ("i-0123456789abcdef0", state["batch"]["instance_ids"][0]),
        ("sg-0a1b2c3d", west["db_security_group"]),
        ("sg-0quarantine", east["quarantine_security_group"]),
        ("https://api.regami.test", state["public_url"]),
        ("https://recovery.regami.test", state["recovery_api"]["url"]),
        ("https://example.atlassian.net", "http://127.0.0.1:9"),
    ):
        text = re.sub(printed, real, text)
    task = json.loads(text)
    arguments = next(value for key, value in task.items() if key.startswith("sre.runbooks."))
    if "routing_controls" in arguments:
        controls = state["routing"]["controls"]
        arguments["routing_controls"] = {
            "cluster_endpoints": state["routing"]["cluster_endpoints"],
            "turn_on": controls[WEST],
            "turn_off": controls["us-east-1"],
        }
    if {"record", "checks", "url"} & arguments.keys() and "sre.runbooks.route53_traffic" not in task:
        arguments["dns_servers"] = [state["dns"]]
    if "jira" in arguments:
        arguments["within"] = 0.1
    if "login_user" in arguments:
        arguments["sslmode"] = "prefer"
    for place in (arguments, arguments.get("kubernetes", {}), *arguments.get("pods", [])):
        if "namespace" in place:
            known = state["kubernetes"]
            place |= {key: known[key] for key in ("kubeconfig", "context", "namespace")}
        if "namespace" in place and "name" in place:
            place["name"] = place["name"].replace("alchemorsel-api", known["deployment"])
        if "ingress" in place:
            place["ingress"] = known["ingress"]
    return task


def _digest(world: World, tag: str) -> str:
    """Of an image of the application, in hexadecimal."""
    asked = {"repositoryName": "regami-api", "imageIds": [{"imageTag": tag}]}
    return world.aws("ecr").describe_images(**asked)["imageDetails"][0]["imageDigest"].rpartition(":")[2]


@pytest.fixture(scope="module")
def steps(first_day: tuple[World, dict], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """{name of the example: what the record has of it}; one playbook runs them all."""
    (world, before), folder = first_day, tmp_path_factory.mktemp("examples")
    world.sandbox.control("green")
    sandbox, state = world.sandbox, world.sandbox.state
    play = {
        "hosts": "api-sandbox",
        "gather_facts": False,
        "ignore_errors": True,
        "module_defaults": {
            "group/sre.runbooks.aws": {
                "endpoint_url": state["endpoint_url"],
                "access_key": "sandbox",
                "secret_key": "sandbox-secret",
            }
        },
        "vars": {
            "db_admin_password": "{{ lookup('ansible.builtin.file', simulated.db_admin_password_file) }}",
            "recovery_api_token": "{{ lookup('ansible.builtin.file', simulated.recovery_api.token_file) }}",
            "lock": {"lease": None},
            "promoted": {"endpoint": {"host": "127.0.0.1", "port": 5432}},
            "smoke_user": "test@example.com",
            "smoke_password": "test",
            "good_digest": _digest(world, "v1"),
        },
        "tasks": [fitted(task, state) for task in examples()],
    }
    sql = "ALTER TABLE rows ADD COLUMN IF NOT EXISTS written_at timestamptz DEFAULT now();"
    (folder / "fix.sql").write_text(sql)
    play["vars"] |= {"sql_file": str(folder / "fix.sql"), "reviewed_sha256": hashlib.sha256(sql.encode()).hexdigest()}
    playbook = folder / "example.yml"
    playbook.write_text(json.dumps([play]))
    first = len(sandbox.calls())
    subprocess.run(
        [BIN / "ansible-playbook", playbook, "--check", "--diff"],
        cwd=REPOSITORY,
        env={**world.runbook.environment, "SRE_RUNBOOKS_INCIDENTS": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    # A look at a disk is a script too, by the same call as any other; test_disk_full.py says that it only looks.
    changes = {call["action"] for call in sandbox.calls(first) if call["mutation"]}
    assert changes <= {"SendCommand"}
    assert world.snapshot() == before
    timeline = read_timeline(next(folder.glob("*-example-*")))
    return {event["step"]: event for event in timeline if event["event"] == "step"}


def test_every_example(steps: dict[str, dict]) -> None:
    """One test, since each worker that had some of them would run them all."""
    wrong = {}
    for name in (task["name"] for task in examples()):
        step = steps[name]
        refusal = REFUSED.get(name)
        right = (
            step["state"] == "ignored" and refusal in step["message"] if refusal else step["state"] in ("ok", "changed")
        )
        if not right:
            wrong[name] = step
    assert wrong == {}
