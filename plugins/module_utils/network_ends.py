# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where something is in the network: its subnets, security groups and addresses, whatever a person calls it by."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from . import dns, ecs, rds
from .aws import code_of, together
from .errors import Refusal
from .network_path import End

# Most interfaces that are asked for at once; the rest of a group is like these.
MOST = 100


@dataclass(frozen=True)
class Place:
    """What a person named: `ends` are the ways in which a packet may leave or reach it, `ports` those that it is asked on."""

    name: str
    ends: tuple
    ports: tuple = ()


def find(aws, text, dns_servers=()):
    """The Place that `text` names.

    Args:
        text: an address; the id of an instance or of an interface; a name that DNS knows; `service/CLUSTER/NAME` or
            `group/NAME` (an Auto Scaling group); the ARN of an ECS task or service, of a load balancer or of an RDS instance;
            else the name of an RDS instance or of a load balancer.
        dns_servers: who is asked for names; empty for the resolver of this machine.

    Raises:
        Refusal: there is nothing of that name, or it has no interface of its own.
    """
    kind = text.split(":")[2] if text.startswith("arn:") else ""
    tail = text.split(":")[-1]
    if re.fullmatch(r"[\d.]+", text):
        return _address(aws, text, text)
    if re.fullmatch(r"i-[0-9a-f]+", text):
        return _interfaces(aws, text, [{"Name": "attachment.instance-id", "Values": [text]}])
    if re.fullmatch(r"eni-[0-9a-f]+", text):
        return _interfaces(aws, text, [{"Name": "network-interface-id", "Values": [text]}])
    if kind == "ecs" and tail.startswith("task/"):
        return _task(aws, *text.rsplit("/", 2)[1:])
    if kind == "ecs" or text.startswith("service/"):
        return _service(aws, *tail.split("/")[-2:])
    if text.startswith("group/"):
        return _group(aws, text.removeprefix("group/"))
    if kind == "elasticloadbalancing":
        return _load_balancer(aws, {"LoadBalancerArns": [text]}, text)
    if kind == "rds":
        return _database(aws, tail)
    if ":" in text:
        raise Refusal(
            f"{text} is no place in a network that can be found: give an IPv4 address, an id, a name or an ARN"
        )
    if "." in text:
        return _named_by_dns(aws, text, dns_servers)
    return _plainly_named(aws, text)


def _plainly_named(aws, text):
    found = together(
        database=lambda: rds.describe(aws, text, aws.region),
        balancer=lambda: _balancers(aws, {"Names": [text]}),
    )
    if found["database"]:
        return _database(aws, text)
    if found["balancer"]:
        return _load_balancer(aws, {"Names": [text]}, text)
    raise Refusal(
        f"there is no RDS instance and no load balancer {text} in {aws.region}: write service/CLUSTER/NAME, group/NAME, an id, "
        f"an address or an ARN for anything else"
    )


# ---- by address ------------------------------------------------------------------------------------------------------


def _named_by_dns(aws, text, dns_servers):
    addresses = sorted(dns.resolve(text, dns_servers or (None,)))
    if not addresses:
        raise Refusal(f"the name {text} has no IPv4 address")
    found = together(**{each: lambda each=each: _address(aws, each, text) for each in addresses})
    return Place(text, tuple(end for place in found.values() for end in place.ends))


def _address(aws, address, name):
    """An address is that of an interface here, or one outside."""
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise Refusal(f"{address} is no IPv4 address") from error
    keys = ("addresses.private-ip-address", "association.public-ip")
    found = together(**{key: lambda key=key: _described(aws, [{"Name": key, "Values": [address]}]) for key in keys})
    here = [each for some in found.values() for each in some]
    if not here:
        return Place(name, (End(name, address, addresses=frozenset({address})),))
    return Place(name, tuple(_end(each, name) for each in here))


def _described(aws, filters):
    return aws.read("ec2", "describe_network_interfaces", Filters=filters)["NetworkInterfaces"]


def _end(interface, name):
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_NetworkInterface.html"""
    private = interface["PrivateIpAddress"]
    groups = tuple(each["GroupId"] for each in interface.get("Groups", []))
    return End(
        name,
        private,
        interface["VpcId"],
        interface["SubnetId"],
        groups or None,
        bool(interface.get("Association", {}).get("PublicIp")),
        frozenset(each["PrivateIpAddress"] for each in interface.get("PrivateIpAddresses", [])) | {private},
    )


def _interfaces(aws, name, filters):
    found = _described(aws, filters)[:MOST]
    if not found:
        raise Refusal(f"there is no network interface of {name} in {aws.region}")
    return Place(name, tuple(_end(each, name) for each in found))


# ---- by what runs there ----------------------------------------------------------------------------------------------


def _task(aws, cluster, task):
    found = aws.read("ecs", "describe_tasks", cluster=cluster, tasks=[task])["tasks"]
    ids = [
        _details(attachment).get("networkInterfaceId") for each in found for attachment in each.get("attachments", [])
    ]
    if not any(ids):
        raise Refusal(f"there is no task {task} in {cluster} with a network interface of its own: name its instance")
    return _interfaces(aws, f"task {task[:12]}", [{"Name": "network-interface-id", "Values": list(filter(None, ids))}])


def _details(attachment):
    return {each["name"]: each["value"] for each in attachment.get("details", [])}


def _service(aws, cluster, name):
    """By its network configuration, which holds for the next task too; its tasks tell the addresses of now.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-networking-awsvpc.html
    """
    found = together(
        entry=lambda: ecs.Service(aws, cluster, name).describe(),
        arns=lambda: aws.read("ecs", "list_tasks", cluster=cluster, serviceName=name)["taskArns"][:MOST],
    )
    entry = found["entry"]
    given = (entry.get("networkConfiguration") or _of_task_set(entry)).get("awsvpcConfiguration")
    if not given:
        raise Refusal(
            f"the tasks of {name} have no network interfaces of their own: name the instance that they run on"
        )
    tasks = aws.read("ecs", "describe_tasks", cluster=cluster, tasks=found["arns"])["tasks"] if found["arns"] else []
    addresses = frozenset(
        address
        for task in tasks
        for attachment in task.get("attachments", [])
        if (address := _details(attachment).get("privateIPv4Address"))
    )
    ends = _in_subnets(
        aws,
        name,
        given["subnets"],
        tuple(given.get("securityGroups", [])) or None,
        given.get("assignPublicIp") == "ENABLED",
        addresses,
    )
    return Place(name, ends, tuple(dict.fromkeys(each["containerPort"] for each in entry.get("loadBalancers", []))))


def _of_task_set(entry):
    """A service of CodeDeploy keeps it in its task sets."""
    return next(
        (each["networkConfiguration"] for each in entry.get("taskSets", []) if "networkConfiguration" in each), {}
    )


def _in_subnets(aws, name, subnets, groups, is_public, addresses):
    described = aws.read("ec2", "describe_subnets", SubnetIds=list(subnets))["Subnets"]
    return tuple(
        End(name, each["CidrBlock"], each["VpcId"], each["SubnetId"], groups, is_public, addresses)
        for each in sorted(described, key=lambda each: each["SubnetId"])
    )


def _group(aws, name):
    found = aws.read("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[name])["AutoScalingGroups"]
    ids = [each["InstanceId"] for group in found for each in group["Instances"]][:MOST]
    if not ids:
        raise Refusal(f"there is no Auto Scaling group {name} with instances in {aws.region}")
    arns = [arn for group in found for arn in group.get("TargetGroupARNs", [])]
    parts = together(
        place=lambda: _interfaces(aws, name, [{"Name": "attachment.instance-id", "Values": ids}]),
        targets=lambda: (
            aws.read("elbv2", "describe_target_groups", TargetGroupArns=arns)["TargetGroups"] if arns else []
        ),
    )
    return Place(name, parts["place"].ends, tuple(sorted({each["Port"] for each in parts["targets"]})))


def _balancers(aws, which):
    try:
        return aws.read("elbv2", "describe_load_balancers", **which)["LoadBalancers"]
    except Exception as error:
        if code_of(error) == "LoadBalancerNotFound":
            return []
        raise


def _load_balancer(aws, which, text):
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-update-security-groups.html"""
    found = _balancers(aws, which)
    if not found:
        raise Refusal(f"there is no load balancer {text} in {aws.region}")
    balancer = found[0]
    arn = balancer["LoadBalancerArn"]
    parts = together(
        ends=lambda: _in_subnets(
            aws,
            balancer["LoadBalancerName"],
            [each["SubnetId"] for each in balancer["AvailabilityZones"]],
            tuple(balancer.get("SecurityGroups") or []) or None,
            balancer.get("Scheme") == "internet-facing",
            frozenset(),
        ),
        listeners=lambda: aws.read("elbv2", "describe_listeners", LoadBalancerArn=arn)["Listeners"],
    )
    return Place(
        balancer["LoadBalancerName"],
        parts["ends"],
        tuple(sorted({each["Port"] for each in parts["listeners"]})),
    )


def _database(aws, name):
    """It is in a subnet of its Availability Zone. A standby in another one takes over with the same groups."""
    found = next(rds.pages(aws, "describe_db_instances", "DBInstances", aws.region, DBInstanceIdentifier=name), None)
    if found is None:
        raise rds.not_found(aws, name, aws.region)
    listed = (found.get("DBSubnetGroup") or {}).get("Subnets", [])
    own = [each for each in listed if each["SubnetAvailabilityZone"]["Name"] == found.get("AvailabilityZone")] or listed
    endpoint = found.get("Endpoint") or {}
    host = endpoint.get("Address", "")
    if not own:
        raise Refusal(f"{name} is in no subnet that RDS tells")
    ends = _in_subnets(
        aws,
        name,
        [each["SubnetIdentifier"] for each in own],
        tuple(each["VpcSecurityGroupId"] for each in found.get("VpcSecurityGroups", [])) or None,
        bool(found.get("PubliclyAccessible")),
        frozenset({host} if re.fullmatch(r"[\d.]+", host) else ()),
    )
    return Place(name, ends, (endpoint["Port"],) if endpoint.get("Port") else ())
