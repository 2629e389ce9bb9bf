#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: zone_assess
version_added: 0.3.0
short_description: Say which availability zone is bad for a service, and whether the others can do without it
description:
  - Compares the zones in which a service is, by what AWS says of each, by the health of the targets there, now and by the load
    balancer's metrics of the last minutes, and by the tasks that failed there lately.
  - The zone that an earlier run took the service out of, or began to, needs no further proof.
  - Two zones that look bad are no zone that fails, and RV(why_not) says so; as it does where too little serves in the others.
  - Says where the database is, which no load balancer can shift. Changes nothing.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region). Give this with O(service), or O(auto_scaling_group).
    type: str
  service:
    description: Name of the ECS service.
    type: str
  auto_scaling_group:
    description: Name of the Auto Scaling group.
    type: str
  db_instance:
    description: Name of the RDS instance that the service needs.
    type: str
  zone:
    description: The zone that a person holds to be bad. Without it the one that looks so.
    type: str
  min_serving_percent:
    description: So many of the tasks or instances that the service is to have must serve in the other zones.
    type: float
    default: 50
  accept_healthy_zone:
    description: O(zone) may be left although it does not look bad.
    type: bool
    default: false
  accept_low_capacity:
    description: O(zone) may be left although fewer than O(min_serving_percent) serve in the others.
    type: bool
    default: false
  failed_minutes:
    description: Tasks that failed in the last so many minutes count.
    type: int
    default: 15
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ec2:DescribeAvailabilityZones), C(ecs:DescribeServices), C(ecs:ListTasks), C(ecs:DescribeTasks) or
    C(autoscaling:DescribeAutoScalingGroups), C(elasticloadbalancing:DescribeTargetHealth),
    C(elasticloadbalancing:DescribeTargetGroups), C(cloudwatch:GetMetricData) and C(rds:DescribeDBInstances).
seealso:
  - module: sre.runbooks.rds_zone_failover
  - module: sre.runbooks.alb_zonal_shift
  - module: sre.runbooks.ecs_zone
  - module: sre.runbooks.asg_zone
"""

EXAMPLES = r"""
- name: Which zone is bad
  sre.runbooks.zone_assess:
    cluster: regami-cluster
    service: regami-service
    db_instance: regami-db-primary
    region: us-east-1
  register: zones
"""

RETURN = r"""
zone:
  description: The zone to leave, empty for none.
  returned: success
  type: str
  sample: us-east-1b
why_not:
  description: Why RV(zone) must not be left as things are, with the way out; empty if it may.
  returned: success
  type: str
  sample: ""
findings:
  description: What speaks for it, and how each zone is.
  returned: success
  type: list
  elements: str
  sample: ["1 of 1 targets in us-east-1b are unhealthy"]
serving_elsewhere:
  description: How many serve in the other zones.
  returned: success
  type: int
  sample: 1
before:
  description: How many serve in each zone.
  returned: success
  type: dict
  sample: {us-east-1a: 1, us-east-1b: 0}
after:
  description: The same, since nothing is changed.
  returned: success
  type: dict
  sample: {us-east-1a: 1, us-east-1b: 0}
steps:
  description: Always empty.
  returned: success
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty.
  returned: success
  type: list
  elements: dict
  sample: []
notes:
  description: What a person must know of the database, and what could not be read.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Always 0.
  returned: success
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import (
    cloudwatch,
    ecs,
    elbv2,
    group_serving,
    instance_refresh,
    zone_health,
    zones,
)
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# Minutes of the load balancer's metrics that are looked at.
METRIC_MINUTES = 5

SERVICES = ("ec2", "ecs", "autoscaling", "elbv2", "cloudwatch", "rds", "dynamodb")
ARGUMENTS = dict(
    cluster=dict(type="str"),
    service=dict(type="str"),
    auto_scaling_group=dict(type="str"),
    db_instance=dict(type="str"),
    zone=dict(type="str"),
    min_serving_percent=dict(type="float", default=50),
    accept_healthy_zone=dict(type="bool", default=False),
    accept_low_capacity=dict(type="bool", default=False),
    failed_minutes=dict(type="int", default=15),
)


class ZoneAssess(Verb):
    """Read, and compare."""

    def observe(self):
        look = self._group if self.params["auto_scaling_group"] else self._service
        seen = together(zones=lambda: zones.describe(self.aws), there=look)
        names = sorted(
            {*seen["there"]["zones"], *seen["there"]["failed"], seen["there"]["left"]} & seen["zones"].keys()
        )
        more = tried_together(
            {
                "was_unhealthy": lambda: self._was_unhealthy(seen["there"]["groups"], names),
                "database": self._database,
            }
        )
        return dict(seen, names=names, **more)

    def _service(self):
        """{desired, zones: {zone: [healthy, unhealthy]}, failed: {zone: how many}, groups: target groups, left: a zone}."""
        service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        entry = service.describe(include=["TAGS"])
        names = together(
            running=lambda: service.task_arns(serviceName=service.name, desiredStatus="RUNNING"),
            stopped=lambda: service.task_arns(serviceName=service.name, desiredStatus="STOPPED"),
        )
        groups = ecs.target_groups(entry)
        found = together(
            tasks=lambda: service.describe_tasks(names["running"] + names["stopped"]),
            targets=lambda: service.targets(groups),
        )
        since, failed, where = time.time() - 60 * self.params["failed_minutes"], {}, {}
        subnets = (entry.get("networkConfiguration") or {}).get("awsvpcConfiguration", {}).get("subnets", [])
        tally = {zone: [0, 0] for zone in zones.of_subnets(self.aws, subnets).values()}
        for task in found["tasks"]:
            zone = task.get("availabilityZone", "")
            where.update(dict.fromkeys(_addresses(task), zone))
            if ecs.failed(task) and task.get("stoppingAt", task["createdAt"]).timestamp() >= since:
                failed[zone] = failed.get(zone, 0) + 1
            elif not groups and task.get("desiredStatus") == "RUNNING":
                tally.setdefault(zone, [0, 0])[task["lastStatus"] != "RUNNING"] += 1
        _count(tally, [each for _name, targets in found["targets"] for each in targets], where)
        arns = [arn for arns in groups for arn in arns]
        return {
            "desired": entry["desiredCount"],
            "zones": tally,
            "failed": failed,
            "groups": arns,
            "left": _left({tag["key"]: tag["value"] for tag in entry.get("tags", [])}),
        }

    def _group(self):
        group = instance_refresh.Group(self.aws, self.params["auto_scaling_group"]).describe()
        where = {each["InstanceId"]: each["AvailabilityZone"] for each in group["Instances"]}
        targets = group_serving.targets(self.aws, group)
        tally = {zone: [0, 0] for zone in group["AvailabilityZones"]}
        if targets:
            _count(tally, [each for found in targets.values() for each in found], where)
        serving = group_serving.in_service(group)
        for each in [] if targets else instance_refresh.staying(group):
            tally.setdefault(each["AvailabilityZone"], [0, 0])[each["InstanceId"] not in serving] += 1
        failed = {}
        for each in group["Instances"]:
            if each["HealthStatus"] != "Healthy":
                failed[each["AvailabilityZone"]] = failed.get(each["AvailabilityZone"], 0) + 1
        return {
            "desired": group["DesiredCapacity"],
            "zones": tally,
            "failed": failed,
            "groups": list(targets),
            "left": _left({tag["Key"]: tag["Value"] for tag in group.get("Tags", [])}),
        }

    def _was_unhealthy(self, groups, names):
        """{zone: the most targets of one minute that were unhealthy there}.

        https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html
        """
        metrics = {}
        for arn in groups:
            balancer = elbv2.load_balancer_of(self.aws, arn, self.aws.region)
            for zone in names if balancer else ():
                dimensions = {
                    "AvailabilityZone": zone,
                    "LoadBalancer": elbv2.metric_name(balancer),
                    "TargetGroup": arn.rpartition(":")[2],
                }
                metric = cloudwatch.Metric(
                    "AWS/ApplicationELB", "UnHealthyHostCount", "Maximum", tuple(dimensions.items())
                )
                metrics[metric] = zone
        if not metrics:
            return {}
        now = time.time()
        found = cloudwatch.read(self.aws, self.aws.region, list(metrics), now - 60 * METRIC_MINUTES, now + 60)
        return {
            zone: max(max(found[metric].values(), default=0) for metric, each in metrics.items() if each == zone)
            for zone in names
        }

    def _database(self):
        name = self.params["db_instance"]
        if not name:
            return None
        return self.aws.read("rds", "describe_db_instances", DBInstanceIdentifier=name)["DBInstances"][0]

    @staticmethod
    def plan(observed, wanted):
        there, was = observed["there"], observed["was_unhealthy"]
        known = was if isinstance(was, dict) else {}
        seen = [
            zone_health.Zone(
                name,
                observed["zones"][name]["state"],
                tuple(observed["zones"][name]["messages"]),
                *there["zones"].get(name, (0, 0)),
                failed=there["failed"].get(name, 0),
                was_unhealthy=known.get(name, 0),
            )
            for name in observed["names"]
        ]
        verdict = zone_health.judge(seen, there["desired"], wanted, there["left"])
        notes = [] if isinstance(was, dict) else [f"the load balancer's metrics are not known: {reason(was)}"]
        notes += _of_database(observed["database"], verdict.zone, wanted["db_instance"])
        returned = {
            "zone": verdict.zone,
            "why_not": verdict.why_not,
            "findings": list(verdict.findings),
            "serving_elsewhere": verdict.serving_elsewhere,
        }
        return Plan(notes=tuple(notes), returned=returned)

    def view(self, observed):
        return {zone: healthy for zone, (healthy, _ill) in observed["there"]["zones"].items()}


def _left(tags):
    """The zone that the tags remember, "" for none."""
    kept = zones.parse(tags.get(zones.MARK))
    return kept.zone if kept else ""


def _addresses(task):
    """The private addresses of a task."""
    for attachment in task.get("attachments", []):
        yield from (each["value"] for each in attachment["details"] if each["name"] == "privateIPv4Address")


def _count(tally, targets, where):
    """Add targets to {zone: [healthy, unhealthy]}; one that drains is neither."""
    for target in targets:
        zone = where.get(target["target"].rpartition(":")[0], "")
        if zone and target["state"] in ("healthy", "unhealthy"):
            tally.setdefault(zone, [0, 0])[target["state"] == "unhealthy"] += 1


def _of_database(database, zone, name):
    if isinstance(database, Exception):
        return [f"where {name} is is not known: {reason(database)}"]
    if not database or not zone or database.get("AvailabilityZone") != zone:
        return []
    if database.get("MultiAZ"):
        return [
            f"{name} has its primary in {zone}: RDS fails it over by itself, or sre.runbooks.rds_zone_failover at once"
        ]
    return [
        f"{name} is in {zone} and in no other zone: if it does not answer, playbooks/db_failover.yml moves it to its replica"
    ]


def main():
    run(
        verb_module(
            ARGUMENTS,
            required_together=[("cluster", "service")],
            required_one_of=[("service", "auto_scaling_group")],
            mutually_exclusive=[("service", "auto_scaling_group")],
        ),
        ZoneAssess,
    )


if __name__ == "__main__":
    main()
