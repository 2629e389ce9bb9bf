# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An incident: the runs that joined it, on one controller or on many.

Nothing is kept of an incident but events in the timelines of runs: one run's `opened` begins it, each run that says `joined` belongs to
it, `closed` ends it. Each timeline has one writer, so none can lose what another one writes.
"""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import asdict, dataclass, replace

from . import record
from .errors import Refusal, near

OPENED, ACKNOWLEDGED, NOTED, MITIGATED, CLOSED = "opened", "acknowledged", "noted", "mitigated", "closed"
# A run does nothing more to the service: it may be over with its last step, and its incident with it.
RUN_OVER = "run_over"
# What people log; `joined` and `told` are written by the runs themselves.
LOGGED = (OPENED, ACKNOWLEDGED, NOTED, MITIGATED, CLOSED)
# It names files, objects and channels.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
LONGEST_NAME = 48
# Days after which an incident that nobody closed is not joined by itself any more.
STALE_AFTER = 30


@dataclass(frozen=True)
class Incident:
    """What is known of one incident: `opened` and `closed` are ISO times (None: not known to be)."""

    id: str
    env: str
    title: str = ""
    severity: str = ""
    detected: str = ""
    opened: str | None = None
    closed: str | None = None


def id_of(title, day):
    """An ID from words; `day` as YYYY-MM-DD."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:LONGEST_NAME].strip("-")
    return f"{day}-{words or 'incident'}"


def summary(incident, entry=None):
    """What messages say of an Incident, or of the one that `entry` (of `entry`) has just opened or made worse: {title, severity,
    detected}."""
    said = asdict(incident) if incident else {}
    if entry and entry["event"] == OPENED:
        said = entry
    elif entry and entry.get("severity"):
        said["severity"] = entry["severity"]
    return {key: said.get(key) or "" for key in ("title", "severity", "detected")}


def recent(parent, now):
    """The runs of a folder that opened, joined or closed an incident that may be joined at `now` (epoch seconds)."""
    return runs(parent, ("joined", *LOGGED), since=record.now(now - 86400 * STALE_AFTER)[:10])


def refuse_malformed(wanted):
    if not ID.fullmatch(wanted):
        raise Refusal(
            f"incident={wanted} is no name of an incident: letters, digits, dots and dashes, such as 2026-11-22-checkout"
        )


def runs(parent, kinds=(), since=""):
    """{name of the run: its events} of the records in a folder that have any.

    Args:
        kinds: only events of these kinds; all of them by default.
        since: only runs whose name is not before this; names begin with the time.
    """
    try:
        names = sorted(name for name in os.listdir(parent) if name >= since)
    except OSError:
        return {}
    found = {name: record.events(os.path.join(parent, name), kinds) for name in names}
    return {name: events for name, events in found.items() if events}


def joined(events):
    """The incident that a run belongs to; None for a run of its own."""
    return next((event["incident"] for event in events if event["event"] == "joined"), None)


def of(all_runs, incident):
    """The runs of one incident among `all_runs`."""
    return {name: events for name, events in all_runs.items() if joined(events) == incident}


def merged(some_runs):
    """All events of {run: events} in one list by time, each with its run as `record`. A run's own events keep their order."""
    rows = []
    for name, events in some_runs.items():
        latest = ""
        for number, event in enumerate(events):
            latest = max(latest, event["time"])
            rows.append((latest, name, number, dict(event, record=name)))
    return [event for _time, _name, _number, event in sorted(rows, key=lambda row: row[:3])]


def known(some_runs):
    """{ID: Incident} of all that these runs opened, joined or closed."""
    found = {}
    for event in merged(some_runs):
        name = event.get("incident")
        if event["event"] not in ("joined", *LOGGED) or not name:
            continue
        seen = found.setdefault(name, {"id": name, "env": event.get("env", "")})
        if event["event"] == OPENED:
            told = {key: event.get(key) or "" for key in ("title", "severity", "detected")}
            seen.update(told, env=event["env"], opened=event["time"])
        elif event["event"] == CLOSED:
            seen["closed"] = event["time"]
        elif event.get("severity"):
            seen["severity"] = event["severity"]
    return {name: Incident(**seen) for name, seen in found.items()}


def both(one, other):
    """What two controllers know of the same incident, `one` more than the `other`. Each may only have joined it, and closed by one it
    is closed for all."""
    return replace(one if one.opened else other, closed=one.closed or other.closed)


def open_ones(incidents, env):
    """The Incidents of `env` that were opened and not closed, the newest last."""
    found = [each for each in incidents.values() if each.env == env and each.opened and not each.closed]
    return sorted(found, key=lambda each: each.opened)


def newest(incidents, env):
    """ID of the incident of `env` that was opened last, closed or not; None where none was."""
    found = [each for each in incidents.values() if each.env == env and each.opened]
    return max(found, key=lambda each: each.opened).id if found else None


def choose(incidents, env, wanted):
    """Pure: (the ID to join or None, a note for people or None). Bookkeeping stops no recovery: of several the newest is joined.

    Raises Refusal for an ID that nobody opened, where others are open: that is a slip of the pen.
    """
    candidates = open_ones(incidents, env)
    if wanted:
        refuse_malformed(wanted)
        if wanted not in incidents and candidates:
            raise Refusal(
                f"no incident {wanted} was opened; open in {env} {near(wanted, [each.id for each in candidates])}; nothing was changed"
            )
        return wanted, None
    if not candidates:
        return None, None
    newest = candidates[-1]
    if len(candidates) == 1:
        return newest.id, None
    others = ", ".join(each.id for each in candidates[:-1])
    return newest.id, f"joined {newest.id}, the newest that is open; -e incident=ID joins another one: {others}"


# What the entry of each event keeps of what was said.
_KEPT = {
    OPENED: ("title", "severity", "service", "detected", "fires"),
    ACKNOWLEDGED: ("text",),
    NOTED: ("text", "severity", "fires", "over"),
    MITIGATED: ("text",),
    CLOSED: ("cause", "text", "why"),
}


def entry(incidents, wanted, now, by):
    """Pure: (ID, the event to write) for what a person wants to log; (ID, None) where that is written already.

    Args:
        incidents: {ID: Incident}.
        wanted: options of incident_log: environment_name, event, incident, title, ...; of an alert with `fires` or `over`, and `why` it is closed.
        now: ISO time.
        by: who.

    Raises:
        Refusal: something is missing or of no such form, or there is no incident to write into.
    """
    event, env, given = wanted["event"], wanted["environment_name"], wanted["incident"]
    if wanted["severities"] and wanted["severity"] and wanted["severity"] not in wanted["severities"]:
        raise Refusal(
            f"severity={wanted['severity']} is none of the team's; {near(wanted['severity'], wanted['severities'])}"
        )
    if event == OPENED:
        wanted = dict(wanted, detected=moment(wanted["detected"] or now))
        if not wanted["title"]:
            raise Refusal('an incident needs a title: say -e \'{"title": "what is wrong"}\'; nothing was written')
        name = given or id_of(wanted["title"], wanted["detected"][:10])
        refuse_malformed(name)
        before = incidents.get(name)
        if before and before.closed:
            raise Refusal(f"{name} was closed at {before.closed}: say -e incident= another name")
        is_new = not (before and before.opened)
    else:
        if event == NOTED and not wanted["text"]:
            raise Refusal('a note needs words: say -e \'{"text": "what you saw or did"}\'; nothing was written')
        name, _note = choose(incidents, env, given)
        if name is None:
            raise Refusal(f"no incident is open in {env}: open one with incident_open.yml, or say -e incident=ID")
        is_new = not (event == CLOSED and name in incidents and incidents[name].closed)
    if not is_new:
        return name, None
    kept = {key: wanted[key] for key in _KEPT[event] if wanted.get(key)}
    return name, {"event": event, "incident": name, "env": env, "by": by, **kept}


def is_worse(severity, than, severities):
    """Pure: whether `severity` is worse than another one, `severities` being all of them, the worst first. Any is worse than none."""
    if severity not in severities:
        return False
    return than not in severities or severities.index(severity) < severities.index(than)


def severity_of(events):
    """How bad an incident is in the end, empty where nobody said it."""
    said = [event["severity"] for event in events if event["event"] in (OPENED, NOTED) and event.get("severity")]
    return said[-1] if said else ""


def moment(text):
    """An ISO time in UTC."""
    try:
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Refusal(f"detected={text} is no time: say it like 2026-11-22T02:58:00Z") from None
    return record.now(at.replace(tzinfo=at.tzinfo or datetime.UTC).timestamp())


def in_words(event):
    """An event that a person logged, for people."""
    said = [event.get(key) for key in ("title", "cause", "text", "why") if event.get(key)]
    severity = f" ({event['severity']})" if event.get("severity") else ""
    return ": ".join([event["event"], *said]) + severity
