# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether there is something recent to restore a database from, here and where a copy shall be, and whether that was ever tried."""

from __future__ import annotations

from . import rds, restore_points
from .readiness import NOT_READY, RISK, Found
from .timeline import spoken

CHECK, SCENARIOS = "backups", ("restore_from_backup",)
# Automated snapshots are taken once a day, in a window of half an hour and more.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_WorkingWithAutomatedBackups.html
OLDEST = 36 * 3600
# The log is uploaded every five minutes. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PIT.html
LOG_SECONDS = 15 * 60


def looks(aws, wanted, now):
    """{instance: call}; the call gives what there is, None where there is no such instance."""
    name, away = wanted["db_instance"], wanted["backup_copy_region"]
    return {name: lambda: _points(aws, name, aws.region, away)} if name else {}


def _points(aws, name, region, away):
    instance = rds.describe(aws, name, region)
    if instance is None:
        return None  # the restore says so
    seen = {
        "window": restore_points.window(aws, instance, region),
        "snapshots": restore_points.snapshots(aws, instance, region),
    }
    return seen | ({"copies": _copies(aws, instance, away)} if away else {})


def _copies(aws, instance, region):
    """The newest moment, in seconds, to which the copy in another region can be restored; None where there is none.

    Either its automated backups are replicated there, or snapshots are copied.
    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ReplicateBackups.html
    """
    window = restore_points.window(aws, instance, region)
    copied = [
        restore_points.snapshot(raw)["created"]
        for raw in rds.pages(aws, "describe_db_snapshots", "DBSnapshots", region)
        if f":{instance['region']}:" in raw.get("SourceDBSnapshotIdentifier", "")
        and raw["DBInstanceIdentifier"] == instance["id"]
        and raw["Status"] == "available"
    ]
    return max([*copied, *([window.latest] if window else [])], default=None)


def judge(seen, wanted, now):
    """Pure: is the newest point to go back to recent, here and in the copy?"""
    for name, points in seen.items():
        if points is None:
            continue
        yield from _here(name, points, now)
        if "copies" in points:
            yield from _elsewhere(name, points["copies"], wanted["backup_copy_region"], now)


def _here(name, points, now):
    window, snapshot = points["window"], restore_points.before(points["snapshots"], now)
    if window is None:
        return  # the restore says so, and why
    newest = max(window.latest, snapshot["created"] if snapshot else 0)
    fix = "look at its RDS events for why there is none since, and take a snapshot"
    if now - newest > OLDEST:
        because = f"the newest point to go back to is {restore_points.moment(newest)}, {spoken(now - newest)} ago"
        yield Found(NOT_READY, name, because, fix)
    elif now - window.latest > LOG_SECONDS:
        because = f"the last second to go back to is {restore_points.moment(window.latest)}, {spoken(now - window.latest)} ago"
        yield Found(RISK, name, f"{because}: its log is not uploaded", fix)


def _elsewhere(name, newest, region, now):
    if newest is None:
        because = f"{region} has no copy of its backups, and the inventory says that it shall (backup_copy_region)"
        yield Found(NOT_READY, name, because, "aws rds start-db-instance-automated-backups-replication there")
    elif now - newest > OLDEST:
        because = f"its newest copy in {region} is of {restore_points.moment(newest)}, {spoken(now - newest)} ago"
        yield Found(NOT_READY, name, because, f"look in {region} for why none has come since")
