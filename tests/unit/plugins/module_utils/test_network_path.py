# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What closes a way, and the command that opens it: one network, broken in one place at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import network_path
from ansible_collections.sre.runbooks.plugins.module_utils.network_path import (
    End,
    Network,
    Traffic,
    is_open,
    judge_path,
    routes_to,
)

SQL, HTTPS = Traffic(5432), Traffic(443)
APP = End("app", "10.0.1.0/24", "vpc-1", "subnet-a", ("sg-app",))
DATABASE = End("db", "10.0.2.7", "vpc-1", "subnet-b", ("sg-db",))
PARTNER = End("partner", "203.0.113.9")
EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def tcp(port: int, **peer: list) -> dict:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peer}


def entry(number: int, egress: bool, action: str, block: str = "0.0.0.0/0", ports: tuple | None = None) -> dict:
    span = {"PortRange": {"From": ports[0], "To": ports[1]}} if ports else {}
    protocol = "6" if ports else "-1"
    return {
        "RuleNumber": number,
        "Egress": egress,
        "RuleAction": action,
        "CidrBlock": block,
        "Protocol": protocol,
        **span,
    }


def acl(name: str) -> dict:
    entries = [entry(100, way, "allow") for way in (True, False)] + [entry(32767, way, "deny") for way in (True, False)]
    return {"NetworkAclId": name, "Entries": entries}


def table(name: str, *more: dict) -> dict:
    local = {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active"}
    return {"RouteTableId": name, "Routes": [local, *more]}


def way(block: str, state: str = "active", **target: str) -> dict:
    return {"DestinationCidrBlock": block, "State": state, **target}


@pytest.fixture
def network() -> Network:
    """An application behind a NAT gateway, and its database."""
    out = way("0.0.0.0/0", NatGatewayId="nat-1")
    return Network(
        region="us-east-1",
        groups={
            "sg-app": {"GroupId": "sg-app", "GroupName": "app", "IpPermissionsEgress": [EVERYTHING]},
            "sg-db": {
                "GroupId": "sg-db",
                "GroupName": "db",
                "IpPermissions": [tcp(5432, UserIdGroupPairs=[{"GroupId": "sg-app"}])],
                "IpPermissionsEgress": [],
            },
        },
        acls={"subnet-a": acl("acl-a"), "subnet-b": acl("acl-b")},
        tables={"subnet-a": table("rtb-a", out), "subnet-b": table("rtb-b")},
        ways={"nat-1": "available"},
        gateways={"vpc-1": "igw-1"},
        nats={"vpc-1": "nat-1"},
    )


def closed(hops: list) -> tuple[str, str, str | None]:
    """Where, why and what would open it, of the one hop that is closed."""
    (hop,) = [hop for hop in hops if hop.open is False]
    return hop.at, hop.why, hop.fix


def test_an_open_path_names_what_lets_it_pass(network: Network) -> None:
    hops = judge_path(APP, DATABASE, SQL, network)
    assert is_open(hops)
    assert [hop.at for hop in hops] == [
        "security group sg-app (app) of app, outbound",
        "network ACL acl-a of subnet-a, outbound",
        "route table rtb-a of subnet-a",
        "network ACL acl-b of subnet-b, inbound",
        "security group sg-db (db) of db, inbound",
        "network ACL acl-b of subnet-b, outbound",
        "route table rtb-b of subnet-b",
        "network ACL acl-a of subnet-a, inbound",
    ]
    # Answers need no rule of a security group: that of the database lets nothing out.
    assert hops[4].why == "sg-db lets tcp 5432 in from sg-app"


def test_within_one_subnet_only_security_groups_count(network: Network) -> None:
    near = replace(DATABASE, subnet="subnet-a", address="10.0.1.9")
    assert [hop.at.split()[0] for hop in judge_path(APP, near, SQL, network)] == ["security", "security"]


def test_a_rule_that_was_removed_is_named_by_the_group_of_the_other_end(network: Network) -> None:
    network.groups["sg-db"]["IpPermissions"] = [tcp(5433, UserIdGroupPairs=[{"GroupId": "sg-app"}])]
    at, why, fix = closed(judge_path(APP, DATABASE, SQL, network))
    assert (at, why) == ("security group sg-db (db) of db, inbound", "no rule lets in tcp 5432 from sg-app")
    assert fix == (
        "aws ec2 authorize-security-group-ingress --group-id sg-db --ip-permissions "
        "'IpProtocol=tcp,FromPort=5432,ToPort=5432,UserIdGroupPairs=[{GroupId=sg-app}]' --region us-east-1"
    )


@pytest.mark.parametrize(
    ("rule", "opened"),
    [
        (tcp(5432, IpRanges=[{"CidrIp": "10.0.1.0/24"}]), True),
        (tcp(5432, IpRanges=[{"CidrIp": "10.0.0.0/8"}]), True),
        (tcp(5432, IpRanges=[{"CidrIp": "10.0.1.0/25"}]), False),  # only half of the subnet
        (tcp(5432, PrefixListIds=[{"PrefixListId": "pl-1"}]), True),
        (EVERYTHING, True),
        ({"IpProtocol": "udp", "FromPort": 5432, "ToPort": 5432, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, False),
        ({"IpProtocol": "tcp", "FromPort": 5000, "ToPort": 6000, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, True),
    ],
)
def test_rules_of_every_kind(network: Network, rule: dict, opened: bool) -> None:
    network.groups["sg-db"]["IpPermissions"] = [rule]
    assert is_open(judge_path(APP, DATABASE, SQL, replace(network, prefix_lists={"pl-1": ["10.0.0.0/20"]}))) is opened


def test_what_may_not_leave_does_not_arrive(network: Network) -> None:
    network.groups["sg-app"]["IpPermissionsEgress"] = [tcp(443, IpRanges=[{"CidrIp": "0.0.0.0/0"}])]
    at, why, fix = closed(judge_path(APP, DATABASE, SQL, network))
    assert (at, why) == ("security group sg-app (app) of app, outbound", "no rule lets out tcp 5432 to sg-db")
    assert "authorize-security-group-egress --group-id sg-app" in fix
    partner = closed(judge_path(APP, PARTNER, Traffic(80), network))
    assert "IpRanges=[{CidrIp=203.0.113.9/32}]" in partner[2]


def test_a_network_acl_that_denies_gets_a_rule_before_it(network: Network) -> None:
    network.acls["subnet-b"]["Entries"].append(entry(90, False, "deny", "10.0.1.0/24", (5432, 5432)))
    at, why, fix = closed(judge_path(APP, DATABASE, SQL, network))
    assert at == "network ACL acl-b of subnet-b, inbound"
    assert why == "rule 90 denies tcp 5432 from 10.0.1.0/24"
    assert fix == (
        "aws ec2 create-network-acl-entry --network-acl-id acl-b --ingress --rule-number 89 --protocol tcp "
        "--port-range From=5432,To=5432 --cidr-block 10.0.1.0/24 --rule-action allow --region us-east-1"
    )
    network.acls["subnet-b"]["Entries"][-1]["RuleNumber"] = 1
    assert (
        "replace-network-acl-entry --network-acl-id acl-b --ingress --rule-number 1 "
        in closed(judge_path(APP, DATABASE, SQL, network))[2]
    )


def test_a_network_acl_must_let_answers_out_on_every_port_that_clients_take(network: Network) -> None:
    network.acls["subnet-b"]["Entries"] = [
        entry(100, False, "allow"),
        entry(100, True, "allow", ports=(1024, 40000)),
        entry(110, True, "allow", ports=(40002, 65535)),
        entry(32767, True, "deny"),
    ]
    at, why, fix = closed(judge_path(APP, DATABASE, SQL, network))
    assert at == "network ACL acl-b of subnet-b, outbound"
    assert why == "rule 32767 denies tcp 1024 to 65535 to 10.0.1.0/24".replace("rule 32767 denies", "no rule allows")
    assert "--egress --rule-number 120 " in fix and "From=1024,To=65535" in fix
    network.acls["subnet-b"]["Entries"][2] = entry(110, True, "allow", ports=(40001, 65535))
    assert is_open(judge_path(APP, DATABASE, SQL, network))


def test_the_most_specific_route_decides(network: Network) -> None:
    gone = way("203.0.113.0/24", "blackhole", TransitGatewayId="tgw-1")
    network.tables["subnet-a"]["Routes"].append(gone)
    _at, why, fix = closed(judge_path(APP, PARTNER, HTTPS, network))
    assert why == ("the route to 203.0.113.0/24 leads to tgw-1, which is gone; without it 0.0.0.0/0 to nat-1 would do")
    assert fix == (
        "aws ec2 delete-route --route-table-id rtb-a --destination-cidr-block 203.0.113.0/24 --region us-east-1"
    )


def test_a_gateway_that_was_deleted_leaves_a_black_hole(network: Network) -> None:
    network.tables["subnet-a"]["Routes"][1]["State"] = "blackhole"
    _at, why, fix = closed(judge_path(APP, PARTNER, HTTPS, replace(network, nats={"vpc-1": "nat-2"})))
    assert why == "the route to 0.0.0.0/0 leads to nat-1, which is gone"
    assert fix.startswith(
        "aws ec2 replace-route --route-table-id rtb-a --destination-cidr-block 0.0.0.0/0 --nat-gateway-id nat-2"
    )


@pytest.mark.parametrize(
    ("routes", "end", "opened", "part"),
    [
        ([], APP, False, "it has no route to 203.0.113.9/32"),
        ([way("0.0.0.0/0", GatewayId="igw-1")], APP, False, "app has no public address"),
        ([way("0.0.0.0/0", GatewayId="igw-1")], replace(APP, is_public=True), True, "0.0.0.0/0 goes to igw-1"),
        ([way("0.0.0.0/0", NatGatewayId="nat-1")], APP, True, "0.0.0.0/0 goes to nat-1"),
        ([way("0.0.0.0/0", NatGatewayId="nat-9")], APP, None, "whose state cannot be read"),
        ([way("0.0.0.0/0", TransitGatewayId="tgw-1")], APP, None, "what lies beyond is not seen from here"),
        (
            [{"DestinationPrefixListId": "pl-s3", "GatewayId": "vpce-1", "State": "active"}],
            APP,
            True,
            "pl-s3 goes to vpce-1",
        ),
    ],
)
def test_ways_out(network: Network, routes: list, end: End, opened: bool | None, part: str) -> None:
    network.tables["subnet-a"] = table("rtb-a", *routes)
    hops = judge_path(end, PARTNER, HTTPS, replace(network, prefix_lists={"pl-s3": ["203.0.113.0/24"]}))
    assert is_open(hops) is opened
    assert part in next(hop.why for hop in hops if hop.at.startswith("route table"))


def test_an_office_is_not_reached_over_the_internet(network: Network) -> None:
    network.tables["subnet-a"] = table("rtb-a", way("0.0.0.0/0", GatewayId="igw-1"))
    office = End("office", "192.168.7.4")
    _at, why, fix = closed(judge_path(replace(APP, is_public=True), office, HTTPS, network))
    assert (why, fix) == ("0.0.0.0/0 goes to igw-1, and 192.168.7.4/32 is no address of the internet", None)


def test_a_nat_gateway_that_failed(network: Network) -> None:
    _at, why, _fix = closed(judge_path(APP, PARTNER, HTTPS, replace(network, ways={"nat-1": "failed"})))
    assert why == "0.0.0.0/0 goes to nat-1, which is failed"


def test_from_the_internet_only_what_has_a_public_address_is_reached(network: Network) -> None:
    network.groups["sg-app"]["IpPermissions"] = [EVERYTHING]
    _at, why, _fix = closed(judge_path(PARTNER, APP, HTTPS, network))
    assert why == "0.0.0.0/0 goes to nat-1, through which nobody outside reaches it"
    network.tables["subnet-a"] = table("rtb-a", way("0.0.0.0/0", GatewayId="igw-1"))
    assert is_open(judge_path(PARTNER, replace(APP, is_public=True), HTTPS, network))


def test_another_vpc_is_reached_by_peering_in_both_directions(network: Network) -> None:
    far = End("far", "10.9.0.4", "vpc-2", "subnet-far", ("sg-far",))
    peered = replace(
        network,
        groups={**network.groups, "sg-far": {"GroupId": "sg-far", "IpPermissions": [EVERYTHING]}},
        acls={**network.acls, "subnet-far": acl("acl-far")},
        tables={
            "subnet-a": table("rtb-a", way("10.9.0.0/16", VpcPeeringConnectionId="pcx-1")),
            "subnet-far": {"RouteTableId": "rtb-far", "Routes": [way("10.9.0.0/16", GatewayId="local")]},
        },
        ways={"pcx-1": "active"},
    )
    at, why, fix = closed(judge_path(APP, far, SQL, peered))
    assert (at, why, fix) == ("route table rtb-far of subnet-far", "it has no route to 10.0.1.0/24", None)
    peered.tables["subnet-far"]["Routes"].append(way("10.0.0.0/16", VpcPeeringConnectionId="pcx-1"))
    assert is_open(judge_path(APP, far, SQL, peered))
    assert is_open(judge_path(APP, far, SQL, replace(peered, ways={"pcx-1": "deleted"}))) is False


def test_what_cannot_be_read_leaves_the_verdict_open_to_the_rest(network: Network) -> None:
    blind = replace(network, acls=None, tables=None)
    assert is_open(judge_path(APP, DATABASE, SQL, blind)) is None
    network.groups["sg-db"]["IpPermissions"] = []
    assert is_open(judge_path(APP, DATABASE, SQL, replace(network, acls=None))) is False
    assert is_open(judge_path(APP, DATABASE, SQL, replace(network, groups=None))) is None


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=8))
def test_a_route_is_never_less_specific_than_another_that_fits(given_routes: list[tuple[int, bool]]) -> None:
    routes = [
        way(f"10.0.2.7/{length}", "active" if live else "blackhole", GatewayId="x") for length, live in given_routes
    ]
    found = routes_to({"Routes": routes}, DATABASE, {})
    lengths = [int(route["DestinationCidrBlock"].rpartition("/")[2]) for route in found]
    assert lengths == sorted((length for length, _live in given_routes), reverse=True)


@given(st.lists(st.tuples(st.integers(1, 65535), st.integers(1, 65535), st.booleans()), max_size=6), st.data())
def test_an_acl_decides_each_port_by_the_first_rule_that_holds_it(spans: list, data: st.DataObject) -> None:
    entries = [
        entry(number, False, "allow" if allow else "deny", ports=(min(a, b), max(a, b)))
        for number, (a, b, allow) in enumerate(spans, 1)
    ]
    rules = {"NetworkAclId": "acl", "Entries": [*entries, entry(32767, False, "deny")]}
    low = data.draw(st.integers(1, 65535))
    high = data.draw(st.integers(low, min(65535, low + 50)))

    def allowed(port: int) -> bool:
        first = next((rule for rule in entries if rule["PortRange"]["From"] <= port <= rule["PortRange"]["To"]), None)
        return first is not None and first["RuleAction"] == "allow"

    denying = network_path._denying(rules, False, APP, SQL, (low, high))
    assert (denying is None) == all(allowed(port) for port in range(low, high + 1))


def test_nothing_is_changed_by_judging(network: Network) -> None:
    before = copy.deepcopy(network)
    judge_path(APP, DATABASE, SQL, network)
    assert network == before
