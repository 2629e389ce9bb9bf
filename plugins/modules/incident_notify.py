#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident_notify
version_added: 0.2.0
short_description: Tell everybody who must hear of an incident, or of a run, and never stop a recovery for it
description:
  - Says one moment of an incident where the O(route) of its severity leads, in channels of Slack and in one of the incident's own,
    which it makes; as a page of PagerDuty that is triggered, acknowledged and resolved; as an incident of Statuspage that is
    made, updated and resolved; as e-mail; its action items as issues of Jira.
  - All places are served side by side, each within O(within) seconds; with O(background) the run does not even wait for that. Whatever
    a notifier does, the verb succeeds. It writes each message and how it went into the record of the run.
  - What did not arrive is sent again by the next task of the same incident, also that of another controller where O(record_bucket)
    is one, or of the same run; not what something later has made pointless, such as a page for an incident that is over.
  - Nothing is sent twice where that can be known, by the key of the event at PagerDuty, metadata at Slack and Statuspage, a
    label at Jira. E-mail has the same Message-ID.
  - Secrets and addresses of persons are taken out of all texts before they are sent.
  - In check mode it says what it would tell, and sends nothing.
  - B(Risk:) strangers read the O(public) text.
options:
  moment:
    description: What there is to tell. The run of a playbook in the middle of an incident is V(started) and V(ended).
    type: str
    choices: [opened, acknowledged, started, updated, ended, mitigated, closed]
    required: true
  incident:
    description: Id of the incident. Without it only channels of Slack hear of the moment.
    type: str
  service:
    description: The service that it is about.
    type: str
    required: true
  severity:
    description: The incident's severity, for a note where no route is given for it.
    type: str
    default: ""
  route:
    description: Who hears of it.
    type: dict
    default: {}
    suboptions:
      slack:
        description: Channels, by name (V(#incidents)) or id.
        type: list
        elements: str
        default: []
      incident_channel:
        description: Whether the incident gets a channel of its own, C(#inc-) and its id, to which runs are told then.
        type: bool
        default: false
      pagerduty:
        description: Severity of the page. Without it nobody is paged.
        type: str
        choices: [critical, error, warning, info]
      statuspage:
        description: What the status page shows. Without it nothing is published.
        type: dict
        suboptions:
          impact:
            description: Impact of the incident; by default Statuspage goes by the components.
            type: str
            choices: [none, minor, major, critical]
          components:
            description: Ids of components with the status that each has meanwhile; at the end it is V(operational).
            type: dict
            default: {}
      mail:
        description: Addresses, which do not see each other.
        type: list
        elements: str
        default: []
      jira:
        description: Whether O(action_items) become issues.
        type: bool
        default: false
      update_minutes:
        description: Minutes until the next update is due, for the templates of the role P(sre.runbooks.notify#role).
        type: int
  internal:
    description: The text for those who work on it. Its first line is the title.
    type: str
    required: true
  public:
    description: The text for the status page. Its first line is the name of the incident there. Empty for nothing there.
    type: str
    default: ""
  action_items:
    description: Things to do once the incident is V(closed). The first line of each is its title.
    type: list
    elements: str
    default: []
  background:
    description: Do not wait for the notifiers. A later task of the run without it waits until that is over, O(within) seconds at most.
    type: bool
    default: false
  within:
    description: Seconds for each place.
    type: float
    default: 10
extends_documentation_fragment:
  - sre.runbooks.jira
  - sre.runbooks.notifiers
  - sre.runbooks.records
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Asks AWS for nothing but O(record_bucket), and that only where it waits for the notifiers.
  - The modules of community.general are not used. C(slack) makes no channel and cannot tell whether a message has arrived,
    C(pagerduty_alert) sends in check mode too, C(jira) searches by an API that Jira Cloud no longer has; none of them waits when asked to,
    and C(mail) names all recipients to each other.
seealso:
  - name: Slack Web API
    description: What Slack answers.
    link: https://docs.slack.dev/apis/web-api/
  - name: PagerDuty Events API v2
    description: What an event holds.
    link: https://developer.pagerduty.com/docs/events-api-v2/overview/
  - name: Statuspage API
    description: What an incident of a page holds.
    link: https://developer.statuspage.io/
"""

EXAMPLES = r"""
- name: Everybody hears that the incident is open
  sre.runbooks.incident_notify:
    moment: opened
    incident: 2026-11-21-api-down
    service: regami-api
    severity: P0
    route:
      slack: ["#incidents"]
      incident_channel: true
      pagerduty: critical
      statuspage: {impact: critical, components: {8kbf7d35c070: major_outage}}
    internal: |
      P0: api does not answer
      Service: regami-api in prod
      Next update: 14:45 UTC
    public: |
      Problems with the API
      We are looking into reports of errors.
    slack: {token: "{{ lookup('ansible.builtin.env', 'SLACK_TOKEN') }}"}
    pagerduty: {routing_key: "{{ lookup('ansible.builtin.env', 'PAGERDUTY_ROUTING_KEY') }}"}
    statuspage: {page: qfn30z5r6s5h, token: "{{ lookup('ansible.builtin.env', 'STATUSPAGE_TOKEN') }}"}
"""

RETURN = r"""
told:
  description: Each message that was sent, unless in the background, with where, whether it arrived, and why not.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {channel: slack, place: "#incidents", title: "P0: api does not answer", ok: false, why: "Slack: no answer within 10 s"}
run_over_at:
  description: Seconds since the epoch when all that the run was for was done; what is told after it is no part of the recovery.
  returned: when O(moment=ended)
  type: float
  sample: 1795316400.5
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
  description: What was told, or in check mode would be. It counts as no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: send
      what: "tell slack #incidents, pagerduty: P0: api does not answer"
      before: null
      after: null
undo:
  description: Always empty; what was said was said.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: What did not arrive and why, and what notifiers had to say, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["not told yet: slack #incidents: Slack: no answer within 10 s"]
waited_seconds:
  description: Seconds waited for what was sent in the background.
  returned: unless refused
  type: float
  sample: 0.0
"""

import os
import time

from ansible_collections.sre.runbooks.plugins.module_utils import (
    background,
    channels,
    incidents,
    notices,
    notifiers,
    record,
    records,
)
from ansible_collections.sre.runbooks.plugins.module_utils.team_command import SHORTEST_SECRET
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ()
LINES = dict(type="list", elements="str", default=[])
ARGUMENTS = dict(
    moment=dict(type="str", choices=list(notices.MOMENTS), required=True),
    incident=dict(type="str"),
    service=dict(type="str", required=True),
    severity=dict(type="str", default=""),
    route=dict(
        type="dict",
        default={},
        options=dict(
            slack=LINES,
            incident_channel=dict(type="bool", default=False),
            pagerduty=dict(type="str", choices=["critical", "error", "warning", "info"]),
            statuspage=dict(
                type="dict",
                options=dict(
                    impact=dict(type="str", choices=["none", "minor", "major", "critical"]),
                    components=dict(type="dict", default={}),
                ),
            ),
            mail=dict(LINES, no_log=True),
            jira=dict(type="bool", default=False),
            update_minutes=dict(type="int"),
        ),
    ),
    internal=dict(type="str", required=True),
    public=dict(type="str", default=""),
    action_items=LINES,
    **channels.ARGUMENTS,
    background=dict(type="bool", default=False),
    within=dict(type="float", default=10),
    **records.ARGUMENTS,
)


class IncidentNotify(Verb):
    """Look what was told and what is owed, and say the rest."""

    def __init__(self, module):
        super().__init__(module)
        self.records = records.Records(self.params, self.connection(module))
        self.folder = self.records.own
        # Here, since an answer tells the arguments again.
        secrets = sorted(
            (value for value in module.no_log_values if len(value) >= SHORTEST_SECRET), key=len, reverse=True
        )
        for name in ("internal", "public"):
            self.params[name] = notices.clean(self.params[name], secrets)
        self.params["action_items"] = [notices.clean(item, secrets) for item in self.params["action_items"]]
        self.notifiers = channels.notifiers(self.params, self.params["route"].get("mail") or [])
        self.told = []
        self.began = time.time()

    def observe(self):
        """What the records say; once what this run says in the background is over, so that the order is kept."""
        if not self.folder:
            return {"record": "", "events": [], "at": time.time()}
        if not (self.check_mode or self.params["background"]):
            began = time.monotonic()
            background.wait(self.folder, self.params["within"])
            self.waited_seconds = time.monotonic() - began
            if self.params["incident"]:
                # What another controller could not tell is owed, too.
                self.notes += self.records.fetch(self.params["incident"])
        parent, own = os.path.split(self.folder)
        kinds = ("run_started", "joined", "telling", "told")
        events = notices.related(incidents.runs(parent, kinds), own, self.params["incident"])
        return {"record": own, "events": events, "at": time.time()}

    @staticmethod
    def plan(observed, wanted):
        moment, incident = wanted["moment"], wanted["incident"]
        # An incident begins and ends once; runs may do so often.
        once = incident and moment in ("opened", "closed")
        subject = {
            "key": f"{incident}/{moment}" if once else f"{observed['record']}/{wanted['service']}/{moment}",
            "incident": incident,
            "service": wanted["service"],
            "at": record.now(observed["at"]),
        }
        asked = notices.wanted(
            moment, wanted["route"], wanted["internal"], wanted["public"], subject, wanted["action_items"]
        )
        arrived = notices.already(observed["events"])
        new = [notice for notice in asked if notice.id not in arrived]
        again = {notice.id for notice in new}
        before = [notice for notice in notices.owed(observed["events"], observed["at"]) if notice.id not in again]
        before = notices.in_force(before, new)
        notes = ()
        if incident and wanted["severity"] and not asked:
            notes = (f"nobody hears of severity {wanted['severity']}: give it a route in notify_routes",)
        if not before + new:
            return Plan(notes=notes)
        names = ", ".join(dict.fromkeys(notice.name() for notice in before + new))
        title = (new or before)[-1].title
        tried = frozenset(notice.id for notice in before)
        step = Step("send", f"tell {names}: {title}", arguments={"messages": before + new, "doubtful": tried})
        return Plan((step,), notes=notes)

    def send(self, messages, doubtful):
        """First they are noted, so that what a run that is killed has not said is known."""
        for notice in messages:
            self._note("telling", notice)
        if self.params["background"] and self.folder:
            background.start(self.folder, lambda: self._deliver(messages, doubtful))
        else:
            self._deliver(messages, doubtful)

    def _deliver(self, messages, doubtful):
        known, now = {notice.id: notice for notice in messages}, time.time()

        def done(sent, outcome):
            self._note("told", known[sent.id], ok=outcome.ok, why=outcome.why)
            self.told.append((known[sent.id], outcome))

        said = [notices.late(notice, now) for notice in messages]
        notifiers.tell(said, self.notifiers, self.params["within"], done, doubtful)

    def _note(self, kind, notice, **outcome):
        if self.folder:
            record.append(self.folder, event=kind, **notice.event(), **outcome)

    def observe_end(self):
        return {}

    def view(self, observed):
        return {}

    def is_change(self, steps):
        return False

    def all_notes(self, plan):
        for notice, outcome in self.told:
            if outcome.why:
                self.notes.append(f"{'told' if outcome.ok else 'not told yet'}: {notice.name()}: {outcome.why}")
        return super().all_notes(plan)

    def returned(self):
        over = {"run_over_at": self.began} if self.params["moment"] == "ended" else {}
        return over | {
            "told": [
                {
                    "channel": notice.channel,
                    "place": notice.place,
                    "title": notice.title,
                    "ok": outcome.ok,
                    "why": outcome.why,
                }
                for notice, outcome in self.told
            ]
        }


def main():
    run(verb_module(ARGUMENTS), IncidentNotify)


if __name__ == "__main__":
    main()
