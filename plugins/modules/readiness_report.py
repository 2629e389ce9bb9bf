#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: readiness_report
version_added: 0.8.0
short_description: Tell which scenarios would refuse
description:
  - Reads in the timeline of its own run what the gates of all verbs answered and what M(sre.runbooks.readiness_assess) found, and says
    of each scenario of each service whether it is ready, ready with a risk, not ready, or whether nothing can tell.
  - Writes it as C(readiness.json) into the record of the run. The callback P(sre.runbooks.incident#callback) prints the table.
  - Fails where something is not ready. Where something cannot be told it ends as an unreachable host does, so that
    C(ansible-playbook) ends with 2 and with 4.
options:
  environment_name:
    description: Name of the environment, for the messages.
    type: str
    required: true
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.readiness_assess
"""

EXAMPLES = r"""
- name: What it comes to
  sre.runbooks.readiness_report:
    environment_name: prod
    region: us-west-2
  check_mode: false # it writes into the record of the run
"""

RETURN = r"""
level:
  description: The worst of all, V(ready), V(risk), V(cannot_tell) or V(not_ready).
  returned: unless refused
  type: str
  sample: risk
report:
  description: Where the verdicts are, each with its host, scenario, level and findings.
  returned: unless refused
  type: str
  sample: incidents/2026-11-22T060000Z-readiness-prod/readiness.json
before:
  description: Always empty, as is RV(after).
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: unless refused
  type: dict
  sample: {}
steps:
  description: Always empty.
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
notes:
  description: Always empty.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import json
import os

from ansible_collections.sre.runbooks.plugins.module_utils import readiness, record
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(environment_name=dict(type="str", required=True))


class ReadinessReport(Verb):
    """Read the run, judge, write."""

    def observe(self):
        folder = os.environ.get(record.FOLDER_VARIABLE)
        if not folder:
            raise Refusal(
                "nothing tells what the gates answered: enable the callback sre.runbooks.incident, as ansible.cfg of the clone does"
            )
        said = readiness.verdicts(record.events(folder))
        if not said:
            raise Refusal("no scenario was looked at: run playbooks/readiness.yml, which asks them")
        level = readiness.worst(each.level for each in said)
        path = os.path.join(folder, readiness.FILE)
        record.write(path, json.dumps({"level": level, "verdicts": readiness.as_data(said)}, indent=2) + "\n")
        bad = sorted({each.scenario for each in said if each.level == level})
        return {"level": level, "report": min(os.path.relpath(path), path, key=len), "bad": bad}

    @staticmethod
    def plan(observed, wanted):
        env, bad = wanted["environment_name"], ", ".join(observed["bad"])
        told = {key: observed[key] for key in ("level", "report")}
        if observed["level"] == readiness.NOT_READY:
            raise Refusal(f"{env} is not ready for {bad}: the table below says why, and what to do", **told)
        if observed["level"] == readiness.UNKNOWN:
            why = f"whether {env} is ready for {bad} cannot be told: the table below says why"
            return Plan(returned=dict(told, unreachable=True, msg=why))
        return Plan(returned=told)

    def view(self, observed):
        return {}


def main():
    run(verb_module(ARGUMENTS), ReadinessReport)


if __name__ == "__main__":
    main()
