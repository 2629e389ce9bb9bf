#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident_review
version_added: 0.3.0
short_description: Write the review of an incident, as a post-mortem draft and as a page
description:
  - Takes the timelines of all runs of an incident and what CloudWatch has counted meanwhile, and finds when it began, was noticed,
    acknowledged, mitigated and resolved, how long users saw errors, how much of the error budget that was, what was changed and whether
    it still is so, which questions are open and what is to be done.
  - Writes it as Markdown, V(YYYY-MM-DD-name.md), for people to go on with, and as one HTML page with the timeline drawn and the metrics
    as charts, which needs no network and no script, V(YYYY-MM-DD-name.html).
  - A draft in which a person has written is left alone; what is new goes to V(YYYY-MM-DD-name.2.md), and RV(edited) tells it. The page
    is written anew.
  - What cannot be read of CloudWatch is told in the review and fails nothing. Alarms are told only with O(alarm_prefixes).
  - With O(record_bucket) the runs of other controllers are read from there, and the files are put there with the record of this run.
  - What looks like a secret is masked, as in the records. The files have the mode 0600.
  - B(Risk:) none. The review holds names of resources and messages of errors; it is as confidential as the records are.
options:
  incident:
    description: The incident, V(YYYY-MM-DD-name), which names the files. Default is the newest of the environment.
    type: str
  record:
    description: Name of one run's record, to review a run that belongs to no incident.
    type: str
  dest:
    description: Folder of the drafts and pages, which is made if need be.
    type: path
    required: true
  environment_name:
    description: The environment.
    type: str
    required: true
  service_name:
    description: The service, for people, where the incident does not name it.
    type: str
    default: ""
  slo_availability_percent:
    description: For so many percent of the time the service is to be available. Without it no error budget is told.
    type: float
  slo_window_days:
    description: Days over which that counts.
    type: int
    default: 30
  error_percent:
    description: A minute in which more than so many of a hundred requests failed is one of downtime.
    type: float
    default: 1
extends_documentation_fragment:
  - sre.runbooks.readings
  - sre.runbooks.readings.metrics
  - sre.runbooks.records
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - matplotlib
notes:
  - Needs C(cloudwatch:GetMetricData) and C(cloudwatch:DescribeAlarms), with O(record_bucket) C(s3:ListBucket) and C(s3:GetObject).
    CloudWatch keeps minutes for 15 days.
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.investigation_page
  - module: sre.runbooks.user_errors
  - module: sre.runbooks.way_back
"""

EXAMPLES = r"""
- name: Write the review of an incident
  sre.runbooks.incident_review:
    incident: 2026-11-21-checkout-fails
    dest: docs/incidents
    environment_name: prod
    service_name: regami-api
    slo_availability_percent: 99.9
    load_balancer_arns: ["{{ load_balancer_arn }}"]
    cluster: regami-cluster
    service: regami-service
    db_instances: [regami-db-primary]
    alarm_prefixes: [regami-]
    region: us-east-1
"""

RETURN = r"""
draft:
  description: Path of the draft in Markdown, where it is or would be written.
  returned: unless refused
  type: str
  sample: docs/incidents/2026-11-21-checkout-fails.md
page:
  description: Path of the page.
  returned: unless refused
  type: str
  sample: docs/incidents/2026-11-21-checkout-fails.html
edited:
  description: Drafts that people have written in, which are left alone.
  returned: unless refused
  type: list
  elements: str
  sample: []
incident:
  description: Name of the incident, or of the run's record.
  returned: unless refused
  type: str
  sample: 2026-11-21-checkout-fails
title:
  description: What it was, in a few words.
  returned: unless refused
  type: str
  sample: Checkout fails
severity:
  description: Its severity, empty where nobody has said one.
  returned: unless refused
  type: str
  sample: P1
is_open:
  description: Whether it was not closed yet.
  returned: unless refused
  type: bool
  sample: false
times:
  description:
    - When it C(began), was C(detected), C(acknowledged), C(mitigated) and C(resolved), each with C(at) in seconds of the epoch, null
      where it is not known, and C(how), what that is taken from.
  returned: unless refused
  type: dict
  sample:
    began: {at: 1763712120, how: users saw errors}
    detected: {at: 1763712180.2, how: when it was opened}
    acknowledged: {at: 1763712241.0, how: by anna}
    mitigated: {at: 1763712400.5, how: db_failover of prod had recovered and verified it}
    resolved: {at: 1763712900.7, how: when it was closed}
lengths:
  description: How long it lasted, and how long each took, in seconds; null where it is not known. All but the first two from detection.
  returned: unless refused
  type: dict
  sample: {duration: 780.7, to_detect: 60.2, to_acknowledge: 60.8, to_mitigate: 220.3, to_resolve: 720.5}
downtime:
  description: How long users saw errors, in seconds, what that is taken from, and how many of their requests failed; null where nothing tells.
  returned: unless refused
  type: dict
  sample: {seconds: 240, how: "whole minutes, as load balancers counted", requests: 9130, errors: 412}
budget:
  description: The error budget, and how much of it this incident used; null without O(slo_availability_percent) or a downtime.
  returned: unless refused
  type: dict
  sample: {objective: 99.9, window_days: 30, allowed_seconds: 2592.0, burnt_percent: 9.3}
changes:
  description:
    - What was changed, the earliest first. C(state) is V(taken back), V(in force), where C(command) takes it back or C(instead) says why
      nothing does, or V(for good), where C(instead) says what else helps, if anything does.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - at: 1763712300.1
      host: api-prod
      record: 2026-11-21T080456Z-rollback_deployment-prod
      what: roll regami-service back to regami-api:3
      state: in force
      instead: ""
      command: ansible-playbook playbooks/undo.yml -e env=prod -e run=2026-11-21T080456Z-rollback_deployment-prod
questions:
  description: What the record leaves open.
  returned: unless refused
  type: list
  elements: str
  sample: ["What is the root cause? The record names none."]
action_items:
  description: What is to be done; C(kind) is V(bug), V(monitoring), V(documentation) or V(prevention).
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {kind: documentation, title: Write what was learnt into the runbooks, why: of rollback_deployment}
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
  description: The files that were written, or in check mode would be; none where nothing is new.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: write, what: write docs/incidents/2026-11-21-checkout-fails.md, before: null, after: null}
undo:
  description: Always empty.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: What it cost, and where the draft and the page are, in words.
  returned: unless refused
  type: list
  elements: str
  sample: ["post-mortem draft: docs/incidents/2026-11-21-checkout-fails.md"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import os
import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import (
    alarms,
    charts,
    draft,
    elbv2,
    incidents,
    masking,
    metrics,
    record,
    records,
    review,
    user_errors,
)
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, near
from ansible_collections.sre.runbooks.plugins.module_utils.post_mortem import impact, post_mortem
from ansible_collections.sre.runbooks.plugins.module_utils.review_page import axis, review_page
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("cloudwatch", "s3")
ARGUMENTS = {name: option for name, option in metrics.ARGUMENTS.items() if name != "within_minutes"} | dict(
    incident=dict(type="str"),
    record=dict(type="str"),
    dest=dict(type="path", required=True),
    environment_name=dict(type="str", required=True),
    service_name=dict(type="str", default=""),
    slo_availability_percent=dict(type="float"),
    slo_window_days=dict(type="int", default=30),
    error_percent=dict(type="float", default=1),
    **records.ARGUMENTS,
)
COUNTED = "whole minutes, as load balancers counted"
RECORDED = "whole minutes, as the runs recorded"
# Minutes before and after it that the charts show.
MARGIN = 15
RETURNED = (
    "incident",
    "title",
    "severity",
    "is_open",
    "times",
    "lengths",
    "downtime",
    "budget",
    "changes",
    "questions",
)


class IncidentReview(Verb):
    """Read the record, measure, and write."""

    def __init__(self, module):
        super().__init__(module)
        self.records = records.Records(self.params, self.connection(module))

    def observe(self):
        wanted = self.params
        review.refuse_objective(wanted["slo_availability_percent"], wanted["slo_window_days"])
        if charts.Figure is None:
            raise Refusal(f"the review is not written: {missing_required_lib('matplotlib')}")
        name, runs, missing = self._runs(self.records.required_folder())
        try:
            return self._written(self._review(name, incidents.merged(runs), missing))
        except OSError as error:
            raise Refusal(
                f"the review in {wanted['dest']} cannot be read: {error.strerror}; name another dest"
            ) from error

    def _runs(self, parent):
        """(name, {run: events} of what is reviewed, what of it may be missing)."""
        if self.params["record"]:
            name = os.path.basename(os.path.normpath(self.params["record"]))
            events = incidents.runs(parent, since=name).get(name)
            if not events:
                raise Refusal(f"{parent} has no record {name}: say -e run=NAME with a folder of it")
            return name, {name: events}, []
        known, missing = self.records.known()
        # Old ones, too: a review may come late.
        known = {**incidents.known(incidents.runs(parent, ("joined", *incidents.LOGGED))), **known}
        name = self.params["incident"] or incidents.newest(known, self.params["environment_name"]) or ""
        found, not_had = self.records.runs_of(name)
        missing += [note for note in not_had if not missing]
        if not found:
            raise Refusal(f"{parent} knows no incident {name} ({near(name, known)}): say -e incident=ID")
        return name, found, missing

    def _review(self, name, events, missing):
        wanted, now = self.params, time.time()
        said = {
            "incident": name,
            "title": name,
            "service": wanted["service_name"],
            "environment_name": wanted["environment_name"],
            "objective": wanted["slo_availability_percent"],
            "window_days": wanted["slo_window_days"],
        }
        measured = self._counted(events, now)
        measured["blind"] += missing
        first = review.review(events, measured | {"metrics": []}, said, now)
        found, blind = self._metrics(first, now)
        measured |= {"metrics": found, "blind": measured["blind"] + blind}
        return masking.kept(review.review(events, measured, said, now))

    def _counted(self, events, now):
        """What users saw, and the alarms of that time."""
        begin, end = review.window(events, now)
        looks = {
            arn: lambda arn=arn: elbv2.by_minute(self.aws, arn, begin, end)
            for arn in dict.fromkeys(self.params["load_balancer_arns"])
        }
        if self.params["alarm_prefixes"]:
            looks["alarms"] = lambda: alarms.read(self.aws, self.params["alarm_prefixes"], begin)
        found = tried_together(looks)
        blind = [f"{what}: {reason(error)}" for what, error in found.items() if isinstance(error, Exception)]
        rung = found.pop("alarms", [])
        minutes = user_errors.merged(each for each in found.values() if isinstance(each, dict))
        recorded = {each["since"]: each for event in events if (each := event.get("user_errors"))}
        return {
            "counted_by": COUNTED if minutes else RECORDED if recorded else "",
            "episodes": user_errors.episodes(minutes, end, self.params["error_percent"])
            if minutes
            else list(recorded.values()),
            "alarms": [] if isinstance(rung, Exception) else rung,
            "blind": blind,
        }

    def _metrics(self, found, now):
        """(metrics as metrics_assess returns them, what could not be read) of the time that is drawn, and some more."""
        begin, end = axis(found)
        end = min(now, end + 60 * MARGIN)
        signals = metrics.of_all(self.params, self.aws.region)
        seen, blind = metrics.read(self.aws, signals, end, (end - begin) // 60 + MARGIN)
        return metrics.judged(seen, self.params["limits"], end), [
            f"metrics in {each}: {why}" for each, why in blind.items()
        ]

    def _written(self, found):
        """The review with the texts of its files, where they go, and which of them are new."""
        dest, name = self.params["dest"], found["incident"]
        evidence = review.evidence(found["runs"], self.records.folder, dest)
        text = draft.sealed(post_mortem(found, f"{name}.html", evidence))
        place = draft.place(dest, name, text)
        page = os.path.join(dest, f"{name}.html")
        html = review_page(found, os.path.basename(place.path), evidence)
        files = {place.path: text} if place.write else {}
        if draft.read(page) != html:
            files[page] = html
        return found | {"draft": place.path, "page": page, "edited": list(place.edited), "files": files}

    @staticmethod
    def plan(observed, wanted):
        steps = [
            Step("write", f"write {path}", arguments={"path": path, "text": text})
            for path, text in observed["files"].items()
        ]
        edited = [f"{path} is left alone, since somebody has written in it" for path in observed["edited"]]
        told = {key: observed[key] for key in (*RETURNED, "draft", "page", "edited")}
        blind = [f"the review lacks {each}" for each in observed["blind"]]
        notes = (
            *impact(observed),
            *blind,
            *edited,
            f"post-mortem draft: {observed['draft']}",
            f"page: {observed['page']}",
        )
        return Plan(tuple(steps), notes=notes, returned=told | {"action_items": observed["actions"]})

    def write(self, path, text):
        try:
            os.makedirs(self.params["dest"], exist_ok=True)
            record.write(path, text)
            if self.records.own and self.params["record_bucket"]:
                # The bucket gets what lies beside the timeline; a controller of AWX has no folder that lasts.
                record.write(os.path.join(self.records.own, os.path.basename(path)), text)
        except OSError as error:
            raise Refusal(f"{path} cannot be written: {error.strerror}; name another dest") from error

    def is_change(self, steps):
        """Of the service nothing is changed."""
        return False

    def view(self, observed):
        return {}


def main():
    run(
        verb_module(
            ARGUMENTS,
            mutually_exclusive=[("incident", "record")],
            required_together=[("cluster", "service")],
        ),
        IncidentReview,
    )


if __name__ == "__main__":
    main()
