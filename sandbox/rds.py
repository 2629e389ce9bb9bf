# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RDS on real PostgreSQL: what moto answers at once takes its time here, and is true when it says `available`.

Refusals and states follow https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/ and the list of instance states
https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/accessing-monitoring.html.
"""

from __future__ import annotations

import copy
import os
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg2

from . import addresses, base_backups, cloudwatch, parameter_groups
from .faults import Fault
from .instance_classes import OFFERED, memory_of
from .postgres import ADMIN, DATABASE, HOST, Installation, Server
from .usage import Meter

if TYPE_CHECKING:
    from moto.rds.models import DBInstance, Event, RDSBackend

    from .world import World

PRIMARY, REPLICA = "regami-db-primary", "regami-db-replica"

# Without ApplyImmediately these wait for the maintenance window (ModifyDBInstance in the API reference).
_DEFERRED = {
    "db_instance_class": "DBInstanceClass",
    "multi_az": "MultiAZ",
    "allocated_storage": "AllocatedStorage",
    "engine_version": "EngineVersion",
    "new_db_instance_identifier": "DBInstanceIdentifier",
}
_DEFERRED_NAMES = {shown: name for name, shown in _DEFERRED.items()} | {
    "BackupRetentionPeriod": "backup_retention_period"
}
# Applied without the instance leaving `available`.
_QUIET = {
    "vpc_security_group_ids",
    "preferred_backup_window",
    "preferred_maintenance_window",
    "deletion_protection",
    "copy_tags_to_snapshot",
    "auto_minor_version_upgrade",
}
_EVENTS = {
    "DB_INSTANCE_RESTART": (["availability"], "DB instance restarted"),
    "DB_INSTANCE_SHUTDOWN": (["availability"], "DB instance shutdown"),
    "DB_INSTANCE_FAILED": (["failure"], "DB instance has failed: the database process is not running"),
    "DB_INSTANCE_DELETE": (["deletion"], "DB instance deleted"),
    "READ_REPLICA_PROMOTED": (["read replica"], "Promoted to a standalone DB instance: replication was terminated"),
    "READ_REPLICA_ERROR": (["read replica"], "Replication has stopped"),
    "READ_REPLICA_RESUMED": (["read replica"], "Replication has resumed"),
    "PARAMETERS_INCOMPATIBLE": (
        ["failure"],
        "The DB instance has invalid parameters: PostgreSQL does not start with what its DB parameter group says",
    ),
    "PARAMETER_GROUP_CHANGED": (["configuration change"], "Updated to use another DBParameterGroup"),
    "CLASS_CHANGE_START": (["configuration change"], "Applying modification to database instance class"),
    "CLASS_CHANGE_FINISH": (["configuration change"], "Finished applying modification to DB instance class"),
    "SECURITY_GROUPS_CHANGED": (["configuration change"], "Applied change to security groups"),
}

servers: dict[tuple[str, str], Server] = {}  # (region, instance id) -> its PostgreSQL
# (region, instance id) -> where an instance of that name is found: an endpoint belongs to the name, whoever has it.
_ports: dict[tuple[str, str], int] = {}
_spare_ports: list[int] = []  # of the worlds before this one
_world: World


def server_of(instance: DBInstance) -> Server | None:
    return servers.get((instance.region, instance.db_instance_identifier))


def is_simulated(instance: DBInstance) -> bool:
    """Whether no real database is behind it."""
    return instance.engine != "postgres" or bool(instance.db_cluster_identifier)


def refuse(code: str, message: str) -> Exception:
    from moto.rds.exceptions import RDSClientError

    return RDSClientError(code, message)


def require_available(instance: DBInstance) -> None:
    if instance.status != "available":
        name = instance.db_instance_identifier
        raise refuse(
            "InvalidDBInstanceState", f"Database instance {name} is not in available state: it is {instance.status}."
        )


# ---- what the API does -----------------------------------------------------------------------------------------------


def promote_read_replica(backend: RDSBackend, request: dict) -> DBInstance:
    """Refused for what is no replica or not available; `modifying` until the server really takes writes."""
    instance = backend.describe_db_instances(request["db_instance_identifier"])[0]
    server = server_of(instance)
    if not instance.is_replica or server is None:
        raise refuse("InvalidDBInstanceState", "DB Instance is not a read replica.")
    require_available(instance)
    instance.status = "modifying"
    _world.background(_promote, instance, server, dict(request))
    return instance


def _promote(instance: DBInstance, server: Server, request: dict) -> None:
    # Replication ends when the promotion begins: what the source commits from now on is lost.
    server.receive(False)
    _world.pause(_world.settings.promotion_seconds)
    server.promote()
    with _world.lock:
        _unlink(instance)
        for name in ("backup_retention_period", "preferred_backup_window"):
            if request.get(name) is not None:
                setattr(instance, name, request[name])
        instance.add_event("READ_REPLICA_PROMOTED")
        instance.status = "available"
    if instance.backup_retention_period and not server.backups:
        _save_backup(instance, server)


def _source_of(instance: DBInstance) -> DBInstance | None:
    """The source as it is now, if there is one."""
    from moto.rds.exceptions import DBInstanceNotFoundError

    try:
        name = instance.source_db_instance_identifier
        return instance.backend.find_db_from_id(name) if name else None
    except DBInstanceNotFoundError:
        return None


def _unlink(instance: DBInstance) -> None:
    """A replica no more, on both sides."""
    source = _source_of(instance)
    if source is not None:
        known = (instance.db_instance_identifier, instance.db_instance_arn)
        source.replicas = [name for name in source.replicas if name not in known]
    instance.is_replica = False
    instance.source_db_instance_identifier = None
    instance.replication_error = None


def create_db_instance(backend: RDSBackend, request: dict) -> DBInstance:
    instance = _moto["create_db_instance"](backend, request)
    if is_simulated(instance):
        return instance
    instance.dbi_resource_id = new_resource_id()
    server = launch(instance, lambda server: server.seed())
    _first_backup(instance, server)
    return instance


def _first_backup(instance: DBInstance, server: Server) -> None:
    """What moto has made at once of each new instance is one of the state that it begins with."""
    snapshots = instance.backend.database_snapshots
    mine = [name for name, each in snapshots.items() if each.db_instance_identifier == instance.db_instance_identifier]
    if instance.backup_retention_period:
        snapshot = snapshots[mine[-1]]
        snapshot.base = base_backups.first(server)
        # moto gives all of them one id, and its snapshot has that.
        snapshot.dbi_resource_id = snapshot.database.dbi_resource_id = instance.dbi_resource_id
        server.backups = [snapshot.base]
    else:
        del snapshots[mine[-1]]


def create_db_instance_read_replica(backend: RDSBackend, request: dict) -> DBInstance:
    from moto.core.utils import utcnow
    from moto.rds.exceptions import DBInstanceAlreadyExists

    name = request["db_instance_identifier"]
    if name in backend.databases:
        raise DBInstanceAlreadyExists()
    source = backend.find_db_from_id(request["source_db_instance_identifier"])
    if (source_server := server_of(source)) is None:
        return _moto["create_db_instance_read_replica"](backend, request)
    require_available(source)
    if not source.backup_retention_period:
        raise refuse(
            "InvalidDBInstanceState",
            "Automated backups are not enabled for this database instance. To enable automated backups, use "
            "ModifyDBInstance to set the backup retention period to a non-zero value.",
        )
    # A copy of the source in the backend's own region; moto would look the subnet group up in the source's.
    replica = copy.copy(source)
    replica.backend = backend
    replica.db_instance_identifier = name
    replica.dbi_resource_id = new_resource_id()
    replica.created = replica.instance_create_time = utcnow()
    replica.availability_zone = request.get("availability_zone") or f"{backend.region_name}a"
    if source.region != replica.region:
        replica.__dict__.pop("db_subnet_group", None)
        replica.db_parameter_group_name = None  # a group belongs to its region: the default one, unless named
    if request.get("db_parameter_group_name"):
        parameter_groups.attach(replica, request["db_parameter_group_name"])
    if request.get("db_subnet_group_name"):
        replica.db_subnet_group_name = request["db_subnet_group_name"]
    replica.vpc_security_group_ids = list(request.get("vpc_security_group_ids") or default_groups(backend))
    replica.tags = request.get("tags") or []
    replica.is_replica, replica.replicas, replica.replication_error = True, [], None
    replica.multi_az = bool(request.get("multi_az"))
    replica.backup_retention_period = request.get("backup_retention_period") or 0
    replica.deletion_protection = bool(request.get("deletion_protection"))
    replica.pending_modified_values = {}
    replica.running_parameters, replica.parameters_applying = None, False
    if request.get("db_instance_class"):
        replica.db_instance_class = request["db_instance_class"]
    far = source.region != replica.region
    replica.source_db_instance_identifier = source.db_instance_arn if far else source.db_instance_identifier
    source.add_replica(replica)
    backend.databases[name] = replica
    seeding = _world.seeding
    launch(replica, lambda server: server.seed(source_server) if seeding else server.base_backup(source_server))
    return replica


def new_resource_id() -> str:
    return f"db-{uuid.uuid4().hex[:26].upper()}"


def default_groups(backend: RDSBackend) -> list[str]:
    ec2 = _world.backend("ec2", backend.region_name)
    return [ec2.get_default_security_group(ec2.default_vpc.id).id]


def port_of(region: str, name: str) -> int:
    if (region, name) not in _ports:
        _ports[region, name] = _spare_ports.pop() if _spare_ports else addresses.free_port(HOST, keep=True)
    return _ports[region, name]


def launch(instance: DBInstance, fill: Any, event: str = "DB_INSTANCE_CREATE") -> Server:
    """`creating` until the server runs, which `fill` may have started; at once while the world is being seeded."""
    name, region = instance.db_instance_identifier, instance.region
    server = servers[region, name] = Server(_world, _installation(), name, region, port_of(region, name))

    def create() -> None:
        try:
            server.fenced = not _is_open(instance, server)
            server.parameters = parameter_groups.settings_of(instance)
            fill(server)
            if not server.is_running:
                server.start()
            if instance.is_replica:
                server.wait_streaming()
            if not _world.seeding:
                _world.pause(_world.settings.create_seconds)
            if instance.backup_retention_period and not server.backups and not _world.seeding:
                back_up(instance, server)
        except (RuntimeError, OSError) as error:
            _world.log(f"{name}: {error}")
            instance.status = "failed"
            return
        with _world.lock:
            instance.status = "available"
            if instance.is_replica or event != "DB_INSTANCE_CREATE":  # moto says so of the others
                instance.add_event(event)
        _world.background(_watch, instance, server)

    instance.status = "creating"
    if _world.seeding:
        create()
    else:
        _world.background(create)
    return server


def back_up(instance: DBInstance, server: Server) -> None:
    """An automated backup, which shows as long as it takes."""
    with _world.lock:
        instance.status = "backing-up"
    _world.pause(_world.settings.backup_seconds)
    _save_backup(instance, server)


def _save_backup(instance: DBInstance, server: Server) -> None:
    base = base_backups.take(server)
    with _world.lock:
        instance.save_automated_backup()
        newest = list(instance.backend.database_snapshots.values())[-1]
        newest.base, newest.created = base, base.begun
        server.backups.append(base)


def modify_db_instance(backend: RDSBackend, identifier: str, request: dict) -> DBInstance:
    instance = backend.describe_db_instances(identifier)[0]
    server = server_of(instance)
    if server is None:
        return _moto["modify_db_instance"](backend, identifier, request)
    changes = {name: request[name] for name in request if request[name] is not None}
    new_name = changes.get("new_db_instance_identifier")
    if new_name and new_name.lower() in backend.databases:
        from moto.rds.exceptions import DBInstanceAlreadyExists

        raise DBInstanceAlreadyExists()
    require_available(instance)
    for group in changes.get("vpc_security_group_ids", []):
        if _world.backend("ec2", backend.region_name).get_security_group_from_id(group) is None:
            raise refuse("InvalidParameterValue", f"Invalid security group , groupId= {group}, groupName=.")
    if (wanted := changes.get("db_instance_class")) and wanted not in OFFERED:
        raise refuse("InvalidParameterValue", f"Invalid DB Instance class: {wanted}")
    # The group is associated at once, whatever is said of the rest; it is in force after a reboot.
    new_group = changes.pop("db_parameter_group_name", None)
    if new_group:
        parameter_groups.attach(instance, new_group)
        instance.parameters_applying = True
        instance.add_event("PARAMETER_GROUP_CHANGED")
    if changes.pop("apply_immediately", False):
        # What has waited is applied with it.
        waited = {_DEFERRED_NAMES[name]: value for name, value in instance.pending_modified_values.items()}
        changes = {**waited, **changes}
        instance.pending_modified_values = {}
    else:
        waiting = {name: changes.pop(name) for name in list(changes) if name in _DEFERRED}
        pending = {_DEFERRED[name]: value for name, value in waiting.items()}
        if changes.get("backup_retention_period") and not instance.backup_retention_period:
            pending["BackupRetentionPeriod"] = changes.pop("backup_retention_period")
        instance.pending_modified_values = {**instance.pending_modified_values, **pending}
    backups_begin = bool(changes.get("backup_retention_period")) and not instance.backup_retention_period
    new_name = changes.pop("new_db_instance_identifier", None)
    new_class = changes.pop("db_instance_class", None)
    if new_class == instance.db_instance_class:
        new_class = None
    if new_class:
        instance.pending_modified_values = {**instance.pending_modified_values, "DBInstanceClass": new_class}
    changes.pop("db_instance_identifier", None)
    _moto["modify_db_instance"](backend, identifier, changes)
    if "vpc_security_group_ids" in changes:
        instance.add_event("SECURITY_GROUPS_CHANGED")
    loud = any(changes[name] != "" for name in changes if name in _DEFERRED)
    if new_name or new_class or new_group or backups_begin or loud:
        instance.status = "renaming" if new_name else "modifying"
        _world.background(_finish_modify, instance, server, new_name, new_class, backups_begin)
    return instance


def _finish_modify(
    instance: DBInstance, server: Server, new_name: str | None, new_class: str | None, backups_begin: bool
) -> None:
    if new_class:
        with _world.lock:
            instance.add_event("CLASS_CHANGE_START")
    _world.pause(_world.settings.create_seconds)
    if new_class:
        with _world.lock:
            instance.db_instance_class = new_class
        if not _restart(instance, server):
            return
        with _world.lock:
            instance.pending_modified_values = {}
            instance.add_event("CLASS_CHANGE_FINISH")
    if new_name:
        with _world.lock:
            _rename(instance, server, new_name.lower())
        _move(instance, server)
    if backups_begin:
        back_up(instance, server)
    with _world.lock:
        instance.parameters_applying = False
        instance.status = "available"


def _restart(instance: DBInstance, server: Server) -> bool:
    """End every session and start with what the parameter group says now; False where PostgreSQL refuses that."""
    with _world.lock:
        server.parameters = parameter_groups.settings_of(instance)
        instance.add_event("DB_INSTANCE_SHUTDOWN")
    try:
        server.restart()
    except RuntimeError as error:
        _world.log(str(error))
        with _world.lock:
            instance.status = "incompatible-parameters"
            instance.add_event("PARAMETERS_INCOMPATIBLE")
        return False
    with _world.lock:
        instance.add_event("DB_INSTANCE_RESTART")
    return True


def _rename(instance: DBInstance, server: Server, name: str) -> None:
    """The instance keeps its server; what points at it follows."""
    old_name, old_arn = instance.db_instance_identifier, instance.db_instance_arn
    linked = [database for region in _world.regions for database in _world.backend("rds", region).databases.values()]
    del instance.backend.databases[old_name]
    del servers[instance.region, old_name]
    instance.db_instance_identifier = name
    instance.backend.databases[name] = instance
    servers[instance.region, name] = server
    renamed = {old_name: name, old_arn: instance.db_instance_arn}
    for other in linked:
        source = other.source_db_instance_identifier
        if source == old_arn or (source == old_name and other.region == instance.region):
            other.source_db_instance_identifier = renamed[source]
        other.replicas = [
            renamed.get(each, each) if each == old_arn or other.region == instance.region else each
            for each in other.replicas
        ]


def _move(instance: DBInstance, server: Server) -> None:
    """The endpoint goes with the name, which takes a restart; replicas find their source there.

    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_RenameInstance.html
    """
    region, name = instance.region, instance.db_instance_identifier
    server.name = name
    if server.is_running:
        server.restart(port_of(region, name))
    server.port = port_of(region, name)
    for (where, replica), follower in list(servers.items()):
        other = _world.backend("rds", where).databases.get(replica)
        if other is not None and _source_of(other) is instance:
            follower.follow(server)
            if replica not in _frozen:
                follower.receive(True)


def reboot_db_instance(backend: RDSBackend, identifier: str) -> DBInstance:
    instance = backend.describe_db_instances(identifier)[0]
    if (server := server_of(instance)) is None:
        return instance
    if instance.status != "incompatible-parameters":
        require_available(instance)
    instance.status = "rebooting"

    def reboot() -> None:
        started = _restart(instance, server)
        _world.pause(_world.settings.create_seconds)
        if started:
            with _world.lock:
                instance.status = "available"

    _world.background(reboot)
    return instance


def describe_events(backend: RDSBackend, **request: Any) -> list[Event]:
    """Those of the last hour, unless the request names another time; moto knows no time."""
    from moto.core.utils import utcnow

    end = naive(request.get("end_time")) or utcnow()
    begin = naive(request.get("start_time")) or end - timedelta(minutes=request.get("duration") or 60)
    return [each for each in _moto["describe_events"](backend, **request) if begin <= each.date <= end]


def naive(moment: datetime | None) -> datetime | None:
    """As moto keeps its own: UTC, and without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment and moment.tzinfo else moment


def delete_db_instance(backend: RDSBackend, db_instance_identifier: str, **request: Any) -> DBInstance:
    """DeleteDBInstance's rules about final snapshots; replicas of what is deleted keep a dead link."""
    instance = backend.describe_db_instances(db_instance_identifier)[0]
    server = server_of(instance)
    if server is None:
        return _moto["delete_db_instance"](backend, db_instance_identifier, **request)
    snapshot, skip = request.get("final_db_snapshot_identifier"), request.get("skip_final_snapshot")
    if instance.deletion_protection:
        raise refuse(
            "InvalidParameterCombination",
            "Cannot delete protected DB Instance, please disable deletion protection and try again.",
        )
    if instance.status in ("creating", "deleting"):
        require_available(instance)
    if snapshot and skip:
        raise refuse(
            "InvalidParameterCombination",
            "FinalDBSnapshotIdentifier cannot be specified when SkipFinalSnapshot is true.",
        )
    if snapshot and instance.is_replica:
        raise refuse(
            "InvalidParameterCombination", "FinalDBSnapshotIdentifier cannot be specified when deleting a read replica."
        )
    if not snapshot and not skip and not instance.is_replica:
        raise refuse(
            "InvalidParameterCombination",
            "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.",
        )
    if snapshot:
        backend.create_db_snapshot(instance.db_instance_identifier, snapshot)
    instance.status = "deleting"

    def delete() -> None:
        while snapshot and backend.database_snapshots[snapshot].status == "creating":
            _world.pause(0.05)
        server.kill()
        _world.pause(_world.settings.create_seconds)
        with _world.lock:
            _unlink(instance)
            backend.databases.pop(instance.db_instance_identifier, None)
            servers.pop((instance.region, instance.db_instance_identifier), None)
            instance.add_event("DB_INSTANCE_DELETE")
        server.remove()

    _world.background(delete)
    return instance


# ---- what the API shows ----------------------------------------------------------------------------------------------


def _endpoint(instance: DBInstance) -> dict | None:
    server = server_of(instance)
    if server is None:
        return {"Address": instance.address, "Port": instance.port}
    if instance.status == "creating":
        return None
    return {"Address": server.address.partition(":")[0], "Port": server.port, "HostedZoneId": "Z2R2ITUGPM61AM"}


def _status_infos(instance: DBInstance) -> list[dict] | None:
    """None leaves the element out, as AWS does for what is no replica: clients wait for that after a promotion."""
    if not instance.is_replica:
        return None
    info: dict[str, Any] = {"StatusType": "read replication", "Normal": True, "Status": "replicating"}
    if _source_of(instance) is None:
        info |= {"Normal": False, "Status": "terminated", "Message": "The source DB instance was deleted."}
    elif instance.replication_error:
        info |= {"Normal": False, "Status": "error", "Message": instance.replication_error}
    return [info]


def _watch(instance: DBInstance, server: Server) -> None:
    """Once a second look at the server: its state, its replication, and every metric_seconds its metrics."""
    elapsed, meter = _world.settings.metric_seconds, Meter()
    step = min(1.0, _world.settings.metric_seconds)
    while _is_kept(instance, server):
        _note_state(instance, server)
        if server.is_running:
            _note_log(instance, server)
            try:
                lag, sessions = server.measure()
                _note_replication(instance, lag)
                if elapsed >= _world.settings.metric_seconds:
                    elapsed = 0.0
                    _publish(instance, lag, sessions, meter.read(server.process.tree()))
            except psycopg2.Error:
                pass  # it does not answer in time: no point of its metrics, as with the real thing
        _world.pause(step)
        elapsed += step


def _is_kept(instance: DBInstance, server: Server) -> bool:
    with _world.lock:  # a rename is done as a whole
        return servers.get((instance.region, instance.db_instance_identifier)) is server


def _note_log(instance: DBInstance, server: Server) -> None:
    """How far a point in time may go: RDS uploads the log every five minutes.

    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PIT.html
    """
    moment = base_backups.now()
    known = server.logged_until or datetime.min
    if (
        server.uploads_log
        and instance.backup_retention_period
        and server.backups
        and (moment - known).total_seconds() >= _world.settings.log_seconds
    ):
        server.logged_until = moment


def _note_state(instance: DBInstance, server: Server) -> None:
    with _world.lock:
        if instance.status == "available" and not server.is_running:
            instance.status = "failed"
            instance.add_event("DB_INSTANCE_FAILED")
        elif instance.status == "failed" and server.is_running:
            instance.status = "available"
            instance.add_event("DB_INSTANCE_RESTART")


def _note_replication(instance: DBInstance, lag: float | None) -> None:
    with _world.lock:
        if instance.status != "available" or not instance.is_replica:
            return
        error = "Replication is not active: the source cannot be reached." if lag == -1 else None
        if bool(error) != bool(instance.replication_error):
            instance.replication_error = error
            instance.add_event("READ_REPLICA_ERROR" if error else "READ_REPLICA_RESUMED")


def _publish(instance: DBInstance, lag: float | None, sessions: int, busy: float | None) -> None:
    values = {"DatabaseConnections": float(sessions), "FreeableMemory": float(_freeable_memory(instance, sessions))}
    if lag is not None:
        values["ReplicaLag"] = lag
    if busy is not None:
        values["CPUUtilization"] = 100 * busy / os.cpu_count()
    dimensions = {"DBInstanceIdentifier": instance.db_instance_identifier}
    cloudwatch.publish(_world, instance.region, "AWS/RDS", dimensions, values)


def _freeable_memory(instance: DBInstance, sessions: int) -> int:
    """A model, not a measurement: a quarter is shared buffers, and a session takes what RDS reckons with for its default."""
    memory = memory_of(instance.db_instance_class)
    return max(0, memory * 3 // 4 - sessions * 9531392)


# ---- security groups -------------------------------------------------------------------------------------------------


def _is_open(instance: DBInstance, server: Server) -> bool:
    """Whether any of the instance's security groups lets someone in on its port."""
    ec2 = _world.backend("ec2", instance.region)
    groups = filter(None, map(ec2.get_security_group_from_id, instance.vpc_security_group_ids))
    return any(
        str(rule.ip_protocol) == "-1" or int(rule.from_port or 0) <= server.port <= int(rule.to_port or 65535)
        for group in groups
        for rule in group.ingress_rules
    )


def _follow_groups(call: Any) -> None:
    if call.service not in ("ec2", "rds"):
        return
    for (region, name), server in list(servers.items()):
        instance = _world.backend("rds", region).databases.get(name)
        if instance is None or (server.fenced or server.unreachable) != _is_open(instance, server):
            continue
        if server.fenced or server.unreachable:
            server.fence(False)
            server.drop(False)
        elif call.service == "ec2":
            _cut(server)
        else:
            server.fence(True)


def _cut(server: Server) -> None:
    """A rule was taken away: nothing comes through. Where the instance got another group, sessions are refused instead, so
    that a drill need not wait for the time limit of every client.
    """
    try:
        server.drop(True)
    except OSError as error:  # a machine that keeps processes of one user from each other
        _world.log(f"{server.name}: refuses instead of dropping: {error}")
        server.unreachable = False
        server.fence(True)


# ---- the part --------------------------------------------------------------------------------------------------------

_moto: dict[str, Any] = {}
_programs: Installation | None = None


def _installation() -> Installation:
    assert _programs is not None
    return _programs


def prepare(world: World) -> None:
    """Make the data directories while moto is being imported: both take seconds, on different processors."""
    global _world, _programs
    _world, _programs = world, Installation(world.home)
    world.background(_programs.prepare, world)


def install(world: World) -> None:
    from moto.rds.models import DBInstance, Event, RDSBackend

    for function in (
        promote_read_replica,
        create_db_instance,
        create_db_instance_read_replica,
        modify_db_instance,
        reboot_db_instance,
        delete_db_instance,
        describe_events,
    ):
        _moto[function.__name__] = getattr(RDSBackend, function.__name__)
        setattr(RDSBackend, function.__name__, function)
    DBInstance.endpoint = property(_endpoint)
    DBInstance.status_infos = property(_status_infos)
    DBInstance.replication_error = None
    DBInstance.pending_modified_values = {}
    for name, (categories, message) in _EVENTS.items():
        Event.EVENT_MAP[name] = {"Categories": categories, "Message": message}
    world.after_change.append(_follow_groups)


def seed(world: World) -> None:
    servers.clear()
    home, away = world.regions
    common = {"db_instance_class": "db.t3.medium", "preferred_backup_window": "03:00-03:30"}
    with world.lock:
        _subnets(world)
        primary = world.backend("rds", home).create_db_instance(
            {
                "db_instance_identifier": PRIMARY,
                "engine": "postgres",
                "engine_version": "16.4",
                "db_name": DATABASE,
                "master_username": ADMIN,
                "master_user_password": world.secret("db_admin"),
                "allocated_storage": 20,
                "backup_retention_period": 7,
                "storage_encrypted": True,
                "db_subnet_group_name": "regami",
                "vpc_security_group_ids": [world.state["regions"][home]["db_security_group"]],
                "db_parameter_group_name": parameter_groups.GROUP,
                "tags": [{"Key": "service", "Value": "regami"}],
                **common,
            }
        )
        world.backend("rds", away).create_db_instance_read_replica(
            {
                "db_instance_identifier": REPLICA,
                "source_db_instance_identifier": primary.db_instance_arn,
                "db_subnet_group_name": "regami",
                "vpc_security_group_ids": [world.state["regions"][away]["db_security_group"]],
                "db_parameter_group_name": parameter_groups.GROUP,
                "tags": [{"Key": "service", "Value": "regami"}],
                **common,
            }
        )
    # A database has a past: a replica that never replayed a commit could not say how far behind it is.
    with servers[home, PRIMARY].session() as query:
        query("SELECT pg_logical_emit_message(true, 'sandbox', 'a commit before anything happened')")
    for region, name in ((home, PRIMARY), (away, REPLICA)):
        world.state["regions"][region]["db_instance"] = name
    world.state |= {
        "db_admin_user": ADMIN,
        "db_admin_password_file": str(world.home / "secrets" / "db_admin"),
        "db_name": DATABASE,
    }


def _subnets(world: World) -> None:
    for region in world.regions:
        ec2 = world.backend("ec2", region)
        subnets = list(ec2.get_default_subnets().values())[:2]
        world.backend("rds", region).create_subnet_group("regami", "regami databases", subnets, [])


def start(world: World) -> None:
    world.background(_installation().prepare, world)  # for the next reset


def stop(world: World) -> None:
    for process in world.processes:
        if process.name.startswith("postgres "):
            process.kill()
    for server in list(servers.values()):
        server.remove()
    base_backups.forget(_installation())
    _spare_ports.extend(_ports.values())
    _ports.clear()
    for each in (servers, _slow, _killed, _frozen, _paused):
        each.clear()


def status(world: World) -> list[dict]:
    rows = []
    for (region, name), server in sorted(servers.items()):
        instance = world.backend("rds", region).databases.get(name)
        if instance is None:
            continue
        detail = f"{server.address} " + ("replica" if instance.is_replica else "primary")
        if not server.is_running:
            detail += ", process is dead"
        elif region not in world.cut_regions and name not in _slow:
            try:
                lag, sessions = server.measure()
                detail += "" if lag is None else f", lag {lag:.0f} s"
                detail += f", {sessions} connections"
            except psycopg2.Error:
                detail += ", no answer"
        if server.fenced:
            detail += ", new connections refused"
        if server.unreachable:
            detail += ", no rule lets anybody in"
        rows.append({"region": region, "kind": "database", "name": name, "state": instance.status, "detail": detail})
    return rows


# ---- failures --------------------------------------------------------------------------------------------------------

_slow: dict[str, Server] = {}
_killed: dict[str, Server] = {}
_frozen: dict[str, Server] = {}
_paused: dict[str, Server] = {}


def find(instance: str) -> Server:
    for (_, name), server in servers.items():
        if name == instance:
            return server
    raise ValueError(f"no database {instance!r}: one of {', '.join(sorted(name for _, name in servers))}")


def _kill(world: World, instance: str = PRIMARY) -> None:
    server = _killed[instance] = find(instance)
    server.kill()


def _revive(world: World) -> None:
    """The old primary comes back as it was: writable, whatever has happened elsewhere since."""
    while _killed:
        server = _killed.popitem()[1]
        if not server.is_running:
            server.start()


def _slow_down(world: World, instance: str = PRIMARY) -> None:
    server = _slow[instance] = find(instance)

    def stutter() -> None:
        while _slow.get(instance) is server and server.is_running:
            server.process.pause()
            try:
                world.pause(1.9)
            finally:
                server.process.resume()
            world.pause(0.1)

    world.background(stutter)


def _freeze(world: World, instance: str = REPLICA) -> None:
    server = _frozen[instance] = find(instance)
    server.receive(False)


def _thaw(world: World) -> None:
    while _frozen:
        _frozen.popitem()[1].receive(True)


def _pause_replay(world: World, instance: str = REPLICA) -> None:
    server = _paused[instance] = find(instance)
    with server.session() as query:
        query("SELECT pg_wal_replay_pause()")


def _resume_replay(world: World) -> None:
    while _paused:
        with _paused.popitem()[1].session() as query:
            if query("SELECT pg_is_in_recovery()"):
                query("SELECT pg_wal_replay_resume()")


_ONE = ("instance",)
faults = {
    "primary-killed": Fault("every process of the primary database is killed and stays down", _kill, _revive, (), _ONE),
    "primary-slow": Fault(
        "the primary database answers, seconds late", _slow_down, lambda world: _slow.clear(), (), _ONE
    ),
    "replica-frozen": Fault("the replica receives no more data", _freeze, _thaw, (), _ONE),
    "replica-lag": Fault("the replica receives data and does not apply it", _pause_replay, _resume_replay, (), _ONE),
}
