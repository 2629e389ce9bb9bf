# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""RDS instances: what they say of themselves, and the waits on them."""

from __future__ import annotations

import datetime
import time

from .aws import attempt, code_of
from .errors import Refusal, Stop, Unreachable
from .postgres import Database

# An instance in one of these comes to "available" by itself; in one of the others a person must look.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/accessing-monitoring.html
PASSING = (
    "backing-up",
    "configuring-enhanced-monitoring",
    "configuring-iam-database-auth",
    "configuring-log-exports",
    "creating",
    "maintenance",
    "modifying",
    "moving-to-vpc",
    "rebooting",
    "renaming",
    "resetting-master-credentials",
    "starting",
    "storage-config-upgrade",
    "storage-initialization",
    "storage-optimization",
    "upgrading",
)
# States in which an instance serves and can be modified.
SERVING = ("available", "storage-optimization", "storage-initialization")
# Written on an instance just before it is promoted: which instance it replaces, and when. They tell a promotion of ours
# from an instance that never was a replica, and the newer of two promotions in opposite directions.
PROMOTED_FROM, PROMOTED_AT = "sre.runbooks/promoted-from", "sre.runbooks/promoted-at"
# Written on an old primary once its sessions are known to have ended: security groups alone do not prove that.
FENCED_AT = "sre.runbooks/fenced-at"
# Written on a restored instance as it is made: the resource id of what it was restored from, which renames do not touch, and
# the snapshot or the time. They tell whose place it may take, and which of two restored instances is which.
RESTORED_FROM, RESTORED_TO = "sre.runbooks/restored-from", "sre.runbooks/restored-to"
# What is said of one instance and no other.
OURS = (PROMOTED_FROM, PROMOTED_AT, FENCED_AT, RESTORED_FROM, RESTORED_TO)


def describe(aws, instance_id, region):
    """The instance as a small dict, or None where it does not exist."""
    try:
        answer = aws.read("rds", "describe_db_instances", region=region, DBInstanceIdentifier=instance_id)
    except Exception as error:
        if code_of(error) in ("DBInstanceNotFound", "DBInstanceNotFoundFault"):
            return None
        raise
    return instance(answer["DBInstances"][0])


def every(aws, region):
    """{id: instance} of all that are in a region."""
    return {
        raw["DBInstanceIdentifier"]: instance(raw) for raw in pages(aws, "describe_db_instances", "DBInstances", region)
    }


def pages(aws, operation, key, region, **arguments):
    """What a describe operation lists under `key`, page after page."""
    marker = {}
    while True:
        answer = aws.read("rds", operation, region=region, **arguments, **marker)
        yield from answer[key]
        if not answer.get("Marker"):
            return
        marker = {"Marker": answer["Marker"]}


def instance(raw):
    """Pure: what verbs need of a DescribeDBInstances entry."""
    tags = {tag["Key"]: tag["Value"] for tag in raw.get("TagList", [])}
    endpoint = raw.get("Endpoint") or {}
    pending = raw.get("PendingModifiedValues") or {}
    group = next(iter(raw.get("DBParameterGroups") or []), {})
    return {
        "id": raw["DBInstanceIdentifier"],
        "resource_id": raw.get("DbiResourceId"),
        "arn": raw["DBInstanceArn"],
        "region": raw["DBInstanceArn"].split(":")[3],
        "status": raw["DBInstanceStatus"],
        "source": raw.get("ReadReplicaSourceDBInstanceIdentifier") or None,
        "replicas": list(raw.get("ReadReplicaDBInstanceIdentifiers", [])),
        "host": endpoint.get("Address"),
        "port": endpoint.get("Port"),
        "backup_window": raw.get("PreferredBackupWindow"),
        "backup_retention": pending.get("BackupRetentionPeriod", raw.get("BackupRetentionPeriod", 0)),
        "zone": raw.get("AvailabilityZone"),
        "multi_az": pending.get("MultiAZ", raw.get("MultiAZ", False)),
        "instance_class": raw.get("DBInstanceClass"),
        "security_groups": sorted(group["VpcSecurityGroupId"] for group in raw.get("VpcSecurityGroups", [])),
        "subnet_group": (raw.get("DBSubnetGroup") or {}).get("DBSubnetGroupName"),
        "parameter_group": group.get("DBParameterGroupName"),
        "parameters_applied": group.get("ParameterApplyStatus"),
        "pending": pending,
        "engine": raw.get("Engine"),
        "engine_version": raw.get("EngineVersion"),
        "public": raw.get("PubliclyAccessible", False),
        "kms_key": raw.get("KmsKeyId"),
        "managed_password": bool(raw.get("MasterUserSecret")),
        "iam_login": raw.get("IAMDatabaseAuthenticationEnabled", False),
        "deletion_protection": raw.get("DeletionProtection", False),
        "promoted_from": tags.get(PROMOTED_FROM),
        "promoted_at": float(tags.get(PROMOTED_AT, 0)),
        "fenced": FENCED_AT in tags,
        "restored_from": tags.get(RESTORED_FROM),
        "restored_to": tags.get(RESTORED_TO),
        "tags": {key: value for key, value in tags.items() if key not in OURS},
    }


def same_instance(source, other):
    """Does `source` (an id within the region, an ARN across regions) name `other`?"""
    return bool(source) and source in (other["id"], other["arn"]) if other else False


def is_available(seen):
    """Done-predicate: available. Raises Stop in a state that does not pass by itself."""
    if seen is None:
        raise Stop("the instance is gone")
    if seen["status"] not in SERVING and seen["status"] not in PASSING:
        raise Stop(f"{seen['id']} is {seen['status']}, which does not pass by itself: look at its RDS events")
    return seen["status"] in SERVING


def metric(aws, name, instance_id, region, minutes=15):
    """[(time, value)] of an AWS/RDS metric of an instance, oldest first; times in seconds since the epoch."""
    now = datetime.datetime.now(datetime.UTC)
    answer = aws.read(
        "cloudwatch",
        "get_metric_statistics",
        region=region,
        Namespace="AWS/RDS",
        MetricName=name,
        Dimensions=[{"Name": "DBInstanceIdentifier", "Value": instance_id}],
        Period=60,
        Statistics=["Minimum", "Maximum"],
        StartTime=now - datetime.timedelta(minutes=minutes),
        EndTime=now + datetime.timedelta(minutes=1),
    )
    # -1 means broken: within one period a single -1 must not be hidden by the maximum.
    return sorted(
        (point["Timestamp"].timestamp(), -1.0 if point["Minimum"] < 0 else point["Maximum"])
        for point in answer.get("Datapoints", [])
    )


def events(aws, instance_id, region, minutes):
    """[(datetime, message)] of an instance in the last `minutes`, oldest first."""
    found = pages(
        aws,
        "describe_events",
        "Events",
        region,
        SourceIdentifier=instance_id,
        SourceType="db-instance",
        Duration=minutes,
    )
    return sorted((raw["Date"], raw["Message"]) for raw in found)


def not_found(aws, instance_id, region):
    """The refusal for an instance that is not there, with those that are."""
    there = sorted(
        raw["DBInstanceIdentifier"] for raw in aws.read("rds", "describe_db_instances", region=region)["DBInstances"]
    )
    return Refusal(
        f"there is no RDS instance {instance_id} in {region} (there are: {', '.join(there) or 'none'}): "
        f"check db_instance and aws_region of this host in the inventory"
    )


def mark(aws, arn, region, tags):
    """Write tags on an instance; sending them twice is harmless, so a lost answer needs no second look."""
    aws.change(
        "rds",
        "add_tags_to_resource",
        region=region,
        ResourceName=arn,
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )


def database(instance, login):
    """The application's database on an instance, for a `postgres_login.Login`."""
    return Database(instance["host"], instance["port"], login, region=instance["arn"].split(":")[3])


def ask(instance, login):
    """`Database.facts()` of an instance, or the reason why there are none (an exception, not raised)."""
    if not isinstance(instance, dict) or not instance["host"]:
        return Unreachable("its region does not answer" if isinstance(instance, Unreachable) else "it has no endpoint")
    if not login.given:
        return Unreachable("no login_user given")
    return attempt(database(instance, login).facts, Stop)


def fence(aws, instance_id, region, login):
    """Let an instance take no more writes, and note that its sessions are known to have ended.

    Returns the log position after its last write.
    """
    there = describe(aws, instance_id, region)
    position = database(there, login).fence()
    mark(aws, there["arn"], region, {FENCED_AT: f"{time.time():.0f}"})
    return position
