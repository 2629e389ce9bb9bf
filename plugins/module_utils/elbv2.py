# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a load balancer says of its targets."""

from __future__ import annotations

from .aws import code_of
from .errors import Refusal


def short(arn):
    """`regami-tg` of arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/regami-tg/ID."""
    return arn.split("/")[1] if arn.count("/") > 1 else arn


def target_health(aws, arn, region):
    """[{target: "ID:PORT", state, reason}] of a target group; `reason` is "" for a healthy target."""
    try:
        found = aws.read("elbv2", "describe_target_health", region=region, TargetGroupArn=arn)
    except Exception as error:
        if code_of(error) in ("TargetGroupNotFound", "ValidationError"):
            raise Refusal(f"there is no target group {arn} in {region}: check its arn and region") from error
        raise
    return [
        {
            "target": f"{entry['Target']['Id']}:{entry['Target'].get('Port', '-')}",
            "state": entry["TargetHealth"]["State"],
            "reason": entry["TargetHealth"].get("Description") or entry["TargetHealth"].get("Reason", ""),
        }
        for entry in found["TargetHealthDescriptions"]
    ]


def load_balancer_name(aws, arn, region):
    """DNS name of the load balancer in front of a target group, None where there is none."""
    groups = aws.read("elbv2", "describe_target_groups", region=region, TargetGroupArns=[arn])["TargetGroups"]
    balancers = groups[0].get("LoadBalancerArns") if groups else None
    if not balancers:
        return None
    found = aws.read("elbv2", "describe_load_balancers", region=region, LoadBalancerArns=balancers[:1])
    return found["LoadBalancers"][0]["DNSName"]
