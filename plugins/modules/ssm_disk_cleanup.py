#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssm_disk_cleanup
version_added: 0.1.0
short_description: Make room on the full disks of EC2 instances, over SSM
description:
  - Asks every instance how full its file system is, in blocks and in inodes, and what could go. Then cleans those that have
    less than O(target_free_percent) free, in order of safety, and on each stops as soon as that much is free.
  - "The order: cached packages; logs that were deleted but are still written to, which are emptied through their writer's
    descriptor; the journal, rotated first; rotated logs; logs that nobody has open, the oldest first; images that no
    container uses."
  - Never touched are symbolic links and what they lead to, other file systems and mounts, files with a second name, files
    that a process has open, files younger than O(min_age_days), directories of databases (known by what lies in them) and
    their write-ahead logs, volumes of containers.
  - The plan is the result of check mode, which sends a script to the instances that only looks.
  - Instances whose agent does not answer are left out, named, and make the task fail once all others are done. A full disk
    can be why; growing the volume needs no agent.
  - A command is sent once. A run that is killed leaves its command running; the same task again waits for that one and goes
    on with what is left. Command ids are in the progress lines of the record and in RV(command_ids).
  - B(Risk:) what is removed is gone, and RV(undo) is empty. Ship logs first where they must be kept.
options:
  instance_ids:
    description: Instances to clean, in O(region).
    type: list
    elements: str
  tags:
    description: Clean the instances that have all these tags, five at most.
    type: dict
  auto_scaling_group:
    description: Clean the instances of this Auto Scaling group.
    type: str
  path:
    description: A path in the file system that is full. Only this file system is cleaned.
    type: str
    default: /
  target_free_percent:
    description: How much of the blocks, as C(df) counts them, and of the inodes shall be free, in percent, 1 to 95.
    type: int
    default: 20
  min_age_days:
    description: Files changed within this many days stay, at least 1. Logs that were deleted already have no age that counts.
    type: int
    default: 7
  roots:
    description: Directories of logs. Those of the system and of databases are refused.
    type: list
    elements: str
    default: [/var/log]
  patterns:
    description: Names of the logs below O(roots) that may go, as a shell matches them. Rotated logs may go by their suffix.
    type: list
    elements: str
    default: ["*.log", "*.log.*", "*.out", "*.err", messages, syslog]
  protected:
    description: Paths that stay with all below them, whatever their names. Databases stay without being named.
    type: list
    elements: str
    default: [/var/log/audit]
  stages:
    description: What may go at all. The order is always that of safety, as it stands here.
    type: list
    elements: str
    choices: [packages, open_deleted, journal, rotated, logs, images]
    default: [packages, open_deleted, journal, rotated, logs, images]
  journal_keep_megabytes:
    description: How much of the journal stays, in MB; its newest entries, whatever their age.
    type: int
    default: 200
  max_concurrency:
    description: How many instances are cleaned at a time, a number or a percentage such as V(10%).
    type: str
    default: "50"
  max_errors:
    description: With more failures than this, a number or a percentage, no further instances are tried.
    type: str
    default: 100%
  execution_timeout:
    description: Seconds that the script may take on one instance.
    type: int
    default: 900
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ssm:SendCommand) on the document AWS-RunShellScript and the instances, C(ssm:DescribeInstanceInformation),
    C(ssm:ListCommands), C(ssm:ListCommandInvocations), C(ssm:GetCommandInvocation), and for O(auto_scaling_group)
    C(autoscaling:DescribeAutoScalingGroups).
  - Instances need Linux, Python 3.6 or newer and the SSM agent.
  - A selection by tags or group is sent as one command where every instance of it answers, else by id, 50 a command.
"""

EXAMPLES = r"""
- name: Make room on the workers
  sre.runbooks.ssm_disk_cleanup:
    tags: {service: regami-batch}
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Session files have used up the inodes of a group, ten percent of it at a time
  sre.runbooks.ssm_disk_cleanup:
    tags: {service: regami-batch, Name: regami-batch}
    region: us-east-1
    roots: [/var/spool/app, /var/log]
    patterns: ["sess_*", "*.log"]
    stages: [rotated, logs]
    max_concurrency: 10%
    max_errors: "5"
"""

RETURN = r"""
instances:
  description:
    - Each instance, those with the least free first. C(state) is V(enough), V(to clean) (check mode), V(cleaned), V(still full)
      or V(failed); C(stages) is what went, in check mode what could go, as C(items) and C(bytes).
  returned: unless refused
  type: list
  elements: dict
  sample:
    - instance_id: i-0123456789abcdef0
      state: cleaned
      message: null
      before: {bytes: 16777216, bytes_free: 0, free_percent: 0.0, inodes: 1000, inodes_free: 900, free_inodes_percent: 90.0}
      after: {bytes: 16777216, bytes_free: 3500000, free_percent: 20.8, inodes: 1000, inodes_free: 912, free_inodes_percent: 91.2}
      stages: {packages: {items: 1, bytes: 409600}, rotated: {items: 11, bytes: 3100000}}
still_full:
  description: Ids of the instances that have less free than wanted after all that may go; in check mode as predicted.
  returned: unless refused
  type: list
  elements: str
  sample: []
not_cleaned:
  description: Ids of the instances whose agent does not answer, or on which the script failed.
  returned: unless refused
  type: list
  elements: str
  sample: []
command_ids:
  description: The commands of SSM that looked and cleaned, in order.
  returned: unless refused
  type: list
  elements: str
  sample: [2a9d7bdf-9c0a-4d0e-8a9c-5c3f5a7c2f11]
before:
  description: The instances as found, counted.
  returned: unless refused
  type: dict
  sample: {instances: 2, below_target: 2, not_cleaned: 0, lowest_free_percent: 0.0}
after:
  description: The same at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {instances: 2, below_target: 0, not_cleaned: 0, lowest_free_percent: 20.8}
steps:
  description: What was done, in order; in check mode what would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: clean, what: "clean 2 of 2 instances until 20 % is free: packages 2 (819.2 kB)", before: null, after: null}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "clean 2 of 2 instances until 20 % is free: packages 2 (819.2 kB)"
      instead: "what was removed is gone, but for a backup of the instance"
notes:
  description: What a person must know, the fullest instances one by one.
  returned: unless refused
  type: list
  elements: str
  sample: ["i-0123456789abcdef0: 0 % of 16.8 MB, 90 % of 1,000 inodes free; may go: packages 1 (409.6 kB)"]
waited_seconds:
  description: Time spent waiting for the instances.
  returned: unless refused
  type: float
  sample: 4.2
"""

from ansible_collections.sre.runbooks.plugins.module_utils import disk_cleanup as disks
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, WouldChange, near
from ansible_collections.sre.runbooks.plugins.module_utils.ssm import Limits, RunCommand, Selection
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Instances that are spoken of one by one; the rest are in `instances`.
SPOKEN_OF = 10

SERVICES = ("ssm", "autoscaling", "dynamodb")
ARGUMENTS = dict(
    instance_ids=dict(type="list", elements="str"),
    tags=dict(type="dict"),
    auto_scaling_group=dict(type="str"),
    path=dict(type="str", default="/"),
    target_free_percent=dict(type="int", default=20),
    min_age_days=dict(type="int", default=7),
    roots=dict(type="list", elements="str", default=["/var/log"]),
    patterns=dict(type="list", elements="str", default=["*.log", "*.log.*", "*.out", "*.err", "messages", "syslog"]),
    protected=dict(type="list", elements="str", default=["/var/log/audit"]),
    stages=dict(type="list", elements="str", choices=list(disks.STAGES), default=list(disks.STAGES)),
    journal_keep_megabytes=dict(type="int", default=200),
    max_concurrency=dict(type="str", default="50"),
    max_errors=dict(type="str", default="100%"),
    execution_timeout=dict(type="int", default=900),
)
SELECTORS = ("instance_ids", "tags", "auto_scaling_group")


class SsmDiskCleanup(Verb):
    """Look at all disks, then clean those that are too full."""

    INSTEAD = "what was removed is gone, but for a backup of the instance"

    def __init__(self, module):
        super().__init__(module)
        self.options = disks.script_options(self.params)
        self.selection = _selection(self.params)
        self.looking, self.cleaning = RunCommand(self.aws, "disk-survey"), RunCommand(self.aws, "disk-cleanup")
        self.limits = Limits(
            self.params["max_concurrency"], self.params["max_errors"], self.params["execution_timeout"]
        )
        self.nodes, self.reports, self.cleaned = {}, {}, {}

    # ---- looking --------------------------------------------------------------------------------------------------

    def observe(self):
        self._require_group()
        self.nodes = self.looking.nodes(self.selection)
        running = self.cleaning.running(self.selection)
        if not running:
            self.reports = self._survey()
        return {"selected": self.selection, "running": running, "reports": self.reports}

    def _require_group(self):
        name = self.params["auto_scaling_group"]
        if name is None:
            return
        found = self.aws.read("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[name])
        if not found["AutoScalingGroups"]:
            there = self.aws.read("autoscaling", "describe_auto_scaling_groups", MaxRecords=100)["AutoScalingGroups"]
            names = near(name, [each["AutoScalingGroupName"] for each in there])
            raise Refusal(
                f"there is no Auto Scaling group {name} in {self.aws.region} ({names}): check auto_scaling_group"
            )

    def _survey(self):
        """{instance id: Report} of every instance, those that cannot be asked included."""
        able = [each.instance_id for each in self.nodes.values() if not each.trouble()]
        results = {}
        if able:
            try:
                results = self._run(self.looking, "survey", able, f"{len(able)} instances tell of their disks")
            except WouldChange:
                # Of the others it is known without asking them.
                silent = [
                    disks.Report(each.instance_id, trouble=each.trouble())
                    for each in self.nodes.values()
                    if each.trouble()
                ]
                if not silent:
                    raise
                raise Refusal(_complaint(silent, len(self.nodes))) from None
        return {
            each.instance_id: disks.report_of(results[each.instance_id])
            if each.instance_id in results
            else disks.Report(each.instance_id, trouble=each.trouble() or "it did not answer")
            for each in self.nodes.values()
        }

    def _run(self, commands, mode, instance_ids, what):
        return commands.run(
            disks.command(mode, self.options),
            self.selection,
            instance_ids,
            self.wait,
            what,
            self.limits,
            by_tags=bool(self.selection.tags) and len(instance_ids) == len(self.nodes),
        )

    # ---- deciding -------------------------------------------------------------------------------------------------

    @staticmethod
    def plan(observed, wanted):
        target = wanted["target_free_percent"]
        if observed["running"]:
            what = f"wait for the cleaning that has begun before (command {', '.join(observed['running'])})"
            finish = Step("finish", what, arguments={"command_ids": observed["running"]}, look_again=True, waits=True)
            return Plan((finish,), {})
        reports = sorted(observed["reports"].values(), key=_by_need)
        if not reports:
            raise Refusal(
                f"SSM manages no instance with {_told(observed['selected'])}: check the tags, and that the SSM agent runs there"
            )
        failed = [each for each in reports if each.trouble]
        full = [each for each in reports if not each.trouble and not each.is_enough(target)]
        worth_it = [each for each in full if each.stages]
        returned = _returned(reports, target, planned=True)
        if failed and not worth_it:
            raise Refusal(_complaint(failed, len(reports)), **returned)
        steps = ()
        if worth_it:
            ids = [each.instance_id for each in worth_it]
            what = f"clean {len(ids)} of {len(reports)} instances until {target} % is free: {disks.sum_of(worth_it)} may go"
            steps = (
                Step("clean", what, arguments={"instance_ids": ids}),
                Step("judge", "compare every instance with before", waits=True),
            )
        return Plan(steps, _predicted(reports, target), tuple(_notes(reports, target)), returned)

    # ---- doing ----------------------------------------------------------------------------------------------------

    def clean(self, instance_ids):
        results = self._run(self.cleaning, "clean", instance_ids, f"{len(instance_ids)} instances are cleaned")
        self._keep(results)

    def finish(self, command_ids):
        self._keep(self.cleaning.finish(command_ids, self.wait, "the cleaning that has begun before"))

    def _keep(self, results):
        self.cleaned.update((name, disks.report_of(each)) for name, each in results.items())

    def judge(self):
        """Raises Stop where an instance could not be cleaned; by now the others are."""
        target = self.params["target_free_percent"]
        for each in [each for each in self.cleaned.values() if each.after][:SPOKEN_OF]:
            grow = "" if each.is_enough(target) else f"; {target} % was wanted: grow its volume"
            self.notes.append(f"{each.instance_id}: now {disks.free(each.after)}; went: {disks.sum_of([each])}{grow}")
        failed = [each for each in self._latest() if each.trouble]
        if failed:
            raise Stop(_complaint(failed, len(self.nodes)))

    def _latest(self):
        """The last word of each instance: of the cleaning where there was one, and where it went wrong, that it did."""
        return [self.cleaned.get(name, report) for name, report in self.reports.items()]

    def observe_end(self):
        return {"reports": {each.instance_id: each for each in self._latest()}}

    def view(self, observed):
        return _counted(list(observed["reports"].values()), self.params["target_free_percent"])

    def returned(self):
        found = {"command_ids": self.looking.sent + self.cleaning.sent}
        if self.cleaned:
            found |= _returned(sorted(self._latest(), key=_by_need), self.params["target_free_percent"])
        return found

    def is_change(self, steps):
        return bool(steps) and (self.check_mode or any(each.stages for each in self.cleaned.values()))


def _selection(wanted):
    if wanted["auto_scaling_group"] is not None:
        return Selection(tags={"aws:autoscaling:groupName": wanted["auto_scaling_group"]})
    if wanted["tags"] is not None:
        if not 1 <= len(wanted["tags"]) <= 5:
            raise Refusal(f"tags: SSM selects by one to five tags, not by {len(wanted['tags'])}")
        return Selection(tags={str(key): str(value) for key, value in wanted["tags"].items()})
    if not wanted["instance_ids"]:
        raise Refusal("instance_ids is empty: name the instances to clean")
    return Selection(tuple(dict.fromkeys(wanted["instance_ids"])))


def _told(selection):
    return " and ".join(f"{key}={value}" for key, value in sorted(selection.tags.items())) or "these ids"


def _by_need(report):
    return (not report.trouble, disks.lowest(report.now) if report.now else 0.0, report.instance_id)


def _state(report, target, planned):
    if report.trouble:
        return "failed"
    if report.is_enough(target):
        return "cleaned" if report.after else "enough"
    return "to clean" if planned and report.reachable() >= target else "still full"


def _returned(reports, target, planned=False):
    states = {each.instance_id: _state(each, target, planned) for each in reports}
    return {
        "instances": [
            {
                "instance_id": each.instance_id,
                "state": states[each.instance_id],
                "message": each.trouble or "; ".join(each.told) or None,
                "before": each.before,
                "after": each.after,
                "stages": each.stages,
            }
            for each in reports
        ],
        "still_full": [name for name, state in states.items() if state == "still full"],
        "not_cleaned": [name for name, state in states.items() if state == "failed"],
    }


def _counted(reports, target):
    heard = [each for each in reports if not each.trouble]
    return {
        "instances": len(reports),
        "below_target": sum(not each.is_enough(target) for each in heard),
        "not_cleaned": len(reports) - len(heard),
        "lowest_free_percent": min((disks.lowest(each.now) for each in heard), default=None),
    }


def _predicted(reports, target):
    heard = [each for each in reports if not each.trouble]
    ends = [
        disks.lowest(each.now) if each.is_enough(target) else min(float(target), each.reachable()) for each in heard
    ]
    return {"below_target": sum(each < target for each in ends), "lowest_free_percent": min(ends, default=None)}


def _notes(reports, target):
    """The fullest instances in words, then how many more there are."""
    spoken = [each for each in reports if each.trouble or not each.is_enough(target)]
    for each in spoken[:SPOKEN_OF]:
        if each.trouble:
            yield f"{each.instance_id}: {each.trouble}"
            continue
        largest = f"; the largest is {each.largest[0][0]} ({disks.size(each.largest[0][1])})" if each.largest else ""
        yield f"{each.instance_id}: {disks.free(each.before)}; may go: {disks.sum_of([each])}{largest}"
        if each.reachable() < target:
            yield f"{each.instance_id} comes to {each.reachable():g} % at most, not to {target} %: grow its volume"
    if len(spoken) > SPOKEN_OF:
        yield f"{len(spoken) - SPOKEN_OF} more instances have too little room: see instances"
    for each in [each for each in reports if each.told][:SPOKEN_OF]:
        yield f"{each.instance_id}: {'; '.join(each.told)}"


def _complaint(failed, total):
    told = "; ".join(f"{each.instance_id}: {each.trouble}" for each in failed[:SPOKEN_OF])
    more = f"; and {len(failed) - SPOKEN_OF} more" if len(failed) > SPOKEN_OF else ""
    return (
        f"{len(failed)} of {total} instances could not be cleaned ({told}{more}): grow their volumes, or leave them out of "
        f"the selection"
    )


def main():
    run(verb_module(ARGUMENTS, mutually_exclusive=[SELECTORS], required_one_of=[SELECTORS]), SsmDiskCleanup)


if __name__ == "__main__":
    main()
