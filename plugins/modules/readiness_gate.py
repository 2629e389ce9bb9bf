#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: readiness_gate
version_added: 0.8.0
short_description: End a run by how ready it found everything
description:
  - Fails where something is not ready. Where something cannot be told it ends as an unreachable host does, so that
    C(ansible-playbook) ends with 2 and with 4.
  - Stands last, when all that is to be told of M(sre.runbooks.readiness_report) is told.
options:
  environment_name:
    description: Name of the environment, for the messages.
    type: str
    required: true
  fail_on:
    description: Whether a risk fails, too.
    type: str
    choices: [not_ready, risk]
    default: not_ready
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Asks AWS for nothing.
seealso:
  - module: sre.runbooks.readiness_report
"""

EXAMPLES = r"""
- name: Is all of it ready
  sre.runbooks.readiness_gate:
    environment_name: prod
    fail_on: risk
    region: us-west-2
"""

RETURN = r"""
level:
  description: The worst of all, V(ready), V(risk), V(cannot_tell) or V(not_ready).
  returned: unless this run has no verdicts
  type: str
  sample: risk
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

from ansible_collections.sre.runbooks.plugins.module_utils import readiness
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    environment_name=dict(type="str", required=True),
    fail_on=dict(type="str", choices=[readiness.NOT_READY, readiness.RISK], default=readiness.NOT_READY),
)


class ReadinessGate(Verb):
    """Let pass, or end the run."""

    def observe(self):
        said = readiness.of_this_run()
        level = readiness.worst(each.level for each in said)
        return {"level": level, "bad": sorted({each.scenario or "all" for each in said if each.level == level})}

    @staticmethod
    def plan(observed, wanted):
        env, bad, level = wanted["environment_name"], ", ".join(observed["bad"]), observed["level"]
        if level == readiness.UNKNOWN:
            why = f"whether {env} is ready for {bad} cannot be told: the table below says why"
            return Plan(returned={"level": level, "unreachable": True, "msg": why})
        if level in (readiness.NOT_READY, wanted["fail_on"]):
            raise Refusal(
                f"{env} is {readiness.WORDS[level]} for {bad}: the table below says why, and what to do", level=level
            )
        return Plan(returned={"level": level})

    def view(self, observed):
        return {}


def main():
    run(verb_module(ARGUMENTS), ReadinessGate)


if __name__ == "__main__":
    main()
