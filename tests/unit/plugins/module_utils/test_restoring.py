# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore does from every state that an earlier run may have left, and what it carries over."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import rds, restore_points, restored_settings, restoring
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.restore_points import Point, Window, moment

NOW = 1_800_000_000.0
POINT = Point(time=NOW - 600)
NAME, TARGET, KEPT = "regami-db-primary", "regami-db-restored", "regami-db-primary-old"
WANTED = {"restored_instance": TARGET, "safety_snapshot": True, "accept_other_source": False}


def instance(name=NAME, **changes):
    return {
        "id": name,
        "resource_id": f"db-OF-{name}",
        "status": "available",
        "engine": "postgres",
        "source": None,
        "replicas": [],
        "backup_retention": 7,
        "public": False,
        "iam_login": False,
        "managed_password": False,
        "restored_from": None,
        "restored_to": None,
        **changes,
    }


def restored(name=TARGET, **changes):
    made = {"resource_id": "db-NEW", "restored_from": f"db-OF-{NAME}", "restored_to": POINT.text}
    return instance(name, **{**made, **changes})


def snapshot(name="by-hand", created=NOW - 900, **changes):
    whole = {"id": name, "instance": NAME, "resource_id": f"db-OF-{NAME}", "type": "manual", "status": "available"}
    return {**whole, "created": created, "gib": 20, "encrypted": True, **changes}


def observed(source=None, made=None, **changes):
    base = {
        "place": restoring.Place(source or instance(), made, NAME),
        "point": POINT,
        "snapshots": [snapshot()],
        "named": None,
        "window": Window(NOW - 86400, NOW - 200),
        "settings": {},
        "left": {},
        "facts": None,
        "now": NOW,
    }
    return {**base, **changes}


def done(a_plan):
    return [step.do for step in a_plan.steps]


# ---- who is who


def test_source_and_restored_instance_are_known_under_every_name():
    def there(*instances):
        found = {each["id"]: each for each in instances}
        where = restoring.place(found, NAME, TARGET, POINT.text)
        return where.source and where.source["id"], where.restored and where.restored["id"], where.switched

    kept = dict(instance(KEPT), resource_id=f"db-OF-{NAME}")
    assert there(instance()) == (NAME, None, False)
    assert there(instance(), restored()) == (NAME, TARGET, False)
    assert there(kept, restored()) == (KEPT, TARGET, False), "killed between the two renames"
    assert there(kept, restored(NAME)) == (KEPT, NAME, True)
    assert there(restored(NAME)) == (None, NAME, True), "somebody has deleted the damaged one"
    assert there() == (None, None, False)


def test_a_database_that_was_restored_once_can_be_restored_again():
    again = restored(NAME, restored_to="2026-01-01T00:00:00Z")
    where = restoring.place({NAME: again}, NAME, TARGET, POINT.text)
    assert (where.source, where.restored, where.switched) == (again, None, False)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (instance(TARGET), "was not restored by this verb"),
        (restored(restored_to="2026-01-01T00:00:00Z"), "was restored to 2026-01-01T00:00:00Z"),
        (restored(restored_from="db-OF-ANOTHER"), "was restored to"),
    ],
)
def test_a_name_that_is_taken_is_refused_with_the_way_out(other, told):
    with pytest.raises(Refusal, match=f"{told}.*restored_instance=NAME"):
        restoring.place({NAME: instance(), TARGET: other}, NAME, TARGET, POINT.text)


# ---- the plan of rds_restore


def test_safety_first_then_beside():
    found = restoring.plan(observed(), WANTED)
    assert done(found) == ["snapshot", "await_snapshot", "restore", "settle"]
    assert found.steps[0].after == f"{NAME}-before-{TARGET}-20270115080000"
    assert "by hand" in " ".join(found.notes)


def test_a_safety_snapshot_of_an_earlier_try_counts_for_a_day():
    name = f"{NAME}-before-{TARGET}-20270115074000"
    fresh = restoring.plan(observed(snapshots=[snapshot(name)]), WANTED)
    assert done(fresh) == ["restore", "settle"]
    begun = restoring.plan(observed(snapshots=[snapshot(name, None, status="creating")]), WANTED)
    assert done(begun) == ["await_snapshot", "restore", "settle"]
    stale = restoring.plan(observed(snapshots=[snapshot(name, NOW - 2 * 86400)]), WANTED)
    assert done(stale)[0] == "snapshot"
    failed = restoring.plan(observed(snapshots=[snapshot(name, status="failed")]), WANTED)
    assert done(failed)[0] == "snapshot"


def test_a_log_that_lags_is_waited_for():
    point = Point(time=NOW - 100)
    found = restoring.plan(observed(point=point), WANTED)
    assert done(found) == ["await_log", "snapshot", "await_snapshot", "restore", "settle"]


def test_an_ill_source_is_restored_only_without_a_safety_snapshot():
    ill = instance(status="failed")
    with pytest.raises(Refusal, match=r"is failed.*safety_snapshot=false"):
        restoring.plan(observed(ill), WANTED)
    assert done(restoring.plan(observed(ill), WANTED | {"safety_snapshot": False})) == ["restore", "settle"]
    busy = restoring.plan(observed(instance(status="modifying")), WANTED)
    assert done(busy)[0] == "settle"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (instance(engine="aurora-postgresql"), "Aurora"),
        (instance(source="arn:aws:rds:us-west-2:1:db:other"), "a replica of other"),
    ],
)
def test_what_cannot_be_restored_so(source, told):
    with pytest.raises(Refusal, match=told):
        restoring.plan(observed(source), WANTED)


def test_killed_at_each_step_it_goes_on():
    creating = restoring.plan(observed(made=restored(status="creating")), WANTED)
    assert done(creating) == ["settle"]
    left = {"PreferredMaintenanceWindow": "sun:04:00-sun:04:30"}
    unlike = restoring.plan(observed(made=restored(), left=left), WANTED)
    assert done(unlike) == ["adjust", "settle"]
    fenced = restoring.plan(observed(made=restored(), facts={"read_only": True}), WANTED)
    assert done(fenced) == ["unfence"]
    assert done(restoring.plan(observed(made=restored(), facts={"read_only": False}), WANTED)) == []
    with pytest.raises(Stop, match="incompatible-restore"):
        restoring.plan(observed(made=restored(status="incompatible-restore")), WANTED)


def test_what_has_taken_its_place_is_left_alone():
    where = restoring.Place(None, restored(NAME), NAME)
    found = restoring.plan(observed(place=where, left={"MultiAZ": True}, facts={"read_only": True}), WANTED)
    assert done(found) == []
    assert "has taken its place already" in found.notes[0]


def test_what_does_not_come_along_is_told():
    replica = "arn:aws:rds:us-west-2:1:db:regami-db-replica"
    source = instance(iam_login=True, managed_password=True, replicas=[replica])
    found = restoring.plan(observed(source), WANTED)
    assert any(note.startswith(f"regami-db-replica follows {NAME}") for note in found.notes)
    assert any("rds-db:connect" in note for note in found.notes)
    assert any("--manage-master-user-password" in note for note in found.notes)


# ---- what can be chosen


WINDOW = Window(NOW - 86400, NOW - 200)


def check(time, source=None, window=WINDOW, there=None):
    return restore_points.check_time(source or instance(), window, there or [snapshot()], time, NOW)


def test_a_time_within_the_window_and_one_that_the_log_has_not_reached():
    assert check(NOW - 300) == 0
    assert check(NOW - 50) == 150


@pytest.mark.parametrize(
    ("time", "changes", "told"),
    [
        (NOW + 60, {}, "still to come"),
        (NOW - 2 * 86400, {"there": [snapshot("older", NOW - 3 * 86400)]}, "from .* on.*snapshot=older"),
        (NOW - 300, {"source": instance(backup_retention=0)}, "retention is 0 days.*snapshot=by-hand"),
        (NOW - 300, {"window": None}, "no automated backup yet"),
        (NOW - 50, {"source": instance(status="failed")}, "its log ends at .* is the last that can be had"),
    ],
)
def test_a_time_that_cannot_be_chosen(time, changes, told):
    with pytest.raises(Refusal, match=told):
        check(time, **changes)


def test_times_are_read_with_their_zone():
    assert restore_points.point(None, "2027-01-15T08:00:00Z") == Point(time=NOW)
    assert restore_points.point(None, "2027-01-15T09:00:00+01:00").text == "2027-01-15T08:00:00Z"
    assert moment(NOW + 0.25) == "2027-01-15T08:00:00.250Z"
    with pytest.raises(Refusal, match="in no zone: say 2027-01-15T08:00:00Z"):
        restore_points.point(None, "2027-01-15T08:00:00")
    with pytest.raises(Refusal, match="give a time such as"):
        restore_points.point(None, "yesterday")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, r"no snapshot by-hund \(there are: by-hand\)"),
        (snapshot("by-hund", status="failed"), "is failed"),
        (snapshot("by-hund", resource_id="db-OTHER", instance="other-db"), "is of other-db.*accept_other_source=true"),
    ],
)
def test_a_snapshot_that_cannot_be_used(found, told):
    with pytest.raises(Refusal, match=told):
        restore_points.check_snapshot(instance(), found, "by-hund", [snapshot()], accept_other_source=False)


# ---- what is carried over

SOURCE = {
    "DBInstanceClass": "db.r5.large",
    "MultiAZ": True,
    "DeletionProtection": True,
    "BackupRetentionPeriod": 7,
    "PreferredBackupWindow": "03:00-03:30",
    "PreferredMaintenanceWindow": "sun:04:00-sun:04:30",
    "IAMDatabaseAuthenticationEnabled": True,
    "PubliclyAccessible": True,
    "StorageType": "gp3",
    "AllocatedStorage": 100,
    "Iops": 3000,
    "DBSubnetGroup": {"DBSubnetGroupName": "private"},
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-2"}, {"VpcSecurityGroupId": "sg-1"}],
    "DBParameterGroups": [{"DBParameterGroupName": "regami"}],
    "OptionGroupMemberships": [{"OptionGroupName": "default:postgres-16"}],
    "TagList": [
        {"Key": "team", "Value": "regami"},
        {"Key": "aws:cloudformation:stack-name", "Value": "x"},
        {"Key": rds.PROMOTED_FROM, "Value": "arn"},
    ],
}


def test_it_is_like_its_source_and_never_public():
    found = restored_settings.carried(SOURCE, "db-OF", "2026-01-01T00:00:00Z")
    assert found["VpcSecurityGroupIds"] == ["sg-1", "sg-2"]
    assert found["DBParameterGroupName"] == "regami" and found["DBSubnetGroupName"] == "private"
    assert found["MultiAZ"] and found["DeletionProtection"] and found["EnableIAMDatabaseAuthentication"]
    assert found["PubliclyAccessible"] is False
    assert "OptionGroupName" not in found, "a default one is AWS's own to choose"
    tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
    assert tags == {"team": "regami", rds.RESTORED_FROM: "db-OF", rds.RESTORED_TO: "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("source", "storage"),
    [
        ({"StorageType": "gp3", "AllocatedStorage": 100, "Iops": 3000}, {"StorageType": "gp3"}),
        (
            {"StorageType": "gp3", "AllocatedStorage": 500, "Iops": 12000, "StorageThroughput": 500},
            {"StorageType": "gp3", "Iops": 12000, "StorageThroughput": 500},
        ),
        ({"StorageType": "gp2", "AllocatedStorage": 100}, {"StorageType": "gp2"}),
        ({"StorageType": "io2", "AllocatedStorage": 100, "Iops": 4000}, {"StorageType": "io2", "Iops": 4000}),
    ],
)
def test_storage_is_said_as_far_as_aws_lets_it(source, storage):
    found = restored_settings.carried(source, "db-OF", "x")
    assert {key: found[key] for key in ("StorageType", "Iops", "StorageThroughput") if key in found} == storage


def test_what_only_a_modification_carries_over():
    assert restored_settings.left(SOURCE, {"PreferredMaintenanceWindow": "sun:04:00-sun:04:30"}) == {}
    watched = SOURCE | {"MonitoringInterval": 60, "MonitoringRoleArn": "arn:role"}
    assert restored_settings.left(watched, {"MonitoringInterval": 0}) == {
        "MonitoringInterval": 60,
        "MonitoringRoleArn": "arn:role",
        "PreferredMaintenanceWindow": "sun:04:00-sun:04:30",
    }
