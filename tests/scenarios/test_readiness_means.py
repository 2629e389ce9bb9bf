# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the team that is on call needs beside the service: permissions, leases, records, alarms, and who hears of it.

Each way of being unready is seen by readiness.yml, alone, and the real playbook shows that it was true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import readiness
from alarms import Ringing, ringing
from readiness import ALL, Way, refuses
from runbook import Result, Runbook, Running
from world import EAST, WEST, World, wait_until

from ansible_collections.sre.runbooks.plugins.module_utils import record_mirror
from ansible_collections.sre.runbooks.tests.unit.notifier_services import PERSON, Services

USER = "oncall"
POLICY = "what-the-oncall-may"


@dataclass
class Saying(Runbook):
    """Playbooks that are told `said` besides, as if the inventory said it."""

    said: dict[str, Any] = field(default_factory=dict)

    def start(self, playbook: str = "db_failover", *flags: str, **variables: Any) -> Running:
        return super().start(playbook, *flags, **{**self.said, **variables})


@pytest.fixture
def told(any_world: World, tmp_path: Path) -> Iterator[World]:
    """A world whose playbooks can be told more, with records of its own, so that nobody joins an incident of these tests."""
    yield World(any_world.sandbox, Saying(any_world.sandbox, tmp_path / "incidents"))
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


@pytest.fixture
def services(told: World) -> Iterator[Services]:
    """Of a P0 everybody hears, and Slack of each run."""
    there = Services()
    routes = {"P0": {"slack": ["#incidents"], "mail": [PERSON], "jira": True}, "run": {"slack": ["#incidents"]}}
    told.runbook.said |= {**there.inventory, "notify_routes": routes, "notify_within": 2}
    yield there
    there.close()


def rings(world: World) -> Ringing:
    """An alarm that comes to the queue of the inventory."""
    alarm = ringing(world)
    world.runbook.said |= {"alarms_queue_url": alarm.queue, "alarms_queue_region": EAST}
    return alarm


def has_bucket(world: World) -> str:
    """The inventory names a bucket for the records, which nobody has made."""
    world.runbook.said |= {"record_bucket": "regami-records", "record_bucket_region": WEST}
    return "regami-records"


def sets(name: str, **parts: Any) -> Callable[[World], None]:
    """The inventory has other parts of a variable."""

    def spoil(world: World) -> None:
        world.runbook.said[name] = {**world.runbook.said[name], **parts}

    return spoil


def says(playbook: str, words: str, **variables: Any) -> Callable[[World], None]:
    """The proof that the real playbook says so, be it before or after its changes."""

    def prove(world: World) -> None:
        run: Result = world.runbook.run(playbook, **variables)
        assert words in run.output + json.dumps(run.timeline), run.output

    return prove


def is_not_delivered(world: World) -> None:
    """The run says so, and delivers its record once there is a bucket."""
    run = world.runbook.run("kill_queries")
    assert "the records in regami-records cannot be had" in json.dumps(run.timeline), run.output
    assert record_mirror.is_whole(str(run.folder)) is False
    world.aws("s3", WEST).create_bucket(Bucket="regami-records", CreateBucketConfiguration={"LocationConstraint": WEST})
    wait_until(lambda: record_mirror.is_whole(str(run.folder)), "the record is delivered")


def is_not_heard(world: World) -> None:
    """The alarm rings, and nothing comes to the queue that the rulebook reads."""
    assert not Ringing(world, world.runbook.said["alarms_queue_url"], "").heard()


WRONG = {"name": "health", "url": "http://127.0.0.1:1/health"}
# What concerns a whole service concerns each scenario.
WAYS = [
    Way(
        "2: no table for leases",
        spoil=lambda world: world.aws("dynamodb", WEST).delete_table(TableName=world.sandbox.state["lock_table"]),
        flagged={ALL: "not_ready"},
        check="incident_lock",
        resource="regami-api",
        because="sre-incident-locks",
        prove=refuses("kill_queries", "sre-incident-locks"),
    ),
    Way(
        "3: no bucket for records",
        spoil=has_bucket,
        flagged={ALL: "risk"},
        check="record_bucket",
        resource="regami-records",
        because="bootstrap.yml would make the bucket regami-records in us-west-2",
        prove=is_not_delivered,
    ),
    Way(
        "4: the actions of an alarm are switched off",
        spoil=lambda world: rings(world).silence(),
        flagged={ALL: "risk"},
        check="alarms",
        resource="regami-api-5xx",
        because="its actions are switched off",
        prove=is_not_heard,
    ),
    Way(
        "5: the queue of the rulebook is subscribed to nothing",
        spoil=lambda world: rings(world).unsubscribe(),
        flagged={ALL: "risk"},
        check="alarms",
        resource=":alarms",
        because="is not subscribed to it",
        prove=is_not_heard,
    ),
    Way(
        "6: the token of Slack was revoked",
        spoil=sets("notify_slack", token="xoxb-revoked"),
        flagged={ALL: "risk"},
        check="contacts",
        resource="slack",
        because="Slack answered invalid_auth to auth.test",
        prove=says("kill_queries", "not told yet: slack #incidents: Slack answered invalid_auth"),
    ),
    Way(
        "7: the mail server is down",
        spoil=sets("notify_mail", port=1),
        flagged={ALL: "risk"},
        check="contacts",
        resource="mail",
        because="no answer of the mail server",
        prove=says("incident_open", "not told yet: mail: no answer of the mail server", title="down", severity="P0"),
    ),
    Way(
        "8: nobody hears of the worst",
        spoil=sets("notify_routes", P0={}),
        flagged={ALL: "risk"},
        check="contacts",
        resource="P0",
        because="nobody hears of severity P0",
        prove=says("incident_open", "nobody hears of severity P0", title="down", severity="P0"),
    ),
    Way(
        "9: the token of the recovery API is wrong",
        spoil=lambda world: world.runbook.said.update(recovery_api_token="wrong"),
        flagged={ALL: "risk"},
        check="contacts",
        resource="recovery API",
        because="the recovery API refuses the token",
        prove=refuses("rollback_deployment", "the recovery API refuses the token", strategy="api"),
    ),
    Way(
        "10: a smoke test that cannot pass",
        spoil=lambda world: world.runbook.said.update(smoke_tests=[WRONG]),
        flagged={ALL: "risk"},
        check="contacts",
        resource="smoke tests",
        because="health: no answer",
        prove=says("recovery_validation", "FAILED: health"),
    ),
]


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.usefixtures("services")
def test_a_way_of_having_no_means(told: World, way: Way) -> None:
    way.show(told)


@pytest.mark.soak
def test_with_all_means_nothing_is_flagged(told: World, services: Services) -> None:
    """And a notice of all that was asked has come to nobody."""
    readiness.begin(told)
    assert rings(told).heard()
    told.aws("s3", WEST).create_bucket(Bucket=has_bucket(told), CreateBucketConfiguration={"LocationConstraint": WEST})
    assert told.runbook.run("bootstrap").returncode == 0
    seen = readiness.look(told)
    assert (seen.run.returncode, seen.flagged) == (0, {}), seen.run.output
    assert services.told == []
    assert {"slack", "mail", "jira"} <= {name for name, _call in services.calls}


def test_a_permission_of_the_failover_is_missing(told: World) -> None:
    """Without it the failover begins, and stops in the middle."""
    Way(
        "1: nothing allows the on-call to promote a replica",
        spoil=lambda world: oncall(world, NotAction="rds:PromoteReadReplica"),
        flagged={"db_failover": "not_ready"},
        check="permissions",
        resource=f"user {USER}",
        because="missing permission rds:PromoteReadReplica",
        prove=says("db_failover", "missing permission rds:PromoteReadReplica"),
        scenario="db_failover",
    ).show(told)
