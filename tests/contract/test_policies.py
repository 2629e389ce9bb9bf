# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policies of iam/ are what `make iam` writes of their permissions, and what AWS takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iam.policy import DATA, GLOBAL, actions_of, policy, resources

ROOT = Path(__file__).parents[2]
POLICIES = sorted(ROOT.glob("iam/*.json"))
# Characters of a managed policy, white space aside. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
ROOM = 6144


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_is_as_it_is_written_and_fits(path: Path) -> None:
    document = json.loads(path.read_text())
    assert (ROOT / "playbooks" / path.with_suffix(".yml").name).exists(), "there is no such playbook"
    assert document == policy(path.stem, actions_of(document)), "edited by hand: make iam writes it"
    assert len("".join(path.read_text().split())) < ROOM


def test_to_look_is_allowed_everywhere_and_to_change_where_the_inventory_says() -> None:
    assert resources("rds:DescribeDBInstances") == ["*"]
    assert resources("rds:PromoteReadReplica") == ["arn:aws:rds:*:{aws_account_id}:db:{db_instance}*"]
    assert resources("s3:GetObject", "contain_instance") == ["arn:aws:s3:::{evidence_bucket}/*"]
    assert resources("secretsmanager:GetSecretValue") != ["*"]
    looks, change = policy("x", {"rds:DescribeDBInstances", "rds:PromoteReadReplica"})["Statement"][:2]
    assert looks["Condition"] == change["Condition"] == {"StringEquals": {"aws:RequestedRegion": "{aws_region}"}}


def test_a_role_is_handed_on_to_the_services_of_the_playbooks_only() -> None:
    statement = policy("x", {"iam:PassRole"})["Statement"][0]
    assert statement["Resource"] == ["arn:aws:iam::{aws_account_id}:role/*"]
    assert "ecs-tasks.amazonaws.com" in statement["Condition"]["StringEqualsIfExists"]["iam:PassedToService"]


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
