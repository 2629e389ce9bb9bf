#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_evidence
version_added: 0.2.0
short_description: Keep what an EC2 instance under suspicion does, before it is cut off
description:
  - Keeps what only its memory holds, over SSM, the most volatile first. Who is connected with whom; what runs, with arguments, from
    which file, and the SHA-256 of files that are deleted or lie where no package puts them; who is logged in, modules of
    the kernel, deleted files that are still open. Then what AWS says of the instance, its interfaces, security groups and
    protections, and the output of its console.
  - Writes each as a file into the folder O(bundle), where M(sre.runbooks.evidence_bundle) lists and stores them. Nothing of it is
    in the result, since arguments and logs may hold secrets.
  - What is in the bundle already is not taken again, so that a run that was killed is gone on with. An instance that is cut off is
    not asked over SSM any more.
  - An instance that says nothing keeps nobody from isolating it. RV(blind) names what is missing, and O(wait_timeout) says how long
    it is waited for.
  - B(Risk:) an intruder may notice the commands, and may have changed what the instance tells of itself. Snapshots of its volumes
    and of its memory by other means are evidence of another kind.
options:
  instance_id:
    description: The instance, in O(region).
    type: str
    required: true
  bundle:
    description: The folder to write into, as RV(sre.runbooks.evidence_bundle#module:bundle).
    type: path
    required: true
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
    C(ssm:ListCommands), C(ssm:ListCommandInvocations), C(ssm:GetCommandInvocation), and the describe permissions of EC2 with
    C(ec2:GetConsoleOutput).
  - Instances need Linux, Python 3.6 or newer and the SSM agent. SSM gives 24,000 characters back, in which compressed lists of
    some thousand entries fit; what had to be left out is counted in the file.
seealso:
  - module: sre.runbooks.evidence_bundle
  - module: sre.runbooks.ec2_isolate
"""

EXAMPLES = r"""
- name: Keep what it does
  sre.runbooks.ec2_evidence:
    instance_id: i-0123456789abcdef0
    bundle: /srv/incidents/evidence/2026-11-21-api
    wait_timeout: 60
    region: us-east-1
"""

RETURN = r"""
kept:
  description: Names of the files that this run has written.
  returned: unless refused
  type: list
  elements: str
  sample: [i-0123456789abcdef0-connections.json, i-0123456789abcdef0-processes.json]
blind:
  description: What could not be had, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["connections: its agent has not answered since 2026-11-21 08:02 UTC (ConnectionLost)"]
before:
  description: Which of its files the bundle had.
  returned: unless refused
  type: dict
  sample: {files: []}
after:
  description: The same at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {files: [i-0123456789abcdef0-connections.json]}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: ask, what: keep the connections of i-0123456789abcdef0, before: null, after: i-0123456789abcdef0-connections.json}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: keep the processes of i-0abc1234
      instead: "evidence is kept; a copy that nobody needs is deleted by hand"
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent waiting for the instance.
  returned: unless refused
  type: float
  sample: 2.1
"""

import base64
import binascii
import json
import os
import zlib

from ansible_collections.sre.runbooks.plugins.module_utils import containment, evidence, live_script, remote_script
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.record import now
from ansible_collections.sre.runbooks.plugins.module_utils.ssm import Limits, RunCommand, Selection
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("ec2", "ssm", "autoscaling", "elbv2", "dynamodb")
ARGUMENTS = dict(
    instance_id=dict(type="str", required=True),
    bundle=dict(type="path", required=True),
)
# What it is asked itself, the most volatile first; and what AWS is asked.
# https://datatracker.ietf.org/doc/html/rfc3227#section-2.1
MEMORY = ("connections", "processes", "system")
OUTSIDE = {"instance": "json", "console": "txt"}
# Seconds that the script may run.
SCRIPT_SECONDS = 60


class Ec2Evidence(Verb):
    """Ask the instance, then AWS, and write down what they say."""

    INSTEAD = "evidence is kept; a copy that nobody needs is deleted by hand"

    def __init__(self, module):
        super().__init__(module)
        self.id, self.folder = self.params["instance_id"], self.params["bundle"]
        self.selection, self.commands = Selection((self.id,)), RunCommand(self.aws, "live-evidence")
        self.kept, self.blind = [], []

    def observe(self):
        seen = together(
            instance=lambda: containment.describe(self.aws, self.id),
            node=lambda: self.commands.nodes(self.selection)[self.id],
        )
        tags = {each["Key"]: each["Value"] for each in seen["instance"].get("Tags", [])}
        try:
            there = os.listdir(self.folder)
        except FileNotFoundError:
            there = []
        return {
            "memory": containment.remembered(tags),
            "trouble": seen["node"].trouble(),
            "files": sorted(set(there) & {_name(self.id, part) for part in (*MEMORY, *OUTSIDE)}),
        }

    @staticmethod
    def plan(observed, wanted):
        instance, steps, blind = wanted["instance_id"], [], []
        memory, why = observed["memory"], observed["trouble"]
        if memory and memory.is_done:
            why = f"it is cut off since {memory.since}"
        for part in (*MEMORY, *OUTSIDE):
            name = _name(instance, part)
            if name in observed["files"]:
                continue
            if part in MEMORY and why:
                blind.append(f"{part}: {why}")
                continue
            do = "ask" if part in MEMORY else part
            arguments = {"part": part} if part in MEMORY else {}
            steps.append(Step(do, f"keep the {part} of {instance}", None, name, arguments))
        after = sorted([*observed["files"], *(step.after for step in steps)])
        notes = tuple(f"cannot keep {line}" for line in blind)
        return Plan(tuple(steps), {"files": after}, notes, {"blind": blind})

    def ask(self, part):
        """What the instance says itself; that it says nothing is evidence too, and no reason to stop."""
        script = remote_script.command(live_script, part, {})
        what, limits = f"{self.id} tells its {part}", Limits(execution_timeout=SCRIPT_SECONDS)
        try:
            result = self.commands.run(script, self.selection, [self.id], self.wait, what, limits)[self.id]
            said = _unpacked(result)
        except Stop as stop:
            self._miss(part, stop)
            return
        source = f"SSM command {self.commands.sent[-1]}"
        self._keep(part, {"source": source, "instance": self.id, **said})

    def instance(self):
        """What AWS says of it, with its security groups as they are now."""
        suspect = containment.look(self.aws, self.id)
        groups = sorted({group for _interface, names in suspect.interfaces for group in names})
        seen = tried_together(
            {
                "security_groups": lambda: self.aws.read("ec2", "describe_security_groups", GroupIds=groups)[
                    "SecurityGroups"
                ],
                "volumes": lambda: self.aws.read("ec2", "describe_volumes", VolumeIds=suspect.volumes)["Volumes"],
            }
        )
        for part in [part for part, found in seen.items() if isinstance(found, Exception)]:
            self._miss(part, seen.pop(part))
        about = {
            "source": "AWS",
            "taken_at": now(),
            "instance": suspect.instance,
            "protections": dict(suspect.protections),
            "auto_scaling": suspect.membership,
            "targets": [each.words() for each in suspect.targets],
        }
        self._keep("instance", about | seen)

    def console(self):
        seen = tried_together({"console": lambda: self.aws.read("ec2", "get_console_output", InstanceId=self.id)})[
            "console"
        ]
        if isinstance(seen, Exception):
            self._miss("console", seen)
        else:
            self._keep("console", seen.get("Output", ""))

    def _keep(self, part, content):
        name = _name(self.id, part)
        evidence.keep(self.folder, name, evidence.item({"name": name, "content": content}))
        self.kept.append(name)

    def _miss(self, part, error):
        self.blind.append(f"{part}: {reason(error)}")
        self.notes.append(f"cannot keep {self.blind[-1]}")

    def view(self, observed):
        return {"files": observed["files"]}

    def is_change(self, steps):
        return bool(self.kept) or (self.check_mode and bool(steps))

    def returned(self):
        return {"kept": self.kept, **({"blind": self.blind} if self.blind else {})}


def _name(instance_id, part):
    return f"{instance_id}-{part}.{OUTSIDE.get(part, 'json')}"


def _unpacked(result):
    """What live_script has packed. Raises Stop where it said something else."""
    if trouble := result.trouble():
        raise Stop(trouble)
    try:
        return json.loads(zlib.decompress(base64.b64decode(result.output.strip(), validate=True)))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise Stop(f"its answer makes no sense ({error})") from error


def main():
    run(verb_module(ARGUMENTS), Ec2Evidence)


if __name__ == "__main__":
    main()
