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
  - Opening an incident that is open, and closing one that is closed, writes nothing. With O(record_bucket) that holds for all
    controllers that share it, also for alerts of one moment; where the bucket cannot be had it holds for this controller, which is told.
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
      - V(alerted) is for monitoring. It opens an incident, or is a note in the one that is open, which gets its severity where that is
        worse by O(severities); V(alert_over) is a note, too, where one
        is open, and may close it, see O(closes). Both take O(title).
      - V(run_over) is for the end of a run. It says that the run does nothing more to the service, so that the incident which it belongs
        to may be closed, see O(closes), and is nothing where it belongs to none, or to one that a person opened.
    type: str
    choices: [opened, acknowledged, noted, mitigated, closed, alerted, alert_over, run_over]
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
  alert:
    description: What identifies the alert, so that its end is known as that of the same, with O(event=alerted) and O(event=alert_over). Default is
      O(title).
    type: str
  closes:
    description:
      - Whether O(event=alert_over) and O(event=run_over) close an incident that an alert opened, once none of its alerts is on any more. It
        stays open, and what it tells says why, while a run is under way, while something that was proposed waits for a decision or has
        not begun since, and where the last that a run did was to fail half way or to be killed.
      - It stays open, too, where the records of other controllers cannot be read.
    type: bool
    default: false
  valid_minutes:
    description: How long a proposal waits for a decision, see M(sre.runbooks.run_approval).
    type: float
    default: 60
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

- name: An alert is over, and perhaps the incident with it
  sre.runbooks.incident_log:
    environment_name: prod
    event: alert_over
    title: 5xx of regami-api above 1 %
    closes: true

- name: A run ends, and perhaps the incident with it
  sre.runbooks.incident_log:
    environment_name: prod
    event: run_over
    closes: true

- name: Close it
  sre.runbooks.incident_log:
    environment_name: prod
    event: closed
    cause: a deployment without the new column
"""

RETURN = r"""
incident:
  description: Name of the incident; null where O(event=alert_over) or O(event=run_over) finds none.
  returned: unless refused
  type: str
  sample: 2026-11-22-checkout-answers-503
incident_opened:
  description: What is known of that incident, C(title), C(severity) and C(detected), each empty where nobody said it.
  returned: unless refused
  type: dict
  sample: {title: Checkout answers 503, severity: P1, detected: "2026-11-22T02:58:00.000Z"}
logged:
  description:
    - What there is to tell of it, C(moment) as O(sre.runbooks.incident_notify#module:moment), C(by) whom, C(text), the C(cause) of one
      that is closed, and whether an alert made the incident a C(worse) one. Null where there is nothing, as with one alert more, or less, in
      an open incident.
  returned: unless refused
  type: dict
  sample: {moment: closed, by: monitoring, text: "the last alert is over: 5xx of regami-api above 1 %", cause: "", worse: false}
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
import time

from ansible_collections.sre.runbooks.plugins.module_utils import alerts, incidents, record, records
from ansible_collections.sre.runbooks.plugins.module_utils.guard import refuse_strange_words
from ansible_collections.sre.runbooks.plugins.module_utils.lease import identity
from ansible_collections.sre.runbooks.plugins.module_utils.masking import kept
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    environment_name=dict(type="str", required=True),
    event=dict(type="str", required=True, choices=[*incidents.LOGGED, *alerts.EVENTS, incidents.RUN_OVER]),
    incident=dict(type="str"),
    title=dict(type="str"),
    severity=dict(type="str"),
    severities=dict(type="list", elements="str", default=[]),
    service=dict(type="str"),
    detected=dict(type="str"),
    text=dict(type="str"),
    cause=dict(type="str"),
    alert=dict(type="str"),
    closes=dict(type="bool", default=False),
    valid_minutes=dict(type="float", default=60),
    **records.ARGUMENTS,
)
# What role notify calls an event that is called otherwise.
MOMENTS = {incidents.NOTED: "updated"}


# What people say in words of their own.
SAID = ("title", "text", "cause")
# What needs all that the incident's runs have done.
OF_MACHINES = (*alerts.EVENTS, incidents.RUN_OVER)


class IncidentLog(Verb):
    """One line in the log of an incident."""

    def __init__(self, module):
        super().__init__(module)
        # The incident may get its name from the title.
        self.params.update({name: kept(self.params[name]) for name in SAID})
        self.records = records.Records(self.params, self.connection(module))

    def observe(self):
        refuse_strange_words(os.environ)
        self.records.required_folder()
        self.records.mirror()
        known, missing = self.records.known()
        self.notes = list(missing)
        observed = {"known": known, "now": record.now(), "by": identity()["holder"], "writes": not self.check_mode}
        if self.params["event"] not in OF_MACHINES:
            return observed
        events = {}
        for each in incidents.open_ones(known, self.params["environment_name"]):
            runs, notes = self.records.runs_of(each.id)
            events[each.id] = incidents.merged(runs)
            missing += [note for note in notes if note not in missing]
        return dict(observed, by=alerts.BY, events=events, missing=missing, epoch=time.time(), run=self._run())

    def _run(self):
        """What this run knows of itself: its record, its incident, and how it has ended so far."""
        own = self.records.own or ""
        events = record.events(own)
        return {
            "record": os.path.basename(own),
            "incident": incidents.joined(events),
            "outcome": record.so_far(events)["outcome"],
        }

    def note(self, plan):
        return self.records.noted(plan, lambda: self.plan(self.observe(), self.params))

    @staticmethod
    def plan(observed, wanted):
        if wanted["event"] in alerts.EVENTS:
            return _of_alert(observed, wanted)
        if wanted["event"] == incidents.RUN_OVER:
            return _of_run(observed, wanted)
        incident, entry = incidents.entry(observed["known"], wanted, observed["now"], observed["by"])
        return _logged(observed, incident, wanted["event"], [entry] if entry else [], wanted["text"])

    def view(self, observed):
        return {}


def _of_alert(observed, wanted):
    """The Plan for what monitoring says."""
    known, by = observed["known"], observed["by"]
    said = alerts.logged(known, observed["events"], wanted, observed["now"])
    if said is None:
        return _nothing("no incident is open: nothing to note")
    incident, entry = incidents.entry(known, said, observed["now"], by)
    if said["event"] == incidents.OPENED:
        return _logged(observed, incident, incidents.OPENED, [entry])
    if wanted["event"] == alerts.ALERTED:
        # One alert more tells those who are at work nothing that monitoring has not, unless it makes the incident a worse one.
        worse = f"{said['text']}, which makes it {said['severity']}" if said["severity"] else ""
        return _logged(observed, incident, incidents.NOTED, [entry], worse, is_told=bool(worse))
    # One alert less does neither.
    is_last = not alerts.firing(_seen(observed, entry))
    why = _stays_open(observed, wanted, entry) if wanted["closes"] else ""
    if why or not wanted["closes"]:
        text = f"{said['text']}; the incident stays open: {why}" if why else said["text"]
        return _logged(observed, incident, incidents.NOTED, [dict(entry, text=text)], text, is_told=is_last)
    return _closed(observed, wanted, entry, f"the last alert is over: {said['title']}")


def _of_run(observed, wanted):
    """The Plan for a run that does nothing more to the service: with the last one the incident may be over, where its alerts are."""
    run = observed["run"]
    incident, events = run["incident"], observed["events"].get(run["incident"], ())
    if not alerts.opened_by_one(events):
        return _nothing("this run belongs to no open incident of monitoring's: nothing to note")
    if any(event["event"] == incidents.RUN_OVER and event["record"] == run["record"] for event in events):
        return _nothing(f"{incident} knows already that this run is over")
    env = wanted["environment_name"]
    entry = {"event": incidents.RUN_OVER, "incident": incident, "env": env, "outcome": run["outcome"]}
    why = _stays_open(observed, wanted, entry)
    if why or not wanted["closes"]:
        return _logged(
            observed, incident, incidents.RUN_OVER, [entry], f"stays open: {why}" if why else "", is_told=False
        )
    return _closed(observed, wanted, entry, "all alerts are over, and nothing is under way or proposed any more")


def _seen(observed, entry):
    """The events of an incident once `entry` is written."""
    own = dict(entry, time=observed["now"], record=observed["run"]["record"])
    return [*observed["events"].get(entry["incident"], ()), own]


def _stays_open(observed, wanted, entry):
    """Why the incident is not over once `entry` is written, in words; empty where it is."""
    seen = _seen(observed, entry)
    return "; ".join(observed["missing"] or alerts.stays_open(seen, observed["epoch"], wanted["valid_minutes"]))


def _closed(observed, wanted, entry, why):
    """The Plan that writes `entry`, and closes its incident with it. What a person said to the run is no cause that was found."""
    closing = dict(wanted, event=incidents.CLOSED, incident=entry["incident"], why=why, cause="", text="")
    incident, end = incidents.entry(observed["known"], closing, observed["now"], observed["by"])
    return _logged(observed, incident, incidents.CLOSED, [entry, end], why)


def _nothing(why):
    nothing = {"incident": None, "incident_opened": None, "logged": None, "entries": []}
    return Plan(notes=(why,), returned=nothing)


def _logged(observed, incident, event, entries, text="", is_told=True):
    """The Plan that has `entries` written; none are new where the log says the same already. `text` is what people hear of it."""
    written = [incidents.in_words(each) for each in entries if each["event"] in incidents.LOGGED]
    first, last = (entries[0], entries[-1]) if entries else ({}, {})
    logged = {
        "moment": MOMENTS.get(event, event),
        "by": observed["by"],
        "text": text or "",
        "cause": last.get("cause") or "",
        "worse": event == incidents.NOTED and bool(first.get("severity")),
    }
    return Plan(
        notes=(f"{incident}: {'; '.join(written) or text or 'nothing new'}",),
        returned={
            "incident": incident,
            "incident_opened": incidents.summary(observed["known"].get(incident), first or None),
            "logged": logged if is_told else None,
            "entries": entries if observed["writes"] else [],
        },
    )


def main():
    run(verb_module(ARGUMENTS, required_if=[("event", alert, ["title"]) for alert in alerts.EVENTS]), IncidentLog)


if __name__ == "__main__":
    main()
