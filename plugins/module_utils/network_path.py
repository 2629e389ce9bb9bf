# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether packets get from one place of a VPC to another and back, judged from what EC2's Describe calls say.

Pure, and of IPv4. EC2's Reachability Analyzer answers the same question, for money and in minutes; this one reads what an
on-call person reads (ec2-asg runbook, "For Network Issue") in the order in which a packet meets it, and names the rule that is
missing as the command that would add it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from .security_groups import covers

# Where clients take their own port from. https://docs.aws.amazon.com/vpc/latest/userguide/custom-network-acl.html
EPHEMERAL = (1024, 65535)
PROTOCOLS = {"tcp": "6", "udp": "17"}
ALL = "-1"
# What no route of the internet leads to. https://www.rfc-editor.org/rfc/rfc1918#section-3
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
# Rules of a network ACL that a person may write; the last one, "*", denies.
LAST_RULE = 32766
TARGETS = (
    "GatewayId",
    "NatGatewayId",
    "VpcPeeringConnectionId",
    "TransitGatewayId",
    "NetworkInterfaceId",
    "InstanceId",
    "LocalGatewayId",
    "CarrierGatewayId",
    "CoreNetworkArn",
)


@dataclass(frozen=True)
class End:
    """One side of a path.

    Attributes:
        address: an IPv4 address, or the CIDR block of the subnet where it may be any of it.
        vpc, subnet: None of what is in no VPC that can be seen.
        groups: ids of its security groups; None where none apply to it.
        is_public: whether it has a public address.
        addresses: those that it has now, by which flow logs name it.
    """

    name: str
    address: str
    vpc: str | None = None
    subnet: str | None = None
    groups: tuple | None = None
    is_public: bool = False
    addresses: frozenset = frozenset()

    @property
    def network(self):
        return ipaddress.ip_network(self.address)


@dataclass(frozen=True)
class Traffic:
    """What is to pass."""

    port: int
    protocol: str = "tcp"

    def __str__(self):
        return f"{self.protocol} {self.port}"


@dataclass(frozen=True)
class Network:
    """What EC2 says of the region, in its own shapes; None where it could not be read.

    Attributes:
        groups: {id: security group}.
        acls, tables: {subnet: network ACL}, {subnet: route table}.
        prefix_lists: {id: [CIDR block]}.
        ways: {id: state} of NAT gateways and peering connections.
        gateways: {vpc: id of its internet gateway}, and nats: {vpc: id of a NAT gateway that works}.
    """

    region: str
    groups: dict | None = None
    acls: dict | None = None
    tables: dict | None = None
    prefix_lists: dict = field(default_factory=dict)
    ways: dict = field(default_factory=dict)
    gateways: dict = field(default_factory=dict)
    nats: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Hop:
    """One thing that a packet meets; `open` is None where it cannot be seen. `fix` is the command that would open it."""

    at: str
    open: bool | None
    why: str
    fix: str | None = None


def judge_path(source, destination, traffic, network):
    """The hops of a path, there and back, in order; it is open where every one is."""
    apart = source.subnet is None or source.subnet != destination.subnet
    there, back = (traffic.port, traffic.port), EPHEMERAL
    hops = [_group(source, "egress", destination, traffic, network)]
    if apart:
        hops += [
            _acl(source, True, destination, traffic, there, network),
            _route(source, destination, network, answers=False),
            _acl(destination, False, source, traffic, there, network),
        ]
    # Security groups follow connections, so answers pass; network ACLs and routes know nothing of connections.
    hops.append(_group(destination, "ingress", source, traffic, network))
    if apart:
        hops += [
            _acl(destination, True, source, traffic, back, network),
            _route(destination, source, network, answers=True),
            _acl(source, False, destination, traffic, back, network),
        ]
    return [hop for hop in hops if hop is not None]


def is_open(hops):
    """True, False, or None where nothing is closed and something cannot be seen."""
    states = {hop.open for hop in hops}
    return False if False in states else None if None in states else True


# ---- security groups -------------------------------------------------------------------------------------------------


def _group(end, direction, other, traffic, network):
    """https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html"""
    if end.groups is None:
        return None
    inbound = direction == "ingress"
    way = "inbound" if inbound else "outbound"
    if network.groups is None or any(each not in network.groups for each in end.groups):
        return Hop(f"security group {', '.join(end.groups)} of {end.name}, {way}", None, "it cannot be read")
    at = f"security group {', '.join(_named(network.groups[each]) for each in end.groups)} of {end.name}, {way}"
    key = "IpPermissions" if inbound else "IpPermissionsEgress"
    for each in end.groups:
        for rule in network.groups[each].get(key, []):
            peer = covers(rule, traffic.port, traffic.protocol) and _peer(rule, other, network)
            if peer:
                return Hop(at, True, f"{each} lets {traffic} {'in from' if inbound else 'out to'} {peer}")
    peer, verb = _as_rule(other, end), "lets in" if inbound else "lets out"
    ports = f"IpProtocol={traffic.protocol},FromPort={traffic.port},ToPort={traffic.port}"
    permission = f"{ports},{'UserIdGroupPairs=[{GroupId=' if peer.startswith('sg-') else 'IpRanges=[{CidrIp='}{peer}}}]"
    return Hop(
        at,
        False,
        f"no rule {verb} {traffic} {'from' if inbound else 'to'} {peer}",
        f"aws ec2 authorize-security-group-{direction} --group-id {end.groups[0]} --ip-permissions '{permission}' "
        f"--region {network.region}",
    )


def _named(group):
    return f"{group['GroupId']} ({group.get('GroupName', '')})"


def _peer(rule, other, network):
    """What of a rule means the other end, None where nothing does."""
    for each in rule.get("UserIdGroupPairs", []):
        if each.get("GroupId") in (other.groups or ()):
            return each["GroupId"]
    for each in rule.get("IpRanges", []):
        if _holds(each["CidrIp"], other):
            return each["CidrIp"]
    for each in rule.get("PrefixListIds", []):
        if any(_holds(block, other) for block in network.prefix_lists.get(each["PrefixListId"], ())):
            return each["PrefixListId"]
    return None


def _holds(block, end):
    return end.network.subnet_of(ipaddress.ip_network(block, strict=False))


def _as_rule(other, end):
    """How a new rule names the other end: by its group, so that it holds for its next address too."""
    return other.groups[0] if other.groups and other.vpc == end.vpc else str(other.network)


# ---- network ACLs ----------------------------------------------------------------------------------------------------


def _acl(end, egress, other, traffic, ports, network):
    """The first rule that fits decides, for each port. https://docs.aws.amazon.com/vpc/latest/userguide/nacl-rules.html"""
    if end.subnet is None:
        return None
    way = "outbound" if egress else "inbound"
    acl = (network.acls or {}).get(end.subnet)
    if acl is None:
        return Hop(f"network ACL of {end.subnet}, {way}", None, "it cannot be read")
    number = _denying(acl, egress, other, traffic, ports)
    span = f"{ports[0]}" if ports[0] == ports[1] else f"{ports[0]} to {ports[1]}"
    at = f"network ACL {acl['NetworkAclId']} of {end.subnet}, {way}"
    what = f"{traffic.protocol} {span} {'to' if egress else 'from'} {other.network}"
    if number is None:
        return Hop(at, True, f"it allows {what}")
    denied = "no rule allows" if number > LAST_RULE else f"rule {number} denies"
    return Hop(at, False, f"{denied} {what}", _entry(acl, egress, other, traffic, ports, number, network))


def _denying(acl, egress, other, traffic, ports):
    """The number of the rule that denies any of `ports`; None where all of them are allowed."""
    left = [ports]
    for rule in _rules(acl, egress):
        if rule.get("Protocol") not in (ALL, PROTOCOLS[traffic.protocol]) or "CidrBlock" not in rule:
            continue
        if not _holds(rule["CidrBlock"], other):
            continue
        span = rule.get("PortRange") or {}
        first, last = span.get("From", 0), span.get("To", 65535)
        meets = [(low, high) for low, high in left if low <= last and first <= high]
        if meets and rule["RuleAction"] == "deny":
            return rule["RuleNumber"]
        left = [
            part
            for low, high in left
            for part in ((low, min(high, first - 1)), (max(low, last + 1), high))
            if part[0] <= part[1]
        ]
        if not left:
            return None
    return LAST_RULE + 1


def _rules(acl, egress):
    return sorted((rule for rule in acl["Entries"] if rule["Egress"] == egress), key=lambda rule: rule["RuleNumber"])


def _entry(acl, egress, other, traffic, ports, number, network):
    """A rule before the one that denies: at a free number, or in place of it where there is none."""
    taken = {rule["RuleNumber"] for rule in _rules(acl, egress)}
    free = next((each for each in range(number - 1, 0, -1) if each not in taken), None)
    action, place = ("replace", number) if free is None else ("create", free)
    if number > LAST_RULE and free is not None:
        # After what people wrote, where there is room, as they number them.
        after = max((each for each in taken if each <= LAST_RULE), default=0) // 10 * 10 + 10
        place = after if after <= LAST_RULE else free
    return (
        f"aws ec2 {action}-network-acl-entry --network-acl-id {acl['NetworkAclId']} --{'egress' if egress else 'ingress'} "
        f"--rule-number {place} --protocol {traffic.protocol} --port-range From={ports[0]},To={ports[1]} "
        f"--cidr-block {other.network} --rule-action allow --region {network.region}"
    )


# ---- routes ----------------------------------------------------------------------------------------------------------


def _route(end, other, network, answers):
    """The most specific route decides. https://docs.aws.amazon.com/vpc/latest/userguide/RouteTables.html"""
    if end.subnet is None:
        return None
    table = (network.tables or {}).get(end.subnet)
    if table is None:
        return Hop(f"route table of {end.subnet}", None, "it cannot be read")
    at = f"route table {table['RouteTableId']} of {end.subnet}"
    found = routes_to(table, other, network.prefix_lists)
    if not found:
        return Hop(at, False, f"it has no route to {other.network}", _new_route("create", end, other, table, network))
    route, name = found[0], _target(found[0])
    to = _to(route)
    if route.get("State") == "blackhole":
        why = f"the route to {to} leads to {name}, which is gone"
        live = next((each for each in found if each.get("State") != "blackhole"), None)
        if live:
            why += f"; without it {_to(live)} to {_target(live)} would do"
            flag = "--destination-prefix-list-id" if to.startswith("pl-") else "--destination-cidr-block"
            fix = f"aws ec2 delete-route --route-table-id {table['RouteTableId']} {flag} {to} --region {network.region}"
            return Hop(at, False, why, fix)
        return Hop(at, False, why, _new_route("replace", end, other, table, network, to))
    opened, why = _leads(end, other, name, network, answers)
    return Hop(
        at,
        opened,
        f"{to} goes to {name}{f', {why}' if why else ''}",
        # Of a gateway that is sound but does not serve this end another route would be no mending: it serves others.
        _new_route("replace", end, other, table, network, to)
        if opened is False and not answers and name in network.ways
        else None,
    )


def routes_to(table, other, prefix_lists):
    """The routes that hold all of an end, the most specific first; of equal ones one that a person wrote."""
    found = []
    for route in table["Routes"]:
        blocks = [route.get("DestinationCidrBlock")] if route.get("DestinationCidrBlock") else []
        blocks += prefix_lists.get(route.get("DestinationPrefixListId"), ())
        lengths = [ipaddress.ip_network(block, strict=False).prefixlen for block in blocks if _holds(block, other)]
        if lengths:
            found.append((-max(lengths), route.get("Origin") == "EnableVgwRoutePropagation", len(found), route))
    return [route for *_order, route in sorted(found, key=lambda each: each[:3])]


def _to(route):
    return route.get("DestinationCidrBlock") or route["DestinationPrefixListId"]


def _target(route):
    return next((route[key] for key in TARGETS if route.get(key)), "a target that is not known here")


def _leads(end, other, name, network, answers):
    """(open, why) of what a route leads to."""
    if name == "local" or name.startswith("vpce-"):
        return True, ""
    if name.startswith("igw-"):
        if any(_holds(block, other) for block in PRIVATE):
            return False, f"and {other.network} is no address of the internet"
        if not end.is_public:
            return False, f"and {end.name} has no public address"
        return True, ""
    if name.startswith("nat-"):
        if answers:
            return False, "through which nobody outside reaches it"
        state = network.ways.get(name)
        return (None, "whose state cannot be read") if state is None else (state == "available", f"which is {state}")
    if name.startswith("pcx-"):
        state = network.ways.get(name)
        return (None, "whose state cannot be read") if state is None else (state == "active", f"which is {state}")
    return None, "and what lies beyond is not seen from here"


def _new_route(action, end, other, table, network, to=None):
    """The command for a route by what the VPC has; None where it has nothing that would lead there."""
    if other.vpc is not None or any(_holds(block, other) for block in PRIVATE):
        return None
    way = (network.gateways if end.is_public else network.nats).get(end.vpc)
    if way is None:
        return None
    flag = "--gateway-id" if way.startswith("igw-") else "--nat-gateway-id"
    return (
        f"aws ec2 {action}-route --route-table-id {table['RouteTableId']} --destination-cidr-block {to or '0.0.0.0/0'} "
        f"{flag} {way} --region {network.region}"
    )
