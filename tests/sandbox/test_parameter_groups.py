# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""DB parameter groups, reboots and classes: what the API says of max_connections is what PostgreSQL has."""

from __future__ import annotations

import psycopg2
import pytest
from core_helpers import PRIMARY, REPLICA, connect, instance, query, wait_status, wait_until
from test_core_rds import refused

GROUP = "regami-postgres16"


def raise_to(sandbox, value, region="us-east-1", method="pending-reboot", name="max_connections"):
    return sandbox.boto("rds", region).modify_db_parameter_group(
        DBParameterGroupName=GROUP,
        Parameters=[{"ParameterName": name, "ParameterValue": str(value), "ApplyMethod": method}],
    )


def apply_status(sandbox, database=PRIMARY):
    return instance(sandbox, *database)["DBParameterGroups"][0]["ParameterApplyStatus"]


def has(sandbox, database=PRIMARY, name="max_connections"):
    return query(connect(sandbox, *database), f"SHOW {name}")[0][0]


def reboot(sandbox, database=PRIMARY):
    sandbox.boto("rds", database[0]).reboot_db_instance(DBInstanceIdentifier=database[1])
    return wait_status(sandbox, database, "available")


def events(sandbox, kind="db-instance", **arguments):
    found = sandbox.boto("rds").describe_events(SourceType=kind, **arguments)["Events"]
    return [event["Message"] for event in found]


def test_a_parameter_is_shown_with_its_rules(sandbox):
    rds = sandbox.boto("rds")
    only = [{"Name": "parameter-name", "Values": ["max_connections"]}]
    (found,) = rds.describe_db_parameters(DBParameterGroupName=GROUP, Filters=only)["Parameters"]
    assert (found["ParameterValue"], found["Source"], found["ApplyType"]) == ("100", "user", "static")
    written = rds.describe_db_parameters(DBParameterGroupName=GROUP, Source="user")["Parameters"]
    assert [each["ParameterName"] for each in written] == ["max_connections"]
    assert (apply_status(sandbox), has(sandbox)) == ("in-sync", "100")


def test_what_a_parameter_group_refuses(sandbox):
    """The ec2-asg runbook's own command (option 1 of scenario 2) is among them: immediate, for a static parameter."""
    rds = sandbox.boto("rds")
    with pytest.raises(Exception, match=r"InvalidParameterCombination.*cannot use immediate apply method"):
        raise_to(sandbox, 500, method="immediate")
    with pytest.raises(Exception, match=r"InvalidParameterValue.*allowed values are: 6-8388607"):
        raise_to(sandbox, 5)
    with pytest.raises(Exception, match="Could not find parameter with name: max_conections"):
        raise_to(sandbox, 500, name="max_conections")
    message = refused(
        rds.modify_db_parameter_group,
        "InvalidParameterValue",
        DBParameterGroupName="default.postgres16",
        Parameters=[{"ParameterName": "max_connections", "ParameterValue": "500", "ApplyMethod": "pending-reboot"}],
    )
    assert "default parameter group" in message
    refused(rds.modify_db_parameter_group, "DBParameterGroupNotFound", DBParameterGroupName="no", Parameters=[])


def test_a_static_parameter_waits_for_the_reboot_and_is_real_after_it(fresh_sandbox):
    raise_to(fresh_sandbox, 130, "us-west-2")  # a standby must not have fewer than its primary
    wait_until(lambda: apply_status(fresh_sandbox, REPLICA) == "pending-reboot", "the replica knows")
    reboot(fresh_sandbox, REPLICA)
    raise_to(fresh_sandbox, 120)
    wait_until(lambda: apply_status(fresh_sandbox) == "pending-reboot", "pending-reboot")
    assert has(fresh_sandbox) == "100"
    established = connect(fresh_sandbox, *PRIMARY)
    reboot(fresh_sandbox)
    assert (apply_status(fresh_sandbox), has(fresh_sandbox)) == ("in-sync", "120")
    with pytest.raises(psycopg2.Error):
        query(established, "SELECT 1")
    first = connect(fresh_sandbox, *PRIMARY)
    with open(fresh_sandbox.state["db_admin_password_file"]) as file:
        password = file.read()
    crowd = [psycopg2.connect(first.dsn, password=password) for _each in range(110)]
    assert len({each.info.backend_pid for each in crowd}) == 110
    assert events(fresh_sandbox)[-2:] == ["DB instance shutdown", "DB instance restarted"]
    told = events(fresh_sandbox, "db-parameter-group", SourceIdentifier=GROUP)
    assert told == ["Updated parameter max_connections to 120 with apply method pending-reboot"]


def test_a_standby_with_fewer_connections_stops_replaying(fresh_sandbox):
    """https://www.postgresql.org/docs/16/hot-standby.html#HOT-STANDBY-ADMIN"""
    name = "idle_in_transaction_session_timeout"
    raise_to(fresh_sandbox, 5000, method="immediate", name=name)
    wait_until(lambda: has(fresh_sandbox, name=name) == "5s", "a dynamic parameter is in force without a reboot")
    assert apply_status(fresh_sandbox) == "in-sync"
    raise_to(fresh_sandbox, 120)
    wait_until(lambda: apply_status(fresh_sandbox) == "pending-reboot", "pending-reboot")
    reboot(fresh_sandbox)
    paused = "SELECT pg_get_wal_replay_pause_state()"
    wait_until(lambda: query(connect(fresh_sandbox, *REPLICA), paused) == [("paused",)], "the standby has paused")


def test_another_group_and_another_class(fresh_sandbox):
    """The group is attached at once and in force after a reboot; the class changes with an outage."""
    rds = fresh_sandbox.boto("rds")
    rds.create_db_parameter_group(DBParameterGroupName="mine", DBParameterGroupFamily="postgres16", Description="mine")
    rds.create_db_parameter_group(DBParameterGroupName="old", DBParameterGroupFamily="postgres15", Description="old")
    attach = {"DBInstanceIdentifier": "regami-db-primary"}
    refused(rds.modify_db_instance, "DBParameterGroupNotFound", DBParameterGroupName="none", **attach)
    refused(rds.modify_db_instance, "InvalidParameterCombination", DBParameterGroupName="old", **attach)
    answer = rds.modify_db_instance(DBParameterGroupName="mine", **attach)["DBInstance"]["DBParameterGroups"]
    assert answer == [{"DBParameterGroupName": "mine", "ParameterApplyStatus": "applying"}]
    wait_status(fresh_sandbox, PRIMARY, "available")
    assert (apply_status(fresh_sandbox), has(fresh_sandbox)) == ("pending-reboot", "100")
    reboot(fresh_sandbox)
    # RDS's own formula, for the 4 GiB of a db.t3.medium.
    assert (apply_status(fresh_sandbox), has(fresh_sandbox)) == ("in-sync", "450")

    name = "regami-db-primary"
    refused(rds.modify_db_instance, "InvalidParameterValue", DBInstanceIdentifier=name, DBInstanceClass="db.huge")
    rds.modify_db_instance(DBInstanceIdentifier=name, MultiAZ=True)
    established = connect(fresh_sandbox, *PRIMARY)
    answer = rds.modify_db_instance(DBInstanceIdentifier=name, DBInstanceClass="db.r5.large", ApplyImmediately=True)
    assert answer["DBInstance"]["PendingModifiedValues"] == {"DBInstanceClass": "db.r5.large"}
    assert answer["DBInstance"]["DBInstanceClass"] == "db.t3.medium"
    wait_until(lambda: "modifying" not in instance(fresh_sandbox, *PRIMARY)["DBInstanceStatus"], "it is done")
    after = wait_status(fresh_sandbox, PRIMARY, "available")
    assert (after["DBInstanceClass"], after["MultiAZ"]) == ("db.r5.large", True)
    assert not after.get("PendingModifiedValues")
    assert has(fresh_sandbox) == "1802", "the formula follows the class"
    with pytest.raises(psycopg2.Error):
        query(established, "SELECT 1")
    assert "Finished applying modification to DB instance class" in events(fresh_sandbox)
    offered = rds.describe_orderable_db_instance_options(Engine="postgres", DBInstanceClass="db.r5.xlarge")
    assert [each["DBInstanceClass"] for each in offered["OrderableDBInstanceOptions"]] == ["db.r5.xlarge"]


def test_events_older_than_asked_for_are_not_told(sandbox):
    assert events(sandbox, Duration=60)
    far = {"StartTime": "2020-01-01T00:00Z", "EndTime": "2020-01-02T00:00Z"}
    assert events(sandbox, **far) == []
