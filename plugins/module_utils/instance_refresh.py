# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Auto Scaling groups and their instance refreshes: what was in service before, what goes on, and when it has ended.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html
"""

from __future__ import annotations

from . import history
from .aws import code_of, together
from .ecs import near
from .errors import Refusal

ACTIVE = ("Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress")
# A refresh that ended in one of these left the group's launch template as it was, and its instances a mixture.
BROKEN = ("Failed", "Cancelled", "RollbackFailed")
# Versions that follow the template. RollbackInstanceRefresh refuses a group with one of them.
FOLLOWING = ("$Latest", "$Default")
# Refreshes are remembered for six weeks; more than this many of them say nothing new.
REFRESHES = 50
# Suspended, the first three keep a refresh from replacing an instance, the last one from counting it as healthy.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
NEEDED = ("Launch", "Terminate", "InstanceRefresh", "AddToLoadBalancer")


class Group:
    """One Auto Scaling group, read again at each look.

    Args:
        aws: the Aws to ask.
        name: name of the group.
    """

    def __init__(self, aws, name):
        self._aws, self.name = aws, name

    def describe(self):
        """The DescribeAutoScalingGroups entry. Raises Refusal where there is none."""
        found = self._aws.read("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[self.name])
        group = next(iter(found["AutoScalingGroups"]), None)
        if group is None:
            there = self._aws.read("autoscaling", "describe_auto_scaling_groups", MaxRecords=100)["AutoScalingGroups"]
            names = near(self.name, [each["AutoScalingGroupName"] for each in there])
            raise Refusal(
                f"there is no Auto Scaling group {self.name} in {self._aws.region} ({names}): check auto_scaling_group and "
                f"the region of this host in the inventory"
            )
        return group

    def refreshes(self):
        """Its instance refreshes of the last six weeks, the newest first."""
        found = self._aws.read(
            "autoscaling", "describe_instance_refreshes", AutoScalingGroupName=self.name, MaxRecords=REFRESHES
        )
        return sorted(found["InstanceRefreshes"], key=lambda each: str(each.get("StartTime", "")), reverse=True)

    def refresh(self, refresh_id):
        """One of them."""
        found = self._aws.read(
            "autoscaling",
            "describe_instance_refreshes",
            AutoScalingGroupName=self.name,
            InstanceRefreshIds=[refresh_id],
        )
        return found["InstanceRefreshes"][0]

    def versions(self, template):
        """{number: {is_default, description}} of the launch template's versions that still exist."""
        found, more = {}, {}
        while True:
            try:
                answer = self._aws.read(
                    "ec2", "describe_launch_template_versions", LaunchTemplateId=template["LaunchTemplateId"], **more
                )
            except Exception as error:
                if code_of(error) == "InvalidLaunchTemplateId.NotFound":
                    return {}
                raise
            for each in answer["LaunchTemplateVersions"]:
                about = {"is_default": each.get("DefaultVersion", False), "description": each.get("VersionDescription")}
                found[each["VersionNumber"]] = about
            if not answer.get("NextToken"):
                return found
            more = {"NextToken": answer["NextToken"]}

    def observe(self):
        """{group, refreshes, versions}. Raises Refusal where it has no launch template."""
        found = together(group=self.describe, refreshes=self.refreshes)
        group = found["group"]
        if not group.get("LaunchTemplate"):
            kind = "a mixed instances policy" if group.get("MixedInstancesPolicy") else "a launch configuration"
            raise Refusal(
                f"{self.name} uses {kind}, which this verb does not roll back: start an instance refresh with the "
                f"configuration that was good (aws autoscaling start-instance-refresh)"
            )
        return dict(found, versions=self.versions(group["LaunchTemplate"]))


def number(version, versions):
    """Pure: the number that a version ("7", "$Latest", "$Default", None for default) means now; None for none."""
    if version == "$Latest":
        return max(versions, default=None)
    if version in (None, "$Default"):
        return next((each for each, about in versions.items() if about["is_default"]), None)
    return int(version) if str(version).isdigit() else None


def goal_of(refresh, versions):
    """Pure: the version that a refresh brings, None where it has no desired configuration to say so."""
    template = (refresh.get("DesiredConfiguration") or {}).get("LaunchTemplate")
    return number(template.get("Version"), versions) if template else None


def active(refreshes):
    """Pure: the refresh that goes on; there is one at most."""
    return next((each for each in refreshes if each["Status"] in ACTIVE), None)


def running(observed):
    """Pure: the number of the version that the group launches now."""
    return number(observed["group"]["LaunchTemplate"].get("Version"), observed["versions"])


def follows(group):
    """Pure: does the group follow its template, so that a new version is in force without any deployment?"""
    return group["LaunchTemplate"].get("Version") in (None, *FOLLOWING)


def version_before(observed):
    """Pure: the version to be at; None where the group went back already or nothing tells."""
    going, newest = active(observed["refreshes"]), next(iter(observed["refreshes"]), None)
    # A group keeps its configuration until a refresh has succeeded: before that, back is where it is.
    is_unfinished = going is not None or (newest is not None and newest["Status"] in BROKEN)
    if is_unfinished and not follows(observed["group"]):
        goal = goal_of(going or newest, observed["versions"])
        if goal not in (None, running(observed)) and not is_way_back(observed, going):
            return running(observed)
    return _back(observed)


def is_way_back(observed, refresh):
    """Pure: does this refresh bring what was in service before what the group has now? Then nobody must turn it round."""
    is_forward = refresh is not None and refresh["Status"] in ("Pending", "InProgress", "Baking")
    back = _back(observed)
    return is_forward and back is not None and goal_of(refresh, observed["versions"]) == back


def others(observed):
    """Pure: the versions besides the present one that a refresh once brought into service and that still exist."""
    goals = [goal_of(each, observed["versions"]) for each in observed["refreshes"] if each["Status"] == "Successful"]
    return sorted({goal for goal in goals if goal in observed["versions"] and goal != running(observed)})


def _back(observed):
    """Pure: the version that was in service before the present one, as the refreshes that ended tell."""
    ended = [each for each in observed["refreshes"] if each["Status"] not in ACTIVE]
    held = [goal_of(each, observed["versions"]) for each in ended]
    index = history.last_other(held, running(observed), [each["Status"] == "Successful" for each in ended])
    return None if index is None else held[index]


def staying(group):
    """Pure: the instances that are not on their way out."""
    return [each for each in group["Instances"] if not each["LifecycleState"].startswith(("Terminat", "Detach"))]


def instance_versions(group):
    """Pure: {version number: how many instances} of the instances that are not on their way out."""
    counts = {}
    for each in staying(group):
        version = int((each.get("LaunchTemplate") or {}).get("Version") or 0)
        counts[version] = counts.get(version, 0) + 1
    return dict(sorted(counts.items()))


def refuse_suspended(group, needed, so):
    """Raises Refusal where one of the processes `needed` is suspended; `so` says what would not happen."""
    name = group["AutoScalingGroupName"]
    blocking = sorted({each["ProcessName"] for each in group.get("SuspendedProcesses", [])} & set(needed))
    if blocking:
        raise Refusal(
            f"{', '.join(blocking)} of {name} {'is' if len(blocking) == 1 else 'are'} suspended, so {so}: "
            f"find out why, then aws autoscaling resume-processes --auto-scaling-group-name {name} "
            f"--scaling-processes {' '.join(blocking)}"
        )


def progress(refresh):
    """Pure: what was seen, in a few words."""
    return f"{refresh['Status']}, {refresh.get('PercentageComplete', 0)}%"
