#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssm_end_process
version_added: 0.2.0
short_description: End one process that runs away on an EC2 instance, over SSM
description:
  - Ends the process of O(pid) that began at O(started), and no other, so that a pid which another process has by now is left
    alone. It is asked to end first, and killed after O(grace_seconds).
  - Refused are the first process and the threads of the kernel, what manages the machine (systemd, sshd, the SSM agent, container
    engines), databases, the session that the command itself runs in, and what O(protected) names.
  - A process that is gone already is none to end, and the task is ok. Check mode only looks.
  - The command is sent once. A run that is killed leaves it running; the same task again waits for that one. Command ids are
    in the progress lines of the record and in RV(command_ids).
  - B(Risk:) what the process worked on is lost, and RV(undo) is empty.
options:
  instance_id:
    description: Where it runs, in O(region).
    type: str
    required: true
  pid:
    description: Its number.
    type: int
    required: true
  started:
    description: Its start, as M(sre.runbooks.hotspots_assess) returns it, the boot of the instance and the clock ticks since then.
    type: str
    required: true
  restart_unit:
    description: Restart the unit of systemd that it belongs to, instead of ending the process alone.
    type: bool
    default: false
  grace_seconds:
    description: How long it may take to end by itself, before it is killed, in seconds. Units have times of their own.
    type: int
    default: 10
  protected:
    description: Names of further programs that are never ended, as a shell matches them.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ssm:SendCommand) on the document AWS-RunShellScript and the instance, C(ssm:DescribeInstanceInformation),
    C(ssm:ListCommands), C(ssm:ListCommandInvocations) and C(ssm:GetCommandInvocation).
  - Instances need Linux, Python 3.6 or newer and the SSM agent. With Python 3.9 on Linux 5.3 or newer the signal cannot reach
    another process even if the pid changes hands in that moment.
"""

EXAMPLES = r"""
- name: End the report that was started by hand
  sre.runbooks.ssm_end_process:
    instance_id: i-0123456789abcdef0
    pid: 4711
    started: "9a5fe887:2569181"
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Start a worker anew that eats the processor
  sre.runbooks.ssm_end_process:
    instance_id: i-0123456789abcdef0
    pid: 812
    started: "9a5fe887:1523"
    restart_unit: true
    protected: [billing-*]
    region: us-east-1
"""

RETURN = r"""
process:
  description: The process as found; null where it is gone. C(command) is its name without arguments, which may hold secrets.
  returned: unless refused
  type: dict
  sample:
    pid: 4711
    started: "9a5fe887:2569181"
    elapsed: 240
    user: app
    command: python3 report.py
    cpu: null
    rss: 21340160
    unit: null
    may_end: true
ended:
  description: V(ended) (by itself, when asked), V(killed), V(restarted) (with its unit) or V(gone) (before); in check mode V(there).
  returned: unless refused
  type: str
  sample: ended
command_ids:
  description: The commands of SSM that looked and ended, in order.
  returned: unless refused
  type: list
  elements: str
  sample: [2a9d7bdf-9c0a-4d0e-8a9c-5c3f5a7c2f11]
before:
  description: Whether it was there.
  returned: unless refused
  type: dict
  sample: {process: there}
after:
  description: What became of it; in check mode as predicted.
  returned: success
  type: dict
  sample: {process: gone}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: end, what: "end 4711 python3 report.py of app, 21.3 MB, for 4 min, on i-0123456789abcdef0", before: there, after: gone}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "end 4711 python3 report.py of app, 21.3 MB, for 4 min, on i-0123456789abcdef0"
      instead: "whatever supervises it starts it again; where nothing does, start it by hand"
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["worker.service may start it again: with restart_unit=true it is restarted as a whole"]
waited_seconds:
  description: Time spent waiting for the instance.
  returned: unless refused
  type: float
  sample: 1.4
"""

from ansible_collections.sre.runbooks.plugins.module_utils import instance_processes as processes
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.ssm import Limits, RunCommand, Selection
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that the script may take besides the grace: to look, and to see what was killed go.
SCRIPT_SECONDS = 60
# A unit stops within TimeoutStopSec and starts within TimeoutStartSec, 90 s each unless it says otherwise.
# https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html
UNIT_SECONDS = 200
DONE = ("ended", "killed", "restarted", "gone")

SERVICES = ("ssm", "dynamodb")
ARGUMENTS = dict(
    instance_id=dict(type="str", required=True),
    pid=dict(type="int", required=True),
    started=dict(type="str", required=True),
    restart_unit=dict(type="bool", default=False),
    grace_seconds=dict(type="int", default=10),
    protected=dict(type="list", elements="str", default=[]),
)


class SsmEndProcess(Verb):
    """Look at one process, then end it."""

    INSTEAD = "whatever supervises it starts it again; where nothing does, start it by hand"

    def __init__(self, module):
        super().__init__(module)
        wanted = self.params
        self.selection = Selection((wanted["instance_id"],))
        self.looking, self.ending = RunCommand(self.aws, "process-look"), RunCommand(self.aws, "process-end")
        self.options = {
            **{name: wanted[name] for name in ("pid", "started", "protected", "restart_unit")},
            "grace": wanted["grace_seconds"],
            "timeout": UNIT_SECONDS,
        }
        self.limits = Limits(execution_timeout=SCRIPT_SECONDS + UNIT_SECONDS + max(0, wanted["grace_seconds"]))
        self.end_state = None

    def observe(self):
        node = self.looking.nodes(self.selection)[self.params["instance_id"]]
        if why := node.trouble():
            raise Refusal(f"{node.instance_id} runs no command: {why}")
        running = self.ending.running(self.selection)
        seen = {"state": "unknown"} if running else self._ask(self.looking, "look")
        return {"running": running, "seen": seen}

    def _ask(self, commands, mode):
        name = self.params["instance_id"]
        what = f"{name} tells of process {self.params['pid']}"
        script = processes.command(mode, self.options)
        return self._told(commands.run(script, self.selection, [name], self.wait, what, self.limits)[name])

    @staticmethod
    def _told(result):
        said, trouble = processes.answer_of(result)
        if trouble:
            raise Stop(f"{result.instance_id} did not carry the command out: {trouble}")
        if said.get("process"):
            said["process"] = processes.masked(said["process"])
        return said

    @staticmethod
    def plan(observed, wanted):
        where, seen = f"on {wanted['instance_id']}", observed["seen"]
        if observed["running"]:
            what = f"wait for the command that has begun before ({', '.join(observed['running'])})"
            finish = Step("finish", what, arguments={"command_ids": observed["running"]}, look_again=True, waits=True)
            return Plan((finish,))
        process = seen.get("process")
        returned = {"process": process, "ended": seen["state"]}
        if seen["state"] == "gone":
            return Plan(notes=(f"process {wanted['pid']} {where} is gone: there is nothing to end",), returned=returned)
        shown = f"{processes.shown(process)}, {where}"
        if seen["state"] == "protected":
            raise Refusal(f"{shown} is never ended: {seen['why']}")
        unit = process["unit"]
        if wanted["restart_unit"] and unit is None:
            raise Refusal(f"{shown} belongs to no unit of systemd: leave restart_unit out")
        what, notes = f"end {shown}", ()
        if wanted["restart_unit"]:
            what = f"restart {unit}, to which {shown} belongs"
        elif unit:
            notes = (f"{unit} may start it again: with restart_unit=true it is restarted as a whole",)
        return Plan((Step("end", what, "there", "gone"),), {"process": "gone"}, notes, returned)

    def end(self):
        self._judge(self._ask(self.ending, "end"))

    def finish(self, command_ids):
        what = "the command that has begun before"
        for result in self.ending.finish(command_ids, self.wait, what).values():
            self._told(result)  # it may have been of another process: the next look says what is left to do

    def _judge(self, said):
        self.end_state = said["state"]
        if said["state"] not in DONE:
            raise Stop(f"process {self.params['pid']} on {self.params['instance_id']} was not ended: {said['why']}")
        if said["state"] == "killed":
            self.notes.append(f"it did not end within {self.params['grace_seconds']} s, and was killed")

    def observe_end(self):
        return {"seen": {"state": "gone"}}  # which the command saw before it answered

    def view(self, observed):
        return {"process": observed["seen"]["state"]}

    def returned(self):
        found = {"command_ids": self.looking.sent + self.ending.sent}
        return dict(found, ended=self.end_state) if self.end_state else found


def main():
    run(verb_module(ARGUMENTS), SsmEndProcess)


if __name__ == "__main__":
    main()
