# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an RDS instance can be restored to: its snapshots, and the window in which every second can be chosen."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from . import rds
from .aws import code_of
from .errors import Refusal, near


@dataclass(frozen=True)
class Window:
    """From when to when a point in time can be chosen, in seconds since the epoch."""

    earliest: float
    latest: float


@dataclass(frozen=True)
class Point:
    """What to restore to: the id of a snapshot, or a time in seconds since the epoch."""

    snapshot: str | None = None
    time: float | None = None

    @property
    def text(self):
        return self.snapshot or moment(self.time)


def moment(seconds):
    """Seconds since the epoch as a time in UTC, to the millisecond where it has any: nothing of what was asked for is lost."""
    at = datetime.datetime.fromtimestamp(round(seconds, 3), datetime.UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def point(snapshot, restore_time):
    """The Point of what a person gave: one of both.

    Raises:
        Refusal: the time cannot be read, or does not say in which zone it is.
    """
    if snapshot:
        return Point(snapshot=snapshot)
    try:
        at = datetime.datetime.fromisoformat(restore_time)
    except ValueError as error:
        raise Refusal(f"restore_time is {restore_time}: give a time such as 2026-03-01T14:30:00Z") from error
    if at.tzinfo is None:
        raise Refusal(
            f"restore_time is {restore_time}, in no zone: say {restore_time}Z for UTC, or +01:00 and the like"
        )
    return Point(time=at.timestamp())


def snapshot(raw):
    """Pure: what verbs need of a DescribeDBSnapshots entry; `created` in seconds, None while it is being made."""
    created = raw.get("SnapshotCreateTime")
    return {
        "id": raw["DBSnapshotIdentifier"],
        "instance": raw["DBInstanceIdentifier"],
        "resource_id": raw.get("DbiResourceId"),
        "type": raw.get("SnapshotType"),
        "status": raw["Status"],
        "created": created.timestamp() if created else None,
        "gib": raw.get("AllocatedStorage"),
        "encrypted": raw.get("Encrypted", False),
    }


def snapshots(aws, instance, region):
    """Those of an instance, also from the time when it had another name; newest first, what is being made before all."""
    mine = [{"Name": "dbi-resource-id", "Values": [instance["resource_id"]]}]
    found = [snapshot(raw) for raw in rds.pages(aws, "describe_db_snapshots", "DBSnapshots", region, Filters=mine)]
    return sorted(found, key=lambda each: each["created"] or float("inf"), reverse=True)


def named(aws, name, region):
    """The snapshot of that id or ARN, or None."""
    try:
        answer = aws.read("rds", "describe_db_snapshots", region=region, DBSnapshotIdentifier=name)
    except Exception as error:
        if code_of(error) in ("DBSnapshotNotFound", "DBSnapshotNotFoundFault"):
            return None
        raise
    return snapshot(answer["DBSnapshots"][0]) if answer["DBSnapshots"] else None


def window(aws, instance, region):
    """The Window of an instance, or None where it keeps no log or has no backup yet.

    The latest time lags: RDS uploads the log every five minutes.
    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PIT.html
    """
    backups = rds.pages(
        aws,
        "describe_db_instance_automated_backups",
        "DBInstanceAutomatedBackups",
        region,
        DbiResourceId=instance["resource_id"],
    )
    for raw in backups:
        found = raw.get("RestoreWindow") or {}
        if found.get("EarliestTime") and found.get("LatestTime"):
            return Window(found["EarliestTime"].timestamp(), found["LatestTime"].timestamp())
    return None


def before(found, time):
    """The newest snapshot that is whole and not after `time`, or None."""
    return next((each for each in found if each["status"] == "available" and each["created"] <= time), None)


def check_time(instance, found, there, time, now):
    """Seconds that the log still lacks until `time` can be chosen, 0 for none.

    Args:
        instance: `rds.instance()` of the source.
        found: its Window or None.
        there: its snapshots.

    Raises:
        Refusal: it cannot be chosen, now or soon; the message names the nearest snapshot before it.
    """
    name, nearest = instance["id"], before(there, time)
    instead = (
        f": snapshot={nearest['id']}, of {moment(nearest['created'])}, is the nearest before it" if nearest else ""
    )
    if time > now:
        raise Refusal(f"{moment(time)} is still to come: restore_time is in UTC; nothing was changed")
    if not instance["backup_retention"]:
        raise Refusal(
            f"{name} keeps no automated backups (its backup retention is 0 days), so no point in time can be chosen{instead}"
        )
    if found is None:
        raise Refusal(f"{name} has no automated backup yet, so no point in time can be chosen{instead}")
    if time < found.earliest:
        raise Refusal(
            f"{name} can be restored to any time from {moment(found.earliest)} on, not to {moment(time)}{instead}"
        )
    if time > found.latest and instance["status"] not in rds.SERVING:
        raise Refusal(
            f"{name} is {instance['status']} and its log ends at {moment(found.latest)}, before {moment(time)}: "
            f"restore_time={moment(found.latest)} is the last that can be had"
        )
    return max(0.0, time - found.latest)


def check_snapshot(instance, found, wanted, there, accept_other_source):
    """Refuses a snapshot that is not there, cannot be used, or is of another instance.

    Args:
        instance: `rds.instance()` of the source.
        found: the snapshot, or None.
        wanted: its name as given.
        there: the snapshots of the instance.
    """
    if found is None:
        usable = [each["id"] for each in there]
        raise Refusal(f"there is no snapshot {wanted} ({near(wanted, usable)}); nothing was changed")
    if found["status"] not in ("available", "creating"):
        raise Refusal(f"the snapshot {wanted} is {found['status']}: take another one; nothing was changed")
    if found["resource_id"] != instance["resource_id"] and not accept_other_source:
        raise Refusal(
            f"the snapshot {wanted} is of {found['instance']}, and not of the {instance['id']} that is there now: if it holds "
            f"the right data all the same, say accept_other_source=true; nothing was changed"
        )
