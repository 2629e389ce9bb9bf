# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as the first day finds it: version 2 of its launch template runs, version 1 did before.

version 1  v1, refreshed to five weeks ago
version 2  v2, refreshed to ten days ago; runs
version 3  v2 on larger instances, never deployed: somebody's draft
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from .. import elbv2, route53
from . import pipeline, refresh

if TYPE_CHECKING:
    from ..world import World

GROUP = "regami-fleet"
NAME = "fleet.regami.test"
# An image that moto knows.
IMAGE = "ami-12c6146b"
DESIRED = 2


def seed(world: World) -> None:
    region = world.regions[0]
    with world.lock:
        ec2_backend = world.backend("ec2", region)
        vpc, subnets = ec2_backend.default_vpc.id, [each.id for each in ec2_backend.get_default_subnets().values()][:2]
        instance = world.state["regions"][region]["db_instance"]
        endpoint = world.backend("rds", region).describe_db_instances(instance)[0].endpoint
    database_url = f"postgresql://regami@{endpoint['Address']}:{endpoint['Port']}/regami"
    facts = _balance(world, region, vpc, subnets)
    template = _template(world, region, database_url)
    world.client("autoscaling", region).create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        LaunchTemplate={"LaunchTemplateId": template, "Version": "2"},
        MinSize=DESIRED,
        MaxSize=6,
        DesiredCapacity=DESIRED,
        VPCZoneIdentifier=",".join(subnets),
        TargetGroupARNs=[facts["target_group_arn"]],
        HealthCheckType="ELB",
        HealthCheckGracePeriod=1,
        Tags=[{"Key": "service", "Value": "regami-fleet", "PropagateAtLaunch": True}],
    )
    world.state["fleet"] = facts | {
        "region": region,
        "auto_scaling_group": GROUP,
        "launch_template_id": template,
        "database_url": database_url,
        "public_name": NAME,
        "public_url": f"http://{NAME}:{elbv2.http_port()}",
    }
    _past(world, region, template)


def _balance(world: World, region: str, vpc: str, subnets: list[str]) -> dict:
    client = world.client("elbv2", region)
    security = [world.state["regions"][region]["balancer_security_group"]]
    balancer = client.create_load_balancer(Name="regami-fleet", Subnets=subnets, SecurityGroups=security)[
        "LoadBalancers"
    ][0]
    group = elbv2.make_target_group(client, vpc, "regami-fleet", drain_seconds=1, kind="instance")
    client.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )
    alias = {
        "AliasTarget": {
            "HostedZoneId": balancer["CanonicalHostedZoneId"],
            "DNSName": balancer["DNSName"],
            "EvaluateTargetHealth": False,
        }
    }
    route53.create(world, [{"Name": NAME, "Type": "A", **alias}])
    return {"load_balancer_arn": balancer["LoadBalancerArn"], "target_group_arn": group}


def _template(world: World, region: str, database_url: str) -> str:
    client = world.client("ec2", region)
    data = {
        "ImageId": IMAGE,
        "InstanceType": "t3.small",
        "SecurityGroupIds": [world.state["regions"][region]["app_security_group"]],
        "UserData": pipeline.user_data(database_url, "v1"),
    }
    template = client.create_launch_template(LaunchTemplateName=GROUP, LaunchTemplateData=data)["LaunchTemplate"]
    newer = data | {"UserData": pipeline.user_data(database_url, "v2")}
    for each in (newer, newer | {"InstanceType": "t3.medium"}):
        client.create_launch_template_version(LaunchTemplateId=template["LaunchTemplateId"], LaunchTemplateData=each)
    return template["LaunchTemplateId"]


def _past(world: World, region: str, template: str) -> None:
    """Refreshes that ended well, so long ago. AWS remembers six weeks."""
    from moto.core.utils import utcnow

    group = world.backend("autoscaling", region).autoscaling_groups[GROUP]
    for version, days in ((1, 35), (2, 10)):
        desired = {"LaunchTemplate": {"LaunchTemplateId": template, "Version": str(version)}}
        past = refresh.Refresh(
            GROUP, version, desired, {}, utcnow() - timedelta(days=days), status="Successful", percent=100
        )
        past.end = past.start + timedelta(minutes=12)
        refresh.of(group).append(past)
