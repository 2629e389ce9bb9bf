# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways in which database and standby are unready and no gate knows: readiness.yml names each, and the real playbook fails for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from readiness import Way, begin, look
from world import EAST, PRIMARY, REPLICA, WEST, World, wait_until

from sandbox.kubernetes import certificates

MOVES = ("db_failover", "region_evacuation")
# The run need not wait for tasks that never start.
IN_VAIN = {"start_timeout": 12}


def moves(level: str) -> dict[str, str]:
    return dict.fromkeys(MOVES, level)


def gated(words: str, mend: Callable[[World], Any]) -> Callable[[World], None]:
    """The proof that a failover refuses, fails half way where somebody has it go on, and goes on once it is mended."""

    def prove(world: World) -> None:
        refused(world, "db_failover", "cannot take over")
        run = world.runbook.run("db_failover", accept_missing=True, **IN_VAIN)
        assert run.returncode == 2 and run.mutations != [], run.output
        assert any(words in complaint for complaint in run.complaints), run.complaints
        mend(world)
        again = world.runbook.run("db_failover")
        assert again.returncode == 0, again.output

    return prove


# ---- 1 to 4: what the standby's tasks start with -------------------------------------------------------------------


def lose_image(world: World) -> None:
    world.sandbox.fault("image-gone", tag="v2", region=WEST)


def secret(world: World) -> dict[str, str]:
    return {"SecretId": world.names(WEST)["database_secret_arn"]}


def deploy_to_standby(world: World, change: Callable[[dict], None]) -> None:
    ecs, names = world.aws("ecs", WEST), world.names(WEST)
    known = ecs.describe_task_definition(taskDefinition=world.service(WEST)["taskDefinition"])["taskDefinition"]
    fields = ("family", "taskRoleArn", "executionRoleArn", "networkMode", "requiresCompatibilities", "cpu", "memory")
    request = {key: known[key] for key in (*fields, "containerDefinitions")}
    change(request["containerDefinitions"][0])
    made = ecs.register_task_definition(**request)["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster=names["cluster"], service=names["service"], taskDefinition=made)
    wait_until(lambda: world.is_settled(WEST), f"{made} is deployed")


def name_parameter(world: World) -> None:
    """The primary's region has it: somebody forgot the other."""
    put_parameter(world, EAST)
    arn = f"arn:aws:ssm:{WEST}:123456789012:parameter/regami/partner-token"
    deploy_to_standby(world, lambda container: container["secrets"].append({"name": "TOKEN", "valueFrom": arn}))


def put_parameter(world: World, region: str = WEST) -> None:
    world.aws("ssm", region).put_parameter(Name="/regami/partner-token", Value="x", Type="SecureString")


def forget_release(world: World) -> None:
    names = world.names(WEST)
    world.aws("ecs", WEST).update_service(
        cluster=names["cluster"], service=names["service"], taskDefinition="regami-api:1"
    )
    wait_until(lambda: world.is_settled(WEST), "the first revision is deployed")


def users_get_an_old_version(world: World) -> None:
    before = world.version(EAST)
    run = world.runbook.run("db_failover")
    assert run.returncode == 0, run.output
    assert (before, world.version(WEST)) == ("v2", "v1")


# ---- 5 and 6: the name ---------------------------------------------------------------------------------------------


def addressed(world: World, ttl: int, checked: tuple[str, ...]) -> None:
    """The name as a pair of plain addresses, kept for `ttl` seconds; the sets in `checked` have a health check."""
    route53, zone = world.aws("route53"), world.sandbox.state["hosted_zone_id"]
    old = [each for each in world.record_sets() if each["Name"] == "api.regami.test."]
    new = []
    for record, region in zip(sorted(old, key=lambda each: each["Failover"]), (EAST, WEST), strict=True):
        address, _, port = world.names(region)["alb_url"].removeprefix("http://").partition(":")
        config = {"Type": "HTTP", "IPAddress": address, "Port": int(port), "ResourcePath": "/health"}
        config |= {"RequestInterval": 30, "FailureThreshold": 3}
        check = route53.create_health_check(CallerReference=f"{region}-{ttl}", HealthCheckConfig=config)
        plain = {key: value for key, value in record.items() if key != "AliasTarget"}
        plain |= {"TTL": ttl, "ResourceRecords": [{"Value": address}]}
        if record["SetIdentifier"] in checked:
            plain["HealthCheckId"] = check["HealthCheck"]["Id"]
        new.append(plain)
    changes = [{"Action": "DELETE", "ResourceRecordSet": each} for each in old]
    changes += [{"Action": "CREATE", "ResourceRecordSet": each} for each in new]
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


def takes_longer_than_promised(world: World) -> None:
    run = world.runbook.run("db_failover")
    assert run.returncode == 0, run.output
    assert run.seconds > KEPT > PROMISED
    steps = [each for each in run.timeline if each["event"] == "step" and each["step"] == "Move the public name"]
    (moved,) = [each for each in steps if each["state"] == "changed"]
    assert moved["waited_seconds"] > KEPT - 2, moved


KEPT, PROMISED = 22, 20


# ---- 7: backups ----------------------------------------------------------------------------------------------------


def cannot_be_restored(world: World) -> None:
    a_moment_ago = (datetime.now(UTC) - timedelta(seconds=20)).isoformat()
    run = world.runbook.run("restore_from_backup", restore_time=a_moment_ago, restore_timeout=2)
    assert run.returncode == 2, run.output
    assert any("log" in complaint for complaint in run.complaints), run.complaints


def restores_again(world: World) -> None:
    cannot_be_restored(world)
    world.sandbox.heal()
    a_moment_ago = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    users = {"name": "users", "query": "SELECT count(*) FROM users", "at_least": 1}
    run = world.runbook.run("restore_from_backup", restore_time=a_moment_ago, restore_checks=[users])
    assert run.returncode == 0, run.output


# ---- 8: the replica ------------------------------------------------------------------------------------------------

LOST = 3


def lag_for_a_while(world: World) -> None:
    """Of a day in which it usually kept up."""
    now = datetime.now(UTC)
    dimensions = [{"Name": "DBInstanceIdentifier", "Value": REPLICA}]
    past = [
        {"MetricName": "ReplicaLag", "Dimensions": dimensions, "Timestamp": now - timedelta(minutes=ago), "Value": 0.0}
        for ago in range(5, 65)
    ]
    world.aws("cloudwatch", WEST).put_metric_data(Namespace="AWS/RDS", MetricData=past)
    fall_behind(world)
    world.sandbox.heal("replica-lag")
    world.stop_users()


def fall_behind(world: World) -> None:
    world.start_users()
    world.sandbox.fault("replica-lag")
    time.sleep(LOST + 4)  # so long must it last


def loses_more(world: World) -> None:
    fall_behind(world)
    world.sandbox.fault("primary-killed")
    run = world.runbook.run("db_failover", accept_data_loss_seconds=LOST)
    world.sandbox.control("load", action="stop")
    assert run.returncode == 2, run.output
    assert any(f"accept_data_loss_seconds={LOST}" in each or "lost" in each for each in run.complaints), run.complaints


# ---- 9 to 11: certificates -----------------------------------------------------------------------------------------

NAME = "api.regami.test"


@cache
def authority() -> tuple:
    return certificates.authority("regami test authority")


def secured(world: World, region: str, seconds: float = 86400 * 90, name: str = NAME) -> str:
    """Have the load balancer of a region serve HTTPS, with a certificate that ends in so many seconds; its ARN."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    key, certificate = certificates.signed(name, [x509.DNSName(name)], *authority(), until)
    names = world.names(region)
    pems = {"Certificate": certificates.pem(certificate), "PrivateKey": certificates.private(key)}
    elbv2 = world.aws("elbv2", region)
    there = elbv2.describe_listeners(LoadBalancerArn=names["load_balancer_arn"])["Listeners"]
    secure = next((each for each in there if each["Protocol"] == "HTTPS"), None)
    if secure:
        arn = secure["Certificates"][0]["CertificateArn"]
        return world.aws("acm", region).import_certificate(CertificateArn=arn, **pems)["CertificateArn"]
    arn = world.aws("acm", region).import_certificate(**pems)["CertificateArn"]
    elbv2.create_listener(
        LoadBalancerArn=names["load_balancer_arn"],
        Protocol="HTTPS",
        Port=443,
        Certificates=[{"CertificateArn": arn}],
        DefaultActions=[{"Type": "forward", "TargetGroupArn": names["target_group_arn"]}],
    )
    return arn


def by_https(world: World, folder: Path) -> dict[str, Any]:
    """What has a run ask the service by HTTPS, trusting the authority of its certificates."""
    (folder / "authority.pem").write_bytes(certificates.pem(authority()[1]))
    url = f"https://{NAME}:{world.sandbox.state['ports']['443']}/health?check=db"
    checks = [{"name": "health with the database", "url": url, "expect_json": {"database": "connected"}}]
    return {"smoke_tests": checks, "environment": {"SSL_CERT_FILE": str(folder / "authority.pem")}}


WAYS = [
    Way(
        "1 the image was not replicated to the standby's registry",
        spoil=lose_image,
        flagged=moves("not_ready"),
        check="standby_assess",
        resource="regami-service-secondary",
        because="regami-api:v2 of container app cannot be pulled",
        prove=gated("CannotPullContainerError", lambda world: world.sandbox.heal()),
    ),
    Way(
        "2 the secret of the standby is to be deleted",
        spoil=lambda world: world.aws("secretsmanager", WEST).delete_secret(RecoveryWindowInDays=7, **secret(world)),
        flagged=moves("not_ready"),
        check="standby_assess",
        resource="regami-service-secondary",
        because="is to be deleted and cannot be read",
        prove=gated(
            "unable to pull secrets",
            lambda world: world.aws("secretsmanager", WEST).restore_secret(**secret(world)),
        ),
    ),
    Way(
        "3 a parameter is in the primary's region only",
        spoil=name_parameter,
        flagged=moves("not_ready"),
        check="standby_assess",
        resource="regami-service-secondary",
        because="parameter /regami/partner-token in us-west-2 for TOKEN of container app is not there",
        prove=gated("invalid parameters: /regami/partner-token", put_parameter),
    ),
    Way(
        "4 a release never came to the standby",
        spoil=forget_release,
        flagged=moves("risk"),
        check="images",
        resource="regami-api:1",
        because="users would get",
        prove=users_get_an_old_version,
    ),
    Way(
        "5 the name is kept for longer than the recovery may take",
        spoil=lambda world: addressed(world, KEPT, ("primary", "secondary")),
        flagged=moves("not_ready"),
        check="dns",
        resource=NAME,
        because=f"resolvers keep its answer for {KEPT} s",
        prove=takes_longer_than_promised,
        said={"rto_seconds": PROMISED},
    ),
    Way(
        "6 the set of the standby has no health check",
        spoil=lambda world: addressed(world, 5, ("primary",)),
        flagged=moves("not_ready"),
        check="route53_failover",
        resource=NAME,
        because="has no health check",
        prove=lambda world: refused(world, "db_failover", "has no health check"),
    ),
    Way(
        "7 the newest backup is too old",
        spoil=lambda world: world.sandbox.fault("backups-old", days=2),
        flagged={"restore_from_backup": "not_ready"},
        check="backups",
        resource=PRIMARY,
        because="2 d ago",
        prove=restores_again,
    ),
    Way(
        "8 the replica was behind for longer than may be lost",
        spoil=lag_for_a_while,
        flagged=moves("risk"),
        check="replica_lag",
        resource=REPLICA,
        because=f"rpo_seconds promises {LOST} s",
        prove=loses_more,
        said={"rpo_seconds": LOST},
    ),
]


def refused(world: World, playbook: str, words: str) -> None:
    run = world.runbook.run(playbook)
    assert run.returncode == 2 and run.mutations == [], run.output
    assert any(words in complaint for complaint in run.complaints), run.complaints


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name.partition(" ")[0])
def test_a_way_of_being_unready_is_named_and_true(world: World, way: Way) -> None:
    way.show(world)


def test_a_backup_that_is_too_old_is_named_and_true(world: World) -> None:
    """Way 7, with one scenario looked at."""
    world.sandbox.fault("backups-old", days=2)
    seen = look(world, scenario="restore_from_backup")
    assert seen.flagged == {"restore_from_backup": "not_ready"}
    assert [each["check"] for each in seen.findings] == ["backups"] and seen.run.mutations == []
    cannot_be_restored(world)


@pytest.mark.soak
def test_a_certificate_that_has_expired_is_named_and_true(world: World, tmp_path: Path) -> None:
    """Ways 9 and 10: that of the standby, then that which users meet now. Both are served with it over TLS."""
    begin(world)
    for region in (EAST, WEST):
        secured(world, region)
    said = by_https(world, tmp_path)
    assert look(world, **said).flagged == {}

    ends = secured(world, WEST, seconds=1)
    wait_until(lambda: status(world, WEST, ends) == "EXPIRED", "the certificate has ended")
    seen = look(world, **said)
    assert seen.flagged == moves("not_ready"), seen.run.output
    (finding,) = seen.findings
    assert finding["check"] == "certificates" and "for api.regami.test has expired on" in finding["because"]
    failed = world.runbook.run("db_failover", **said)
    assert failed.returncode == 2 and "certificate has expired" in failed.output, failed.output
    secured(world, WEST)
    mended = world.runbook.run("db_failover", **said)
    assert mended.returncode == 0, mended.output


@pytest.mark.soak
def test_a_certificate_that_users_refuse_is_named_and_true(world: World, tmp_path: Path) -> None:
    """Way 10: it ends soon, which is a risk, and then has ended. Way 11: it is for another name."""
    begin(world)
    secured(world, EAST, seconds=86400 * 5)
    said = by_https(world, tmp_path)
    seen = look(world, **said)
    assert set(seen.flagged.values()) == {"risk"} and not seen.flagged.keys() & set(MOVES), seen.run.output
    assert ["expires on" in each["because"] for each in seen.findings] == [True]

    for ends, name, words in ((1, NAME, "has expired on"), (86400 * 90, "www.regami.test", "only for www.regami.test")):
        arn = secured(world, EAST, seconds=ends, name=name)
        if ends == 1:
            wait_until(lambda arn=arn: status(world, EAST, arn) == "EXPIRED", "the certificate has ended")
        seen = look(world, **said)
        # The standby's is good; but nobody gets to see a smoke test pass before the name has moved.
        assert {name for name, level in seen.flagged.items() if level == "risk"} == set(MOVES), seen.run.output
        assert set(seen.flagged.values()) == {"not_ready", "risk"}
        smoke, finding = sorted(seen.findings, key=lambda each: each["check"] == "certificates")
        assert finding["check"] == "certificates" and words in finding["because"]
        assert smoke["resource"] == "smoke tests" and "TLS failed" in smoke["because"]
        refused_by_users = world.runbook.run("recovery_validation", recovery_checks=[], performance_tests=[], **said)
        assert refused_by_users.returncode == 2 and "TLS failed" in refused_by_users.output
    secured(world, EAST)
    assert look(world, **said).flagged == {}


@pytest.mark.soak
def test_another_schema_in_a_database_of_its_own_is_named_and_true(world: World) -> None:
    """Way 12: the standby has a database of its own, which the last migration never came to."""
    begin(world)
    world.sandbox.fault("schema-drift")
    wait_until(lambda: schema(world, WEST) == schema(world, EAST), "the replica has it too")
    world.aws("rds", WEST).promote_read_replica(DBInstanceIdentifier=REPLICA)
    wait_until(lambda: world.takes_writes(WEST) and world.database(WEST)["DBInstanceStatus"] == "available", "promoted")
    world.sandbox.heal("schema-drift")
    seen = look(world, scenario="db_failover")
    assert seen.flagged == {"db_failover": "not_ready"}, seen.run.output
    found = {each["check"]: each for each in seen.findings}
    # Nor would it be promoted: the primary still takes writes.
    assert set(found) == {"rds_promote_replica", "schema"}, found
    finding = found["schema"]
    assert finding["resource"] == REPLICA
    assert f"is {schema(world, WEST)}, and that of {PRIMARY} is {schema(world, EAST)}" in finding["because"]
    page = {"name": "audit search", "url": f"{world.sandbox.state['public_url']}/v1/audit/search"}
    run = world.runbook.run("db_failover", accept_standalone=True, smoke_tests=[page])
    assert run.returncode == 2 and run.mutations != [], run.output
    assert "audit search" in run.output and "answered 400" in run.output


def schema(world: World, region: str) -> str:
    with world.session(region) as query:
        return query("SELECT version_num FROM alembic_version")[0][0]


def status(world: World, region: str, arn: str) -> str:
    return world.aws("acm", region).describe_certificate(CertificateArn=arn)["Certificate"]["Status"]
