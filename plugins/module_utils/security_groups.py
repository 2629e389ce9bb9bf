# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Security groups, and whom they let in."""

from __future__ import annotations


def let_in(aws, instance, region):
    """Lines for people, one for each rule that lets somebody in on the port of an `rds.instance()`; () lets nobody in."""
    if not instance["security_groups"] or not instance["port"]:
        return ()
    groups = aws.read("ec2", "describe_security_groups", region=region, GroupIds=instance["security_groups"])
    return tuple(
        f"{_ports(rule)} from {', '.join(sources)} ({group['GroupId']})"
        for group in groups["SecurityGroups"]
        for rule in group["IpPermissions"]
        if covers(rule, instance["port"]) and (sources := list(_sources(rule)))
    )


def all_groups(aws, filters):
    """The security groups that have these {filter of DescribeSecurityGroups: value}, in the verb's region."""
    asked = [{"Name": name, "Values": [value]} for name, value in filters.items()]
    return aws.read("ec2", "describe_security_groups", Filters=asked)["SecurityGroups"]


def not_there(aws, groups, region):
    """Those of these ids that the region has no security group of."""
    if not groups:
        return []
    asked = [{"Name": "group-id", "Values": list(groups)}]
    found = aws.read("ec2", "describe_security_groups", region=region, Filters=asked)["SecurityGroups"]
    return sorted(set(groups) - {each["GroupId"] for each in found})


def covers(rule, port, protocol="tcp"):
    """Whether a rule is about a port of `protocol`, tcp or udp."""
    return rule["IpProtocol"] == "-1" or (
        rule["IpProtocol"] == protocol and rule.get("FromPort", 0) <= port <= rule.get("ToPort", 65535)
    )


def _ports(rule):
    if rule["IpProtocol"] == "-1":
        return "all"
    first, last = rule.get("FromPort", 0), rule.get("ToPort", 65535)
    return f"tcp {first}" if first == last else f"tcp {first} to {last}"


def _sources(rule):
    for key, field in (
        ("UserIdGroupPairs", "GroupId"),
        ("IpRanges", "CidrIp"),
        ("Ipv6Ranges", "CidrIpv6"),
        ("PrefixListIds", "PrefixListId"),
    ):
        yield from (each[field] for each in rule.get(key, []))
