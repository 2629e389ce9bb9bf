# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a load balancer says of its targets."""

from __future__ import annotations

import time

from . import cloudwatch
from .aws import code_of, together
from .cloudwatch import PERIOD as METRIC_PERIOD
from .errors import Refusal

# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html
TAGS_A_CALL = 20


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


def registered(aws, vpc, ids):
    """[(arn, id, port, state)] of what is registered by one of `ids` (instance ids, addresses) in the target groups of a VPC."""
    groups = [
        each["TargetGroupArn"]
        for each in _all(aws, "describe_target_groups", "TargetGroups", None)
        if each.get("VpcId") == vpc and each.get("TargetType") in ("instance", "ip")
    ]
    found = {}
    # A few at a time: an account may have hundreds, and AWS throttles.
    for first in range(0, len(groups), 10):
        some = groups[first : first + 10]
        found |= together(
            **{arn: lambda arn=arn: aws.read("elbv2", "describe_target_health", TargetGroupArn=arn) for arn in some}
        )
    return [
        (arn, each["Target"]["Id"], each["Target"]["Port"], each["TargetHealth"]["State"])
        for arn, answer in found.items()
        for each in answer["TargetHealthDescriptions"]
        if each["Target"]["Id"] in ids
    ]


def troubles(targets):
    """A line for each target that is not healthy."""
    return [
        f"{target['target']} is {target['state']}{': ' if target['reason'] else ''}{target['reason']}"
        for target in targets
        if target["state"] != "healthy"
    ]


def rules(aws, load_balancer, region):
    """The rules of every listener of a load balancer, [{arn, name, actions}] in the order in which they are evaluated.

    `arn` is that of the rule, or for the default actions that of the listener: ModifyRule does not take a default rule.

    Raises:
        Refusal: there is no such load balancer.
    """
    return [
        {
            "arn": listener["ListenerArn"] if rule["IsDefault"] else rule["RuleArn"],
            "name": f"port {listener['Port']} {'default' if rule['IsDefault'] else 'rule ' + rule['Priority']}",
            "actions": rule["Actions"],
        }
        for listener in listeners(aws, load_balancer, region)
        for rule in listener["Rules"]
    ]


def ports(aws, load_balancer, region):
    """DescribeListeners entries of a load balancer.

    Raises:
        Refusal: there is no such load balancer.
    """
    try:
        return _all(aws, "describe_listeners", "Listeners", region, LoadBalancerArn=load_balancer)
    except Exception as error:
        if code_of(error) in ("LoadBalancerNotFound", "ValidationError"):
            raise Refusal(f"there is no load balancer {load_balancer} in {region}: check its arn and region") from error
        raise


def certificates(aws, listener, region):
    """DescribeListenerCertificates entries: the default one, and those for other names."""
    return _all(aws, "describe_listener_certificates", "Certificates", region, ListenerArn=listener)


def listeners(aws, load_balancer, region):
    """DescribeListeners entries by port, each with its DescribeRules entries as Rules, in the order of their evaluation.

    Raises:
        Refusal: there is no such load balancer.
    """
    found = sorted(ports(aws, load_balancer, region), key=lambda listener: listener["Port"])
    known = together(
        **{
            each["ListenerArn"]: lambda arn=each["ListenerArn"]: _all(
                aws, "describe_rules", "Rules", region, ListenerArn=arn
            )
            for each in found
        }
    )

    def order(rule):
        return rule["IsDefault"], _number(rule["Priority"])

    return [dict(each, Rules=sorted(known[each["ListenerArn"]], key=order)) for each in found]


def tags(aws, arns, region):
    """{ARN: {key: value}} of load balancers, listeners, rules and target groups."""
    found = {}
    for first in range(0, len(arns), TAGS_A_CALL):
        answer = aws.read("elbv2", "describe_tags", region=region, ResourceArns=arns[first : first + TAGS_A_CALL])
        for each in answer["TagDescriptions"]:
            found[each["ResourceArn"]] = {tag["Key"]: tag["Value"] for tag in each["Tags"]}
    return found


def most_rules(aws, region):
    """How many rules a load balancer may have, default rules left out; None where AWS does not say."""
    answer = aws.read("elbv2", "describe_account_limits", region=region)
    found = {each["Name"]: each["Max"] for each in answer["Limits"]}.get("rules-per-application-load-balancer")
    return None if found is None else int(found)


def set_actions(aws, arn, actions, region):
    """Replace the actions of a rule, or the default actions of a listener. Sent twice it does the same."""
    if ":listener-rule/" in arn:
        aws.change("elbv2", "modify_rule", region=region, RuleArn=arn, Actions=actions)
    else:
        aws.change("elbv2", "modify_listener", region=region, ListenerArn=arn, DefaultActions=actions)


def traffic(aws, load_balancer, target_group, since, region):
    """{requests, errors} of a target group from `since` (epoch seconds) to now, as CloudWatch has counted them so far.

    Errors are answers of 5xx and connections that failed. The metrics are those of a whole minute, and come a minute late.
    """
    names = ("RequestCount", "HTTPCode_Target_5XX_Count", "TargetConnectionErrorCount")
    dimensions = {"LoadBalancer": metric_name(load_balancer), "TargetGroup": target_group.rpartition(":")[2]}
    requests, *errors = (sum(minutes.values()) for minutes in _counted(aws, names, dimensions, since, region))
    return {"requests": requests, "errors": sum(errors)}


def by_minute(aws, load_balancer, since, until=None):
    """{minute (epoch seconds): (requests, errors)} of a load balancer from `since` to `until` (epoch seconds), or to now, so far.

    Errors are answers of 5xx, of the targets and of the balancer itself where no target answered. Minutes without a request
    are not there. The region is that of the ARN.
    """
    names = ("RequestCount", "HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count")
    dimensions = {"LoadBalancer": metric_name(load_balancer)}
    requests, *errors = _counted(aws, names, dimensions, since, region_of(load_balancer), until)
    minutes = sorted(set().union(requests, *errors))
    return {at: (requests.get(at, 0), sum(each.get(at, 0) for each in errors)) for at in minutes}


def region_of(load_balancer):
    """The region of a load balancer's ARN.

    Raises:
        Refusal: it is none.
    """
    if ":loadbalancer/" not in load_balancer:
        raise Refusal(f"{load_balancer} is not the ARN of a load balancer: check load_balancer_arn in the inventory")
    return load_balancer.split(":")[3]


def metric_name(load_balancer):
    """`app/regami-alb/ID`, as CloudWatch names it."""
    return load_balancer.partition(":loadbalancer/")[2]


def short_name(load_balancer):
    """`regami-alb`."""
    return metric_name(load_balancer).split("/")[1]


def _counted(aws, names, dimensions, since, region, until=None):
    """The sums of each metric of `names`, {minute (epoch seconds): sum} each.

    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html
    """
    metrics = [cloudwatch.Metric("AWS/ApplicationELB", name, "Sum", tuple(dimensions.items())) for name in names]
    found = cloudwatch.read(aws, region, metrics, since, until or time.time() + METRIC_PERIOD)
    return [found[metric] for metric in metrics]


def _all(aws, operation, key, region, **arguments):
    """Every page of a Describe call."""
    found, more = [], {}
    while True:
        answer = aws.read("elbv2", operation, region=region, **arguments, **more)
        found += answer[key]
        if not answer.get("NextMarker"):
            return found
        more = {"Marker": answer["NextMarker"]}


def _number(priority):
    """The default rule has the word "default" for one."""
    return int(priority) if priority.isdigit() else 0


def load_balancer_of(aws, target_group, region):
    """ARN of the load balancer in front of a target group, None where there is none (a group is of one at most)."""
    groups = aws.read("elbv2", "describe_target_groups", region=region, TargetGroupArns=[target_group])["TargetGroups"]
    return next((arn for group in groups for arn in group.get("LoadBalancerArns", [])), None)


def load_balancer_name(aws, arn, region):
    """DNS name of the load balancer in front of a target group, None where there is none."""
    balancer = load_balancer_of(aws, arn, region)
    if balancer is None:
        return None
    found = aws.read("elbv2", "describe_load_balancers", region=region, LoadBalancerArns=[balancer])
    return found["LoadBalancers"][0]["DNSName"]
