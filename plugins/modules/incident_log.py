#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident_log
version_added: 0.2.0
short_description: Open an incident, write a line into it, close it
description:
  - Writes one event into the timeline of this run, which makes the run a part of the incident. Runs of the same environment that
    follow join an open incident by themselves, see M(sre.runbooks.run_guard).
  - Opening an incident that is open, and closing one that is closed, writes nothing.
  - Asks AWS for nothing but O(record_bucket), and does without it, so it works when AWS does not. In check mode nothing is written.
  - B(Risk:) none.
options:
  environment_name:
    description: The environment that is in trouble.
    type: str
    required: true
  event:
    description:
      - What to write. V(acknowledged) says that somebody is at work, V(mitigated) that users are served again though the cause is
        not mended.
      - V(alerted) is for monitoring. It opens an incident, or is a note in the one that is open; V(alert_over) is a note, too, where one
        is open. Both take O(title).
    type: str
    choices: [opened, acknowledged, noted, mitigated, closed, alerted, alert_over]
    required: true
  incident:
    description:
      - Name of the incident, letters, digits, dots and dashes. Default is the newest open one of the environment; for O(event=opened) the day
        and O(title).
    type: str
  title:
    description: What is wrong, in some words. Required with O(event=opened), O(event=alerted) and O(event=alert_over).
    type: str
  severity:
    description: How bad it is, one of O(severities).
    type: str
  severities:
    description: The words of the team, the worst first. Any word will do where this is empty.
    type: list
    elements: str
    default: []
  service:
    description: The service that is in trouble.
    type: str
  detected:
    description: When it was seen first, with O(event=opened) and O(event=alerted), as an ISO 8601 time (without a zone it is UTC). Default is now.
    type: str
  text:
    description: The line to write, for people. Required with O(event=noted). What looks like a secret in it is masked.
    type: str
  cause:
    description: Why it happened, with O(event=closed).
    type: str
extends_documentation_fragment:
  - sre.runbooks.records
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
seealso:
  - module: sre.runbooks.run_guard
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: Open an incident
  sre.runbooks.incident_log:
    environment_name: prod
    event: opened
    title: Checkout answers 503
    severity: P1
    detected: "2026-11-22T02:58:00Z"

- name: Write a line
  sre.runbooks.incident_log:
    environment_name: prod
    event: noted
    text: the partner confirms an outage of theirs

- name: Close it
  sre.runbooks.incident_log:
    environment_name: prod
    event: closed
    cause: a deployment without the new column
"""

RETURN = r"""
incident:
  description: Name of the incident; null where O(event=alert_over) finds none.
  returned: unless refused
  type: str
  sample: 2026-11-22-checkout-answers-503
incident_opened:
  description: What is known of that incident, C(title), C(severity) and C(detected), each empty where nobody said it.
  returned: unless refused
  type: dict
  sample: {title: Checkout answers 503, severity: P1, detected: "2026-11-22T02:58:00.000Z"}
entries:
  description: What the callback writes into the timeline of the run. Empty in check mode, and where nothing is new.
  returned: success
  type: list
  elements: dict
  sample: [{event: noted, incident: 2026-11-22-checkout-answers-503, text: "the partner confirms an outage of theirs", by: jane@bastion}]
before:
  description: Always empty.
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
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
  description: What is written, in words.
  returned: unless refused
  type: list
  elements: str
  sample: ["2026-11-22-checkout-answers-503: opened, Checkout answers 503 (P1)"]
waited_seconds:
  description: Always V(0.0).
  returned: unless refused
  type: float
  sample: 0.0
"""

import os

from ansible_collections.sre.runbooks.plugins.module_utils import incidents, record, records
from ansible_collections.sre.runbooks.plugins.module_utils.guard import refuse_strange_words
from ansible_collections.sre.runbooks.plugins.module_utils.lease import identity
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    environment_name=dict(type="str", required=True),
    event=dict(type="str", required=True, choices=[*incidents.LOGGED, incidents.ALERTED, incidents.ALERT_OVER]),
    incident=dict(type="str"),
    title=dict(type="str"),
    severity=dict(type="str"),
    severities=dict(type="list", elements="str", default=[]),
    service=dict(type="str"),
    detected=dict(type="str"),
    text=dict(type="str"),
    cause=dict(type="str"),
    **records.ARGUMENTS,
)


class IncidentLog(Verb):
    """One line in the log of an incident."""

    def __init__(self, module):
        super().__init__(module)
        self.records = records.Records(self.params, self.connection(module))

    def observe(self):
        refuse_strange_words(os.environ)
        self.records.required_folder()
        self.records.mirror()
        known, notes = self.records.known()
        self.notes += notes
        return {
            "known": known,
            "now": record.now(),
            "by": identity()["holder"],
            "writes": not self.check_mode,
        }

    @staticmethod
    def plan(observed, wanted):
        if wanted["event"] in (incidents.ALERTED, incidents.ALERT_OVER):
            wanted = incidents.of_alert(observed["known"], wanted, observed["now"])
        if wanted is None:
            return Plan(notes=("no incident is open: nothing to note",), returned={"incident": None, "entries": []})
        incident, entry = incidents.entry(observed["known"], wanted, observed["now"], observed["by"])
        notes = (f"{incident}: {incidents.in_words(entry)}",) if entry else (f"{incident}: nothing new",)
        return Plan(
            notes=notes,
            returned={
                "incident": incident,
                "incident_opened": incidents.summary(observed["known"].get(incident), entry),
                "entries": [entry] if entry and observed["writes"] else [],
            },
        )

    def view(self, observed):
        return {}


def main():
    alerts = (incidents.ALERTED, incidents.ALERT_OVER)
    run(verb_module(ARGUMENTS, required_if=[("event", alert, ["title"]) for alert in alerts]), IncidentLog)


if __name__ == "__main__":
    main()
