#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: readiness_assess
version_added: 0.8.0
short_description: Look for what a recovery needs and no gate asks for
description:
  - Finds what stands in the way of a recovery before there is one, beside the gates of the verbs, which P(sre.runbooks.incident#callback)
    records when C(readiness.yml) asks them. M(sre.runbooks.readiness_report) tells both.
  - Placeholders and empty values that are left in the inventory count for the scenarios whose playbooks name the variable.
  - Changes nothing.
options:
  scenarios:
    description: Names of the scenarios to look at, as their playbooks are called.
    type: list
    elements: str
    required: true
  inventory:
    description: Variables of the service by name. Their values are looked at for placeholders and told to nobody.
    type: dict
    default: {}
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.readiness_report
  - module: sre.runbooks.standby_assess
"""

EXAMPLES = r"""
- name: What the failover of tonight would lack
  sre.runbooks.readiness_assess:
    scenarios: [db_failover]
    region: us-east-1
    inventory:
      hosted_zone_id: Z1234567890ABC
"""

RETURN = r"""
readiness:
  description: The scenarios that were looked at, and what was found, each with the C(scenario) (empty for all of them), the C(level)
    (V(risk), V(cannot_tell) or V(not_ready)), the C(check), the C(resource), the reason and the C(fix).
  returned: success
  type: dict
  sample:
    scenarios: [db_failover]
    findings:
      - {scenario: db_failover, level: not_ready, check: inventory, resource: hosted_zone_id, because: hosted_zone_id is still a placeholder,
         fix: replace CHANGEME in the inventory}
before:
  description: Always empty, as is RV(after).
  returned: success
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: Always empty.
  returned: success
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty.
  returned: success
  type: list
  elements: dict
  sample: []
notes:
  description: Always empty.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Always 0.
  returned: success
  type: float
  sample: 0.0
"""

from ansible_collections.sre.runbooks.plugins.module_utils import readiness_inventory
from ansible_collections.sre.runbooks.plugins.module_utils.masking import HIDDEN
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    scenarios=dict(type="list", elements="str", required=True),
    inventory=dict(type="dict", default={}),
)


class ReadinessAssess(Verb):
    """Look, and tell all that was found."""

    def __init__(self, module):
        super().__init__(module)
        self.inventory = module.params["inventory"]
        # A result shows the parameters of its module (-vvv), and some of these values are passwords.
        module.params["inventory"] = dict.fromkeys(self.inventory, HIDDEN)

    def observe(self):
        named = readiness_inventory.named_by(self.params["scenarios"])
        return {"findings": list(readiness_inventory.judge(self.inventory, named))}

    @staticmethod
    def plan(observed, wanted):
        return Plan(returned={"readiness": {"scenarios": wanted["scenarios"], "findings": observed["findings"]}})

    def view(self, observed):
        return {}


def main():
    run(verb_module(ARGUMENTS), ReadinessAssess)


if __name__ == "__main__":
    main()
