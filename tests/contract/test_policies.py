# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policies of iam/ are what `make iam` writes of their permissions, and what AWS takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iam.asked import GROUPS, ONLY_LOOK, TOLD, WITH_ANOTHER, asked_by, permissions, verbs_of
from iam.policy import DATA, GLOBAL, ROOM, actions_of, is_look, policy, resources
from tests.contract import checks, undone

ROOT = Path(__file__).parents[2]
POLICIES = sorted(ROOT.glob("iam/*.json"))
TREE = checks.Tree(ROOT)
PLAYBOOKS = TREE.playbooks()
# What goes one way only is taken back by who may go the other.
OTHER_WAY = {"security_breach": ["security_release"], "security_release": ["security_breach"]}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_is_as_it_is_written_and_fits(path: Path) -> None:
    document = json.loads(path.read_text())
    assert (ROOT / "playbooks" / path.with_suffix(".yml").name).exists(), "there is no such playbook"
    assert document == policy(path.stem, actions_of(document)), "edited by hand: make iam writes it"
    assert len("".join(path.read_text().split())) < ROOM


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_policy_has_what_the_code_of_the_verbs_asks(path: Path) -> None:
    """A playbook that has outgrown its policy; whether it has outgrown it by what only a run shows, the soak of the scenarios says."""
    named = ROOT / "iam" / f"{path.stem}.json"
    allowed = actions_of(json.loads(named.read_text())) if named.exists() else set()
    in_record = {"s3:GetObject", "s3:ListBucket", "s3:PutObject"}
    missing = {action: verbs for action, verbs in asked_by(path).items() if action not in allowed | in_record}
    assert missing == {}, "python -m iam --add writes them into the policy"
    assert named.exists() or not verbs_of(path), "python -m iam --add writes it"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_who_may_run_a_playbook_and_undo_may_take_it_back(path: Path) -> None:
    """As README says; undo.yml itself is given nothing of what it takes back."""
    policies = [ROOT / "iam" / f"{name}.json" for name in (path.stem, "undo", *OTHER_WAY.get(path.stem, ()))]
    allowed = {action for each in policies if each.exists() for action in actions_of(json.loads(each.read_text()))}
    needed = {action: back for back in _takes_back(path) for action in permissions(back)}
    # The record's, and of groups, which have no sessions.
    theirs = {"s3:GetObject", "s3:ListBucket", "s3:PutObject"} | GROUPS
    assert {action: back for action, back in needed.items() if action not in allowed | theirs} == {}


def _takes_back(path: Path) -> set[str]:
    """The verbs that take back what a playbook changes."""
    if undone.only_reads(path):
        return set()
    entries = [
        entry
        for verb in undone.changing(TREE, path)
        if undone.kind(verb) == "verb"
        for entry in checks.documentation(verb)[2]["undo"]["sample"]
    ]
    return {entry["verb"].rpartition(".")[2] for entry in entries if "verb" in entry}


def test_what_undo_takes_back_is_no_part_of_its_policy() -> None:
    (name,) = WITH_ANOTHER
    allowed = actions_of(json.loads((ROOT / "iam" / f"{name}.json").read_text()))
    assert allowed == set(asked_by(ROOT / "playbooks" / f"{name}.yml"))


@pytest.mark.parametrize("name", sorted(ONLY_LOOK))
def test_what_changes_nothing_may_change_nothing(name: str) -> None:
    path = ROOT / "iam" / f"{name}.json"
    allowed = actions_of(json.loads(path.read_text())) if path.exists() else set()
    assert [action for action in allowed if not is_look(action)] == [*TOLD.get(name, ())]


def test_what_code_names_is_found_wherever_it_stands() -> None:
    """In the module, in what it is helped by, as a text, and with a gap in it; and a branch that is never taken is left out."""
    assert {"rds:PromoteReadReplica", "rds:DescribeEvents", "dynamodb:UpdateItem"} <= permissions("rds_promote_replica")
    assert "elasticloadbalancing:SetRulePriorities" in permissions("alb_traffic")
    assert {"iam:PutUserPolicy", "iam:PutRolePolicy"} <= permissions("iam_revoke")
    assert {"ecs:RegisterTaskDefinition", "iam:PassRole"} <= permissions("ecs_variables")
    assert not any(action.startswith("rds:") for action in permissions("ecs_variables"))
    release = asked_by(ROOT / "playbooks" / "security_release.yml")
    assert "iam:DeleteUserPolicy" in release and "iam:PutUserPolicy" not in release
    # Without a lease there is nothing to write there.
    assert "dynamodb:PutItem" not in asked_by(ROOT / "playbooks" / "triage.yml")


def test_instances_are_held_to_the_tag_of_the_service_and_nobody_may_give_it() -> None:
    statements = policy("x", {"ssm:SendCommand", "ec2:CreateTags", "ec2:ModifyInstanceAttribute"})["Statement"]
    tagged = [each for each in statements if each["Resource"] == ["arn:aws:ec2:*:{aws_account_id}:instance/*"]]
    assert {action for each in tagged for action in each["Action"]} == {
        "ssm:SendCommand",
        "ec2:CreateTags",
        "ec2:ModifyInstanceAttribute",
    }
    assert all(each["Condition"]["StringEquals"]["aws:ResourceTag/service"] == "{service_tags}" for each in tagged)
    giving = [each["Condition"] for each in statements if "ec2:CreateTags" in each["Action"]]
    assert all("ec2:CreateAction" in each["StringEquals"] or "ForAllValues:StringLike" in each for each in giving)


def test_to_look_is_allowed_everywhere_and_to_change_where_the_inventory_says() -> None:
    assert resources("rds:DescribeDBInstances") == ["*"]
    assert resources("rds:PromoteReadReplica") == ["arn:aws:rds:*:{aws_account_id}:db:{db_instance}*"]
    assert resources("s3:GetObject", "contain_instance") == ["arn:aws:s3:::{evidence_bucket}/*"]
    assert resources("secretsmanager:GetSecretValue") != ["*"]
    looks, change = policy("x", {"rds:DescribeDBInstances", "rds:PromoteReadReplica"})["Statement"][:2]
    assert looks["Condition"] == change["Condition"] == {"StringEquals": {"aws:RequestedRegion": "{aws_region}"}}


def test_roles_of_the_inventory_are_handed_on_and_to_the_services_of_the_playbook_only() -> None:
    (statement,) = [
        each for each in policy("x", {"iam:PassRole", "ecs:RunTask"})["Statement"] if "iam:PassRole" in each["Action"]
    ]
    assert statement["Resource"] == ["arn:aws:iam::{aws_account_id}:role/{passed_role}"]
    assert statement["Condition"]["StringEqualsIfExists"]["iam:PassedToService"] == ["ecs-tasks.amazonaws.com"]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_what_changes_or_reads_data_is_held_to_something(path: Path) -> None:
    """But for what AWS holds to nothing, or to resources that no policy can know before."""
    for statement in json.loads(path.read_text())["Statement"]:
        services = {action.partition(":")[0] for action in statement["Action"]}
        assert "*" not in "".join(statement["Action"])
        if statement["Resource"] == ["*"] and services & DATA:
            assert all(resources(action) == ["*"] for action in statement["Action"])
        assert "Condition" in statement or services & GLOBAL


def test_a_playbook_without_buckets_may_write_its_record_and_no_other_object() -> None:
    (records,) = policy("triage", {"s3:PutObject", "s3:GetObject"})["Statement"]
    assert records["Resource"] == ["arn:aws:s3:::{record_bucket}", "arn:aws:s3:::{record_bucket}/*"]


def test_an_unknown_permission_is_no_policy() -> None:
    with pytest.raises(Exception, match="CopyObject"):
        policy("x", {"s3:CopyObject"})
