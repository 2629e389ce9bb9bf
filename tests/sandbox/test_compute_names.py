# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Route 53, its name servers and the routing controls."""

from __future__ import annotations

import boto3
import dns.query
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from compute_helpers import EAST, WEST, dig, facts, update, wait_healthy
from core_helpers import wait_until
from hypothesis import given
from hypothesis import strategies as st

from sandbox.routing import Zone

EAST_ALB, WEST_ALB = "127.0.1.10", "127.0.2.10"


@pytest.fixture(scope="module", autouse=True)
def first_state(sandbox):
    """For the tests that change nothing: they come first."""
    sandbox.reset()


def records(sandbox, name="api.regami.test"):
    found = sandbox.boto("route53").list_resource_record_sets(
        HostedZoneId=sandbox.state["hosted_zone_id"], StartRecordName=name
    )
    return [each for each in found["ResourceRecordSets"] if each["Name"] == f"{name}."]


def change(sandbox, *changes):
    """(action, record set) pairs as one batch."""
    return sandbox.boto("route53").change_resource_record_sets(
        HostedZoneId=f"/hostedzone/{sandbox.state['hosted_zone_id']}",
        ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record} for action, record in changes]},
    )["ChangeInfo"]


def plain(name, value="10.0.0.1", **more):
    return {"Name": name, "Type": "A", "TTL": 5, "ResourceRecords": [{"Value": value}], **more}


def test_seeded_names(sandbox):
    for name in ("api.regami.test", "weighted.regami.test", "arc.regami.test", facts(sandbox, EAST)["alb_dns_name"]):
        for over in (dns.query.udp, dns.query.tcp):
            assert dig(sandbox, name, over=over) == [EAST_ALB], name
    assert dig(sandbox, facts(sandbox, WEST)["alb_dns_name"]) == [WEST_ALB]
    assert dig(sandbox, "nothing.regami.test") == []
    assert dig(sandbox, "example.com") == []


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (lambda p, s: [("UPSERT", {**s, "Failover": "PRIMARY"})], "InvalidChangeBatch", "failover PRIMARY"),
        (lambda p, s: [("UPSERT", {**p, "Failover": "SECONDARY"})], "InvalidChangeBatch", "failover SECONDARY"),
        (lambda p, s: [("CREATE", p)], "InvalidChangeBatch", "but it already exists"),
        (lambda p, s: [("DELETE", {**p, "SetIdentifier": "x"})], "InvalidChangeBatch", "but it was not found"),
        (
            lambda p, s: [("DELETE", {**p, "Failover": "SECONDARY"})],
            "InvalidChangeBatch",
            "but the values provided do not match the current values",
        ),
        (lambda p, s: [("CREATE", plain("api.regami.test"))], "InvalidChangeBatch", "other RRSets exist"),
        (
            lambda p, s: [("CREATE", plain("x.regami.test", SetIdentifier="x", Failover="PRIMARY"))],
            "InvalidChangeBatch",
            "must have an associated health check",
        ),
        (lambda p, s: [("CREATE", plain("x.example.com"))], "InvalidChangeBatch", "is not permitted in zone"),
        (
            lambda p, s: [("UPSERT", {**p, "AliasTarget": {**p["AliasTarget"], "HostedZoneId": "Z2P70J7EXAMPLE"}})],
            "InvalidChangeBatch",
            "does not lie within the target zone",
        ),
        (lambda p, s: [("CREATE", {"Name": "x.regami.test", "Type": "A"})], "InvalidInput", "but found none"),
        (
            lambda p, s: [
                ("CREATE", plain("x.regami.test", SetIdentifier="x", Failover="PRIMARY", HealthCheckId="no"))
            ],
            "NoSuchHealthCheck",
            "No health check exists",
        ),
    ],
)
def test_batch_is_refused_whole(sandbox, changes, code, message):
    before = records(sandbox)
    with pytest.raises(ClientError, match=message) as caught:
        change(sandbox, ("CREATE", plain("new.regami.test")), *changes(*before))
    assert caught.value.response["Error"]["Code"] == code
    assert records(sandbox) == before
    assert records(sandbox, "new.regami.test") == []


def test_unknown_zone_and_change(sandbox):
    route53 = sandbox.boto("route53")
    with pytest.raises(route53.exceptions.NoSuchHostedZone):
        route53.list_resource_record_sets(HostedZoneId="Z0000000000000")
    with pytest.raises(route53.exceptions.NoSuchChange):
        route53.get_change(Id="C0000000000000")


def test_swap_in_one_batch_is_served_when_in_sync(fresh_sandbox):
    update(fresh_sandbox, WEST, desiredCount=1)
    wait_healthy(fresh_sandbox, WEST, 1)
    primary, secondary = records(fresh_sandbox)
    made = change(
        fresh_sandbox,
        ("UPSERT", {**primary, "Failover": "SECONDARY"}),
        ("UPSERT", {**secondary, "Failover": "PRIMARY"}),
    )
    assert made["Status"] == "PENDING"
    assert dig(fresh_sandbox, "api.regami.test") == [EAST_ALB]
    route53 = fresh_sandbox.boto("route53")
    wait_until(lambda: route53.get_change(Id=made["Id"])["ChangeInfo"]["Status"] == "INSYNC", "INSYNC")
    assert dig(fresh_sandbox, "api.regami.test") == [WEST_ALB]


def test_unhealthy_primary_is_answered_by_the_secondary(fresh_sandbox):
    update(fresh_sandbox, WEST, desiredCount=1)
    wait_healthy(fresh_sandbox, WEST, 1)
    update(fresh_sandbox, EAST, desiredCount=0)
    wait_until(lambda: dig(fresh_sandbox, "api.regami.test") == [WEST_ALB], "failover by health")
    # Weight 0 counts only when nothing else is healthy.
    assert dig(fresh_sandbox, "weighted.regami.test") == [WEST_ALB]
    update(fresh_sandbox, WEST, desiredCount=0)
    wait_until(lambda: dig(fresh_sandbox, "api.regami.test") == [EAST_ALB], "with nothing healthy, the primary")


def test_record_sets_are_listed_from_a_start_in_pages(fresh_sandbox):
    """By the labels from the right; other parts of the sandbox have names of their own."""
    change(fresh_sandbox, ("CREATE", plain("a.z.regami.test")), ("CREATE", plain("b.regami.test")))
    route53, zone, seen, start = fresh_sandbox.boto("route53"), fresh_sandbox.state["hosted_zone_id"], [], {}
    while True:
        page = route53.list_resource_record_sets(HostedZoneId=zone, MaxItems="1", **start)
        seen += page["ResourceRecordSets"]
        if not page["IsTruncated"]:
            break
        names = {"Name": "StartRecordName", "Type": "StartRecordType", "Identifier": "StartRecordIdentifier"}
        start = {ours: page[f"NextRecord{part}"] for part, ours in names.items() if f"NextRecord{part}" in page}
    assert seen == route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    ours = [(each["Name"].removesuffix("regami.test."), each.get("SetIdentifier", each["Type"])) for each in seen]
    expected = [("", "NS"), ("", "SOA")]
    expected += [(name, which) for name in ("api.", "arc.") for which in ("primary", "secondary")]
    expected += [("b.", "A"), ("weighted.", "primary"), ("weighted.", "secondary"), ("a.z.", "A")]
    assert [each for each in ours if each in expected] == expected


def cluster_endpoint(sandbox, number):
    endpoint = sandbox.state["routing"]["cluster_endpoints"][number - 1]
    session = boto3.Session(aws_access_key_id="sandbox", aws_secret_access_key="sandbox")
    return session.client(
        "route53-recovery-cluster",
        region_name=endpoint["region"],
        endpoint_url=endpoint["endpoint_url"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def entries(sandbox, **states):
    controls = sandbox.state["routing"]["controls"]
    return [
        {"RoutingControlArn": controls[region.replace("_", "-")], "RoutingControlState": state}
        for region, state in states.items()
    ]


def test_routing_controls_move_the_name(fresh_sandbox):
    assert len(fresh_sandbox.state["routing"]["cluster_endpoints"]) == 5
    cluster = cluster_endpoint(fresh_sandbox, 5)
    cluster.update_routing_control_states(
        UpdateRoutingControlStateEntries=entries(fresh_sandbox, us_east_1="Off", us_west_2="On")
    )
    other = cluster_endpoint(fresh_sandbox, 2)
    states = {
        each["RoutingControlName"]: each["RoutingControlState"]
        for each in other.list_routing_controls()["RoutingControls"]
    }
    assert states == {"regami-us-east-1": "Off", "regami-us-west-2": "On"}
    assert dig(fresh_sandbox, "arc.regami.test") == [WEST_ALB]


def test_safety_rule_keeps_one_control_on(fresh_sandbox):
    cluster, off = cluster_endpoint(fresh_sandbox, 1), entries(fresh_sandbox, us_east_1="Off")[0]
    with pytest.raises(cluster.exceptions.ConflictException):
        cluster.update_routing_control_state(**off)
    assert dig(fresh_sandbox, "arc.regami.test") == [EAST_ALB]
    rule = fresh_sandbox.state["routing"]["safety_rule"]
    cluster.update_routing_control_state(**off, SafetyRulesToOverride=[rule])
    state = cluster.get_routing_control_state(RoutingControlArn=off["RoutingControlArn"])
    assert state["RoutingControlState"] == "Off"


def test_one_cluster_endpoint_fails_alone(fresh_sandbox):
    fresh_sandbox.fault("arc-endpoint", number=2)
    control = fresh_sandbox.state["routing"]["controls"][EAST]
    for number in range(1, 6):
        cluster = cluster_endpoint(fresh_sandbox, number)
        if number == 2:
            with pytest.raises(cluster.exceptions.EndpointTemporarilyUnavailableException):
                cluster.get_routing_control_state(RoutingControlArn=control)
        else:
            assert cluster.get_routing_control_state(RoutingControlArn=control)["RoutingControlState"] == "On"


def test_http_health_check_moves_a_plain_pair(fresh_sandbox):
    state, route53 = fresh_sandbox.state, fresh_sandbox.boto("route53")
    check = route53.create_health_check(
        CallerReference="test",
        HealthCheckConfig={
            "Type": "HTTP",
            "IPAddress": EAST_ALB,
            "Port": state["http_port"],
            "ResourcePath": "/health",
            "FailureThreshold": 1,
        },
    )["HealthCheck"]["Id"]
    change(
        fresh_sandbox,
        ("CREATE", plain("x.regami.test", "10.0.0.1", SetIdentifier="a", Failover="PRIMARY", HealthCheckId=check)),
        ("CREATE", plain("x.regami.test", "10.0.0.2", SetIdentifier="b", Failover="SECONDARY")),
    )
    wait_until(lambda: dig(fresh_sandbox, "x.regami.test") == ["10.0.0.1"], "a new health check starts healthy")
    route53.update_health_check(HealthCheckId=check, Inverted=True)
    assert dig(fresh_sandbox, "x.regami.test") == ["10.0.0.2"]
    route53.update_health_check(HealthCheckId=check, Inverted=False)
    update(fresh_sandbox, EAST, desiredCount=0)
    wait_until(lambda: dig(fresh_sandbox, "x.regami.test") == ["10.0.0.2"], "the check fails")


class Record:
    def __init__(self, address, **more):
        self.name, self.type, self.ttl, self.records = "x.test.", "A", 1, [address]
        self.failover = self.weight = self.health_check_id = self.alias_target = self.multi_value_answer = None
        self.__dict__.update(more)


class Around:
    def __init__(self, failing):
        self.failing = failing

    def balancer(self, dns_name):
        return None

    def is_passing(self, health_check_id):
        return health_check_id not in self.failing


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5))
def test_weighted_records_answer_whatever_their_health(shares):
    some = [Record(str(n), weight=weight, health_check_id=n + 1) for n, (weight, _) in enumerate(shares)]
    failing = {n + 1 for n, (_, healthy) in enumerate(shares) if not healthy}
    chosen = int(Zone(some, Around(failing), 1).answer("x.test.", "A")[0].values[0])
    weight, healthy = shares[chosen]
    assert healthy or not any(each for _, each in shares)
    assert weight or not any(each for each, good in shares if good == healthy)
