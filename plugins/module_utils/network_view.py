# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies between ends of paths, read in two rounds of calls side by side."""

from __future__ import annotations

from .aws import reason, tried_together
from .network_path import Network


def look(aws, ends):
    """(Network, what could not be read: lines) of all `ends`."""
    vpcs = sorted({end.vpc for end in ends if end.vpc})
    subnets = sorted({end.subnet for end in ends if end.subnet})
    groups = sorted({group for end in ends for group in end.groups or ()})
    if not vpcs:
        return Network(aws.region, {}, {}, {}), []

    def described(operation, key, **arguments):
        return lambda: aws.read("ec2", operation, **arguments)[key]

    within = {"Filters": [{"Name": "vpc-id", "Values": vpcs}]}
    attached = {"Filters": [{"Name": "attachment.vpc-id", "Values": vpcs}]}
    looks = {
        "network ACLs": described("describe_network_acls", "NetworkAcls", **within),
        "route tables": described("describe_route_tables", "RouteTables", **within),
        "internet gateways": described("describe_internet_gateways", "InternetGateways", **attached),
        "NAT gateways": described("describe_nat_gateways", "NatGateways", **within),
    }
    if groups:
        looks["security groups"] = described("describe_security_groups", "SecurityGroups", GroupIds=groups)
    seen = {"security groups": [], **tried_together(looks)}
    more = _second_look(aws, seen, described)
    blind = [f"{name}: {reason(found)}" for name, found in {**seen, **more}.items() if isinstance(found, Exception)]
    seen, more = ({name: _or(found, None) for name, found in some.items()} for some in (seen, more))
    nats, peerings = seen["NAT gateways"] or [], more.pop("peering connections", None) or []
    return (
        Network(
            region=aws.region,
            groups=_by(seen["security groups"], "GroupId"),
            acls=seen["network ACLs"] and _by_subnet(seen["network ACLs"], subnets),
            tables=seen["route tables"] and _tables(seen["route tables"], ends),
            prefix_lists={name: found for name, found in more.items() if found is not None},
            ways={each["NatGatewayId"]: each["State"] for each in nats}
            | {each["VpcPeeringConnectionId"]: each["Status"]["Code"] for each in peerings},
            gateways={
                attachment["VpcId"]: each["InternetGatewayId"]
                for each in seen["internet gateways"] or []
                for attachment in each["Attachments"]
            },
            nats={each["VpcId"]: each["NatGatewayId"] for each in nats if each["State"] == "available"},
        ),
        blind,
    )


def _second_look(aws, seen, described):
    """{prefix list: [CIDR block]} of those that rules and routes name, and the peering connections."""
    tables, groups = (_or(seen[name], []) for name in ("route tables", "security groups"))
    routes = [route for table in tables for route in table["Routes"]]
    lists = {route["DestinationPrefixListId"] for route in routes if route.get("DestinationPrefixListId")} | {
        each["PrefixListId"]
        for group in groups
        for key in ("IpPermissions", "IpPermissionsEgress")
        for rule in group.get(key, [])
        for each in rule.get("PrefixListIds", [])
    }
    peerings = sorted({route["VpcPeeringConnectionId"] for route in routes if route.get("VpcPeeringConnectionId")})
    looks = {
        each: lambda each=each: [
            entry["Cidr"] for entry in aws.read("ec2", "get_managed_prefix_list_entries", PrefixListId=each)["Entries"]
        ]
        for each in sorted(lists)
    }
    if peerings:
        looks["peering connections"] = described(
            "describe_vpc_peering_connections", "VpcPeeringConnections", VpcPeeringConnectionIds=peerings
        )
    return tried_together(looks)


def _or(found, other):
    return other if isinstance(found, Exception) else found


def _by(found, key):
    return None if found is None else {each[key]: each for each in found}


def _by_subnet(acls, subnets):
    return {
        association["SubnetId"]: acl
        for acl in acls
        for association in acl["Associations"]
        if association["SubnetId"] in subnets
    }


def _tables(tables, ends):
    """A subnet has the table that it is associated with, else the main one of its VPC."""
    own, main = {}, {}
    for table in tables:
        for association in table["Associations"]:
            if association.get("Main"):
                main[table["VpcId"]] = table
            elif association.get("SubnetId"):
                own[association["SubnetId"]] = table
    found = {end.subnet: own.get(end.subnet) or main.get(end.vpc) for end in ends if end.subnet}
    return {subnet: table for subnet, table in found.items() if table}
