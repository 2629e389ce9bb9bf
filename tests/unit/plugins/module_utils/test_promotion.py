# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gates and the order of a promotion, without any service."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.promotion import plan

NOW = 1_800_000_000.0
PRIMARY_ARN = "arn:aws:rds:us-east-1:123456789012:db:regami-db-primary"
REPLICA_ARN = "arn:aws:rds:us-west-2:123456789012:db:regami-db-replica"

WANTED = {
    "max_lag_seconds": 60,
    "accept_data_loss_seconds": 0,
    "accept_unknown_loss": False,
    "accept_standalone": False,
    "fence_security_groups": ["sg-fence"],
    "backup_retention_days": 7,
    "multi_az": None,
    "write_probe": True,
}


def instance(**changes):
    base = {
        "id": "regami-db-primary",
        "arn": PRIMARY_ARN,
        "status": "available",
        "source": None,
        "replicas": [REPLICA_ARN],
        "host": "primary.example",
        "port": 5432,
        "backup_retention": 7,
        "multi_az": False,
        "security_groups": ["sg-db"],
        "promoted_from": None,
        "promoted_at": 0.0,
        "fenced": False,
    }
    return {**base, **changes}


def replica(**changes):
    base = {
        "id": "regami-db-replica",
        "arn": REPLICA_ARN,
        "source": PRIMARY_ARN,
        "replicas": [],
        "host": "replica.example",
    }
    return instance(**{**base, **changes})


def facts(**changes):
    base = {
        "in_recovery": False,
        "read_only": False,
        "lsn": 1000,
        "replayed_at": None,
        "streaming": False,
        "sessions": 2,
        "now": NOW,
    }
    return {**base, **changes}


def standby_facts(**changes):
    return facts(**{"in_recovery": True, "streaming": True, "replayed_at": NOW - 1, **changes})


def observed(**changes):
    base = {
        "replica": replica(),
        "source": instance(),
        "replica_facts": standby_facts(),
        "source_facts": facts(),
        "lag_metric": [(NOW - 30, 0.0)],
        "alive_metric": [(NOW - 30, 2.0)],
        "quarantined": False,
        "unknown_groups": [],
        "was_promoted": False,
        "now": NOW,
        "ids": {
            "replica": "regami-db-replica",
            "source": "regami-db-primary",
            "region": "us-west-2",
            "source_region": "us-east-1",
        },
    }
    return {**base, **changes}


SILENT = Unreachable("the database regami at primary.example:5432 does not answer: connection refused")


def done(a_plan):
    return [step.do for step in a_plan.steps]


def refusal(seen, **wanted):
    with pytest.raises(Refusal) as raised:
        plan(seen, {**WANTED, **wanted})
    message = str(raised.value)
    assert "\n" not in message
    assert "nothing was changed" in message
    return message


def test_switchover_fences_and_drains_before_it_promotes():
    result = plan(observed(), WANTED)
    assert done(result) == ["fence", "drain", "mark", "promote", "await_promotion", "quarantine"]
    assert result.returned == {
        "mode": "switchover",
        "unfenced": False,
        "possible_loss_seconds": 0.0,
        "endpoint": {"host": "replica.example", "port": 5432},
    }


def test_switchover_that_cannot_ask_the_replica_drains_by_the_metric():
    seen = observed(replica_facts=Unreachable("no route"))
    assert "drain_by_metric" in done(plan(seen, {**WANTED, "write_probe": False}))
    assert "write_probe" in refusal(seen)


def test_switchover_refuses_a_replica_that_is_far_behind():
    seen = observed(replica_facts=standby_facts(lsn=10, replayed_at=NOW - 90))
    assert "90 s behind" in refusal(seen)
    assert done(plan(seen, {**WANTED, "max_lag_seconds": 100}))[0] == "fence"


def test_switchover_refuses_broken_replication_although_no_write_makes_it_look_close():
    assert "is unknown" in refusal(observed(replica_facts=standby_facts(lsn=10, streaming=False)))


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ([], "no ReplicaLag"),
        ([(NOW - 30, -1.0)], "replication is broken"),
        ([(NOW - 900, 0.0)], "900 s old"),
    ],
)
def test_lag_by_the_metric_alone_refuses_when_missing_negative_or_stale(metric, why):
    seen = observed(replica_facts=Unreachable("no route"), lag_metric=metric)
    assert why in refusal(seen, write_probe=False)


def test_silent_primary_refuses_without_accepted_loss_and_says_how_much_it_would_be():
    seen = observed(source_facts=SILENT, replica_facts=standby_facts(replayed_at=NOW - 40))
    message = refusal(seen)
    assert "at most 40 s" in message
    assert "-e accept_data_loss_seconds=70" in message


def test_silent_primary_with_accepted_loss_is_promoted_unfenced():
    seen = observed(source_facts=SILENT, replica_facts=standby_facts(replayed_at=NOW - 40))
    result = plan(seen, {**WANTED, "accept_data_loss_seconds": 60})
    assert done(result) == ["quarantine", "mark", "promote", "await_promotion"]
    assert result.returned["unfenced"] is True
    assert result.returned["possible_loss_seconds"] == 40.0
    assert any(note.startswith("UNFENCED") for note in result.notes)
    assert any("accepted a loss of up to 60 s" in note for note in result.notes)


def test_time_after_the_last_sign_of_life_is_no_loss():
    """Woken ten minutes after the primary died, the engineer has not to accept ten minutes of loss."""
    seen = observed(
        source_facts=SILENT,
        replica_facts=standby_facts(replayed_at=NOW - 600),
        alive_metric=[(NOW - 650, 2.0)],
        lag_metric=[],
    )
    assert plan(seen, {**WANTED, "accept_data_loss_seconds": 15}).returned["possible_loss_seconds"] == 10.0


def test_unknown_loss_takes_its_own_override():
    seen = observed(
        source_facts=SILENT, replica_facts=Unreachable("no route"), lag_metric=[], alive_metric=Unreachable("cut")
    )
    assert "accept_unknown_loss" in refusal(seen, write_probe=False, accept_data_loss_seconds=9999)
    result = plan(seen, {**WANTED, "write_probe": False, "accept_unknown_loss": True})
    assert result.returned["possible_loss_seconds"] is None


def test_silent_region_leaves_the_fence_by_security_group_out():
    gone = Unreachable("us-east-1 does not answer")
    seen = observed(source=gone, source_facts=SILENT, alive_metric=gone)
    assert done(plan(seen, {**WANTED, "accept_data_loss_seconds": 60})) == ["mark", "promote", "await_promotion"]


def test_a_primary_that_lives_but_refuses_the_login_is_not_taken_for_dead():
    seen = observed(source_facts=Stop("the database regami at x lives but lets regami_admin not in"))
    assert "lives" in refusal(seen, accept_data_loss_seconds=9999, accept_unknown_loss=True)


def test_replica_of_another_source_is_refused():
    other = PRIMARY_ARN.replace("regami-db-primary", "other-db")
    assert "replica of other-db" in refusal(observed(replica=replica(source=other)))
    silent = observed(replica=replica(source=other), source=Unreachable("cut"), source_facts=SILENT)
    assert "replica of other-db" in refusal(silent, accept_data_loss_seconds=9999)


@pytest.mark.parametrize("status", ["backing-up", "modifying"])
def test_passing_state_is_waited_for_and_planned_again(status):
    (step,) = plan(observed(replica=replica(status=status)), WANTED).steps
    assert (step.do, step.look_again) == ("settle", True)


def test_state_that_does_not_pass_stops():
    with pytest.raises(Stop, match="storage-full"):
        plan(observed(replica=replica(status="storage-full")), WANTED)


PROMOTED = replica(source=None, promoted_from=PRIMARY_ARN, promoted_at=NOW - 100)
FENCED = {"source": instance(security_groups=["sg-fence"], fenced=True), "quarantined": True, "source_facts": SILENT}


def test_already_promoted_is_done():
    result = plan(observed(replica=PROMOTED, replica_facts=facts(), **FENCED), WANTED)
    assert result.steps == ()
    assert (result.returned["mode"], result.returned["unfenced"]) == ("done", False)


def test_promoted_by_hand_is_recognised_by_its_events():
    by_hand = replica(source=None)
    assert plan(observed(replica=by_hand, replica_facts=facts(), was_promoted=True, **FENCED), WANTED).steps == ()
    assert "accept_standalone" in refusal(observed(replica=by_hand, replica_facts=facts(), **FENCED))


def test_promoted_by_hand_does_not_take_over_from_a_primary_that_takes_writes():
    seen = observed(replica=replica(source=None), replica_facts=facts(), was_promoted=True)
    assert "regami-db-primary still takes writes" in refusal(seen)
    assert done(plan(seen, {**WANTED, "accept_standalone": True})) == ["fence", "quarantine"]


def test_group_to_fence_with_that_is_not_there_refuses_before_the_promotion():
    assert "no security group sg-fence" in refusal(observed(unknown_groups=["sg-fence"]))


def test_killed_between_promotion_and_opening_goes_on():
    result = plan(observed(replica=PROMOTED, replica_facts=facts(read_only=True), **FENCED), WANTED)
    assert done(result) == ["open_for_writes"]


def test_old_primary_that_comes_back_writable_is_fenced():
    result = plan(observed(replica=PROMOTED, replica_facts=facts()), WANTED)
    assert done(result) == ["fence", "quarantine"]
    assert result.returned["unfenced"] is False


def test_security_groups_alone_do_not_prove_a_fence():
    seen = observed(
        replica=PROMOTED,
        replica_facts=facts(),
        source=instance(security_groups=["sg-fence"]),
        quarantined=True,
        source_facts=SILENT,
    )
    assert plan(seen, WANTED).returned["unfenced"] is True


def test_old_primary_that_is_a_replica_again_is_left_alone():
    old = instance(source=REPLICA_ARN)
    assert (
        plan(observed(replica=PROMOTED, replica_facts=facts(), source=old, source_facts=standby_facts()), WANTED).steps
        == ()
    )


def test_never_fences_the_present_primary_for_a_promotion_of_long_ago():
    """After a failover, a reprotection and the failback, the same command must not take the first failover for the last."""
    present = instance(promoted_from=REPLICA_ARN, promoted_at=NOW - 50)
    message = refusal(observed(replica=PROMOTED, replica_facts=facts(read_only=True), source=present))
    assert "db_reprotect" in message


def test_promoted_instance_takes_over_multi_az():
    result = plan(observed(source=instance(multi_az=True)), WANTED)
    assert done(result)[-1] == "adjust"
    assert result.steps[-1].arguments == {"settings": {"MultiAZ": True}}


def test_siblings_are_named():
    source = instance(replicas=[REPLICA_ARN, "regami-db-reporting"])
    assert any("regami-db-reporting" in note for note in plan(observed(source=source), WANTED).notes)
