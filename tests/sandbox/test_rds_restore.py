# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RDS: snapshots and points in time hold the rows that real PostgreSQL had committed then, no more and no fewer."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from botocore.exceptions import ClientError
from core_helpers import (
    PRIMARY,
    REPLICA,
    connect,
    instance,
    query,
    row_numbers,
    wait_status,
    wait_until,
    write_row,
)

EAST = "us-east-1"
NAME = "regami-db-primary"


def refused(call, code, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code
    return caught.value.response["Error"]["Message"]


def window(rds):
    (found,) = rds.describe_db_instance_automated_backups(DBInstanceIdentifier=NAME)["DBInstanceAutomatedBackups"]
    return found.get("RestoreWindow", {})


@pytest.fixture(scope="module")
def damaged(sandbox):
    """Rows 1 to 3, a manual snapshot, row 4, a moment, and then somebody deletes them all and writes row 9."""
    sandbox.reset()
    rds, primary = sandbox.boto("rds"), connect(sandbox, *PRIMARY)
    for number in (1, 2, 3):
        write_row(primary, number)
    answer = rds.create_db_snapshot(DBInstanceIdentifier=NAME, DBSnapshotIdentifier="by-hand")["DBSnapshot"]
    assert (answer["Status"], answer["SnapshotType"]) == ("creating", "manual")
    assert instance(sandbox, *PRIMARY)["DBInstanceStatus"] == "backing-up"
    refused(
        rds.create_db_snapshot, "InvalidDBInstanceState", DBInstanceIdentifier=NAME, DBSnapshotIdentifier="another-one"
    )
    wait_status(sandbox, PRIMARY, "available")
    write_row(primary, 4)
    moment = datetime.now(UTC)
    time.sleep(0.05)
    query(primary, "DELETE FROM rows")
    write_row(primary, 9)
    wait_until(lambda: window(rds).get("LatestTime", moment) > moment + timedelta(seconds=0.1), "the log in safety")
    yield sandbox, moment
    sandbox.reset()


def test_the_first_backup_is_automated_and_the_window_ends_before_now(damaged):
    sandbox, moment = damaged
    rds = sandbox.boto("rds")
    automated = rds.describe_db_snapshots(DBInstanceIdentifier=NAME, SnapshotType="automated")["DBSnapshots"]
    assert [each["DBSnapshotIdentifier"].partition("-2")[0] for each in automated] == [f"rds:{NAME}"]
    shown = window(rds)
    assert shown["EarliestTime"] < moment < shown["LatestTime"] <= datetime.now(UTC)
    assert instance(sandbox, *PRIMARY)["LatestRestorableTime"] >= shown["LatestTime"]
    assert "LatestRestorableTime" not in instance(sandbox, *REPLICA), "a replica has no backups of its own"


def test_a_snapshot_comes_back_with_what_was_committed_before_it_and_with_defaults(damaged):
    sandbox, _moment = damaged
    rds = sandbox.boto("rds")
    answer = rds.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="from-snapshot", DBSnapshotIdentifier="by-hand"
    )
    assert answer["DBInstance"]["DBInstanceStatus"] == "creating"
    again = {"DBInstanceIdentifier": NAME, "DBSnapshotIdentifier": "by-hand"}
    refused(rds.restore_db_instance_from_db_snapshot, "DBInstanceAlreadyExists", **again)
    restored = wait_status(sandbox, (EAST, "from-snapshot"), "available")
    source = instance(sandbox, *PRIMARY)
    assert restored["BackupRetentionPeriod"] == source["BackupRetentionPeriod"] == 7
    assert restored["TagList"] == source["TagList"], "those of the source, since no others were said"
    assert restored["DBParameterGroups"][0]["DBParameterGroupName"] == "default.postgres16"
    assert restored["VpcSecurityGroups"] != source["VpcSecurityGroups"]
    assert restored["DbiResourceId"] != source["DbiResourceId"]
    with pytest.raises(psycopg2.OperationalError):  # the default security group lets nobody in
        connect(sandbox, EAST, "from-snapshot")
    group = source["VpcSecurityGroups"][0]["VpcSecurityGroupId"]
    rds.modify_db_instance(DBInstanceIdentifier="from-snapshot", VpcSecurityGroupIds=[group])
    connection = connect(sandbox, EAST, "from-snapshot")
    assert row_numbers(connection) == [1, 2, 3]
    write_row(connection, 5)
    assert row_numbers(connect(sandbox, *PRIMARY)) == [9], "beside, not over"


def test_a_point_in_time_holds_every_row_committed_before_it_and_none_after(damaged):
    sandbox, moment = damaged
    rds, source = sandbox.boto("rds"), instance(sandbox, *PRIMARY)
    wanted = {"SourceDBInstanceIdentifier": NAME, "TargetDBInstanceIdentifier": "at-a-time"}
    restore = rds.restore_db_instance_to_point_in_time
    assert "window" in refused(restore, "InvalidParameterValue", RestoreTime=moment + timedelta(hours=1), **wanted)
    refused(restore, "InvalidParameterValue", RestoreTime=moment - timedelta(days=1), **wanted)
    refused(restore, "InvalidParameterCombination", RestoreTime=moment, UseLatestRestorableTime=True, **wanted)
    refused(
        sandbox.boto("rds", "us-west-2").restore_db_instance_to_point_in_time,
        "PointInTimeRestoreNotEnabled",
        SourceDBInstanceIdentifier="regami-db-replica",
        TargetDBInstanceIdentifier="at-a-time",
        UseLatestRestorableTime=True,
    )
    group = source["VpcSecurityGroups"][0]["VpcSecurityGroupId"]
    restore(RestoreTime=moment, VpcSecurityGroupIds=[group], **wanted)
    restored = wait_status(sandbox, (EAST, "at-a-time"), "available")
    assert not restored["TagList"] and not restored["DeletionProtection"] and not restored["MultiAZ"]
    connection = connect(sandbox, EAST, "at-a-time")
    assert row_numbers(connection) == [1, 2, 3, 4]
    write_row(connection, 5)


def test_the_latest_time_of_a_database_that_is_dead(damaged):
    """All that reached the backup is there: PostgreSQL must not wait for a commit after it."""
    sandbox, _moment = damaged
    group = instance(sandbox, *PRIMARY)["VpcSecurityGroups"][0]["VpcSecurityGroupId"]
    sandbox.fault("primary-killed")
    wait_status(sandbox, PRIMARY, "failed")
    sandbox.boto("rds").restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier=NAME,
        TargetDBInstanceIdentifier="at-the-end",
        UseLatestRestorableTime=True,
        VpcSecurityGroupIds=[group],
    )
    wait_status(sandbox, (EAST, "at-the-end"), "available")
    assert row_numbers(connect(sandbox, EAST, "at-the-end")) == [9]
    sandbox.heal("primary-killed")
    wait_status(sandbox, PRIMARY, "available")


def test_an_endpoint_goes_with_the_name_and_replicas_with_their_source(damaged):
    sandbox, _moment = damaged
    rds, before = sandbox.boto("rds"), instance(sandbox, *PRIMARY)
    rds.modify_db_instance(DBInstanceIdentifier=NAME, NewDBInstanceIdentifier="kept", ApplyImmediately=True)
    assert instance(sandbox, *PRIMARY)["DBInstanceStatus"] == "renaming"
    wait_until(lambda: "kept" in str(rds.describe_db_instances()), "the new name")
    kept = wait_status(sandbox, (EAST, "kept"), "available")
    assert kept["Endpoint"] != before["Endpoint"] and kept["DbiResourceId"] == before["DbiResourceId"]
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(host=before["Endpoint"]["Address"], port=before["Endpoint"]["Port"], user="anybody")
    write_row(connect(sandbox, EAST, "kept"), 10)
    wait_until(lambda: 10 in row_numbers(connect(sandbox, *REPLICA)), "row 10 on the replica of what was renamed")
    rds.modify_db_instance(DBInstanceIdentifier="kept", NewDBInstanceIdentifier=NAME, ApplyImmediately=True)
    wait_until(lambda: NAME in str(rds.describe_db_instances()["DBInstances"]), "the former name")
    assert wait_status(sandbox, PRIMARY, "available")["Endpoint"] == before["Endpoint"]
