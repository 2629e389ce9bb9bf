# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not begin: one line says what is wrong and what to do, and nothing was changed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest
from runbook import BIN, DEADLINE, REPOSITORY, Result
from world import EAST, PRIMARY, REPLICA, WEST, World

ENVIRONMENTS = "one of prod, sandbox, "
OMIT = "{{ omit }}"


def assert_refused(run: Result, *parts: str) -> None:
    assert run.returncode not in (0, -9), run.output
    (complaint,) = run.complaints
    assert [part for part in parts if part not in complaint] == [], complaint
    assert "Traceback" not in run.output
    assert run.mutations == []


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        pytest.param(
            {"env": "prd"}, ["env=prd is no environment (did you mean prod?)", ENVIRONMENTS], id="unknown env"
        ),
        pytest.param({"env": None}, ["no environment given: say -e env=NAME", ENVIRONMENTS], id="no env"),
        pytest.param(
            {"env": "service_sandbox"}, ["env=service_sandbox is no environment", ENVIRONMENTS], id="group of a service"
        ),
        pytest.param(
            {"env": "prod"},
            ["the inventory of prod is not filled in", "hosted_zone_id", "target_group_arn of the peer", "CHANGEME"],
            id="placeholders left",
        ),
        pytest.param(
            {"accept_dataloss_seconds": 60, "start_timeout": "soon"},
            [
                "accept_dataloss_seconds is no variable of db_failover: did you mean accept_data_loss_seconds?",
                "start_timeout=soon must be a whole number; nothing was changed",
            ],
            id="typing errors",
        ),
        pytest.param({"dns_record": ""}, ["inventory of sandbox is not filled in: dns_record"], id="missing variable"),
        pytest.param(
            {"aws_account_id": "999999999999"},
            ["belong to account 123456789012", "sandbox is in account 999999999999", "AWS_PROFILE"],
            id="wrong account in the inventory",
        ),
        pytest.param(
            {"aws_access_key_id": OMIT, "aws_secret_access_key": OMIT},
            ["no AWS credentials found", "AWS_PROFILE", "aws sso login"],
            id="no credentials",
        ),
        pytest.param(
            {"hosted_zone_id": "Z0000000"}, ["there is no hosted zone Z0000000", "hosted_zone_id"], id="unknown zone"
        ),
        pytest.param(
            {"dns_record": "www.regami.test"},
            ["www.regami.test", "api.regami.test"],
            id="zone without the record",
        ),
        pytest.param(
            {"env": "sandbox_secondary"},
            [f"{PRIMARY} is not a replica", f"nothing says that it was promoted from {REPLICA}", "accept_standalone"],
            id="the wrong way round",
        ),
        pytest.param(
            {"lock_table": "no-such-table"}, ["lease table no-such-table does not exist", WEST], id="no table"
        ),
        pytest.param(
            {"db_admin_password": "planted-and-wrong"},
            ["lives but lets regami_admin not in", "login_password"],
            id="wrong database password",
        ),
    ],
)
def test_refused(untouched: World, variables: dict[str, Any], parts: list[str]) -> None:
    run = untouched.runbook.run(**variables)
    assert_refused(run, *parts)
    assert "planted-and-wrong" not in run.output


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        pytest.param(
            {"name": "wrong-account"},
            ["belong to account", "but sandbox is in account 123456789012"],
            id="wrong account",
        ),
        pytest.param(
            {"name": "api", "service": "*", "action": "*", "kind": "expired-token"},
            ["the AWS credentials have expired", "aws sso login"],
            id="expired token",
        ),
        pytest.param(
            {"name": "api", "service": "rds", "action": "DescribeDBInstances", "kind": "denied"},
            ["missing permission rds:DescribeDBInstances"],
            id="read denied",
        ),
        pytest.param(
            {"name": "api", "service": "dynamodb", "action": "PutItem", "kind": "denied"},
            ["missing permission dynamodb:PutItem", WEST],
            id="lease denied",
        ),
    ],
)
def test_refused_by_aws(untouched: World, fault: dict, parts: list[str]) -> None:
    untouched.sandbox.fault(**fault)
    assert_refused(untouched.runbook.run(), *parts)


def test_a_standby_that_could_not_start(untouched: World) -> None:
    """A promotion cannot be undone: all that its tasks would lack is said before it, in one line, and may be accepted."""
    untouched.sandbox.fault("subnets-full", left=0)
    untouched.sandbox.fault("image-gone", tag="v2", region=WEST)
    run = untouched.runbook.run()
    assert_refused(
        run,
        "regami-service-secondary cannot take over: the image",
        f"{WEST}.amazonaws.com/regami-api:v2 of container",
        "cannot be pulled",
        "push it again",
        "-e accept_missing=true",
        "2 more tasks of regami-service-secondary take 2 free addresses of its subnets, and 0 are left",
        "accept_shortage=true",
        "nothing was changed",
    )
    accepted = untouched.runbook.run("db_failover", "--check", accept_missing=True, accept_shortage=True)
    assert accepted.returncode == 0 and accepted.report["outcome"] == "planned", accepted.output
    assert [note.partition(" ")[0] for note in accepted.report["notes"]][:2] == ["ACCEPTED:", "ACCEPTED:"]


@pytest.mark.parametrize(
    ("host", "changes", "parts"),
    [
        pytest.param(
            "api-sandbox-secondary",
            {"db_instance": "regami-db-replika"},
            [f"there is no RDS instance regami-db-replika in {WEST} (there are: {REPLICA})"],
            id="replica missing",
        ),
        pytest.param(
            "api-sandbox",
            {"db_instance": "orders-db"},
            [f"{REPLICA} is a replica of {PRIMARY}, not of orders-db"],
            id="replica of another source",
        ),
        pytest.param(
            "api-sandbox-secondary",
            {"aws_region": "eu-west-1"},
            ["lease table sre-incident-locks does not exist in eu-west-1"],
            id="wrong region",
        ),
        pytest.param(
            "api-sandbox-secondary",
            {"ecs_service": "regami-service-two"},
            ["regami-service-two", WEST],
            id="standby without the service",
        ),
    ],
)
def test_inventory_names_the_wrong_thing(
    untouched: World, tmp_path: Path, host: str, changes: dict[str, str], parts: list[str]
) -> None:
    there = untouched.names(EAST if host == "api-sandbox" else WEST)
    names = {
        "ecs_cluster": there["cluster"],
        "ecs_service": there["service"],
        "target_group_arn": there["target_group_arn"],
        "db_instance": there["db_instance"],
        "log_groups": [],
    }
    # A second inventory, whose host_vars win over those of the first.
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {host: {}}}}))
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / f"{host}.json").write_text(json.dumps(names | changes))
    run = untouched.runbook.run("db_failover", "-i", "inventories/sandbox", "-i", str(tmp_path))
    assert_refused(run, *parts)


def test_sandbox_is_not_up(untouched: World, tmp_path: Path) -> None:
    run = untouched.runbook.start(environment={"SRE_SANDBOX_HOME": str(tmp_path)}).wait()
    assert_refused(run, "the sandbox is not up", "python -m sandbox up")


def test_lease_held_by_another_responder(untouched: World) -> None:
    locks = untouched.aws("dynamodb", WEST)
    table, taken = untouched.sandbox.state["lock_table"], time.time() - 60
    item = {"holder": {"S": "kim@laptop"}, "run": {"S": "laptop:4711:99"}, "token": {"N": "3"}}
    times = {"acquired": {"N": f"{taken:.3f}"}, "expires": {"N": f"{taken + 600:.3f}"}}
    locks.put_item(TableName=table, Item={"name": {"S": "regami-api"}, **item, **times})
    try:
        run = untouched.runbook.run()
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(taken))
        assert_refused(run, f"kim@laptop has held the lease regami-api since {since}", "-e break_lease=true")
        assert run.lease_calls == []
    finally:
        locks.delete_item(TableName=table, Key={"name": {"S": "regami-api"}})


def test_nobody_confirms(untouched: World) -> None:
    """As for production: no terminal, and no -e confirm=true (test_ansible_runner gives it)."""
    run = untouched.runbook.run(confirm_required=True)
    assert_refused(run, "sandbox was not confirmed", "-e confirm=true", "nothing was changed")
    assert run.lease_calls == []


@pytest.mark.parametrize(
    ("typed", "told"), [("prod", "sandbox was not confirmed"), ("sandbox", "there is no hosted zone Z0000000")]
)
def test_confirmation_at_a_terminal(untouched: World, typed: str, told: str) -> None:
    """Another name than that of the environment ends the run; the right one lets it go on, here to its next refusal."""
    variables = json.dumps({"env": "sandbox", "confirm_required": True, "hosted_zone_id": "Z0000000"})
    terminal = pexpect.spawn(
        str(BIN / "ansible-playbook"),
        ["playbooks/db_failover.yml", "--extra-vars", variables],
        cwd=REPOSITORY,
        env=untouched.runbook.environment,
        encoding="utf-8",
        timeout=DEADLINE,
        dimensions=(50, 250),
    )
    terminal.expect("Move regami-api from regami-db-primary .us-east-1. to regami-db-replica .us-west-2.")
    terminal.expect("account 123456789012 as arn:aws:")
    terminal.expect("Type sandbox to go on")
    terminal.sendline(typed)
    terminal.expect(told)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 2


def test_replica_lags(world: World) -> None:
    world.start_users()
    world.sandbox.fault("replica-lag")
    time.sleep(3)
    run = world.runbook.run(max_lag_seconds=2)
    assert_refused(run, f"{REPLICA} is", f"s behind {PRIMARY} (limit 2 s)", "max_lag_seconds")
    assert world.stop_users()["errors"] == {}
