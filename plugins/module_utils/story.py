# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An incident as it happened, from the timelines of all of its runs: who did what when, in a line each.

Everything here is pure. An event is what `incidents.merged` gives: a line of a timeline with `record`, the run that wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import approvals, way_back
from .alarms import RINGING
from .incidents import RUN_OVER
from .masking import snippet
from .timeline import seconds_of, spoken, worth_a_line

# Playbooks that keep the books of an incident; what they did stands in their events, and nothing of it is a recovery.
BOOKKEEPING = frozenset(("alert", "approve", "incident_close", "incident_note", "incident_open", "incident_review"))
# What an outcome is called where people read it who do not know the word.
ENDED = {"noop": "nothing was changed", "planned": "only planned"}
# A line for people: one sentence. The record has the rest.
LONGEST = 300


@dataclass
class Run:
    """One run of a playbook: times in epoch seconds, ended and outcome None where it was killed or has not ended.

    `process` is its identity as `lease.run_id` gives it, `ending` the event by which it ended.
    """

    record: str
    playbook: str
    env: str
    by: str
    began: float
    process: str = ""
    only_looked: bool = False
    resumes: str | None = None
    ended: float | None = None
    outcome: str | None = None
    ending: dict | None = None
    last: float = 0.0
    events: list = field(default_factory=list)

    @property
    def name(self):
        return f"{self.playbook} of {self.env}"

    @property
    def notes(self):
        """What its verbs had a person know."""
        return list(dict.fromkeys(note for event in self.steps for note in event.get("notes", ())))

    @property
    def steps(self):
        return [event for event in self.events if event["event"] == "step"]

    @property
    def changes(self):
        """Its steps that changed something; none of a run that only looked, whose record has what it would have changed."""
        return [] if self.only_looked else [event for event in self.steps if event.get("calls")]

    @property
    def failures(self):
        return [event for event in self.steps if event["state"] in ("failed", "unreachable")]

    @property
    def verdict(self):
        """What the last of its verbs that assess something concluded, a line each."""
        assessed = [event for event in self.steps if event.get("verb", "").endswith("_assess")]
        return assessed[-1].get("notes", []) if assessed else []

    @property
    def end(self):
        """How it ended, in words."""
        return ENDED.get(self.outcome, self.outcome) or "never ended"

    @property
    def worth_a_line(self):
        return [event for event in self.steps if worth_a_line(event)]

    @property
    def is_undo(self):
        return way_back.is_undo(self.events)


def runs(events):
    """[Run] of the playbooks that did something about it, the earliest first."""
    found = {}
    for event in events:
        at, record = seconds_of(event), event["record"]
        if event["event"] == "run_started" and event["playbook"] not in BOOKKEEPING:
            found[record] = Run(
                record,
                event["playbook"],
                event["env"],
                event["by"],
                at,
                event.get("run", ""),
                bool(event.get("check_mode")),
                event.get("resumes"),
            )
        if record in found:
            run = found[record]
            run.events.append(event)
            run.last = at
            if event["event"] in (RUN_OVER, "run_ended"):
                run.ended, run.outcome, run.ending = at, event["outcome"], event
    return list(found.values())


def story(events, episodes=(), alarms=()):
    """[{at (epoch seconds), kind, what, record}] as it happened.

    Args:
        events: all of the incident's.
        episodes: of `user_errors.episodes`, what users saw.
        alarms: as metrics_assess returns them.

    A kind is one of users, served, alarm, incident, note, run, change, failure, told.
    """
    lines = [
        {"at": seconds_of(event), "kind": kind, "what": snippet(what, LONGEST), "record": event["record"]}
        for event in events
        for kind, what in _said(event)
    ]
    lines += [dict(line, what=snippet(line["what"], LONGEST)) for line in _heard(events)]
    for run in runs(events):
        lines += [
            {"at": seconds_of(event), "kind": kind, "what": snippet(what, LONGEST), "record": run.record}
            for event in run.events
            for kind, what in _of_a_run(run, event)
        ]
    for each in episodes:
        share = f"{each['errors']} of {each['requests']} requests"
        lines.append({"at": each["since"], "kind": "users", "what": "users see errors", "record": ""})
        lines.append(
            {"at": each["until"], "kind": "served", "what": f"users see no errors any more: {share}", "record": ""}
        )
    for each in alarms:
        what = f"alarm {each['name']} is {each['state']}: {each['why']}"
        kind = "alarm" if each["state"] == RINGING else "note"
        lines.append({"at": each["since"], "kind": kind, "what": snippet(what, LONGEST), "record": ""})
    return sorted(lines, key=lambda line: line["at"])


def done(call):
    """What a call did, without what it waited for."""
    return "; ".join(what for what in call["what"] if not what.startswith("wait "))


def _heard(events):
    """A line for each message, with all the places that heard it, and one for each place that did not."""
    heard = {}
    for event in events:
        if event["event"] == "told":
            said = event.get("title") or event["message"]
            place = f"{event['channel']} {event.get('place', '')}".strip()
            line = {"at": seconds_of(event), "kind": "told", "record": event["record"]}
            if not event["ok"]:
                yield dict(line, what=f"{place} did not hear: {event.get('why') or said}")
            elif event["channel"] == "statuspage":
                yield dict(line, what=f"the status page says: {event['message'] or said}")
            elif first := heard.get((event["record"], event.get("moment"), said)):
                first["places"].append(place)
            else:
                heard[event["record"], event.get("moment"), said] = dict(line, places=[place], said=said)
    for line in heard.values():
        yield {
            "at": line["at"],
            "kind": "told",
            "record": line["record"],
            "what": f"{', '.join(line['places'])} heard: {line['said']}",
        }


def _said(event):
    """What an event of the incident itself says."""
    by = event.get("by") or "somebody"
    kind = event["event"]
    if kind == "opened":
        severity = f", {event['severity']}" if event.get("severity") else ""
        yield "incident", f"{by} opened the incident: {event.get('title', '')}{severity}"
    elif kind == "acknowledged":
        yield "incident", _with(f"{by} acknowledged it", event)
    elif kind == "noted":
        worse = f", which makes it {event['severity']}" if event.get("severity") else ""
        yield "note", f"{by}: {event['text']}{worse}"
    elif kind == "mitigated":
        yield "incident", _with(f"{by} marked it as mitigated", event)
    elif kind == "closed":
        yield "incident", _with(f"{by} closed it", event)
    elif kind == approvals.PROPOSED:
        proposal = approvals.proposed(event)
        yield "note", f"proposed: {proposal.command}, since {proposal.because}"
    elif kind in (approvals.APPROVED, approvals.DENIED):
        yield "incident", f"{by} {kind} {event['proposal']}"


def _with(what, event):
    """With what was said of it."""
    return ": ".join([what, *filter(None, (event.get("cause"), event.get("text"), event.get("why")))])


def _of_a_run(run, event):
    """What an event of a run says."""
    if event["event"] == "run_started":
        looks = ", which only looks (--check)" if run.only_looked else ""
        goes_on = f", which goes on with {run.resumes}" if run.resumes else ""
        yield "run", f"{run.by} started {run.name}{looks}{goes_on}"
    elif event is run.ending:
        kind = "failure" if run.outcome == "failed" else "run"
        yield kind, f"{run.name} ended: {run.end}, after {spoken(run.ended - run.began)}"
    elif event in run.failures:
        yield "failure", f"{_step(event)} failed on {event['host']}: {event.get('message') or 'nothing said why'}"
    elif event in run.changes:
        yield "change", "; ".join(filter(None, map(done, event["calls"]))) or _step(event)


def _step(event):
    """The name of a step without that of the role it stands in."""
    return event["step"].rpartition(" : ")[2]
