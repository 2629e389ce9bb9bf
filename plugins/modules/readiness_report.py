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
  - Estimates by the recoveries of the last year how long each scenario takes and how much data it loses, by the median of the last ten
    beside the worst of them. Where that is above what is promised, or something is promised, nothing is known and nothing was tried lately, it is a risk.
    What recovered in the same environment counts by the time of the run, a drill by the time from its page. A run that went on with one
    that was killed counts for nothing.
  - Writes C(readiness.json) and one page, C(readiness.html), into the record of the run. The callback P(sre.runbooks.incident#callback)
    prints the table.
  - Succeeds whatever it finds; M(sre.runbooks.readiness_gate) ends the run by it.
options:
  environment_name:
    description: Name of the environment, for the messages, and as the records have it.
    type: str
    required: true
  drill_reports:
    description: Folder with the reports of drills. Default is E(SRE_DRILL_REPORTS), else C(drill-reports) beside O(records).
    type: path
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.records
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.readiness_assess
  - module: sre.runbooks.readiness_gate
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
counts:
  description: How many scenarios of all services are of each level.
  returned: unless refused
  type: dict
  sample: {ready: 5, risk: 1, cannot_tell: 0, not_ready: 0}
report:
  description: Where the verdicts are, each with its host, scenario, level and findings.
  returned: unless refused
  type: str
  sample: incidents/2026-11-22T060000Z-readiness-prod/readiness.json
page:
  description: Where the page is.
  returned: unless refused
  type: str
  sample: incidents/2026-11-22T060000Z-readiness-prod/readiness.html
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
  description: Where the page is, and which records could not be read.
  returned: unless refused
  type: list
  elements: str
  sample: ["page: incidents/2026-11-22T060000Z-readiness-prod/readiness.html"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import json
import os
import time
from dataclasses import asdict

from ansible_collections.sre.runbooks.plugins.module_utils import (
    estimates,
    masking,
    past_runs,
    readiness,
    record,
    records,
)
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.readiness_page import readiness_page
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("s3",)
ARGUMENTS = dict(environment_name=dict(type="str", required=True), drill_reports=dict(type="path"), **records.ARGUMENTS)
PAGE = "readiness.html"


class ReadinessReport(Verb):
    """Read the run and those before it, judge, write."""

    def __init__(self, module):
        super().__init__(module)
        self.records = records.Records(self.params, self.connection(module))

    def observe(self):
        folder = self.records.own
        if not folder:
            raise Refusal(
                "nothing tells what the gates answered: enable the callback sre.runbooks.incident, as ansible.cfg of the clone does"
            )
        now, env, events = time.time(), self.params["environment_name"], record.events(folder)
        asked = readiness.asked(events)
        recoveries, blind = self._recoveries(sorted({each for its in asked.values() for each in its}), now)
        known = estimates.of_all(asked, readiness.promised(events), recoveries, env)
        risks = estimates.risks(known, now, is_complete=not blind)
        words = {key: found.words() for key, (found, _promise) in known.items()}
        said = readiness.verdicts(events, risks, words)
        if not said:
            if asked:
                raise Refusal(
                    f"by its inventory no service of {env} has what these scenarios are about: leave -e scenario out, and all that "
                    f"there are will be looked at, or fill the inventory in"
                )
            raise Refusal("no scenario was looked at: run playbooks/readiness.yml, which asks them")
        found = {key: each for key, (each, _promise) in known.items()}
        told = {
            "level": readiness.worst(each.level for each in said),
            "counts": readiness.counted(said),
            "verdicts": readiness.as_data(said),
            "estimates": [dict(asdict(each), host=host, scenario=name) for (host, name), each in found.items()],
        }
        record.write(os.path.join(folder, readiness.FILE), json.dumps(masking.kept(told), indent=2) + "\n")
        record.write(os.path.join(folder, PAGE), readiness_page(env, said, found, now, blind))
        paths = {"report": os.path.join(folder, readiness.FILE), "page": os.path.join(folder, PAGE)}
        shown = {name: record.shown(path) for name, path in paths.items()}
        return {"level": told["level"], "counts": told["counts"], **shown, "notes": blind}

    def _recoveries(self, playbooks, now):
        """([Recovery] of what happened and of drills, notes on what could not be read)."""
        folder = self.records.folder
        reports = self.params["drill_reports"] or os.environ.get("SRE_DRILL_REPORTS")
        drills = past_runs.read_drills(reports or os.path.join(os.path.dirname(folder), "drill-reports"), now)
        env = self.params["environment_name"]
        here = past_runs.read_runs(folder, playbooks, env, now)
        elsewhere, blind = self.records.elsewhere(
            lambda bucket: past_runs.read_bucket(bucket, folder, playbooks, env, now)
        )
        return [*here, *(elsewhere or []), *drills], blind

    @staticmethod
    def plan(observed, wanted):
        told = {key: value for key, value in observed.items() if key != "notes"}
        return Plan(notes=(f"page: {observed['page']}", *observed["notes"]), returned=told)

    def view(self, observed):
        return {}


def main():
    run(verb_module(ARGUMENTS), ReadinessReport)


if __name__ == "__main__":
    main()
