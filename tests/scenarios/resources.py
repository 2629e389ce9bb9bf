# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every resource of both regions, of the cluster and in the databases, as a person would find it; and in what two such looks differ.

What differs between two looks at the same state is left out by its name, here, and nothing else is.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg2
from botocore.exceptions import ClientError
from kube import Namespace
from world import EAST, WEST, World

# Times, ids and counters that AWS and Kubernetes make anew for the same thing.
MADE_UP = {
    "ResponseMetadata",
    # times
    "AttachTime",
    "AutomaticFailoverTime",
    "CreateTime",
    "CreatedTime",
    "CreationDate",
    "CreationTime",
    "InstanceCreateTime",
    "LastAccessedDate",
    "LastChangedDate",
    "LastModified",
    "LatestRestorableTime",
    "LaunchTime",
    "StartTime",
    "StateTransitionReason",
    "StateUpdatedTimestamp",
    "UpdateDate",
    "createdAt",
    "creationTimestamp",
    "currentServiceDeployment",
    "currentServiceRevisions",
    "lastModified",
    "managedFields",
    "registeredAt",
    "rolloutStateReason",
    "stabilityStatusAt",
    "stateUpdatedTime",
    "updatedAt",
    # what went on, and what a service says about it
    "Activities",
    "events",
    "lastAttemptedDeployment",
    "lastSuccessfulDeployment",
    "targetRevision",
    "StateReason",
    "StateReasonData",
    "StateValue",
    # ids and counters
    "AmiLaunchIndex",
    "AvailableIpAddressCount",
    "ClientToken",
    "MacAddress",
    "RevisionId",
    "RoleLastUsed",
    "clusterIP",
    "clusterIPs",
    "generation",
    "observedGeneration",
    "resourceVersion",
    "uid",
}
# What a list is sorted into, by the first of these that all of its items have, each another.
NAMES = (
    "RuleArn",
    "ListenerArn",
    "TargetGroupArn",
    "LoadBalancerArn",
    "serviceArn",
    "PolicyName",
    "AutoScalingGroupName",
    "DBInstanceIdentifier",
    "DBSnapshotIdentifier",
    "DBParameterGroupName",
    "ParameterName",
    "GroupId",
    "InstanceId",
    "SnapshotId",
    "LaunchTemplateId",
    "ResourceId",
    "RoleName",
    "UserName",
    "SecretId",
    "AlarmName",
    "ReplicationGroupId",
    "CacheClusterId",
    "Bucket",
    "Name",
    "name",
    "Key",
    "key",
)


def everything(world: World) -> dict[str, Any]:
    """A tree of dictionaries whose leaves are what can change."""
    found: dict[str, Any] = {region: _region(world, region) for region in (EAST, WEST)}
    found["everywhere"] = _everywhere(world)
    found["cluster"] = _cluster(world)
    return json.loads(json.dumps(found, default=str, sort_keys=True))


def steady(world: World) -> dict[str, Any]:
    """`everything`, once a second look finds the same: what sleeps until somebody asks for it wakes at the first."""
    found = everything(world)
    for _look in range(20):
        time.sleep(0.5)
        before, found = found, everything(world)
        if before == found:
            return found
    raise AssertionError("\n".join(["it does not come to rest:", *differences(before, found)]))


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """`path: before -> after` for each place in which they differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for name in sorted(before.keys() | after.keys())
            for line in differences(before.get(name), after.get(name), f"{path}/{name}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [line for at, pair in enumerate(pairs) for line in differences(*pair, f"{path}/{at}")]
    return [] if before == after else [f"{path}: {_short(before)} -> {_short(after)}"]


def left(before: Any, after: Any, stays: Iterable[str]) -> list[str]:
    """The differences that no pattern of `stays` is meant for, and the patterns that no difference is there for."""
    found = differences(before, after)
    unmet = [pattern for pattern in stays if not any(re.search(pattern, line) for line in found)]
    return [line for line in found if not any(re.search(pattern, line) for pattern in stays)] + unmet


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else f"{text[:200]}..."


def tidy(value: Any) -> Any:
    """Without what is made up; lists by name where their items have one, else in an order of their own where order means nothing."""
    if isinstance(value, dict):
        return {name: tidy(each) for name, each in value.items() if name not in MADE_UP}
    if not isinstance(value, list):
        return value
    items = [tidy(each) for each in value]
    for name in NAMES:
        keys = [str(each[name]) if isinstance(each, dict) and name in each else None for each in items]
        if items and None not in keys and len(set(keys)) == len(keys):
            return dict(zip(keys, items, strict=True))
    return sorted(items, key=lambda each: json.dumps(each, default=str, sort_keys=True))


def _all(client: Any, operation: str, key: str, **arguments: Any) -> list:
    """Of all pages."""
    if client.can_paginate(operation):
        pages = client.get_paginator(operation).paginate(**arguments)
        return [each for page in pages for each in page.get(key, [])]
    return getattr(client, operation)(**arguments).get(key, [])


def _or_none(ask: Callable[[], Any]) -> Any:
    """What is not there is a state, too."""
    try:
        return ask()
    except ClientError as error:
        return error.response["Error"]["Code"]


# One call each, whose answer tells it all: service, operation, key of its answer, arguments.
LISTS = (
    ("autoscaling", "describe_policies", "ScalingPolicies", {}),
    ("autoscaling", "describe_scheduled_actions", "ScheduledUpdateGroupActions", {}),
    ("application-autoscaling", "describe_scalable_targets", "ScalableTargets", {"ServiceNamespace": "ecs"}),
    ("application-autoscaling", "describe_scaling_policies", "ScalingPolicies", {"ServiceNamespace": "ecs"}),
    ("application-autoscaling", "describe_scheduled_actions", "ScheduledActions", {"ServiceNamespace": "ecs"}),
    ("cloudwatch", "describe_alarms", "MetricAlarms", {}),
    ("ec2", "describe_launch_template_versions", "LaunchTemplateVersions", {"Versions": ["$Latest", "$Default"]}),
    ("ec2", "describe_network_acls", "NetworkAcls", {}),
    ("ec2", "describe_route_tables", "RouteTables", {}),
    ("ec2", "describe_security_groups", "SecurityGroups", {}),
    ("ec2", "describe_snapshots", "Snapshots", {"OwnerIds": ["self"]}),
    ("ec2", "describe_subnets", "Subnets", {}),
    ("elasticache", "describe_replication_groups", "ReplicationGroups", {}),
    ("elasticache", "describe_cache_clusters", "CacheClusters", {}),
    ("rds", "describe_db_clusters", "DBClusters", {}),
    ("rds", "describe_db_instances", "DBInstances", {}),
    ("rds", "describe_db_snapshots", "DBSnapshots", {"SnapshotType": "manual"}),
)


def _region(world: World, region: str) -> dict[str, Any]:
    found = {
        f"{service} {operation}": tidy(_all(world.aws(service, region), operation, key, **arguments))
        for service, operation, key, arguments in LISTS
    }
    return found | {
        "services": dict(_services(world, region)),
        "task definitions": sorted(_all(world.aws("ecs", region), "list_task_definitions", "taskDefinitionArns")),
        "balancers": tidy(list(_balancers(world, region))),
        "target groups": tidy(list(_target_groups(world, region))),
        "groups": dict(_groups(world, region)),
        "instances": _nameless(_instances(world, region)),
        "volumes": _nameless(_all(world.aws("ec2", region), "describe_volumes", "Volumes")),
        "parameters": {name: tidy(parameters) for name, parameters in _parameters(world, region)},
        "secrets": dict(_secrets(world, region)),
        "databases": {name: _database(world, region, name) for name in world.databases(region)},
        "zonal shifts": _zonal_shifts(world, region),
        "deployment groups": tidy(list(_deployment_groups(world, region))),
    }


# An instance that took the place of another is what that was, under ids and addresses of its own.
IDS = re.compile(r"\b(i|vol|eni|eni-attach|r)-[0-9a-f]{8,17}\b|\b(ec2|ip)?-?\d{1,3}([.-])\d{1,3}\3\d{1,3}\3\d{1,3}\b")


def _nameless(values: Iterable[Any]) -> list:
    return sorted((json.loads(IDS.sub("...", json.dumps(tidy(each), default=str))) for each in values), key=json.dumps)


def _services(world: World, region: str) -> Iterator[tuple[str, dict]]:
    """With what their tasks are, not who: those that run now have been started at any time."""
    ecs = world.aws("ecs", region)
    for cluster in _all(ecs, "list_clusters", "clusterArns"):
        arns = _all(ecs, "list_services", "serviceArns", cluster=cluster)
        for start in range(0, len(arns), 10):
            asked = {"cluster": cluster, "services": arns[start : start + 10], "include": ["TAGS"]}
            for service in ecs.describe_services(**asked)["services"]:
                name = service["serviceName"]
                tasks = _all(ecs, "list_tasks", "taskArns", cluster=cluster, serviceName=name)
                described = ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"] if tasks else []
                for each in service.get("deployments", []) + service.get("taskSets", []):
                    each.pop("id", None), each.pop("taskSetArn", None), each.pop("externalId", None)
                service["tasks"] = sorted(
                    f"{task['taskDefinitionArn'].rpartition('/')[2]} in {task.get('availabilityZone')} {task['lastStatus']}"
                    for task in described
                )
                running = ecs.describe_task_definition(taskDefinition=service["taskDefinition"], include=["TAGS"])
                service["definition"] = {key: running[key] for key in ("taskDefinition", "tags") if key in running}
                yield name, tidy(service)


def _tags(elbv2: Any, arn: str) -> dict[str, str]:
    found = elbv2.describe_tags(ResourceArns=[arn])["TagDescriptions"]
    return {tag["Key"]: tag["Value"] for each in found for tag in each["Tags"]}


def _balancers(world: World, region: str) -> Iterator[dict]:
    elbv2 = world.aws("elbv2", region)
    for balancer in _all(elbv2, "describe_load_balancers", "LoadBalancers"):
        arn = balancer["LoadBalancerArn"]
        listeners = _all(elbv2, "describe_listeners", "Listeners", LoadBalancerArn=arn)
        for listener in listeners:
            listener["Tags"] = _tags(elbv2, listener["ListenerArn"])
            listener["Rules"] = _all(elbv2, "describe_rules", "Rules", ListenerArn=listener["ListenerArn"])
            for rule in listener["Rules"]:
                # A rule that was taken away and made again has another ARN; its place is its priority.
                rule["Tags"] = _tags(elbv2, rule.pop("RuleArn"))
        attributes = elbv2.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
        yield balancer | {"Tags": _tags(elbv2, arn), "Listeners": listeners, "Attributes": attributes}


def _target_groups(world: World, region: str) -> Iterator[dict]:
    """With how many of their targets are in which state; a target is a task or an instance, whose address says nothing."""
    elbv2 = world.aws("elbv2", region)
    for group in _all(elbv2, "describe_target_groups", "TargetGroups"):
        arn = group["TargetGroupArn"]
        health = elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        states = sorted(each["TargetHealth"]["State"] for each in health)
        attributes = elbv2.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
        yield group | {"Targets": states, "Tags": _tags(elbv2, arn), "Attributes": attributes}


def _groups(world: World, region: str) -> Iterator[tuple[str, dict]]:
    """Auto Scaling groups with what their instances are, not who."""
    for group in _all(world.aws("autoscaling", region), "describe_auto_scaling_groups", "AutoScalingGroups"):
        group["Instances"] = sorted(
            f"{each['LifecycleState']} {each['HealthStatus']} {each.get('AvailabilityZone')} {each.get('LaunchTemplate')}"
            for each in group["Instances"]
        )
        yield group["AutoScalingGroupName"], tidy(group)


PROTECTIONS = ("disableApiTermination", "disableApiStop", "instanceInitiatedShutdownBehavior")


def _instances(world: World, region: str) -> Iterator[dict]:
    """Those that live, with what protects them."""
    ec2 = world.aws("ec2", region)
    for reservation in _all(ec2, "describe_instances", "Reservations"):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] != "terminated":
                asked = {"InstanceId": instance["InstanceId"]}
                kept = {name: ec2.describe_instance_attribute(**asked, Attribute=name) for name in PROTECTIONS}
                yield instance | {"protections": kept}


def _parameters(world: World, region: str) -> Iterator[tuple[str, list]]:
    """What people have set."""
    rds = world.aws("rds", region)
    for group in _all(rds, "describe_db_parameter_groups", "DBParameterGroups"):
        name = group["DBParameterGroupName"]
        yield name, _all(rds, "describe_db_parameters", "Parameters", DBParameterGroupName=name, Source="user")


def _secrets(world: World, region: str) -> Iterator[tuple[str, dict]]:
    """Which value is current, as its hash."""
    manager = world.aws("secretsmanager", region)
    for secret in _all(manager, "list_secrets", "SecretList"):
        value = _or_none(lambda secret=secret: manager.get_secret_value(SecretId=secret["ARN"])["SecretString"])
        yield secret["Name"], {"value": hashlib.sha256(str(value).encode()).hexdigest(), "tags": secret.get("Tags")}


def _database(world: World, region: str, name: str) -> Any:
    """What is in it beside rows: settings of roles and of the server, tables; None where it does not answer."""
    try:
        with world.session(region, name=name) as query:
            return {
                "roles": query("SELECT rolname, rolcanlogin, rolconnlimit FROM pg_roles ORDER BY 1"),
                "settings": query("SELECT setdatabase, setrole::regrole, setconfig FROM pg_db_role_setting ORDER BY 2"),
                "max_connections": query("SHOW max_connections"),
                "columns": query(
                    "SELECT table_name, column_name, data_type FROM information_schema.columns"
                    " WHERE table_schema = 'public' ORDER BY 1, 2"
                ),
                "takes writes": world.takes_writes(region, name),
            }
    except psycopg2.OperationalError:
        return None


def _zonal_shifts(world: World, region: str) -> dict:
    """The weights of the zones of each load balancer."""
    shifting = world.aws("arc-zonal-shift", region)
    arns = [
        each["LoadBalancerArn"] for each in _all(world.aws("elbv2", region), "describe_load_balancers", "LoadBalancers")
    ]
    asked = {arn: _or_none(lambda arn=arn: shifting.get_managed_resource(resourceIdentifier=arn)) for arn in arns}
    return {arn: each.get("appliedWeights") if isinstance(each, dict) else each for arn, each in asked.items()}


def _deployment_groups(world: World, region: str) -> Iterator[dict]:
    codedeploy = world.aws("codedeploy", region)
    for application in _all(codedeploy, "list_applications", "applications"):
        for name in _all(codedeploy, "list_deployment_groups", "deploymentGroups", applicationName=application):
            asked = {"applicationName": application, "deploymentGroupName": name}
            yield codedeploy.get_deployment_group(**asked)["deploymentGroupInfo"] | {"name": f"{application}/{name}"}


def _everywhere(world: World) -> dict[str, Any]:
    iam = world.aws("iam")
    account = iam.get_account_authorization_details(Filter=["User", "Role", "LocalManagedPolicy"])
    keys = {
        user["UserName"]: {
            key["AccessKeyId"]: key["Status"]
            for key in iam.list_access_keys(UserName=user["UserName"])["AccessKeyMetadata"]
        }
        for user in account["UserDetailList"]
    }
    lists = ("UserDetailList", "RoleDetailList", "Policies")
    return {
        "account": {name: tidy(account[name]) for name in lists},
        "keys": keys,
        "records": tidy(world.record_sets()),
        "health checks": tidy(_all(world.aws("route53"), "list_health_checks", "HealthChecks")),
        "buckets": dict(_buckets(world)),
        "lease": (world.lease() or {"run": "released"})["run"],
    }


def _buckets(world: World) -> Iterator[tuple[str, dict]]:
    """What users find in them, and who may."""
    s3 = world.aws("s3", EAST)
    for bucket in s3.list_buckets()["Buckets"]:
        asked = {"Bucket": bucket["Name"]}
        policy = _or_none(lambda asked=asked: json.loads(s3.get_bucket_policy(**asked)["Policy"]))
        objects = {each["Key"]: each["ETag"] for each in _all(s3, "list_objects_v2", "Contents", **asked)}
        hidden = [
            each["Key"] for each in _all(s3, "list_object_versions", "DeleteMarkers", **asked) if each["IsLatest"]
        ]
        yield bucket["Name"], {"policy": policy, "objects": objects, "hidden": sorted(hidden)}


KINDS = (
    ("/apis/apps/v1", ("deployments", "statefulsets", "daemonsets")),
    ("/apis/autoscaling/v2", ("horizontalpodautoscalers",)),
    ("/apis/networking.k8s.io/v1", ("ingresses", "networkpolicies")),
    ("/api/v1", ("services", "configmaps", "secrets")),
)
# What the controller writes on a Deployment: which of its ReplicaSets it is at.
REVISION = "deployment.kubernetes.io/revision"


def _cluster(world: World) -> dict[str, Any]:
    """The team's namespace, with what its pods are, not who."""
    known = world.sandbox.state["kubernetes"]
    space = Namespace(known["kubeconfig"], known["context"], known["namespace"])
    found = {}
    for api, kinds in KINDS:
        for kind in kinds:
            items = space.call("GET", space.path(kind, api=api))["items"]
            for each in items:
                (each["metadata"].get("annotations") or {}).pop(REVISION, None)
                each.pop("status", None)
            found[kind] = {each["metadata"]["name"]: tidy(each) for each in items}
    pods = [pod for pod in space.call("GET", space.path("pods", api="/api/v1"))["items"] if not _ends(pod)]
    found["pods"] = sorted(
        json.dumps([_labels(pod), [each["image"] for each in pod["spec"]["containers"]]], sort_keys=True)
        for pod in pods
    )
    return found


def _ends(pod: dict) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _labels(pod: dict) -> dict[str, str]:
    """Those that its team gave it, not the hash of its template's revision."""
    made = ("pod-template-hash", "controller-revision-hash", "pod-template-generation")
    return {name: value for name, value in pod["metadata"].get("labels", {}).items() if name not in made}
