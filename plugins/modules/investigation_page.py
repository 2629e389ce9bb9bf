#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: investigation_page
version_added: 0.2.0
short_description: Write what an investigation found as one HTML page
description:
  - Draws the metrics as charts with deployments, alarms and other changes marked on the time axis, and lists the verdict, the
    patterns of errors and the changes. The page is one file that needs no network and no script, for a phone as well.
  - What looks like a secret is masked, as in the record of the run. The file has the mode 0600.
  - Takes what the reading verbs return, as they return it; what was not read may be left out.
  - Asks AWS for nothing and changes nothing but this file, so it does so in check mode too.
  - B(Risk:) none. The page holds names of resources and lines of logs; it is as confidential as they are.
options:
  title:
    description: Heading of the page.
    type: str
    required: true
  dest:
    description:
      - Path of the file. By default C(investigation.html) in the folder of the run's record; without a record in the folder
        that ansible was started in.
    type: path
  environment_name:
    description: The environment, as it is to stand below the heading.
    type: str
    default: ""
  severity:
    description: The severity, where one was found.
    type: str
    default: ""
  evidence:
    description: The verdict's reasons, a line each.
    type: list
    elements: str
    default: []
  causes:
    description: Causes with C(cause), C(score) (0 to 1), C(evidence_for), C(evidence_against) and C(fix), the likeliest first.
    type: list
    elements: dict
    default: []
  next:
    description: What to run, with C(command) and C(because).
    type: dict
    default: {}
  metrics:
    description: As RV(sre.runbooks.metrics_assess#module:metrics).
    type: list
    elements: dict
    default: []
  alarms:
    description: As RV(sre.runbooks.metrics_assess#module:alarms).
    type: list
    elements: dict
    default: []
  patterns:
    description: As RV(sre.runbooks.log_errors#module:patterns).
    type: list
    elements: dict
    default: []
  changes:
    description: As RV(sre.runbooks.recent_changes#module:changes).
    type: list
    elements: dict
    default: []
  blind:
    description: What could not be seen, a line each.
    type: list
    elements: str
    default: []
requirements:
  - matplotlib
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: Draw what the investigation has found
  sre.runbooks.investigation_page:
    title: Why api is slow
    environment_name: prod
    severity: P2
    evidence: ["P2: p99 of regami-alb is 4.1 s, above 3 for 12 min"]
    metrics: "{{ metrics.metrics | default([]) }}"
    changes: "{{ changed.changes | default([]) }}"
    next: {command: ansible-playbook playbooks/kill_queries.yml -e env=prod, because: queries wait for each other}
"""

RETURN = r"""
path:
  description: Where the page is.
  returned: unless refused
  type: str
  sample: incidents/2026-11-21T080212Z-triage-prod/investigation.html
before:
  description: Always empty, as is RV(after).
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: Always empty; nothing of the service is changed.
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
  description: Where the page is, in words.
  returned: unless refused
  type: list
  elements: str
  sample: ["page: incidents/2026-11-21T080212Z-triage-prod/investigation.html"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import os
import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import charts, masking, record
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.investigation import investigation
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
DICTS = dict(type="list", elements="dict", default=[])
LINES = dict(type="list", elements="str", default=[])
ARGUMENTS = dict(
    title=dict(type="str", required=True),
    dest=dict(type="path"),
    environment_name=dict(type="str", default=""),
    severity=dict(type="str", default=""),
    evidence=LINES,
    causes=DICTS,
    next=dict(type="dict", default={}),
    metrics=DICTS,
    alarms=DICTS,
    patterns=DICTS,
    changes=DICTS,
    blind=LINES,
)
NAME = "investigation.html"


class InvestigationPage(Verb):
    """Draw and write."""

    def observe(self):
        if charts.Figure is None:
            raise Refusal(f"the page is not drawn: {missing_required_lib('matplotlib')}")
        path = self.params["dest"] or os.path.join(os.environ.get(record.FOLDER_VARIABLE, ""), NAME)
        try:
            record.write(path, investigation(masking.kept(self.params), time.time()))
        except (KeyError, TypeError) as error:
            raise Refusal(
                f"the page is not drawn: something among metrics, alarms, patterns, changes and causes lacks {error}: "
                f"give them as the reading verbs return them"
            ) from error
        except OSError as error:
            raise Refusal(f"the page {path} cannot be written: {error.strerror}; name another dest") from error
        return {"path": record.shown(path)}

    @staticmethod
    def plan(observed, wanted):
        return Plan(notes=(f"page: {observed['path']}",), returned=dict(observed))

    def view(self, observed):
        return {}


def main():
    run(verb_module(ARGUMENTS), InvestigationPage)


if __name__ == "__main__":
    main()
