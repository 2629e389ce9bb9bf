# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verb in the controller's process and the same verb as an ordinary module: one implementation, one result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from runbook import Result
from world import World

CONNECTIONS = Path(__file__).parent / "connection"
# Where the world is the same these still differ from run to run.
VOLATILE = ("waited_seconds", "seconds", "seen", "warnings", "deprecations", "ansible_stats")


def verbs(run: Result, world: World) -> list[tuple[str, dict]]:
    """(verb, result) of every task that is one, in the order of the run."""
    start = re.search(r"^\{$", run.output, re.MULTILINE).start()
    play = json.JSONDecoder().raw_decode(run.output, start)[0]["plays"][0]
    found = [
        (host["action"], {key: value for key, value in host.items() if not key.startswith("_ansible")})
        for task in play["tasks"]
        for host in task["hosts"].values()
        if host["action"].startswith("sre.runbooks.") and not host.get("skipped")
    ]
    return json.loads(world.anonymous(json.dumps(found)), object_hook=lasting)


def lasting(result: dict) -> dict:
    return {key: value for key, value in result.items() if key not in VOLATILE}


def go(world: World, connection: str, *arguments: str, **variables: str) -> list[tuple[str, dict]]:
    run = world.runbook.start(
        *arguments,
        environment={"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_CONNECTION_PLUGINS": str(CONNECTIONS)},
        ansible_connection=connection,
        **variables,
    ).wait()
    assert run.returncode == 0, run.output
    # This output holds every result whole, parameters included.
    assert [secret for secret in world.secrets() if secret in run.output] == []
    return verbs(run, world)


@pytest.mark.soak
def test_both_entrances_give_the_same(switchover, world: World) -> None:
    results = {}
    for connection in ("local", "elsewhere"):
        world.begin()
        results[connection] = go(world, connection)
        snapshot = world.snapshot()
        assert snapshot == switchover.state
    here, there = results["local"], results["elsewhere"]
    assert [verb for verb, _ in here] == [verb for verb, _ in there]
    for (verb, mine), (_, other) in zip(here, there, strict=True):
        assert mine == other, verb
    used = {verb.rpartition(".")[2] for verb, _ in here}
    assert used == {
        "ecs_repoint",
        "ecs_scale",
        "incident_lock",
        "rds_promote_replica",
        "route53_failover",
        "run_guard",
        "smoke_test",
        "standby_assess",
        "user_errors",
    }
