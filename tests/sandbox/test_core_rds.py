# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RDS: what the API says is what the databases do."""

from __future__ import annotations

import psycopg2
import pytest
from botocore.exceptions import ClientError
from core_helpers import (
    PRIMARY,
    REPLICA,
    connect,
    instance,
    lag_points,
    query,
    row_numbers,
    wait_status,
    wait_until,
    write_row,
)


def refused(call, code, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code
    return caught.value.response["Error"]["Message"]


def test_what_is_committed_reaches_the_replica_which_refuses_writes(fresh_sandbox):
    write_row(connect(fresh_sandbox, *PRIMARY), 1)
    replica = connect(fresh_sandbox, *REPLICA)
    wait_until(lambda: row_numbers(replica) == [1], "row 1 on the replica")
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        write_row(replica, 2)


def test_the_seeded_pair_is_linked_across_regions(sandbox):
    primary, replica = instance(sandbox, *PRIMARY), instance(sandbox, *REPLICA)
    assert replica["ReadReplicaSourceDBInstanceIdentifier"] == primary["DBInstanceArn"]
    assert primary["ReadReplicaDBInstanceIdentifiers"] == [replica["DBInstanceArn"]]
    assert replica["StatusInfos"] == [{"StatusType": "read replication", "Normal": True, "Status": "replicating"}]
    assert primary["BackupRetentionPeriod"] == 7


def test_promotion_takes_its_time_and_ends_with_a_writable_database(fresh_sandbox):
    write_row(connect(fresh_sandbox, *PRIMARY), 1)
    rds = fresh_sandbox.boto("rds", "us-west-2")
    answer = rds.promote_read_replica(DBInstanceIdentifier="regami-db-replica", BackupRetentionPeriod=7)
    assert answer["DBInstance"]["DBInstanceStatus"] == "modifying"
    assert query(connect(fresh_sandbox, *REPLICA), "SELECT pg_is_in_recovery()") == [(True,)]
    refused(rds.promote_read_replica, "InvalidDBInstanceState", DBInstanceIdentifier="regami-db-replica")
    promoted = wait_status(fresh_sandbox, REPLICA, "available")
    assert "ReadReplicaSourceDBInstanceIdentifier" not in promoted and not promoted.get("StatusInfos")
    assert promoted["BackupRetentionPeriod"] == 7
    assert instance(fresh_sandbox, *PRIMARY)["ReadReplicaDBInstanceIdentifiers"] == []
    connection = connect(fresh_sandbox, *REPLICA)
    write_row(connection, 2)
    assert row_numbers(connection) == [1, 2]
    assert row_numbers(connect(fresh_sandbox, *PRIMARY)) == [1], "no longer replicated anywhere"
    message = refused(rds.promote_read_replica, "InvalidDBInstanceState", DBInstanceIdentifier="regami-db-replica")
    assert "not a read replica" in message


def test_what_cannot_be_promoted(sandbox):
    rds = sandbox.boto("rds", "us-east-1")
    refused(rds.promote_read_replica, "InvalidDBInstanceState", DBInstanceIdentifier="regami-db-primary")
    refused(rds.promote_read_replica, "DBInstanceNotFound", DBInstanceIdentifier="regami-db-nowhere")


def test_not_promotable_while_backing_up(fresh_sandbox):
    rds = fresh_sandbox.boto("rds", "us-west-2")
    rds.modify_db_instance(DBInstanceIdentifier="regami-db-replica", BackupRetentionPeriod=3, ApplyImmediately=True)
    wait_status(fresh_sandbox, REPLICA, "backing-up")
    refused(rds.promote_read_replica, "InvalidDBInstanceState", DBInstanceIdentifier="regami-db-replica")
    assert wait_status(fresh_sandbox, REPLICA, "available")["BackupRetentionPeriod"] == 3
    messages = [event["Message"] for event in rds.describe_events(SourceType="db-instance")["Events"]]
    assert "Finished DB instance backup" in messages


def test_changes_without_apply_immediately_are_pending(fresh_sandbox):
    rds = fresh_sandbox.boto("rds", "us-west-2")
    answer = rds.modify_db_instance(DBInstanceIdentifier="regami-db-replica", MultiAZ=True, BackupRetentionPeriod=3)
    assert answer["DBInstance"]["PendingModifiedValues"] == {"MultiAZ": True, "BackupRetentionPeriod": 3}
    assert answer["DBInstance"]["MultiAZ"] is False


def test_rows_that_a_frozen_replica_lacks_are_lost_by_promoting_it(fresh_sandbox):
    primary = connect(fresh_sandbox, *PRIMARY)
    write_row(primary, 1)
    wait_until(lambda: row_numbers(connect(fresh_sandbox, *REPLICA)) == [1], "row 1 on the replica")
    fresh_sandbox.fault("replica-frozen")
    wait_until(lambda: instance(fresh_sandbox, *REPLICA)["StatusInfos"][0]["Status"] == "error", "replication error")
    wait_until(lambda: lag_points(fresh_sandbox, REPLICA)[-1] == -1, "ReplicaLag -1")
    write_row(primary, 2)
    fresh_sandbox.fault("primary-killed")
    fresh_sandbox.boto("rds", "us-west-2").promote_read_replica(DBInstanceIdentifier="regami-db-replica")
    wait_status(fresh_sandbox, REPLICA, "available")
    assert row_numbers(connect(fresh_sandbox, *REPLICA)) == [1]


def test_a_thawed_replica_catches_up(fresh_sandbox):
    fresh_sandbox.fault("replica-frozen")
    write_row(connect(fresh_sandbox, *PRIMARY), 1)
    fresh_sandbox.heal("replica-frozen")
    wait_until(lambda: row_numbers(connect(fresh_sandbox, *REPLICA)) == [1], "row 1 on the replica")


def test_replica_lag_grows_while_replay_is_paused(fresh_sandbox):
    wait_until(lambda: lag_points(fresh_sandbox, REPLICA)[-1:] == [0], "ReplicaLag 0")
    primary = connect(fresh_sandbox, *PRIMARY)
    write_row(primary, 1)
    fresh_sandbox.fault("replica-lag")
    write_row(primary, 2)
    wait_until(lambda: lag_points(fresh_sandbox, REPLICA)[-1] > 1, "ReplicaLag above 1 s")
    fresh_sandbox.heal("replica-lag")
    wait_until(lambda: lag_points(fresh_sandbox, REPLICA)[-1] == 0, "ReplicaLag 0 again")


def test_metrics_can_be_missing(fresh_sandbox):
    wait_until(lambda: lag_points(fresh_sandbox, REPLICA), "a point of ReplicaLag")
    fresh_sandbox.fault("metrics-missing")
    assert lag_points(fresh_sandbox, REPLICA) == []
    fresh_sandbox.heal("metrics-missing")
    wait_until(lambda: lag_points(fresh_sandbox, REPLICA), "a point of ReplicaLag")


def test_a_killed_primary_is_failed_and_comes_back_writable(fresh_sandbox):
    write_row(connect(fresh_sandbox, *PRIMARY), 1)
    fresh_sandbox.fault("primary-killed")
    with pytest.raises(psycopg2.OperationalError):
        connect(fresh_sandbox, *PRIMARY)
    wait_status(fresh_sandbox, PRIMARY, "failed")
    group = fresh_sandbox.state["regions"]["us-east-1"]["quarantine_security_group"]
    modify = fresh_sandbox.boto("rds").modify_db_instance
    refused(modify, "InvalidDBInstanceState", DBInstanceIdentifier="regami-db-primary", VpcSecurityGroupIds=[group])
    fresh_sandbox.heal("primary-killed")
    wait_status(fresh_sandbox, PRIMARY, "available")
    connection = connect(fresh_sandbox, *PRIMARY)
    write_row(connection, 2)
    assert row_numbers(connection) == [1, 2]


def test_a_slow_primary_answers_after_seconds(fresh_sandbox):
    import time

    connection = connect(fresh_sandbox, *PRIMARY)
    fresh_sandbox.fault("primary-slow")
    started = time.monotonic()
    query(connection, "SELECT 1")
    query(connection, "SELECT 1 FROM pg_sleep(0.2)")
    assert time.monotonic() - started > 1
    assert instance(fresh_sandbox, *PRIMARY)["DBInstanceStatus"] == "available"
    fresh_sandbox.heal("primary-slow")
    query(connection, "SELECT 1")


def test_a_security_group_without_a_rule_refuses_new_sessions_only(fresh_sandbox):
    facts = fresh_sandbox.state["regions"]["us-east-1"]
    rds, established = fresh_sandbox.boto("rds"), connect(fresh_sandbox, *PRIMARY)
    for group, is_open in ((facts["quarantine_security_group"], False), (facts["db_security_group"], True)):
        rds.modify_db_instance(
            DBInstanceIdentifier="regami-db-primary", VpcSecurityGroupIds=[group], ApplyImmediately=True
        )
        assert instance(fresh_sandbox, *PRIMARY)["VpcSecurityGroups"][0]["VpcSecurityGroupId"] == group
        if is_open:
            connect(fresh_sandbox, *PRIMARY)
        else:
            with pytest.raises(psycopg2.OperationalError, match="reject"):
                connect(fresh_sandbox, *PRIMARY)
        write_row(established, int(is_open))
    replica = connect(fresh_sandbox, *REPLICA)
    wait_until(lambda: row_numbers(replica) == [0, 1], "replication goes on behind the fence")
    refused(
        rds.modify_db_instance,
        "InvalidParameterValue",
        DBInstanceIdentifier="regami-db-primary",
        VpcSecurityGroupIds=["sg-0"],
    )


def test_without_the_rule_of_the_group_nothing_comes_through(fresh_sandbox):
    established = connect(fresh_sandbox, *PRIMARY)
    group = fresh_sandbox.state["regions"]["us-east-1"]["db_security_group"]
    ec2 = fresh_sandbox.boto("ec2")
    rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rules)
    # libpq's words, or those of a verb that another test has loaded into this process.
    with pytest.raises(psycopg2.OperationalError, match=r"timeout expired|no answer in time"):
        connect(fresh_sandbox, *PRIMARY)
    write_row(established, 1)
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    connect(fresh_sandbox, *PRIMARY)


def test_the_administrator_is_no_superuser_and_may_make_the_database_read_only(fresh_sandbox):
    admin = connect(fresh_sandbox, *PRIMARY)
    assert query(admin, "SELECT usesuper FROM pg_user WHERE usename = current_user") == [(False,)]
    query(admin, "ALTER DATABASE regami SET default_transaction_read_only = on")
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        write_row(connect(fresh_sandbox, *PRIMARY), 1)


def test_the_old_primary_becomes_a_replica_of_the_new(fresh_sandbox):
    east, west = fresh_sandbox.boto("rds"), fresh_sandbox.boto("rds", "us-west-2")
    west.promote_read_replica(DBInstanceIdentifier="regami-db-replica", BackupRetentionPeriod=7)
    new = wait_status(fresh_sandbox, REPLICA, "available")
    write_row(connect(fresh_sandbox, *REPLICA), 7)
    create = {
        "DBInstanceIdentifier": "regami-db-primary",
        "SourceDBInstanceIdentifier": new["DBInstanceArn"],
        "SourceRegion": "us-west-2",
        "DBSubnetGroupName": "regami",
        "VpcSecurityGroupIds": [fresh_sandbox.state["regions"]["us-east-1"]["db_security_group"]],
    }
    refused(east.create_db_instance_read_replica, "DBInstanceAlreadyExists", **create)
    refused(east.delete_db_instance, "InvalidParameterCombination", DBInstanceIdentifier="regami-db-primary")
    east.delete_db_instance(DBInstanceIdentifier="regami-db-primary", SkipFinalSnapshot=True)
    wait_until(lambda: not east.describe_db_instances()["DBInstances"], "the old primary is deleted")
    answer = east.create_db_instance_read_replica(**create)["DBInstance"]
    assert answer["DBInstanceStatus"] == "creating" and "Endpoint" not in answer
    wait_status(fresh_sandbox, PRIMARY, "available")
    assert row_numbers(connect(fresh_sandbox, *PRIMARY)) == [7]
    assert instance(fresh_sandbox, *REPLICA)["ReadReplicaDBInstanceIdentifiers"] == [answer["DBInstanceArn"]]
    write_row(connect(fresh_sandbox, *REPLICA), 8)
    wait_until(lambda: row_numbers(connect(fresh_sandbox, *PRIMARY)) == [7, 8], "row 8 replicated the other way")


def test_rename_keeps_links_and_refuses_an_id_that_exists(fresh_sandbox):
    east = fresh_sandbox.boto("rds")
    rename = {"DBInstanceIdentifier": "regami-db-primary", "ApplyImmediately": True}
    east.create_db_instance_read_replica(
        DBInstanceIdentifier="regami-db-second", SourceDBInstanceIdentifier="regami-db-primary"
    )
    refused(east.modify_db_instance, "DBInstanceAlreadyExists", NewDBInstanceIdentifier="regami-db-second", **rename)
    wait_status(fresh_sandbox, ("us-east-1", "regami-db-second"), "available")
    east.modify_db_instance(NewDBInstanceIdentifier="regami-db-old", **rename)
    old = ("us-east-1", "regami-db-old")
    wait_until(lambda: "regami-db-old" in str(east.describe_db_instances()), "the new name")
    arn = wait_status(fresh_sandbox, old, "available")["DBInstanceArn"]
    assert instance(fresh_sandbox, *REPLICA)["ReadReplicaSourceDBInstanceIdentifier"] == arn
    second = instance(fresh_sandbox, "us-east-1", "regami-db-second")
    assert second["ReadReplicaSourceDBInstanceIdentifier"] == "regami-db-old"


def test_reboot_really_restarts(fresh_sandbox):
    started = "SELECT pg_postmaster_start_time()"
    before = query(connect(fresh_sandbox, *PRIMARY), started)
    answer = fresh_sandbox.boto("rds").reboot_db_instance(DBInstanceIdentifier="regami-db-primary")
    assert answer["DBInstance"]["DBInstanceStatus"] == "rebooting"
    wait_status(fresh_sandbox, PRIMARY, "available")
    assert query(connect(fresh_sandbox, *PRIMARY), started) > before


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("switchover_global_cluster", {}), ("failover_global_cluster", {"AllowDataLoss": True})],
)
def test_aurora_writer_moves(fresh_sandbox, verb, arguments):
    east, west = fresh_sandbox.boto("rds"), fresh_sandbox.boto("rds", "us-west-2")
    east.create_global_cluster(GlobalClusterIdentifier="world", Engine="aurora-postgresql")
    for client, name in ((east, "aurora-east"), (west, "aurora-west")):
        client.create_db_cluster(
            DBClusterIdentifier=name,
            Engine="aurora-postgresql",
            GlobalClusterIdentifier="world",
            MasterUsername="admin1",
            MasterUserPassword="password1",
        )

    def writers():
        cluster = west.describe_global_clusters(GlobalClusterIdentifier="world")["GlobalClusters"][0]
        members = cluster["GlobalClusterMembers"]
        return cluster["Status"], [m["DBClusterArn"].split(":")[-1] for m in members if m["IsWriter"]]

    assert writers() == ("available", ["aurora-east"])
    target = west.describe_db_clusters(DBClusterIdentifier="aurora-west")["DBClusters"][0]["DBClusterArn"]
    getattr(west, verb)(GlobalClusterIdentifier="world", TargetDbClusterIdentifier=target, **arguments)
    assert writers()[0] in ("switching-over", "failing-over")
    wait_until(lambda: writers() == ("available", ["aurora-west"]), "the writer in the west")
    refused(
        getattr(west, verb),
        "InvalidGlobalClusterStateFault",
        GlobalClusterIdentifier="world",
        TargetDbClusterIdentifier=target,
    )
    refused(west.describe_global_clusters, "GlobalClusterNotFoundFault", GlobalClusterIdentifier="moon")
