#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: command_rollback
version_added: 0.1.0
short_description: Roll a service back by its team's own command
description:
  - Runs a command that the team reviewed and wrote into its inventory, for services that no other verb of this collection can
    roll back, C(terraform apply) or a deploy pipeline for example. Prefer a verb that knows the service where there is one.
  - The command is a list and no shell ever sees it. Its C({placeholders}) are filled from O(values) alone, each of which must
    match O(pattern) as a whole; so nobody adds an argument, an option or a command by giving a version.
  - Its output is told line by line, without secrets, and stands in the record. It gets no input, so it cannot ask.
  - Check mode runs O(check_argv), the command's own dry run. Without one nothing can be told of what the command would do, and
    check mode says so.
  - "B(Risk:) what the command does is its own affair: it has no gate, no wait and no undo but its own. It must wait for what
    it begins, and be one that can be repeated: after a failure the same task runs it again."
options:
  argv:
    description: The command, the program first.
    type: list
    elements: str
    required: true
  check_argv:
    description:
      - Command that changes nothing and tells what O(argv) would do. It runs before O(argv) too, and where it ends with one of
        O(unchanged_codes), O(argv) does not run.
    type: list
    elements: str
  changed_codes:
    description: Exit statuses of O(check_argv) that say that O(argv) would change something.
    type: list
    elements: int
    default: [0]
  unchanged_codes:
    description:
      - Exit statuses of O(check_argv) that say that nothing is to do. C(terraform plan -detailed-exitcode) has V(0) for it, and
        V(2) for O(changed_codes).
    type: list
    elements: int
    default: []
  values:
    description: What to fill C({placeholders}) with.
    type: dict
    default: {}
  pattern:
    description:
      - Regular expression that each value must match as a whole. Default is letters, digits and C(. _ + / -), beginning with a
        letter or a digit.
    type: str
    default: "[A-Za-z0-9][A-Za-z0-9._+/-]{0,127}"
  chdir:
    description: Folder on the controller to run the command in.
    type: path
  environment:
    description: Variables for the command besides those of the controller, for example tokens. Their values are never shown.
    type: dict
  resume:
    description: What to do when the command fails half way, for the person who reads it.
    type: str
    default: the same command again
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs no AWS credentials of its own without O(lease).
  - O(wait_timeout) is how long O(argv) and O(check_argv) may run each; then they get SIGTERM, and SIGKILL half a minute later.
"""

EXAMPLES = r"""
- name: Deploy the version before, by Terraform
  sre.runbooks.command_rollback:
    argv: [terraform, apply, -auto-approve, -input=false, "-var=app_version={version}"]
    check_argv: [terraform, plan, -input=false, -detailed-exitcode, "-var=app_version={version}"]
    changed_codes: [2]
    unchanged_codes: [0]
    values: {version: v1.2.3-stable}
    resume: terraform force-unlock if it says that the state is locked, then the same command again

- name: Deploy the version before, by the team's own target
  sre.runbooks.command_rollback:
    argv: [make, deploy, "VERSION={version}"]
    values: {version: v1.2.3-stable}
    environment: {DEPLOY_TOKEN: "{{ recovery_api_token }}"}
    wait_timeout: 900
"""

RETURN = r"""
output:
  description: The last lines of the command, or of its dry run where only that ran; without secrets.
  returned: unless refused
  type: list
  elements: str
  sample: ["Apply complete! Resources: 0 added, 1 changed, 0 destroyed."]
before:
  description: C(state) is what the dry run told, V(unknown) without one.
  returned: unless refused
  type: dict
  sample: {state: would change}
after:
  description: What the command was run for; unchanged where it had nothing to do.
  returned: success
  type: dict
  sample: {state: done}
steps:
  description: What was done; in check mode what would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: execute, what: run terraform apply -auto-approve -input=false -var=app_version=v1.2.3-stable, before: would change, after: done}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "run terraform apply -auto-approve -input=false -var=app_version=v1.2.3-stable"
      instead: "the same command with the version before is the way back: -e rollback_version=V"
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["no dry run is declared (check_argv): nothing can be told of what the command would do"]
waited_seconds:
  description: Time that the command took.
  returned: unless refused
  type: float
  sample: 84.2
"""

import shlex
import time

from ansible_collections.sre.runbooks.plugins.module_utils import team_command, waiting
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, WaitTimeout
from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("dynamodb",)
ARGUMENTS = dict(
    argv=dict(type="list", elements="str", required=True),
    check_argv=dict(type="list", elements="str"),
    changed_codes=dict(type="list", elements="int", default=[0]),
    unchanged_codes=dict(type="list", elements="int", default=[]),
    values=dict(type="dict", default={}),
    pattern=dict(type="str", default=team_command.PATTERN),
    chdir=dict(type="path"),
    environment=dict(type="dict", no_log=True),
    resume=dict(type="str", default="the same command again"),
)


class CommandRollback(Verb):
    """Ask the dry run, run the command, tell what it says."""

    INSTEAD = "the same command with the version before is the way back: -e rollback_version=V"

    def __init__(self, module):
        super().__init__(module)
        self.output = []
        self.state = "unknown"

    def observe(self):
        params = self.params
        argv = team_command.filled(params["argv"], params["values"], params["pattern"])
        team_command.find(argv[0], params["chdir"])
        if params["check_argv"]:
            check = team_command.filled(params["check_argv"], params["values"], params["pattern"])
            team_command.find(check[0], params["chdir"])
            self.state = self._foresee(check)
        return {"state": self.state, "argv": argv}

    def _foresee(self, argv):
        """What the dry run says that the command would do. Raises Refusal where it fails."""
        waiting.say(f"dry run: {_shown(argv)}")
        ended = self._run(argv)
        for codes, state in (("unchanged_codes", "nothing to do"), ("changed_codes", "would change")):
            if ended.status in self.params[codes]:
                return state
        raise Refusal(f"the dry run {argv[0]} failed ({ended.told()}): nothing was changed")

    @staticmethod
    def plan(observed, wanted):
        if observed["state"] == "nothing to do":
            return Plan()
        what = f"run {_shown(observed['argv'])}"
        step = Step("execute", what, observed["state"], "done", {"argv": observed["argv"]})
        blind = "no dry run is declared (check_argv): nothing can be told of what the command would do"
        return Plan((step,), {"state": "done"}, () if wanted["check_argv"] else (blind,))

    def execute(self, argv):
        try:
            ended = self._run(argv)
        except WaitTimeout as error:
            raise WaitTimeout(f"{error}: how far it came is not known; to go on: {self.params['resume']}") from error
        if ended.status != 0:
            raise Stop(
                f"{argv[0]} failed ({ended.told()}): how far it came is not known; to go on: {self.params['resume']}"
            )
        self.state = "done"

    def _run(self, argv):
        started = time.monotonic()
        environment = {name: str(value) for name, value in (self.params["environment"] or {}).items()}
        try:
            ended = team_command.run(
                argv, self.params["wait_timeout"], waiting.say, self.params["chdir"], environment, self.keep_lease
            )
        finally:
            self.waited_seconds += time.monotonic() - started
        self.output = list(ended.lines)
        return ended

    def observe_end(self):
        return {"state": self.state}

    def view(self, observed):
        return {"state": observed["state"]}

    def returned(self):
        return {"output": self.output}


def _shown(argv):
    """The command as a person would type it, without what looks like a secret."""
    return masked(shlex.join(argv))


def main():
    run(verb_module(ARGUMENTS), CommandRollback)


if __name__ == "__main__":
    main()
