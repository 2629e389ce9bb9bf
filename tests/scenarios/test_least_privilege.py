# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each playbook runs under exactly its policy of iam/; without one of its permissions, one line names what is missing."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from cases import (
    BLUE_GREEN,
    CASES,
    CLUSTER,
    FLEET,
    REFUSED,
    Case,
    a_suspect,
    a_user,
    an_intruder,
    done,
    ship,
    ship_to_the_fleet,
)
from resources import steady
from runbook import REPOSITORY, Result
from world import WEST, World, wait_until

from ansible_collections.sre.runbooks.plugins.filter.iam_policy import iam_policy
from ansible_collections.sre.runbooks.plugins.module_utils import aws
from ansible_collections.sre.runbooks.plugins.modules import lease_table, record_bucket
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from iam.policy import actions_of

USER = "oncall"


def faulty(name: str, **options: str) -> Callable[[World], None]:
    return lambda world: world.sandbox.fault(name, **options)


def a_leak(world: World) -> None:
    """Of memory, by tasks that were not deployed lately."""
    world.start_users()
    world.sandbox.fault("bad-build", build="leaking")
    wait_until(lambda: world.sandbox.control("load", action="report")["failed_requests"] > 20, "they have leaked")
    world.stop_users(more=0)


def a_bad_blue_green(world: World) -> None:
    world.sandbox.fault("bad-blue-green", build="erroring", stage="shifting")


def a_review(world: World) -> dict[str, Any]:
    run = world.runbook.run("emergency_scale", capacity="+1")
    return {"run": run.folder.name}


def isolated(world: World) -> dict[str, Any]:
    a_user(world)
    said = {"steps": "isolate,revoke", "principal": "user/deploy", "incident": "night", **a_suspect(world)}
    done("security_breach", **CLUSTER, **said)(world)
    return {"principal": "user/deploy", "accept_live_sessions": True}


def contained(world: World) -> dict[str, Any]:
    said = an_intruder(world)
    done("contain_instance", **FLEET, **said)(world)
    return said


# What only looks, what is wrong with what, and ways back: besides the runs that are taken back.
MORE = (
    Case("reboot", "cache_failure", {"remedy": "reboot"}, prepare=faulty("redis-down")),
    Case("look", "db_connections"),
    Case("kill", "db_connections", {"steps": "kill,restart", "even_if_enough": True}),
    Case("look", "high_error_rate"),
    Case("back", "high_error_rate", {"remediate": True, "cause": "bad_deployment"}, prepare=ship),
    Case("look", "kill_queries"),
    Case("look", "network_diagnosis"),
    Case("fleet", "network_diagnosis", FLEET, prepare=ship_to_the_fleet),
    Case("look", "performance_degradation"),
    Case("fleet", "performance_degradation", {**FLEET, "remediate": True}, prepare=faulty("hot-process")),
    Case("look", "recovery_validation"),
    Case("look", "restore_from_backup"),
    Case("half way", "rollback_deployment", BLUE_GREEN, prepare=a_bad_blue_green),
    Case("role", "s3_upload_failure", {"remediate": True}, prepare=faulty("uploads-denied", how="role")),
    Case("bad build", "service_outage", prepare=faulty("bad-build", build="crashing")),
    Case("leak", "service_outage", {"recent_minutes": 0}, prepare=a_leak),
    Case("fleet", "service_outage", FLEET, prepare=ship_to_the_fleet),
    Case("look", "triage"),
    Case("fleet", "triage", FLEET, prepare=ship_to_the_fleet),
    Case("all", "security_release", CLUSTER, prepare=isolated),
    Case(
        "evidence",
        "security_breach",
        {**CLUSTER, "steps": "evidence,revoke", "incident": "night", "principal": "user/deploy"},
        prepare=a_user,
    ),
    Case("release", "contain_instance", FLEET, flags=("--tags", "release"), prepare=contained),
    Case("scale", "undo", prepare=done("emergency_scale", capacity="+50%")),
    Case("run", "incident_review", prepare=a_review),
)
# Who takes a run back has the policy of its playbook as well.
WITH = {"undo": ["emergency_scale"]}
RUNS = (*CASES, *(case for case, _ in REFUSED if case.playbook != "bootstrap"), *MORE)


@dataclass(frozen=True)
class Oncall:
    """An engineer who may do what one policy says."""

    world: World
    key: dict[str, str]

    def may(self, document: dict, without: str | None = None) -> None:
        """What `document` says, but for one permission."""
        statements = [
            {**each, "Action": [action for action in each["Action"] if action != without]}
            for each in document["Statement"]
        ]
        # AWS takes no statement without an action.
        policy = {**document, "Statement": [each for each in statements if each["Action"]]}
        self.world.aws("iam").put_user_policy(UserName=USER, PolicyName="playbook", PolicyDocument=json.dumps(policy))

    def run(self, playbook: str, *flags: str, **variables: Any) -> Result:
        key = {"aws_access_key_id": self.key["AccessKeyId"], "aws_secret_access_key": self.key["SecretAccessKey"]}
        return self.world.runbook.run(playbook, *flags, **key, **variables)


def an_oncall(world: World) -> Oncall:
    """On the first day, with a key."""
    world.begin()
    iam = world.aws("iam")
    iam.create_user(UserName=USER)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    world.sandbox.control("enforce", user=USER)
    return Oncall(world, key)


@pytest.fixture(scope="module")
def oncall(any_world: World) -> Oncall:
    return an_oncall(any_world)


def policy_of(world: World, playbook: str, env: str = "sandbox", **said: Any) -> dict:
    """As bootstrap.yml writes it, with the names that the inventory has in this very world, or `said` as if it had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRE_SANDBOX_HOME", str(world.sandbox.home))
        loader = DataLoader()
        inventory = InventoryManager(loader, [str(REPOSITORY / "inventories" / "sandbox")])
        known = HostVars(inventory, VariableManager(loader, inventory), loader)
        (host,) = inventory.get_hosts(env)
        hosts = [known[host.name], known[known[host.name].get("peer", host.name)]]
        named = [ChainMap(said, each) for each in hosts]
        policies = [iam_policy(general(each), named) for each in (playbook, *WITH.get(playbook, []))]
    return {**policies[0], "Statement": [statement for each in policies for statement in each["Statement"]]}


def needs(calls: list[dict], playbook: str) -> list[str]:
    """The permissions that the calls of a playbook took, in the order in which it first asked for them."""
    return list(dict.fromkeys(action for call in calls if call.get("playbook") == playbook for action in call["needs"]))


def general(playbook: str) -> dict:
    return json.loads((REPOSITORY / "iam" / f"{playbook}.json").read_text())


def said(run: Result) -> str:
    """To the engineer, whose lines are folded, and in the record and what lies beside it."""
    pages = [path.read_text(errors="replace") for path in sorted(run.folder.glob("*.json"))]
    return " ".join("\n".join([run.output, json.dumps(run.timeline), *pages]).split())


def test_a_playbook_runs_under_exactly_its_policy_and_what_it_misses_has_a_name(oncall: Oncall) -> None:
    """One permission of what it looks at, of its lease, and of what it can do without; the soak below takes all."""
    policy = policy_of(oncall.world, "kill_queries")
    oncall.may(policy)
    run = oncall.run("kill_queries")
    assert run.returncode == 0, run.output
    assert "missing permission" not in said(run)
    # Nothing but what it takes, and the review of an incident that ends with it; that of a secret is left out where the inventory names none.
    review = actions_of(policy_of(oncall.world, "incident_review"))
    assert {*needs(run.calls, "kill_queries"), *review} == actions_of(policy)
    for action in ("rds:DescribeDBInstances", "dynamodb:PutItem", "cloudwatch:GetMetricData"):
        oncall.may(policy, without=action)
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
    everywhere = {"aws_account_id": oncall.world.sandbox.state["account_id"], "aws_region": WEST}

    def named(new: dict[str, str]) -> dict:
        return iam_policy(general("bootstrap"), [everywhere | new])

    first = len(oncall.world.sandbox.calls())
    new = {"lock_table": "locks", "record_bucket": "records"}
    oncall.may(named(new))
    answers = bootstrapped(oncall, *new.values())
    assert [answer["verification"][0]["ok"] for answer in answers] == [True, True]
    assert set(needs(oncall.world.sandbox.calls(first), "bootstrap")) == actions_of(general("bootstrap"))
    # Each time others, since what was made before a permission was missed stays.
    for number, action in enumerate(sorted(actions_of(general("bootstrap")))):
        new = {"lock_table": f"locks-{number}", "record_bucket": f"records-{number}"}
        oncall.may(named(new), without=action)
        assert f"missing permission {action} in {WEST}" in bootstrapped(oncall, *new.values())[-1]["msg"]


class Attempts:
    """Runs of one case, each under its policy or that without one permission, one after the other in the same world.

    A run that was denied something is the next one's beginning, as it is for an engineer who is given the permission and types the
    command again: runs go on where the one before was stopped. After one that came to its end the world begins anew.
    """

    def __init__(self, world: World, case: Case) -> None:
        self._world, self._case = world, case
        self._oncall: Oncall | None = None

    def run(self, *flags: str, without: str | None = None) -> Result:
        if self._oncall is None:
            self._begin()
        self._oncall.may(self._policy, without)
        run = self._oncall.run(self._case.playbook, *self._case.flags, *flags, **self._said)
        if "--check" not in flags and run.returncode == 0:
            self.begin_anew()
        return run

    def begin_anew(self) -> None:
        self._world.sandbox.heal()
        self._oncall = None

    def _begin(self) -> None:
        self._oncall = an_oncall(self._world)
        steady(self._world)  # a fleet sleeps until somebody asks for it
        self._policy = policy_of(self._world, self._case.playbook, **self._case.said)
        self._said = self._case.said | (self._case.prepare(self._world) or {})


def unnamed(attempts: Attempts, planned: list[str], whole: list[str]) -> list[str]:
    """Permissions whose lack no run says: those that the plan needs tried by planning, the others in the order of the run."""
    silent = []
    for action in [*planned, *(each for each in whole if each not in planned)]:
        flags = ["--check"] if action in planned else []
        if f"missing permission {action}" in said(attempts.run(*flags, without=action)):
            continue
        # What the runs before have done may be what this one would have been denied.
        attempts.begin_anew()
        if f"missing permission {action}" not in said(attempts.run(*flags, without=action)):
            silent.append(action)
    return silent


@pytest.mark.soak
@pytest.mark.parametrize("playbook", sorted({each.playbook for each in RUNS}))
def test_every_playbook_without_each_of_its_permissions(world: World, playbook: str) -> None:
    """Each permission once, by the first run that needs it."""
    tried, silent = set(), {}
    for case in [each for each in RUNS if each.playbook == playbook]:
        attempts = Attempts(world, case)
        plan, run = attempts.run("--check"), attempts.run()
        for each in (plan, run):
            assert "missing permission" not in said(each), f"{case.id}:\n{each.output}"
            assert each.returncode == 0, f"{case.id}:\n{each.output}"
        planned, whole = (
            [action for action in needs(each.calls, playbook) if action not in tried] for each in (plan, run)
        )
        attempts.begin_anew()
        silent[case.name] = unnamed(attempts, planned, whole)
        tried |= {*planned, *whole}
    assert not any(silent.values()), silent
