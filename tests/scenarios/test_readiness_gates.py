# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways of being unready that the verbs' own gates know: broken, each is named with every scenario that refuses for it and no other, and
the real playbook refuses."""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import readiness
import redis
from kube import Namespace
from readiness import ALL, look, refuses
from world import EAST, REPLICA, WEST, World, wait_until

from ansible_collections.sre.runbooks.plugins.module_utils import pace
from benchmarks.readiness import Rate, missing, rates

FLEET = "sandbox_fleet"
# A bucket in which evidence could be replaced.
OPEN_BUCKET = {"evidence_bucket": "regami-uploads"}


@dataclass(frozen=True)
class Gate:
    """A way of being unready.

    Attributes:
        spoil: breaks it.
        closed: {scenario: the checks that say why}; no other scenario is flagged.
        because: a regular expression that every finding matches, of its resource and its reason.
        prove: runs real playbooks and sees that they refuse.
        said: what else is said to readiness.yml.
        is_served: whether users are: if not, no smoke test passes, which is a risk of every scenario.
    """

    name: str
    spoil: Callable[[World], Any]
    closed: dict[str, set[str]]
    because: str
    prove: tuple[Callable[[World], None], ...]
    said: dict[str, str] = field(default_factory=dict)
    is_served: bool = True

    def show(self, world: World) -> None:
        readiness.begin(world)
        self.spoil(world)
        seen = look(world, **self.said)
        told = {scenario: list(said["findings"]) for (_host, scenario), said in seen.verdicts.items()}
        if not self.is_served:
            for found in told.values():
                found.remove(next(each for each in found if each["resource"] == "smoke tests"))
        gates = [each for found in told.values() for each in found]
        closed = seen.of_each(self.closed)
        assert {name: {each["check"] for each in found} for name, found in told.items() if found} == closed
        assert {name for name, level in seen.flagged.items() if level == "not_ready"} == closed.keys()
        assert not self.is_served or seen.flagged.keys() == closed.keys()
        for each in gates:
            assert re.search(self.because, f"{each['resource']}: {each['because']}") and each["fix"], each
        assert [call for call in seen.run.calls if call["mutation"]] == []
        for prove in self.prove:
            prove(world)


def instances(world: World) -> list[str]:
    """Of the fleet, those that serve."""
    name = world.sandbox.state["fleet"]["auto_scaling_group"]
    (group,) = world.aws("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return [each["InstanceId"] for each in group["Instances"] if each["LifecycleState"] == "InService"]


def await_fleet(world: World) -> None:
    wait_until(lambda: len(instances(world)) == 2, "the fleet serves")


def change_password(world: World) -> None:
    with world.session(EAST) as query:
        query("ALTER ROLE regami_admin PASSWORD 'another'")


def delete_standby(world: World) -> None:
    names = world.names(WEST)
    world.aws("ecs", WEST).delete_service(cluster=names["cluster"], service=names["service"], force=True)


def delete_table(world: World) -> None:
    world.aws("dynamodb", WEST).delete_table(TableName=world.sandbox.state["lock_table"])


def delete_balancer(world: World) -> None:
    world.aws("elbv2").delete_load_balancer(LoadBalancerArn=world.names(EAST)["load_balancer_arn"])


def delete_listeners(world: World) -> None:
    elbv2 = world.aws("elbv2")
    there = elbv2.describe_listeners(LoadBalancerArn=world.names(EAST)["load_balancer_arn"])["Listeners"]
    for each in there:
        elbv2.delete_listener(ListenerArn=each["ListenerArn"])


def delete_group(world: World) -> None:
    await_fleet(world)
    world.aws("ec2").delete_security_group(GroupId=world.names(EAST)["quarantine_security_group"])


def delete_record(world: World) -> None:
    name = world.sandbox.state["public_name"]
    (record,) = [
        each
        for each in world.record_sets()
        if each.get("SetIdentifier") == "secondary" and each["Name"].rstrip(".") == name.rstrip(".")
    ]
    world.aws("route53").change_resource_record_sets(
        HostedZoneId=world.sandbox.state["hosted_zone_id"],
        ChangeBatch={"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]},
    )


def delete_replica(world: World) -> None:
    world.aws("rds", WEST).delete_db_instance(DBInstanceIdentifier=REPLICA, SkipFinalSnapshot=True)
    wait_until(lambda: REPLICA not in world.databases(WEST), "the replica is gone")


def end_versioning(world: World) -> None:
    world.aws("s3").put_bucket_versioning(
        Bucket=world.names(EAST)["uploads_bucket"], VersioningConfiguration={"Status": "Suspended"}
    )


def fault(name: str, **details: Any) -> Callable[[World], None]:
    return lambda world: world.sandbox.fault(name, **details)


def contained(world: World) -> None:
    """No instance of the fleet can be cut off."""
    refuses("contain_instance", "there is no security group", env=FLEET, instance=instances(world)[0])(world)


WAYS = [
    Gate(
        "the password of the database was changed",
        change_password,
        {
            "db_failover": {"rds_promote_replica"},
            "emergency_scale": {"ecs_capacity"},
            "kill_queries": {"pg_kill_queries"},
            "performance_degradation": {"ecs_capacity"},
            "region_evacuation": {"rds_promote_replica"},
        },
        "lets regami_admin not in",
        (refuses("kill_queries", "lets regami_admin not in"), refuses("db_failover", "lets regami_admin not in")),
    ),
    Gate(
        "the standby service is gone",
        delete_standby,
        {
            "db_failover": {"standby_assess", "ecs_repoint", "ecs_scale"},
            "region_evacuation": {"standby_assess", "ecs_repoint", "ecs_scale"},
        },
        "regami-service-secondary was deleted",
        (refuses("db_failover", "regami-service-secondary was deleted"),),
    ),
    Gate(
        "the table of the leases is gone",
        delete_table,
        {ALL: {"incident_lock"}},
        "the lease table sre-incident-locks does not exist in us-west-2",
        (refuses("rollback_deployment", "the lease table sre-incident-locks does not exist"),),
    ),
    Gate(
        "the load balancer is gone",
        delete_balancer,
        {
            "security_breach": {"alb_traffic"},
            "traffic": {"alb_traffic"},
            "zone_outage": {"One zone, and enough without it"},
        },
        "there is no load balancer|nothing serves outside of",
        (
            refuses("traffic", "there is no load balancer", mode="block"),
            refuses("zone_outage", "nothing serves outside of", zone="us-east-1a", accept_healthy_zone=True),
        ),
        is_served=False,
    ),
    Gate(
        "the account has no room for more tasks",
        fault("quota", service="fargate", value=1),
        {"emergency_scale": {"ecs_capacity"}, "performance_degradation": {"ecs_capacity"}},
        "vCPUs of Fargate On-Demand, and 0 are left",
        (refuses("emergency_scale", "vCPUs of Fargate On-Demand, and 0 are left", capacity="+100%"),),
    ),
    Gate(
        "the security group for suspects is gone",
        delete_group,
        {"contain_instance": {"ec2_isolate"}},
        "there is no security group",
        (contained,),
        {"env": FLEET},
    ),
    Gate(
        "the bucket for evidence has no Object Lock",
        lambda _world: None,
        {"security_breach": {"evidence_bundle"}},
        "bucket regami-uploads has no Object Lock",
        (refuses("security_breach", "has no Object Lock", steps="evidence", incident="one", **OPEN_BUCKET),),
        OPEN_BUCKET,
    ),
    Gate(
        "uploads have no versions any more",
        end_versioning,
        {"restore_objects": {"s3_restore"}},
        "versioning of regami-uploads is suspended",
        (refuses("restore_objects", "versioning of regami-uploads is suspended", at="2026-11-01T00:00:00Z"),),
    ),
    Gate(
        "the agents of the workers are lost",
        fault("agent-lost"),
        {"disk_full": {"Room on every disk"}},
        "no answer from the agent",
        (refuses("disk_full", "no answer from the agent"),),
    ),
    Gate(
        "nothing listens any more",
        delete_listeners,
        {
            "security_breach": {"alb_traffic"},
            "traffic": {"alb_traffic"},
            "zone_outage": {"One zone, and enough without it"},
        },
        "has no listener|nothing serves outside of",
        (refuses("traffic", "regami-alb has no listener", mode="block"),),
        is_served=False,
    ),
    Gate(
        "the subnets are full",
        fault("subnets-full", left=1),
        {"zone_outage": {"ecs_zone"}},
        "take 2 free addresses of its subnets, and 1 are left",
        (refuses("zone_outage", "2 free addresses of its subnets", zone="us-east-1a", accept_healthy_zone=True),),
    ),
    Gate(
        "the replica is gone",
        delete_replica,
        {"db_failover": {"rds_promote_replica"}, "region_evacuation": {"rds_promote_replica"}},
        "there is no RDS instance regami-db-replica",
        (refuses("db_failover", "there is no RDS instance regami-db-replica"),),
    ),
    Gate(
        "the record of the standby is gone",
        delete_record,
        {"db_failover": {"route53_failover"}, "region_evacuation": {"route53_failover"}},
        "secondary",
        (refuses("db_failover", "secondary"),),
    ),
]


@pytest.mark.soak
@pytest.mark.parametrize("way", [pytest.param(each, id=each.name) for each in WAYS])
def test_a_gate_that_is_closed_is_named_and_the_playbook_refuses(world: World, way: Gate) -> None:
    way.show(world)


def rows_written(world: World) -> list[tuple]:
    """By anybody, in all tables of the database."""
    with world.session(EAST) as query:
        return query("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables ORDER BY relname")


def cache_commands(world: World) -> set[str]:
    """Those that the cache was ever sent."""
    here = world.names(EAST)
    with redis.Redis(here["cache_host"], here["cache_port"], socket_timeout=3) as client:
        return set(client.info("commandstats"))


def cluster_objects(world: World) -> dict[str, Any]:
    """What people and pipelines say of the objects of the cluster; what controllers say is theirs."""
    known = world.sandbox.state["kubernetes"]
    cluster = Namespace(known["kubeconfig"], known["context"], known["namespace"])
    kinds = {
        "/apis/apps/v1": ("deployments", "statefulsets", "daemonsets"),
        "/api/v1": ("secrets", "services", "configmaps"),
        "/apis/networking.k8s.io/v1": ("ingresses", "networkpolicies"),
    }
    return {
        f"{kind} {each['metadata']['name']}": {key: value for key, value in each.items() if key in ("spec", "data")}
        for api, names in kinds.items()
        for kind in names
        for each in cluster.call("GET", cluster.path(kind, api=api))["items"]
    }


@pytest.mark.soak
def test_asking_all_hosts_changes_nothing_anywhere(world: World) -> None:
    readiness.begin(world)
    await_fleet(world)
    before = [world.snapshot(), rows_written(world), cluster_objects(world), cache_commands(world)]
    for env in ("sandbox", FLEET, "sandbox_kubernetes", "sandbox_codedeploy"):
        seen = look(world, env=env)
        assert seen.run.returncode == 0 and seen.flagged == {}, seen.run.output
        assert seen.run.complaints == [], "nothing red where all is well"
        assert [call for call in seen.run.calls if call["mutation"]] == []
    *same, commands = before
    assert [world.snapshot(), rows_written(world), cluster_objects(world)] == same
    assert cache_commands(world) - commands <= {"cmdstat_ping", "cmdstat_info", "cmdstat_cluster|slots"}


def test_how_many_calls_would_have_been_throttled() -> None:
    assert missing([0.0] * 50, (50, 10)) == 0 and missing([0.0] * 53, (50, 10)) == 3
    assert missing([number / 10 for number in range(500)], (50, 10)) == 0
    assert missing([0.0] * 60 + [5.0] * 50, (50, 10)) == 10
    calls = [{"service": "ecs", "region": EAST, "time": at} for at in (1.1, 1.2, 2.5)]
    assert rates(calls) == [Rate("ecs", EAST, 3, 2, 0)]


def asks(number: int, tell: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _turn: (pace.keep("ecs", EAST), tell.put(time.monotonic())), range(number)))


def test_all_processes_of_a_look_together_keep_within_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    quota = (10, 100)
    monkeypatch.setattr(pace, "QUOTAS", {"ecs": quota})
    monkeypatch.setattr(pace, "_shared", None)
    pace.begin()
    forks = multiprocessing.get_context("fork")
    tell = forks.SimpleQueue()
    processes = [forks.Process(target=asks, args=(20, tell)) for _ in range(3)]
    began = time.monotonic()
    for each in processes:
        each.start()
    at = sorted(tell.get() for _ in range(60))
    for each in processes:
        each.join()
    assert missing(at, quota) == 0
    # No longer than it must be: those beyond the bucket, at the pace of the share.
    assert at[-1] - began > (60 - 8) / (pace.SHARE * 100) - 0.01
