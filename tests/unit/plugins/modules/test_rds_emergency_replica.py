# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rds_emergency_replica: what it plans and refuses, and that it ends right wherever it was killed."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import emergency_replica, rds, verb, waiting
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal
from ansible_collections.sre.runbooks.plugins.modules import rds_emergency_replica
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

MINE = {emergency_replica.MARK: "db"}


def raw(name, status="available", source=None, tags=None, **more):
    return {
        "DBInstanceIdentifier": name,
        "DBInstanceArn": f"arn:aws:rds:us-east-1:1:db:{name}",
        "DBInstanceStatus": status,
        "DBInstanceClass": "db.t3.medium",
        "BackupRetentionPeriod": 7,
        "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1"}],
        "TagList": [{"Key": key, "Value": value} for key, value in (tags or {}).items()],
        "Endpoint": {"Address": f"{name}.example.com", "Port": 5432},
        **({"ReadReplicaSourceDBInstanceIdentifier": source} if source else {}),
        **more,
    }


def wanted(**given):
    return {"replica": "db-e", "state": "present", "instance_class": None, "max_lag_seconds": 30, **given}


def plan(source=None, replica=None, lag=None, **given):
    observed = {
        "source": rds.instance(source or raw("db")),
        "replica": replica and rds.instance(replica),
        "lag": lag,
    }
    return emergency_replica.plan(observed, wanted(**given))


def does(found):
    return [step.do for step in found.steps]


def refusal(*arguments, **given):
    with pytest.raises(Refusal) as caught:
        plan(*arguments, **given)
    return str(caught.value)


def test_it_is_made_like_its_source_and_marked():
    found = plan(raw("db", tags={"team": "regami"}))
    assert does(found) == ["create", "catch_up"]
    settings = found.steps[0].arguments["settings"]
    assert settings["VpcSecurityGroupIds"] == ["sg-1"] and settings["DBInstanceClass"] == "db.t3.medium"
    assert settings["PubliclyAccessible"] is False
    assert {tag["Key"]: tag["Value"] for tag in settings["Tags"]} == {"team": "regami", **MINE}
    assert "costs as much" in found.notes[0] and "about a minute" in found.notes[1]
    assert len(plan(raw("db", MultiAZ=True), instance_class="db.r5.large").notes) == 1


def test_what_is_there_is_waited_for():
    replica = raw("db-e", "creating", "db")
    assert does(plan(replica=replica)) == ["settle", "catch_up"]
    assert does(plan(replica=raw("db-e", source="db"), lag=90)) == ["catch_up"]
    assert plan(replica=raw("db-e", source="db"), lag=2).steps == ()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (raw("db", "failed"), "db_failover.yml"),
        (raw("db", "storage-full"), "storage-full"),
        (raw("db", BackupRetentionPeriod=0), "no automated backups"),
        (raw("db", source="other"), "is a replica itself"),
        (raw("db", ReadReplicaDBInstanceIdentifiers=[f"r{n}" for n in range(15)]), "may have no more"),
    ],
)
def test_a_source_that_gives_none(source, told):
    assert told in refusal(source)


def test_an_instance_of_that_name_that_is_none_of_ours_stays():
    assert "follows other" in refusal(replica=raw("db-e", source="other"))
    promoted = raw("db-e", tags=MINE)
    assert "follows nobody" in refusal(replica=promoted)
    assert "follows nobody" in refusal(replica=promoted, state="absent")
    assert "has no tag" in refusal(replica=raw("db-e", source="db"), state="absent")
    assert "protected" in refusal(replica=raw("db-e", source="db", tags=MINE, DeletionProtection=True), state="absent")


def test_only_a_replica_of_ours_goes():
    assert does(plan(replica=raw("db-e", source="db", tags=MINE), state="absent")) == ["delete", "await_gone"]
    assert does(plan(replica=raw("db-e", "deleting", "db", MINE), state="absent")) == ["await_gone"]
    assert plan(state="absent").steps == ()


class Account:
    """RDS with one primary. `die_at`: the number of the change after which the run is gone, or whose answer is lost."""

    region = "us-east-1"

    def __init__(self, *_arguments):
        self.instances = {"db": raw("db")}
        self.looks, self.silent, self.missed, self.changes = 0, set(), [], []
        self.die_at, self.how = None, LostAnswer("no answer")

    def read(self, api, operation, /, region=None, **arguments):
        if api == "cloudwatch":
            return {"Datapoints": []}
        self.looks += 1
        name = arguments["DBInstanceIdentifier"]
        for each, found in list(self.instances.items()):
            if found["DBInstanceStatus"] == "creating" and self.looks % 3 == 0:
                found["DBInstanceStatus"] = "available"
            if found["DBInstanceStatus"] == "deleting" and self.looks % 3 == 0:
                del self.instances[each]
        if name not in self.instances:
            raise ClientError({"Error": {"Code": "DBInstanceNotFound", "Message": ""}}, operation)
        return {"DBInstances": [dict(self.instances[name])]}

    def change(self, api, operation, /, region=None, **arguments):
        name = arguments["DBInstanceIdentifier"]
        if operation == "create_db_instance_read_replica":
            tags = {tag["Key"]: tag["Value"] for tag in arguments["Tags"]}
            assert name not in self.instances
            self.instances[name] = raw(name, "creating", arguments["SourceDBInstanceIdentifier"], tags)
        else:
            self.instances[name]["DBInstanceStatus"] = "deleting"
        self.changes.append(operation)
        if self.die_at == len(self.changes):
            raise self.how


@pytest.fixture
def account(monkeypatch):
    found = Account()
    monkeypatch.setattr(verb, "Aws", lambda *_arguments: found)
    monkeypatch.setattr(waiting.time, "sleep", lambda _seconds: None)

    def caught_up(_self, seen):
        return 1.0 if seen["replica"] and seen["replica"]["status"] == "available" else None

    monkeypatch.setattr(rds_emergency_replica.RdsEmergencyReplica, "_lag", caught_up)
    return found


def carry_out(state, check=False):
    return run_main(
        rds_emergency_replica.main, check, db_instance="db", replica="db-e", region="us-east-1", state=state
    )


def test_there_and_back(account):
    planned = carry_out("present", check=True)
    assert planned["changed"] and account.changes == [] and planned["endpoint"] is None
    made = carry_out("present")
    assert made["endpoint"] == {"host": "db-e.example.com", "port": 5432}
    assert made["undo"][0]["arguments"]["state"] == "absent"
    assert carry_out("present")["changed"] is False
    gone = carry_out("absent")
    assert gone["changed"] and gone["source_endpoint"]["host"] == "db.example.com" and list(account.instances) == ["db"]
    assert carry_out("absent")["changed"] is False


@pytest.mark.parametrize("how", [LostAnswer("no answer"), KeyboardInterrupt()])
@pytest.mark.parametrize(("state", "die_at"), [("present", 1), ("absent", 2)])
def test_killed_or_without_an_answer(account, how, state, die_at):
    account.die_at, account.how = die_at, how
    if state == "absent":
        carry_out("present")
    try:
        carry_out(state)
    except KeyboardInterrupt:
        assert carry_out(state)["failed"] is False
    assert account.changes == ["create_db_instance_read_replica", "delete_db_instance"][:die_at]
    assert ("db-e" in account.instances) == (state == "present")
