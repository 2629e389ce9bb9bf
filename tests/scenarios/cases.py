# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of each playbook that change something, each from what it needs: for tests of whatever holds of all of them."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from blue_green import Web
from kube import Namespace
from world import EAST, PRIMARY, World, wait_until

from sandbox.ssm.machine import namespaces

# A revision that was made stays registered; nobody runs it.
REVISION = rf"^/{EAST}/task definitions:"


@dataclass(frozen=True)
class Case:
    """A run of `playbook` with `said`, after `prepare`, which may say more. `stays`: patterns of what differs in the end."""

    name: str
    playbook: str
    said: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    prepare: Callable[[World], dict[str, Any] | None] = lambda world: None
    stays: tuple[str, ...] = ()
    # What has to be said for taking it back.
    accepted: dict[str, Any] = field(default_factory=dict)
    # The state before was bad: what is taken back to it cannot pass its checks.
    was_bad: bool = False
    # One is enough for every day.
    is_short: bool = False

    @property
    def id(self) -> str:
        return f"{self.playbook}-{self.name.replace(' ', '-')}"


def ship(world: World) -> None:
    """A good build, by the pipeline: what is wrong with it nobody has to see."""
    world.sandbox.fault("bad-build", build="good")
    wait_until(lambda: world.is_settled(EAST), "it is rolled out")


def ship_and_keep(world: World) -> None:
    """With a snapshot that the recovery API took before."""
    import http.client

    names = world.names(EAST)

    def ask(method: str, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.3.10", world.sandbox.state["http_port"], timeout=10)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {world.secret('recovery_api')}"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    wait_until(lambda: ask("GET", "/health"), "the recovery API serves")
    assert ask("POST", f"/api/v1/disaster-recovery/snapshot/{names['cluster']}/{names['service']}")
    ship(world)


def ship_to_the_fleet(world: World) -> None:
    world.sandbox.fault("bad-fleet", build="good")
    group = world.sandbox.state["fleet"]["auto_scaling_group"]
    refreshes = lambda: world.aws("autoscaling").describe_instance_refreshes(AutoScalingGroupName=group)  # noqa: E731
    wait_until(lambda: refreshes()["InstanceRefreshes"][0]["Status"] == "Successful", "the refresh")


def ship_blue_green(world: World) -> None:
    """Two builds, one after the other; the second is there to its end, nothing goes on, and users have it."""
    web = Web(world)
    shifting = web.ship("good", "shifting")
    web.codedeploy.stop_deployment(deploymentId=shifting, autoRollbackEnabled=True)
    web.idle()
    web.redeploy(shifting)


def namespace(world: World) -> Namespace:
    known = world.sandbox.state["kubernetes"]
    return Namespace(known["kubeconfig"], known["context"], known["namespace"])


def pods_serve(world: World, image: str = "") -> None:
    space, name = namespace(world), world.sandbox.state["kubernetes"]["deployment"]

    def serve() -> bool:
        found = space.get(name)
        counts = [found["status"].get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        is_seen = found["status"].get("observedGeneration") == found["metadata"]["generation"]
        return is_seen and counts == [found["spec"]["replicas"]] * 3

    wait_until(serve, f"pods serve {image}")


def ship_pods(world: World) -> None:
    pods_serve(world)
    space, name = namespace(world), world.sandbox.state["kubernetes"]["deployment"]
    known = space.get(name)["spec"]["template"]["spec"]["containers"][0]
    image = f"{known['image'].rpartition(':')[0]}:v1"
    space.patch(name, {"spec": {"template": {"spec": {"containers": [{"name": known["name"], "image": image}]}}}})
    pods_serve(world, image)


def by_the_ingress(world: World) -> dict[str, Any]:
    """Which users of this name come through."""
    pods_serve(world)
    url = world.sandbox.state["kubernetes"]["ingress_url"]
    return {"smoke_tests": [{"name": "health", "url": f"{url}/health"}]}


def a_suspect(world: World) -> dict[str, Any]:
    pods_serve(world)
    name = world.sandbox.state["kubernetes"]["deployment"]
    return {"suspects": namespace(world).pods(name)[0]["metadata"]["name"]}


def a_user(world: World) -> None:
    world.aws("iam").create_user(UserName="deploy")
    world.aws("iam").create_access_key(UserName="deploy")


def the_image_before(world: World) -> dict[str, Any]:
    """By its digest."""
    found = world.aws("ecr").describe_images(repositoryName="regami-api", imageIds=[{"imageTag": "v1"}])
    digest = found["imageDetails"][0]["imageDigest"]
    return {"good_image": f"123456789012.dkr.ecr.{EAST}.amazonaws.com/regami-api@{digest}"}


def lost_objects(world: World) -> dict[str, Any]:
    world.sandbox.fault("objects-lost", count=6)
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=30)
    return {"at": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}


def a_moment(world: World) -> dict[str, Any]:
    """Before all rows were deleted; a backup has the log."""
    world.start_users(pinned=False)
    moment = time.time()
    world.await_users(10)
    with world.session(EAST) as query:
        query("DELETE FROM rows")
    world.stop_users(more=0)
    latest = lambda: world.database(EAST)["LatestRestorableTime"].timestamp()  # noqa: E731
    wait_until(lambda: latest() > moment, "the log in safety")
    at = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return {"restore_time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}


def nobody_serves(world: World) -> None:
    names = world.names(EAST)
    world.aws("ecs").update_service(cluster=names["cluster"], service=names["service"], desiredCount=0)
    wait_until(lambda: world.healthy_targets(EAST) == 0, "it is drained")


def an_intruder(world: World) -> dict[str, Any]:
    if namespaces() is None:
        pytest.skip("this machine allows no file systems of their own")
    world.sandbox.fault("intruder")
    return {"instance": world.sandbox.state["intruder"]["instance"]}


def green(world: World) -> None:
    world.sandbox.control("green")


def closed(world: World) -> None:
    assert world.runbook.run("traffic", mode="block").returncode == 0


def done(playbook: str, *flags: str, **said: Any) -> Callable[[World], None]:
    """A run before, which the one that is taken back goes on from."""

    def prepare(world: World) -> None:
        assert world.runbook.run(playbook, *flags, **said).returncode == 0

    return prepare


def revoked(world: World) -> None:
    a_user(world)
    done("security_breach", steps="revoke", principal="user/deploy", incident="breach")(world)


def a_secret(world: World) -> None:
    world.aws("secretsmanager").create_secret(Name=SECRET, SecretString="former")


def reviewed_sql(world: World) -> dict[str, Any]:
    path, sql = world.sandbox.home / "fix.sql", "ALTER TABLE rows ADD COLUMN IF NOT EXISTS seen_at timestamptz;\n"
    path.write_text(sql)
    return {"sql_file": str(path), "reviewed_sha256": hashlib.sha256(sql.encode()).hexdigest()}


def full_disk(what: str) -> Callable[[World], None]:
    """One of a database's files, or of old logs."""

    def prepare(world: World) -> None:
        if namespaces() is None:
            pytest.skip("this machine allows no file systems of their own")
        instance = world.sandbox.state["batch"]["instance_ids"][0]
        world.sandbox.fault("disk-full", what=what, instance=instance)

    return prepare


def filled_cache(world: World) -> None:
    names = world.names(EAST)
    with redis.Redis(names["cache_host"], names["cache_port"]) as cache:
        cache.flushdb()
        cache.mset({f"row:{number}": "x" for number in range(30)})


SECRET = "regami/session-key"
RESTORE = ("--tags", "restore")
FLEET = {"env": "sandbox_fleet"}
BLUE_GREEN = {"env": Web.ENV}
CLUSTER = {"env": "sandbox_kubernetes"}
ZONE = {"zone": "us-east-1b", "accept_healthy_zone": True}
RESTORED = (
    rf"^/{EAST}/(rds describe_db_instances|databases)/{PRIMARY}-restored",
    rf"^/{EAST}/rds describe_db_snapshots:.*{PRIMARY}-before-",
)
CASES = (
    Case("ecs", "emergency_scale", {"capacity": "+50%"}),
    Case("less", "emergency_scale", {"capacity": "-1"}),
    Case("api", "emergency_scale", {"capacity": "4", "strategy": "api"}),
    Case("asg", "emergency_scale", {**FLEET, "capacity": "+50%"}),
    Case("kubernetes", "emergency_scale", {**CLUSTER, "capacity": "+50%"}, prepare=pods_serve),
    Case("given back", "emergency_scale", flags=RESTORE, prepare=done("emergency_scale", capacity="+50%")),
    Case("block", "traffic", {"mode": "block", "allow_from": "127.0.0.9/32"}),
    Case("maintenance", "traffic", {"mode": "maintenance"}),
    Case(
        "restore",
        "traffic",
        {"mode": "restore"},
        prepare=closed,
        was_bad=True,
        # Closed again, at another time.
        stays=(r'/sre.runbooks/traffic: "blocked [\d:TZ-]+" -> "blocked [\d:TZ-]+"$',),
    ),
    Case("kubernetes", "traffic", {**CLUSTER, "mode": "maintenance"}, prepare=by_the_ingress),
    Case(
        "dns",
        "traffic",
        {"mode": "maintenance", "strategy": "dns", "maintenance_target": {"values": ["127.96.7.7"]}},
    ),
    Case("ecs", "rollback_deployment", prepare=ship),
    Case("alb", "rollback_deployment", {"strategy": "alb"}, prepare=green),
    Case("blue green", "rollback_deployment", BLUE_GREEN, prepare=ship_blue_green),
    Case("api", "rollback_deployment", {"strategy": "api"}, prepare=ship_and_keep),
    Case("asg", "rollback_deployment", FLEET, prepare=ship_to_the_fleet),
    Case(
        "kubernetes",
        "rollback_deployment",
        {**CLUSTER, "to_revision": 2},
        prepare=ship_pods,
        # By which the next rollback knows what was left, and does not go there again.
        stays=("/annotations/sre.runbooks/undo:",),
    ),
    Case("ecs", "zone_outage", ZONE),
    Case("asg", "zone_outage", {**FLEET, **ZONE}),
    Case("brought back", "zone_outage", {"zone": ZONE["zone"]}, RESTORE, prepare=done("zone_outage", **ZONE)),
    Case("variable", "emergency_replica", stays=(REVISION,)),
    Case(
        "back to the primary",
        "emergency_replica",
        flags=RESTORE,
        prepare=done("emergency_replica"),
        # A replica that is made again is another one, under the same name.
        stays=(REVISION, "-emergency/DbiResourceId: "),
    ),
    Case(
        "limit and raise",
        "db_connections",
        {"steps": "limit,raise", "even_if_enough": True, "connection_limit": 60, "max_connections": 150},
    ),
    Case("resize", "db_connections", {"steps": "resize", "even_if_enough": True, "db_instance_class": "db.r5.large"}),
    Case("bypass", "cache_failure", {"remedy": "bypass"}, stays=(REVISION,)),
    Case("use", "cache_failure", {"remedy": "use"}, prepare=done("cache_failure", remedy="bypass"), stays=(REVISION,)),
    Case("scale", "performance_degradation", {"remedy": "scale"}),
    Case("resize", "performance_degradation", {"remedy": "resize", "task_memory": 2048}, stays=(REVISION,)),
    Case("memory", "high_error_rate", {"remediate": True, "cause": "memory_leak"}, stays=(REVISION,)),
    Case("scale", "service_outage", prepare=nobody_serves, was_bad=True),
    Case(
        "policy",
        "s3_upload_failure",
        {"remediate": True},
        prepare=lambda world: world.sandbox.fault("uploads-denied", how="bucket"),
    ),
    Case("moment", "restore_objects", prepare=lost_objects),
    Case(
        "task definition",
        "restore_from_backup",
        {"switch": "task_definition"},
        prepare=a_moment,
        stays=(REVISION, *RESTORED),
    ),
    Case(
        "names", "restore_from_backup", {"switch": "rename", "accept_sessions": True}, prepare=a_moment, stays=RESTORED
    ),
    Case("isolate a pod", "security_breach", {**CLUSTER, "steps": "isolate"}, prepare=a_suspect, is_short=True),
    Case("isolate all", "security_breach", {**CLUSTER, "steps": "isolate", "isolate_all": True}, prepare=pods_serve),
    Case(
        "revoke",
        "security_breach",
        {"steps": "revoke", "principal": "user/deploy"},
        prepare=a_user,
        accepted={"accept_live_sessions": True},
    ),
    Case("deploy", "security_breach", {"steps": "deploy"}, prepare=the_image_before, stays=(REVISION,)),
    Case("keep users out", "security_breach", {"steps": "isolate", "cut_traffic": "blocked"}),
    Case(
        "instance",
        "contain_instance",
        FLEET,
        prepare=an_intruder,
        stays=(rf"^/{EAST}/ec2 describe_snapshots", "^/everywhere/buckets/"),
    ),
)

# What nothing takes back, and what the undo says.
REFUSED = (
    (Case("failover", "db_failover"), "playbooks/db_reprotect.yml, then playbooks/db_failover.yml with the other env"),
    (
        Case("promotion", "region_evacuation"),
        "playbooks/db_reprotect.yml, then playbooks/db_failover.yml with the other env",
    ),
    (
        Case("new replica", "db_reprotect", prepare=done("db_failover")),
        "delete the replica by hand where nobody wants it",
    ),
    (
        Case(
            "ended",
            "kill_queries",
            {"older_than": 0},
            prepare=lambda world: world.sandbox.fault("long-queries", count=2),
        ),
        "whoever needs it connects and asks again",
    ),
    (Case("sql", "schema_drift", prepare=reviewed_sql), "have the SQL that takes it back reviewed"),
    (Case("cleaned", "disk_full", prepare=full_disk("logs")), "what was removed is gone"),
    (Case("grown", "disk_full", prepare=full_disk("database")), "no volume becomes smaller"),
    (
        Case("flush", "cache_failure", {"remedy": "flush", "confirm_keys": 30}, prepare=filled_cache),
        "the application fills the cache again",
    ),
    (Case("restart", "performance_degradation", {"remedy": "restart"}), "so nothing is left to do"),
    (
        Case(
            "command",
            "rollback_deployment",
            {"strategy": "command", "rollback_command": {"argv": ["true", "{version}"]}, "rollback_version": "v2"},
        ),
        "the same command with the version before is the way back: -e rollback_version=V",
    ),
    (
        Case(
            "secret",
            "security_breach",
            {
                "steps": "rotate",
                "incident": "breach",
                "breach_secrets": [{"secret": SECRET, "values": [{"length": 40}]}],
            },
            prepare=a_secret,
        ),
        "rotate it anew, under another name",
    ),
    (
        Case(
            "given back",
            "security_release",
            {"principal": "user/deploy", "incident": "breach", "accept_live_sessions": True},
            prepare=revoked,
        ),
        "playbooks/security_breach.yml -e steps=revoke -e principal=ARN takes it away again",
    ),
    (
        Case("table and bucket", "bootstrap", {"lock_table": "new-locks", "record_bucket": "new-records"}),
        "aws dynamodb delete-table; ",
    ),
)
