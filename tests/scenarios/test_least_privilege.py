# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each playbook runs under exactly its policy of iam/; without one of its permissions, one line names what is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from runbook import REPOSITORY, Result
from world import EAST, WEST, World

from ansible_collections.sre.runbooks.plugins.filter.iam_policy import iam_policy
from ansible_collections.sre.runbooks.plugins.module_utils import aws
from ansible_collections.sre.runbooks.plugins.modules import lease_table, record_bucket
from iam.policy import actions_of
from tests.unit.module_main import run_main

USER = "oncall"

# A run of each playbook that takes as many of its permissions as one run can: (playbook, what is wrong, what is said).
RUNS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("cache_failure", {"name": "redis-down"}, {"remedy": "reboot"}),
    ("db_connections", {}, {}),
    ("db_failover", {}, {}),
    ("disk_full", {"name": "disk-full", "what": "logs"}, {}),
    ("emergency_replica", {}, {}),
    ("emergency_scale", {}, {"capacity": "+50%"}),
    ("high_error_rate", {}, {}),
    ("kill_queries", {}, {}),
    ("network_diagnosis", {}, {}),
    ("performance_degradation", {}, {}),
    ("recovery_validation", {}, {}),
    ("restore_from_backup", {}, {}),
    ("rollback_deployment", {"name": "bad-build", "build": "erroring"}, {}),
    ("s3_upload_failure", {"name": "uploads-denied", "how": "bucket"}, {"remediate": True}),
    ("service_outage", {}, {}),
    ("traffic", {}, {"mode": "block"}),
    ("triage", {}, {}),
    ("zone_outage", {"name": "zone-fails", "zone": f"{EAST}a"}, {}),
]


@dataclass(frozen=True)
class Oncall:
    """An engineer who may do what one policy says; its names are those of the sandbox's inventory."""

    world: World
    key: dict[str, str]

    def may(self, playbook: str, without: str | None = None, **names: str) -> None:
        """What the policy of `playbook` says, in the names of the inventory and `names`, but for one permission."""
        hosts = [each | names for each in self._names()]
        document = iam_policy(json.loads((REPOSITORY / "iam" / f"{playbook}.json").read_text()), hosts)
        for statement in document["Statement"]:
            statement["Action"] = [action for action in statement["Action"] if action != without]
        # AWS takes no statement without an action.
        document["Statement"] = [each for each in document["Statement"] if each["Action"]]
        policy = json.dumps(document)
        self.world.aws("iam").put_user_policy(UserName=USER, PolicyName="playbook", PolicyDocument=policy)

    def run(self, playbook: str, **variables: Any) -> Result:
        key = {"aws_access_key_id": self.key["AccessKeyId"], "aws_secret_access_key": self.key["SecretAccessKey"]}
        return self.world.runbook.run(playbook, **key, **variables)

    def _names(self) -> list[dict[str, str]]:
        state = self.world.sandbox.state
        everywhere = {
            "aws_account_id": state["account_id"],
            "evidence_bucket": state["evidence_bucket"],
            "hosted_zone_id": state["hosted_zone_id"],
            "lock_table": state["lock_table"],
            "codedeploy_application": state["codedeploy"]["application"],
            "codedeploy_deployment_group": state["codedeploy"]["deployment_group"],
        }
        return [everywhere | self._of(region) for region in (EAST, WEST)]

    def _of(self, region: str) -> dict[str, str]:
        there = self.world.names(region)
        buckets = {name: there[name] for name in ("uploads_bucket", "uploads_backup_bucket") if name in there}
        named = {"db_instance": there["db_instance"], "ecs_cluster": there["cluster"], "ecs_service": there["service"]}
        return {"aws_region": region, **named, **buckets}


def _oncall(world: World) -> Oncall:
    """On the first day, with a key."""
    world.begin()
    iam = world.aws("iam")
    iam.create_user(UserName=USER)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    world.sandbox.control("enforce", user=USER)
    return Oncall(world, key)


@pytest.fixture(scope="module")
def oncall(any_world: World) -> Oncall:
    return _oncall(any_world)


def needs(calls: list[dict], playbook: str) -> set[str]:
    """The permissions that the calls of a playbook took."""
    return {action for call in calls if call["playbook"] == playbook for action in call["needs"]}


def allowed(playbook: str) -> set[str]:
    return actions_of(json.loads((REPOSITORY / "iam" / f"{playbook}.json").read_text()))


def said(run: Result) -> str:
    """To the engineer, and in the record."""
    return run.output + json.dumps(run.timeline)


def test_a_playbook_runs_under_exactly_its_policy_and_what_it_misses_has_a_name(oncall: Oncall) -> None:
    """One permission of what it looks at, of its lease, and of what it can do without; the soak below takes all."""
    oncall.may("kill_queries")
    run = oncall.run("kill_queries")
    assert run.returncode == 0, run.output
    assert "missing permission" not in said(run)
    assert needs(run.calls, "kill_queries") == allowed("kill_queries")
    for action in ("rds:DescribeDBInstances", "dynamodb:PutItem", "cloudwatch:GetMetricData"):
        oncall.may("kill_queries", without=action)
        assert f"missing permission {action}" in said(oncall.run("kill_queries"))


def bootstrapped(oncall: Oncall, table: str, bucket: str) -> list[dict]:
    """What the two verbs of bootstrap.yml answer, up to one that fails; in this process, which is quicker."""
    key = {"access_key": oncall.key["AccessKeyId"], "secret_key": oncall.key["SecretAccessKey"]}
    connection = {"endpoint_url": oncall.world.sandbox.state["endpoint_url"], "region": WEST, **key}
    made = run_main(lease_table.main, table=table, **connection)
    if made["failed"]:
        return [made]
    return [made, run_main(record_bucket.main, bucket=bucket, **connection)]


def test_what_runs_need_is_made_under_exactly_its_policy(oncall: Oncall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(aws.PLAYBOOK_VARIABLE, "bootstrap")
    first = len(oncall.world.sandbox.calls())
    new = {"lock_table": "locks", "record_bucket": "records"}
    oncall.may("bootstrap", **new)
    answers = bootstrapped(oncall, *new.values())
    assert [answer["verification"][0]["ok"] for answer in answers] == [True, True]
    assert needs(oncall.world.sandbox.calls(first), "bootstrap") == allowed("bootstrap")
    # Each time others, since what was made before a permission was missed stays.
    for number, action in enumerate(sorted(allowed("bootstrap"))):
        new = {"lock_table": f"locks-{number}", "record_bucket": f"records-{number}"}
        oncall.may("bootstrap", without=action, **new)
        assert f"missing permission {action} in {WEST}" in bootstrapped(oncall, *new.values())[-1]["msg"]


@pytest.mark.soak
@pytest.mark.parametrize(("playbook", "fault", "variables"), RUNS, ids=[each[0] for each in RUNS])
def test_every_playbook_without_each_of_its_permissions(
    world: World, playbook: str, fault: dict[str, str], variables: dict[str, Any]
) -> None:
    def run(without: str | None = None) -> Result:
        oncall = _oncall(world)
        if fault:
            world.sandbox.fault(**fault)
        oncall.may(playbook, without=without)
        try:
            return oncall.run(playbook, **variables)
        finally:
            world.sandbox.heal()

    whole = run()
    assert whole.returncode == 0, whole.output
    assert "missing permission" not in said(whole)
    unnamed = [
        action
        for action in sorted(needs(whole.calls, playbook))
        if f"missing permission {action}" not in said(run(without=action))
    ]
    assert unnamed == []
