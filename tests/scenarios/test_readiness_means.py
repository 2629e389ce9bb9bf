# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the team that is on call needs beside the service: permissions, leases, records, alarms, and who hears of it.

Each way of being unready is seen by readiness.yml, alone, and the real playbook shows that it was true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from readiness import Way
from runbook import Result, Runbook, Running
from world import World

USER = "oncall"
POLICY = "what-the-oncall-may"


@dataclass
class Saying(Runbook):
    """Playbooks that are told `said` besides, as if the inventory said it."""

    said: dict[str, Any] = field(default_factory=dict)

    def start(self, playbook: str = "db_failover", *flags: str, **variables: Any) -> Running:
        return super().start(playbook, *flags, **{**self.said, **variables})


@pytest.fixture
def told(any_world: World) -> Iterator[World]:
    """A world whose playbooks can be told more."""
    yield World(any_world.sandbox, Saying(any_world.runbook.sandbox, any_world.runbook.incidents))
    any_world.sandbox.heal()


def oncall(world: World, **statement: Any) -> None:
    """From now on playbooks run as somebody who may do what one statement says."""
    iam = world.aws("iam")
    iam.create_user(UserName=USER)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **statement}]}
    iam.put_user_policy(UserName=USER, PolicyName=POLICY, PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    world.sandbox.control("enforce", user=USER)
    world.runbook.said |= {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def says(playbook: str, words: str, **variables: Any) -> Callable[[World], None]:
    """The proof that the real playbook says so, be it before or after its changes."""

    def prove(world: World) -> None:
        run: Result = world.runbook.run(playbook, **variables)
        assert words in run.output + json.dumps(run.timeline), run.output

    return prove


def test_a_permission_of_the_failover_is_missing(told: World) -> None:
    """Without it the failover begins, and stops in the middle."""
    Way(
        "nothing allows the on-call to promote a replica",
        spoil=lambda world: oncall(world, NotAction="rds:PromoteReadReplica"),
        flagged={"db_failover": "not_ready"},
        check="permissions",
        resource=f"user {USER}",
        because="missing permission rds:PromoteReadReplica",
        prove=says("db_failover", "missing permission rds:PromoteReadReplica"),
        scenario="db_failover",
    ).show(told)
