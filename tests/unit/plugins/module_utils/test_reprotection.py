# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way an old primary becomes a replica, whatever state an earlier run left."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.reprotection import plan

OLD_ARN = "arn:aws:rds:us-east-1:123456789012:db:regami-db-primary"
NEW_ARN = "arn:aws:rds:us-west-2:123456789012:db:regami-db-replica"
WANTED = {"max_lag_seconds": 30, "accept_standalone": False, "security_groups": []}


def instance(name, arn, **changes):
    base = {
        "id": name,
        "arn": arn,
        "status": "available",
        "source": None,
        "promoted_from": None,
        "instance_class": "db.t3.medium",
        "public": False,
        "subnet_group": "private",
        "kms_key": None,
        "security_groups": ["sg-fence"],
        "tags": {"team": "regami"},
    }
    return {**base, **changes}


def old(**changes):
    return instance("regami-db-primary", OLD_ARN, **changes)


def observed(**changes):
    base = {
        "old": old(),
        "source": instance("regami-db-replica", NEW_ARN, promoted_from=OLD_ARN),
        "damaged": None,
        "retired": [],
        "old_facts": Unreachable("down"),
        "lag": None,
        "now": 1_800_000_000.0,
        "ids": {"old": "regami-db-primary", "source": "regami-db-replica", "source_region": "us-west-2"},
    }
    return {**base, **changes}


def done(a_plan):
    return [step.do for step in a_plan.steps]


def test_old_primary_is_kept_and_replaced():
    result = plan(observed(), WANTED)
    assert done(result) == ["rename", "create_replica", "catch_up"]
    assert result.steps[0].arguments["name"] == "regami-db-primary-retired-20270115080000"
    settings = result.steps[1].arguments["settings"]
    assert settings["SourceDBInstanceIdentifier"] == NEW_ARN
    assert settings["DBSubnetGroupName"] == "private"
    assert settings["Tags"] == [{"Key": "team", "Value": "regami"}]
    assert result.notes[0].startswith("regami-db-primary-retired-20270115080000 still holds")


def test_writable_old_primary_is_fenced_first():
    assert done(plan(observed(old_facts={"read_only": False, "in_recovery": False}), WANTED))[0] == "fence"


def test_the_replica_gets_its_own_security_groups_not_the_fence():
    result = plan(observed(), {**WANTED, "security_groups": ["sg-db"]})
    assert result.steps[1].arguments["settings"]["VpcSecurityGroupIds"] == ["sg-db"]


def test_killed_after_the_rename_only_creates():
    kept = instance("regami-db-primary-retired-20270115080000", OLD_ARN)
    result = plan(observed(old=None, retired=[kept]), WANTED)
    assert done(result) == ["create_replica", "catch_up"]
    assert any("still holds" in note for note in result.notes)


def test_killed_during_the_rename_waits_and_plans_again():
    result = plan(observed(old=old(status="renaming")), WANTED)
    assert result.steps[0].do == "await_renamed"
    assert result.steps[0].look_again


def test_replica_that_follows_is_done():
    assert plan(observed(old=old(source=NEW_ARN), lag=0.0), WANTED).steps == ()


def test_replica_that_lags_is_waited_for():
    assert done(plan(observed(old=old(source=NEW_ARN), lag=99.0), WANTED)) == ["catch_up"]


def test_an_instance_of_unknown_history_is_never_moved_aside():
    stranger = instance("regami-db-replica", NEW_ARN)
    with pytest.raises(Refusal, match="accept_standalone"):
        plan(observed(source=stranger), WANTED)
    assert done(plan(observed(source=stranger), {**WANTED, "accept_standalone": True}))


def test_source_that_is_itself_a_replica_is_refused():
    with pytest.raises(Refusal, match="promote it first"):
        plan(observed(source=instance("regami-db-replica", NEW_ARN, source=OLD_ARN)), WANTED)


def test_replica_of_something_else_is_refused():
    with pytest.raises(Refusal, match="other-db"):
        plan(observed(old=old(source="arn:aws:rds:eu-west-1:123456789012:db:other-db")), WANTED)


def test_a_replica_of_the_damaged_database_is_kept_aside_and_made_anew():
    """The source was restored and has taken the name; the replica goes on following the damaged one."""
    damaged = instance("regami-db-replica-old", NEW_ARN + "-old")
    follower = old(source=damaged["arn"])
    seen = {"old": follower, "source": instance("regami-db-replica", NEW_ARN), "damaged": damaged}
    result = plan(observed(**seen, old_facts={"read_only": False, "in_recovery": True}), WANTED)
    assert done(result) == ["rename", "create_replica", "catch_up"]
    assert result.steps[1].arguments["settings"]["VpcSecurityGroupIds"] == ["sg-fence"]
    with pytest.raises(Refusal, match="is a replica of"):
        plan(observed(**seen | {"damaged": None}), WANTED)
