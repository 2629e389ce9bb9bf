#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: asg_rollback
version_added: 0.1.0
short_description: Roll an EC2 Auto Scaling group back to the launch template version that was good
description:
  - Rolls an instance refresh that is in progress back. Where none is, refreshes the group to the version of its launch
    template that was in service before, as the group's refreshes of the last six weeks tell, or to the one that is given.
    Then waits until that very refresh has succeeded.
  - Instances that have the right version already are kept. A refresh that was cancelled or has failed leaves a mixture,
    which is refreshed to the version that the group still has.
  - Versions that were never refreshed to are no candidates, and neither are those whose refresh failed. Where the group
    came back to its present version already, nothing is changed; so the same task can be repeated.
  - AWS refuses to roll a refresh back that has no desired configuration, or whose group uses V($Latest) or V($Default).
    Such a refresh is cancelled, and the group refreshed to the numbered version, which it keeps afterwards.
  - The wait ends early when the refresh fails or somebody cancels it, with the reason that AWS gives.
  - "M(amazon.aws.autoscaling_instance_refresh) does none of this: it knows no desired configuration, no rollback and no wait."
  - B(Risk:) instances are replaced, a few at a time, and users meet older code.
options:
  auto_scaling_group:
    description: Name of the Auto Scaling group, in O(region). It must use a launch template.
    type: str
    required: true
  version:
    description:
      - Number of the launch template version to go to, instead of finding one. RV(undo) uses it to bring back what was left.
    type: int
  min_healthy_percentage:
    description:
      - How much of the desired capacity must stay in service while instances are replaced. V(100) launches each replacement
        first. Default is the group's own setting, 90 where it has none.
    type: int
  max_healthy_percentage:
    description: How much of it may be there meanwhile, 100 to 200. Needs O(min_healthy_percentage).
    type: int
  instance_warmup:
    description: Seconds that a new instance must be healthy before the next is replaced. Default is the group's own setting.
    type: int
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(autoscaling:DescribeAutoScalingGroups), C(autoscaling:DescribeInstanceRefreshes),
    C(autoscaling:StartInstanceRefresh), C(autoscaling:RollbackInstanceRefresh), C(autoscaling:CancelInstanceRefresh),
    C(ec2:DescribeLaunchTemplateVersions), and what launching from the template needs (C(ec2:RunInstances),
    C(iam:PassRole)).
"""

EXAMPLES = r"""
- name: Back to the version that was in service before
  sre.runbooks.asg_rollback:
    auto_scaling_group: regami-fleet
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Back to a version that a person knows to be good, without losing capacity
  sre.runbooks.asg_rollback:
    auto_scaling_group: regami-fleet
    region: us-east-1
    version: 1
    min_healthy_percentage: 100
    wait_timeout: 3600
"""

RETURN = r"""
version:
  description: The launch template version that the group is to have, null where nothing was to do.
  returned: unless refused
  type: int
  sample: 2
refresh_id:
  description: The instance refresh that was waited for, null where there was none.
  returned: unless refused
  type: str
  sample: 08b91cf7-8fa6-48af-b6a6-d227f40f1b9b
before:
  description:
    - The group as found. C(instances) counts the instances of each version, C(refresh) is the state of the last refresh.
  returned: unless refused
  type: dict
  sample: {version: "4", instances: {"4": 2}, refresh: Successful}
after:
  description: The group at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {version: "2", instances: {"2": 2}, refresh: Successful}
steps:
  description: What was done, in order; in check mode what would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: refresh, what: refresh regami-fleet to version 2 of its launch template, before: "4", after: "2"}
undo:
  description: The same verb with the version that was left.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.asg_rollback
      arguments: {auto_scaling_group: regami-fleet, region: us-east-1, version: 4}
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["regami-fleet followed $Latest: it stays at version 2 until a deployment says otherwise"]
waited_seconds:
  description: Time spent waiting.
  returned: unless refused
  type: float
  sample: 312.4
"""

from ansible_collections.sre.runbooks.plugins.module_utils import instance_refresh as refreshes
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, explain
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that replacing a few instances usually takes, each with its boot and its warm-up.
USUAL_REFRESH = 600

SERVICES = ("autoscaling", "ec2", "dynamodb")
ARGUMENTS = dict(
    auto_scaling_group=dict(type="str", required=True),
    version=dict(type="int"),
    min_healthy_percentage=dict(type="int"),
    max_healthy_percentage=dict(type="int"),
    instance_warmup=dict(type="int"),
)
PREFERENCES = {
    "min_healthy_percentage": "MinHealthyPercentage",
    "max_healthy_percentage": "MaxHealthyPercentage",
    "instance_warmup": "InstanceWarmup",
}
# How a refresh must end, by what was last asked of it; in any other of the final states it has failed.
ENDS = {"forward": "Successful", "back": "RollbackSuccessful", "cancelled": "Cancelled"}


class AsgRollback(Verb):
    """Turn the refresh that goes on round, or begin one to the version before."""

    def __init__(self, module):
        super().__init__(module)
        self.group = refreshes.Group(self.aws, self.params["auto_scaling_group"])
        self.refresh_id = None
        self.irreversible = False

    def observe(self):
        return dict(self.group.observe(), irreversible=self.irreversible)

    @staticmethod
    def plan(observed, wanted):
        group = observed["group"]
        name, running = group["AutoScalingGroupName"], refreshes.running(observed)
        version = _version(observed, wanted["version"])
        returned = {"version": version}
        if version is None:
            why = f"{name} came back to version {running} already: give version to go to another"
            return Plan(notes=(why,), returned=returned)
        steps = _steps(observed, version)
        after, notes = {}, []
        if steps:
            refreshes.refuse_suspended(group, refreshes.NEEDED, "no refresh would end")
            notes = _notes(group, version)
            instances = {str(version): group["DesiredCapacity"]}
            after = {"version": str(version), "instances": instances, "refresh": ENDS[steps[-1].arguments["way"]]}
        return Plan(tuple(steps), after, tuple(notes), returned)

    def refresh(self, template, version, way):
        preferences = {"SkipMatching": True}
        preferences |= {key: self.params[name] for name, key in PREFERENCES.items() if self.params[name] is not None}
        answer = self._ask(
            "start_instance_refresh",
            DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateId": template, "Version": str(version)}},
            Preferences=preferences,
        )
        self._settle(answer["InstanceRefreshId"], way)

    def roll_back(self, refresh_id, way):
        self._ask("rollback_instance_refresh")
        self._settle(refresh_id, way)

    def cancel(self, refresh_id, way):
        self._ask("cancel_instance_refresh")
        self._settle(refresh_id, way)

    def settle(self, refresh_id, way):
        self._settle(refresh_id, way)

    def _ask(self, operation, **arguments):
        """A change of the refreshes. Raises Overtaken where another refresh began, or this one ended, after the look."""
        try:
            return self.aws.change("autoscaling", operation, AutoScalingGroupName=self.group.name, **arguments)
        except Exception as error:
            if code_of(error) == "IrreversibleInstanceRefresh":
                self.irreversible = True
            elif code_of(error) not in ("InstanceRefreshInProgress", "ActiveInstanceRefreshNotFound"):
                raise
            raise Overtaken(explain(error)) from error

    def _settle(self, refresh_id, way):
        """Wait for the end of this very refresh."""
        self.refresh_id = refresh_id

        def done(seen):
            if seen["Status"] in refreshes.ACTIVE:
                return False
            if seen["Status"] != ENDS[way]:
                reason = seen.get("StatusReason") or "AWS gives no reason"
                raise Stop(
                    f"the instance refresh {refresh_id} of {self.group.name} ended {seen['Status']}: {reason}: see "
                    f"aws autoscaling describe-scaling-activities --auto-scaling-group-name {self.group.name}"
                )
            return True

        self.wait(
            lambda: self.group.refresh(refresh_id),
            done,
            f"{self.group.name} is refreshed",
            usual=USUAL_REFRESH,
            state=refreshes.progress,
        )

    def undo(self, before, done):
        if not any(step["do"] in ("refresh", "roll_back") for step in done) or not before["version"]:
            return []
        left = max((int(version) for version in before["instances"]), default=None)
        wanted = int(before["version"]) if before["version"].isdigit() and len(before["instances"]) == 1 else left
        arguments = {"auto_scaling_group": self.group.name, "region": self.aws.region, "version": wanted}
        return [{"verb": "sre.runbooks.asg_rollback", "arguments": arguments}] if wanted else []

    def is_change(self, steps):
        return any(step["do"] != "settle" for step in steps)

    def view(self, observed):
        newest = next(iter(observed["refreshes"]), {})
        return {
            "version": observed["group"]["LaunchTemplate"].get("Version") or "$Default",
            "instances": {str(key): count for key, count in refreshes.instance_versions(observed["group"]).items()},
            "refresh": newest.get("Status"),
        }

    def returned(self):
        return {"refresh_id": self.refresh_id}


def _version(observed, given):
    """The version to be at, None where the group came back already. Raises Refusal."""
    name, there = observed["group"]["AutoScalingGroupName"], observed["versions"]
    known = ", ".join(f"{each} ({about['description'] or 'no description'})" for each, about in sorted(there.items()))
    version = given if given is not None else refreshes.version_before(observed)
    if version is None and not refreshes.others(observed):
        raise Refusal(
            f"no instance refresh of the last six weeks tells what {name} ran before version {refreshes.running(observed)}: "
            f"give version (there are: {known or 'none'})"
        )
    if version is not None and version not in there:
        raise Refusal(
            f"version {version} of the launch template of {name} does not exist (there are: {known or 'none'}): "
            f"give one of these as version"
        )
    return version


def _steps(observed, version):
    """Pure: what is left to do to have the group at `version`."""
    group, going, running = observed["group"], refreshes.active(observed["refreshes"]), refreshes.running(observed)
    name, before = group["AutoScalingGroupName"], group["LaunchTemplate"].get("Version") or "$Default"
    start = Step(
        "refresh",
        f"refresh {name} to version {version} of its launch template",
        before,
        str(version),
        {"template": group["LaunchTemplate"]["LaunchTemplateId"], "version": version, "way": "forward"},
    )
    if going is None:
        is_there = running == version and not refreshes.follows(group)
        return [] if is_there and set(refreshes.instance_versions(group)) <= {version} else [start]
    goal, refresh_id, status = (
        refreshes.goal_of(going, observed["versions"]),
        going["InstanceRefreshId"],
        going["Status"],
    )
    if status == "Cancelling" or (status == "RollbackInProgress" and running != version):
        way = "cancelled" if status == "Cancelling" else "back"
        waiting = Step(
            "settle", f"wait until {name} is through with {status}", arguments=_of(refresh_id, way), look_again=True
        )
        return [waiting, start]
    if status == "RollbackInProgress":
        return [Step("settle", f"wait until {name} is rolled back", arguments=_of(refresh_id, "back"))]
    if goal == version:
        return [Step("settle", f"wait until {name} is refreshed", arguments=_of(refresh_id, "forward"))]
    if running == version and goal is not None and not refreshes.follows(group) and not observed["irreversible"]:
        what = f"roll the instance refresh of {name} to version {goal} back"
        return [Step("roll_back", what, str(goal), str(version), _of(refresh_id, "back"))]
    what = f"cancel the instance refresh of {name} to {f'version {goal}' if goal else 'an unknown version'}"
    return [Step("cancel", what, status, "Cancelled", _of(refresh_id, "cancelled"), look_again=True), start]


def _of(refresh_id, way):
    return {"refresh_id": refresh_id, "way": way}


def _notes(group, version):
    name, notes = group["AutoScalingGroupName"], []
    if refreshes.follows(group):
        followed = group["LaunchTemplate"].get("Version") or "$Default"
        notes.append(f"{name} followed {followed}: it stays at version {version} until a deployment says otherwise")
    held = [
        each["InstanceId"]
        for each in group["Instances"]
        if each.get("ProtectedFromScaleIn") or each["LifecycleState"] == "Standby"
    ]
    if held:
        notes.append(
            f"{', '.join(held)} of {name} protected from scale-in or in Standby: a refresh waits an hour for them"
        )
    return notes


def main():
    run(verb_module(ARGUMENTS, required_by={"max_healthy_percentage": "min_healthy_percentage"}), AsgRollback)


if __name__ == "__main__":
    main()
