#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: way_back
version_added: 0.2.0
short_description: Find what takes a recorded run back
description:
  - Reads the timeline of a run, and those of the runs that it went on with, and writes the tasks that undo their changes, the last
    one first. Each asks the verb that made the change, in check mode, whether all is still as that left it, and is skipped if not.
  - Refuses where the run has not ended, has nothing to take back, or did what nothing undoes, such as a promotion.
  - Asks AWS for nothing but O(record_bucket), and changes nothing but this file, so it does so in check mode too.
  - B(Risk:) none; what the tasks do is the risk of their verbs.
options:
  environment_name:
    description: The environment that the run was for.
    type: str
    required: true
  record:
    description: Name of the run's record, of whatever controller. Default is the last run of the environment that changed something.
    type: str
  dest:
    description: Path of the file of tasks, of mode 0600. Default is C(undo.yml) in the folder of this run's own record.
    type: path
extends_documentation_fragment:
  - sre.runbooks.records
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: Find what the last run changed
  sre.runbooks.way_back:
    environment_name: prod
  register: back

- name: Take it back
  ansible.builtin.include_tasks: "{{ back.tasks_file }}"
"""

RETURN = r"""
record:
  description: Name of the record that is taken back.
  returned: unless refused
  type: str
  sample: 2026-11-21T220456Z-rollback_deployment-prod
tasks_file:
  description: Path of the file of tasks.
  returned: unless refused
  type: str
  sample: incidents/2026-11-21T223012Z-undo-prod/undo.yml
hosts:
  description: The hosts whose changes are taken back.
  returned: unless refused
  type: list
  elements: str
  sample: [api-prod]
run_leases:
  description: The lease that the run had for each host, as C(name), C(table) and C(region); none for one where it had none.
  returned: unless refused
  type: dict
  sample: {api-prod: {name: regami-api, table: sre-incident-locks, region: us-west-2}}
changes:
  description: What the run did that is taken back, the last first.
  returned: unless refused
  type: list
  elements: str
  sample: [roll regami-service back to regami-api:3]
left:
  description: What it did that nothing takes back.
  returned: unless refused
  type: list
  elements: str
  sample: [end 3 sessions]
before:
  description: Always empty.
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: unless refused
  type: dict
  sample: {}
steps:
  description: Always empty, since nothing is changed.
  returned: unless refused
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty.
  returned: unless refused
  type: list
  elements: dict
  sample: []
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import os

from ansible_collections.sre.runbooks.plugins.module_utils import record, records, way_back
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    environment_name=dict(type="str", required=True),
    record=dict(type="str"),
    dest=dict(type="path"),
    **records.ARGUMENTS,
)
NAME = "undo.yml"


class WayBack(Verb):
    """Read a record and write what takes it back."""

    def __init__(self, module):
        super().__init__(module)
        self.records = records.Records(self.params, self.connection(module))

    def observe(self):
        parent, env = self.records.required_folder(), self.params["environment_name"]
        wanted = self.params["record"] or way_back.newest(self.records, env)
        if not wanted:
            raise Refusal(f"no run of env={env} in {parent} changed anything: nothing to take back")
        back = way_back.way_back(self.records, os.path.basename(os.path.normpath(wanted)), env)
        own = self.records.own or ""
        path = self.params["dest"] or os.path.join(own, NAME)
        undos = way_back.later_undos(self.records, env, back["record"])
        begun = way_back.begun(undos, back)
        try:
            record.write(path, way_back.tasks(back, begun))
        except OSError as error:
            raise Refusal(f"{path} cannot be written: {error.strerror}; name another dest") from error
        return dict(back, tasks_file=path, taken_back_by=way_back.whole_undo(undos, back))

    @staticmethod
    def plan(observed, wanted):
        changes = ["; ".join(each["what"]) for each in observed["calls"]]
        told = {key: observed[key] for key in ("record", "tasks_file", "hosts", "run_leases", "left")}
        notes = [f"takes back {observed['record']}"]
        if observed["taken_back_by"]:
            notes.append(
                f"{observed['taken_back_by']} took it back already: only what is again as it was left is taken back; another run "
                f"is taken back with -e run=NAME"
            )
        return Plan(notes=tuple(notes), returned=dict(told, changes=changes))

    def view(self, observed):
        return {}


def main():
    run(verb_module(ARGUMENTS), WayBack)


if __name__ == "__main__":
    main()
