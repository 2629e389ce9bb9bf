# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who hears what of an incident: the notices of a moment, and which of those before are still owed. Nothing here is sent."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field, fields, replace

from . import incidents, masking
from .timeline import seconds_of

# What there is to tell of an incident, in the order in which it comes.
MOMENTS = ("opened", "acknowledged", "started", "updated", "ended", "mitigated", "closed")
# Of interest to those who work on it.
WORK = ("acknowledged", "started", "ended")
# A run that starts in an incident is somebody who works on it: the page needs no second person.
PAGER_ACTIONS = {"opened": "trigger", "acknowledged": "acknowledge", "started": "acknowledge", "closed": "resolve"}
# https://developer.statuspage.io/#operation/postPagesPageIdIncidents; an update leaves the status as it is.
PAGE_STATUS = {
    "opened": "investigating",
    "started": "identified",
    "ended": "monitoring",
    "mitigated": "monitoring",
    "closed": "resolved",
}
MAILED = ("opened", "updated", "mitigated", "closed")
# Of these a later notice says all that an earlier one would have said.
STATES = ("pagerduty", "statuspage")
# https://docs.slack.dev/reference/methods/conversations.create: small letters, digits, - and _, 80 at most.
LONGEST_CHANNEL = 80
# A notice that is being sent and has no outcome for so many seconds was left by a run that was killed.
LOST_AFTER = 60.0


@dataclass(frozen=True)
class Notice:
    """One message to one place.

    `id` is the same whenever the same is sent again. `at` is the time (as in records) of what it tells, `details` what only
    its channel needs. Title and text hold no secret and nobody's address: they go into the record, and to strangers.
    """

    id: str
    moment: str
    channel: str
    place: str
    title: str
    text: str
    at: str
    details: dict = field(default_factory=dict)

    def event(self):
        """As it stands in a timeline, the kind of event and the outcome aside."""
        noted = asdict(self)
        noted["message"] = noted.pop("text")
        return noted

    def name(self):
        """The place, as people call it."""
        return f"{self.channel} {self.place}".strip()


def of_event(event):
    """The Notice of an event that `Notice.event` has made."""
    known = {each.name for each in fields(Notice)} - {"text"}
    return Notice(text=event["message"], **{name: event[name] for name in known})


def clean(text, secrets=()):
    """`text` without secrets, those known by their value among them, and without anybody's address."""
    for secret in secrets:
        text = text.replace(secret, masking.HIDDEN)
    return masking.masked(text).strip()


def channel_of(incident):
    """Name of the Slack channel of an incident."""
    return f"inc-{re.sub(r'[^a-z0-9_-]+', '-', incident.lower())}"[:LONGEST_CHANNEL]


def wanted(moment, route, internal, public, subject, action_items=()):
    """The notices of one moment.

    Args:
        route: {slack: [channels], incident_channel, pagerduty: severity, statuspage: {impact, components}, mail: [addresses], jira}.
        internal, public: texts, whose first line is the title; no public text, nothing on the status page.
        subject: {key, incident, service, at}; `key` names this moment, `incident` is None for a run outside of one.
        action_items: texts, for tickets when it is closed.
    """
    incident, at = subject["incident"], subject["at"]
    made = []

    def add(channel, place, text, details=None, key=None):
        title, _end, rest = clean(text).partition("\n")
        name = f"{key or subject['key']}/{channel}/{place}".rstrip("/")
        made.append(Notice(name, moment, channel, place, title, rest.strip(), at, details or {}))

    own = f"#{channel_of(incident)}" if incident and route.get("incident_channel") else None
    if own:
        add("slack", own, internal, {"create": True})
    if not (own and moment in WORK):
        for place in route.get("slack") or ():
            add("slack", place, internal)
    if not incident:
        return made
    if route.get("pagerduty") and moment in PAGER_ACTIONS:
        asked = {"action": PAGER_ACTIONS[moment], "severity": route["pagerduty"], "source": subject["service"]}
        # An incident that becomes worse pages again, in the same alert: by its severity PagerDuty chooses whether to wake somebody.
        # https://support.pagerduty.com/main/docs/dynamic-notifications
        key = f"{subject['key']}/{route['pagerduty']}" if moment == "opened" else None
        add("pagerduty", "", internal, {**asked, "dedup_key": incident}, key=key)
    if route.get("statuspage") and public.strip():
        page = route["statuspage"]
        shown = {"incident": incident, "status": PAGE_STATUS.get(moment), "impact": page.get("impact")}
        components = page.get("components") or {}
        if moment == "closed":
            components = dict.fromkeys(components, "operational")
        add("statuspage", "", public, {**shown, "components": components})
    if route.get("mail") and moment in MAILED:
        add("mail", "", internal, {"incident": incident})
    if route.get("jira") and moment == "closed":
        for item in action_items:
            label = f"{incident}-{hashlib.sha256(item.encode()).hexdigest()[:8]}"
            add("jira", "", item, {"incident": incident, "label": label}, key=label)
    return made


def reached(routes):
    """Pure: {channel: places} that the routes lead to; the places are channels of Slack and components of the status page.

    Args:
        routes: {severity: route}, a route as for `wanted`.
    """
    found = {}

    def add(channel, places=()):
        found[channel] = list(dict.fromkeys([*found.get(channel, ()), *places]))

    for route in filter(None, routes.values()):
        if route.get("slack") or route.get("incident_channel"):
            add("slack", route.get("slack") or ())
        if route.get("statuspage"):
            add("statuspage", route["statuspage"].get("components") or ())
        for channel in ("pagerduty", "mail", "jira"):
            if route.get(channel):
                add(channel)
    return found


def related(runs, own, incident):
    """The events whose notices concern a run: those of the incident's runs; outside of one, those of the runs that it goes on with.

    Args:
        runs: {name of the record: events}.
    """
    names = {own}
    if incident:
        names |= incidents.of(runs, incident).keys()
    else:
        while own := next((event["resumes"] for event in runs.get(own, ()) if event["event"] == "run_started"), None):
            names.add(own)
    return [event for name in sorted(names) for event in runs.get(name, ())]


def owed(events, now):
    """The notices that never arrived, the oldest first.

    Args:
        events: of all runs of the incident, `telling` and `told` among them, in any order.
        now: seconds since the epoch.
    """
    begun, failed, arrived, latest = {}, {}, already(events), {}
    for event in events:
        if event["event"] in ("telling", "told"):
            notice, times = of_event(event), begun if event["event"] == "telling" else failed
            latest[notice.id] = notice
            times[notice.id] = max(times.get(notice.id, 0.0), seconds_of(event))

    def is_missing(name):
        if name in arrived:
            return False
        return failed.get(name, 0.0) >= begun.get(name, 0.0) or now - begun[name] > LOST_AFTER

    missing = [notice for name, notice in latest.items() if is_missing(name)]
    missing.sort(key=lambda notice: notice.at)
    return in_force(missing, latest.values())


def in_force(missing, others):
    """Those of `missing` that nothing later of `others` has made pointless; in their order."""
    return [notice for notice in missing if not any(_replaces(later, notice) for later in others)]


def _replaces(later, notice):
    same = (later.channel, later.place) == (notice.channel, notice.place)
    if not same or notice.channel not in STATES or later.at <= notice.at:
        return False
    # Whoever was never paged must be, even if somebody works on it; not once it is over.
    return notice.channel == "statuspage" or later.moment == "closed" or notice.moment != "opened"


def late(notice, now):
    """A notice of long ago, so that nobody takes it for news. `now` in seconds since the epoch."""
    if now - seconds_of({"time": notice.at}) < LOST_AFTER or notice.channel in (*STATES, "jira"):
        return notice
    return replace(notice, title=f"{notice.title} (late: of {notice.at[11:16]} UTC)")


def already(events):
    """Ids of what has arrived."""
    return {event["id"] for event in events if event["event"] == "told" and event["ok"]}
