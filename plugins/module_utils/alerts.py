# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts of monitoring in the log of an incident: which of them still fire, and whether the incident is over with the last one.

An event that is logged for an alert has its identity, as `fires` where it began and as `over` where it ended.
"""

from __future__ import annotations

from . import approvals, incidents, story
from .lease import is_dead

ALERTED, ALERT_OVER = "alerted", "alert_over"
EVENTS = (ALERTED, ALERT_OVER)
# Who logs it, for people; the account is that of the run.
BY = "monitoring"
# Playbooks that neither mend anything of a service nor propose it: no incident waits for their end.
NEVER_MEND = frozenset(("bootstrap", "network_diagnosis", "readiness", "recovery_validation"))


def firing(events):
    """Pure: {identity: what it says} of the alerts that the events of an incident leave on, the first first."""
    on = {}
    for event in events:
        if event.get("fires"):
            on[event["fires"]] = event.get("title") or event["text"].partition(": ")[2]
        on.pop(event.get("over"), None)
    return on


def logged(known, events, wanted, now):
    """Pure: `wanted` of an alert as that of `incidents.entry`, or None where there is nothing to write.

    Args:
        known: {ID: Incident}.
        events: {ID: its events} of the open ones.
        wanted: options of incident_log, `event` being one of EVENTS, `title` what the alert says.
        now: ISO time.
    """
    is_open = incidents.open_ones(known, wanted["environment_name"])
    alert, said = wanted["alert"] or wanted["title"], wanted["title"]
    # Of several open incidents the alert ends where it began.
    own = [each.id for each in is_open if alert in firing(events.get(each.id, ()))]
    noted = dict(wanted, event=incidents.NOTED, incident=wanted["incident"] or next(reversed(own), None), severity="")
    if wanted["event"] == ALERT_OVER:
        return dict(noted, text=f"alert over: {said}", over=alert) if is_open else None
    if is_open:
        # A worse one than those before makes the incident worse.
        before = known.get(noted["incident"] or is_open[-1].id)
        is_worse = incidents.is_worse(wanted["severity"], before.severity if before else "", wanted["severities"])
        return dict(noted, text=f"alert: {said}", fires=alert, severity=wanted["severity"] if is_worse else "")
    day = incidents.moment(wanted["detected"] or now)[:10]
    first = wanted["incident"] or incidents.id_of(said, day)
    # The same alert may open another incident on the same day.
    names = (first, *(f"{first}-{number}" for number in range(2, len(known) + 3)))
    return dict(wanted, event=incidents.OPENED, incident=next(name for name in names if name not in known), fires=alert)


def opened_by_one(events):
    """Pure: whether an alert opened the incident whose `events` these are."""
    return any(event["event"] == incidents.OPENED and event.get("fires") for event in events)


def stays_open(events, now, minutes):
    """[why an incident is not over although an alert, or a run, is; for people]; empty where it is.

    Whatever may still happen to the service, and whatever is half done, keeps it open: a person closes it then.

    Args:
        events: all of the incident's by time, each with its `record`.
        now: epoch seconds.
        minutes: so long a proposal waits for a decision.
    """
    runs = [run for run in story.runs(events) if not run.only_looked and run.playbook not in NEVER_MEND]
    why = [] if opened_by_one(events) else ["a person opened it"]
    why += [f"still on: {said}" for said in firing(events).values()]
    waiting = approvals.pending(events, now, minutes)
    why += [f"{each.id} is {each.state}, and has not begun" for each in waiting]
    recovered = [number for number, run in enumerate(runs) if run.outcome == "recovered"]
    for number, run in enumerate(runs):
        if run.ended is None and not is_dead(run.process):
            why.append(f"{run.record} is still under way")
        elif number > max(recovered, default=-1) and (run.ended is None or (run.outcome == "failed" and run.changes)):
            why.append(f"{run.record} {'was killed' if run.ended is None else 'failed half way'}")
    return why
