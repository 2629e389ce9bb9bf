# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of RDS and what is restored from them or to a point in time: a real PostgreSQL with the rows of that moment.

What a restored instance has from its source, and what it gets by default instead, is as documented in
https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBInstanceFromDBSnapshot.html and
https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBInstanceToPointInTime.html: a default parameter group,
security group and (of a point in time) subnet group, one zone, no deletion protection, no IAM logins.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import base_backups, rds
from .faults import Fault
from .postgres import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from moto.rds.models import DBInstance, DBSnapshot, RDSBackend

    from .world import World

# Of the source, whatever the request says not.
_KEPT = (
    "allocated_storage",
    "auto_minor_version_upgrade",
    "backup_retention_period",
    "db_instance_class",
    "db_name",
    "engine",
    "engine_version",
    "iops",
    "kms_key_id",
    "license_model",
    "master_user_password",
    "master_username",
    "preferred_backup_window",
    "preferred_maintenance_window",
    "storage_encrypted",
    "storage_type",
)
# What a request may say of the new instance.
_SAID = (
    "auto_minor_version_upgrade",
    "availability_zone",
    "backup_retention_period",
    "ca_certificate_identifier",
    "copy_tags_to_snapshot",
    "db_instance_class",
    "db_parameter_group_name",
    "db_subnet_group_name",
    "deletion_protection",
    "enable_cloudwatch_logs_exports",
    "enable_iam_database_authentication",
    "iops",
    "max_allocated_storage",
    "multi_az",
    "option_group_name",
    "preferred_backup_window",
    "publicly_accessible",
    "storage_type",
    "tags",
    "vpc_security_group_ids",
)
_world: World
_moto: dict[str, Any] = {}
_aged: list[tuple] = []  # what a fault changed: (server, its backups, how far its log was, {snapshot: created})


def create_db_snapshot(
    backend: RDSBackend, db_instance_identifier: str, db_snapshot_identifier: str, *args: Any, **request: Any
) -> DBSnapshot:
    """`creating` until the copy is there; the instance shows `backing-up` meanwhile."""
    instance = backend.databases.get(db_instance_identifier)
    server = rds.server_of(instance) if instance else None
    by_hand = request.get("snapshot_type", "manual") == "manual" and not args
    if server is None or not by_hand:
        return _moto["create_db_snapshot"](backend, db_instance_identifier, db_snapshot_identifier, *args, **request)
    rds.require_available(instance)
    snapshot = _moto["create_db_snapshot"](backend, db_instance_identifier, db_snapshot_identifier, **request)
    snapshot.status, snapshot.percent_progress = "creating", 0
    instance.status = "backing-up"

    def copy() -> None:
        _world.pause(_world.settings.backup_seconds)
        try:
            snapshot.base = base_backups.take(server)
        except RuntimeError as error:
            _world.log(f"{db_snapshot_identifier}: {error}")
            snapshot.status = "failed"
        with _world.lock:
            if snapshot.base is not None:
                snapshot.created, snapshot.percent_progress = snapshot.base.begun, 100
                snapshot.original_snapshot_create_time, snapshot.status = snapshot.created, "available"
            if instance.status == "backing-up":
                instance.status = "available"

    _world.background(copy)
    return snapshot


def copy_db_snapshot(backend: RDSBackend, source_db_snapshot_identifier: str, *args: Any, **request: Any) -> DBSnapshot:
    source = backend.get_db_snapshot(source_db_snapshot_identifier.rpartition(":snapshot:")[2])
    snapshot = _moto["copy_db_snapshot"](backend, source_db_snapshot_identifier, *args, **request)
    snapshot.base = source.base
    return snapshot


def restore_db_instance_from_db_snapshot(backend: RDSBackend, from_snapshot_id: str, request: dict) -> DBInstance:
    snapshot = backend.get_db_snapshot(from_snapshot_id.rpartition(":snapshot:")[2])
    if rds.is_simulated(snapshot.database):
        return _moto["restore_db_instance_from_db_snapshot"](backend, from_snapshot_id, request)
    if snapshot.status != "available" or snapshot.base is None:
        raise rds.refuse("InvalidDBSnapshotState", f"Snapshot {from_snapshot_id} is {snapshot.status}.")
    base, source = snapshot.base, snapshot.database
    # Where no tags are said, those of the source are taken, and so is its subnet group.
    kept = {"tags": list(source.tags), "db_subnet_group_name": source._db_subnet_group_name}
    return _restored(
        backend,
        source,
        request["db_instance_identifier"],
        kept | dict(request),
        lambda server: base_backups.fill(server, base),
        "RESTORED_FROM_SNAPSHOT",
    )


def restore_db_instance_to_point_in_time(
    backend: RDSBackend, source_db_identifier: str | None, target_db_identifier: str, request: dict
) -> DBInstance:
    source = _source(backend, source_db_identifier, request.get("source_dbi_resource_id"))
    if rds.is_simulated(source):
        return _moto["restore_db_instance_to_point_in_time"](
            backend, source_db_identifier, target_db_identifier, request
        )
    server, latest = rds.server_of(source), bool(request.get("use_latest_restorable_time"))
    until = rds.naive(request.get("restore_time"))
    if latest == bool(until):
        raise rds.refuse(
            "InvalidParameterCombination", "Specify either RestoreTime or UseLatestRestorableTime, and not both."
        )
    if not source.backup_retention_period:
        name = source.db_instance_identifier
        raise rds.refuse("PointInTimeRestoreNotEnabled", f"Automated backups are not enabled for {name}.")
    window = restorable(source)
    if window is None or not window[0] <= (until := until or window[1]) <= window[1]:
        shown = " to ".join(f"{each:%Y-%m-%dT%H:%M:%SZ}" for each in window or ()) or "none"
        raise rds.refuse(
            "InvalidParameterValue",
            f"The specified instance cannot be restored to that time. The restorable window is: {shown}.",
        )
    base = max((each for each in base_backups.usable(server) if each.done <= until), key=lambda each: each.done)

    def fill(new: Server) -> None:
        base_backups.fill(new, base)
        base_backups.replay(new, server, until)

    return _restored(backend, source, target_db_identifier, dict(request), fill, "RESTORED_TO_TIME")


def _source(backend: RDSBackend, name: str | None, resource_id: str | None) -> DBInstance:
    if name:
        return backend.describe_db_instances(name)[0]
    found = next((each for each in backend.databases.values() if each.dbi_resource_id == resource_id), None)
    return found or backend.describe_db_instances(resource_id)[0]  # which says that there is none


def _restored(
    backend: RDSBackend, source: DBInstance, name: str, request: dict, fill: Callable[[Server], None], event: str
) -> DBInstance:
    """A new instance of the backend with the data that `fill` makes."""
    from moto.rds.exceptions import DBInstanceAlreadyExists
    from moto.rds.models import DBInstance

    name = name.lower()
    backend._validate_db_identifier(name)
    if name in backend.databases:
        raise DBInstanceAlreadyExists()
    attributes = vars(source)  # of some, moto has a setter only
    settings = {key: attributes.get(key, attributes.get(f"_{key}")) for key in _KEPT}
    settings |= {key: request[key] for key in _SAID if request.get(key) is not None}
    settings["vpc_security_group_ids"] = list(settings.get("vpc_security_group_ids") or rds.default_groups(backend))
    settings["multi_az"] = bool(settings.get("multi_az"))
    instance = backend.databases[name] = DBInstance(backend, db_instance_identifier=name, **settings)
    instance.dbi_resource_id = rds.new_resource_id()
    rds.launch(instance, fill, event)
    return instance


def restorable(instance: DBInstance) -> tuple[datetime, datetime] | None:
    """From when to when a point in time may be chosen; None where there is no such window."""
    server = rds.server_of(instance)
    if server is None or not instance.backup_retention_period or server.logged_until is None:
        return None
    earliest = min((base.done for base in base_backups.usable(server)), default=server.logged_until)
    return (earliest, server.logged_until) if earliest < server.logged_until else None


def _latest(instance: DBInstance) -> datetime | None:
    if rds.is_simulated(instance):
        return _moto["latest_restorable_time"].fget(instance)
    window = restorable(instance)
    return window and window[1]


def describe_db_instance_automated_backups(self: Any) -> Any:
    """https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DescribeDBInstanceAutomatedBackups.html"""
    from moto.core.responses import ActionResult

    wanted = (self.params.get("DBInstanceIdentifier"), self.params.get("DbiResourceId"))
    found = []
    for instance in self.backend.databases.values():
        said = zip(wanted, (instance.db_instance_identifier, instance.dbi_resource_id), strict=True)
        if rds.is_simulated(instance) or any(each not in (None, mine) for each, mine in said):
            continue
        if not instance.backup_retention_period:
            continue
        window = restorable(instance)
        found.append(
            {
                "DBInstanceArn": instance.db_instance_arn,
                "DBInstanceIdentifier": instance.db_instance_identifier,
                "DbiResourceId": instance.dbi_resource_id,
                "Region": instance.region,
                "Engine": instance.engine,
                "BackupRetentionPeriod": instance.backup_retention_period,
                "Status": "active" if window else "creating",
                **({"RestoreWindow": {"EarliestTime": window[0], "LatestTime": window[1]}} if window else {}),
            }
        )
    return ActionResult({"DBInstanceAutomatedBackups": found})


def install(world: World) -> None:
    global _world
    _world = world
    from moto.rds.models import DBInstance, DBSnapshot, Event, RDSBackend
    from moto.rds.responses import RDSResponse

    for function in (
        copy_db_snapshot,
        create_db_snapshot,
        restore_db_instance_from_db_snapshot,
        restore_db_instance_to_point_in_time,
    ):
        _moto[function.__name__] = getattr(RDSBackend, function.__name__)
        setattr(RDSBackend, function.__name__, function)
    RDSResponse.describe_db_instance_automated_backups = describe_db_instance_automated_backups
    DBSnapshot.base = None
    _moto["latest_restorable_time"] = DBInstance.latest_restorable_time
    DBInstance.latest_restorable_time = property(_latest)
    for name, message in {
        "RESTORED_FROM_SNAPSHOT": "Restored from snapshot",
        "RESTORED_TO_TIME": "Recovered to a point in time",
    }.items():
        Event.EVENT_MAP[name] = {"Categories": ["recovery"], "Message": message}


def seed(world: World) -> None:
    _aged.clear()


# ---- faults ----------------------------------------------------------------------------------------------------------


def _let_age(world: World, days: str) -> None:
    """As if the log had been uploaded last so many days ago, and no backup taken since."""
    server, ago = rds.find(rds.PRIMARY), timedelta(days=float(days))
    with world.lock:
        snapshots = {each: each.created for each in _snapshots(world)}
        _aged.append((server, server.backups, server.logged_until, snapshots))
        server.uploads_log = False
        server.backups = [replace(each, begun=each.begun - ago, done=each.done - ago) for each in server.backups]
        server.logged_until = base_backups.now() - ago
        for each in snapshots:
            each.created -= ago


def _upload_again(world: World) -> None:
    with world.lock:
        while _aged:
            server, server.backups, server.logged_until, snapshots = _aged.pop()
            server.uploads_log = True
            for each, created in snapshots.items():
                each.created = created


def _snapshots(world: World) -> list[DBSnapshot]:
    snapshots = world.backend("rds", world.regions[0]).database_snapshots.values()
    return [each for each in snapshots if each.database.db_instance_identifier == rds.PRIMARY]


faults = {
    "backups-old": Fault(
        "the newest second to which the primary database can be restored is DAYS ago, and stays there",
        _let_age,
        _upload_again,
        ("days",),
    )
}
