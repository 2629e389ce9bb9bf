# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an incident was, measured: when it was noticed, taken, mitigated and over, what users lost by it, what was changed.

All but `evidence` is pure: the record of the incident and what CloudWatch has counted come in, one dict goes out, from which the
post-mortem draft and the page are both written.
"""

from __future__ import annotations

import os

from . import approvals, incident_times, incidents, record_mirror, story, way_back
from .errors import Refusal
from .findings import findings, losses
from .record_bucket import own_name
from .timeline import seconds_of
from .user_errors import QUIET

# How far before it was noticed users may have seen errors of it, in seconds.
UNNOTICED = 3 * 3600
DAY = 24 * 3600


def window(events, now):
    """(begin, end) in epoch seconds between which the errors of an incident are looked for."""
    runs = story.runs(events)
    begin = incident_times.detected(events, runs)["at"] - UNNOTICED
    resolved = incident_times.resolved(events, runs)["at"]
    return begin, min(now, resolved + QUIET) if resolved else now


def review(events, measured, wanted, now):
    """The review of one incident, as a dict that RETURN of incident_review describes.

    Args:
        events: all of its events by time, each with its `record`.
        measured: {episodes: of user_errors, counted_by: who told them ("" for nobody), alarms, metrics, blind: lines}.
        wanted: {incident, title, service, environment_name, objective: percent or None, window_days}.
        now: epoch seconds.
    """
    runs = story.runs(events)
    noticed = incident_times.detected(events, runs)["at"]
    episodes = [each for each in measured["episodes"] if each["until"] >= noticed - QUIET]
    times = incident_times.times(events, runs, episodes)
    over = times["resolved"]["at"] or now
    alarms = [each for each in measured["alarms"] if noticed - UNNOTICED <= each["since"] <= over]
    opened, closed = (incident_times.first(events, "opened") or {}, incident_times.last(events, "closed") or {})
    downtime = _downtime(episodes, measured["counted_by"], times)
    found = {
        "incident": wanted["incident"],
        "title": opened.get("title") or wanted["title"],
        "severity": incidents.severity_of(events),
        "service": opened.get("service") or wanted["service"],
        "environment": wanted["environment_name"],
        "commander": _commander(events, runs),
        "is_open": times["resolved"]["at"] is None,
        "cause": closed.get("cause") or "",
        "text": closed.get("text") or "",
        "times": times,
        "lengths": incident_times.lengths(times, now),
        "downtime": downtime,
        "budget": budget(downtime["seconds"], wanted["objective"], wanted["window_days"]),
        "episodes": episodes,
        "story": story.story(events, episodes, alarms),
        "runs": runs,
        "changes": changes(runs),
        "losses": losses(events),
        "metrics": measured["metrics"],
        "blind": measured["blind"],
    }
    questions, actions = findings(found, events)
    return dict(found, questions=questions, actions=actions)


def refuse_objective(percent, days):
    """Stop at an objective that leaves no budget, or more than there is."""
    if percent is not None and not (0 < percent < 100):
        raise Refusal(f"slo_availability_percent={percent:g} is no objective: between 0 and 100, such as 99.9")
    if days < 1:
        raise Refusal(f"slo_window_days={days} is no window: one day is the least")


def evidence(runs, parent, dest):
    """[(whose, [(file, link from a file in `dest`)])] of what the runs left in the folder of the records, `parent`."""
    found = []
    for run in runs:
        folder = os.path.join(parent, run.record)
        names = sorted(name for name in os.listdir(folder) if name != record_mirror.MARK)
        found.append((run.record, [(name, os.path.relpath(os.path.join(folder, name), dest)) for name in names]))
        found += [(note, []) for note in run.notes if note.startswith("evidence: ")]
    return found


def budget(downtime, objective, window_days):
    """{objective, window_days, allowed_seconds, burnt_percent} of an error budget; None without an objective or a downtime.

    The budget is the time for which the objective lets a service fail in its window: 43 minutes at 99.9 % over 30 days.
    https://sre.google/workbook/implementing-slos/

    Args:
        downtime: seconds; None for not known.
        objective: percent of the time, below 100; None for none.
    """
    if objective is None or downtime is None:
        return None
    allowed = window_days * DAY * (100 - objective) / 100
    return {
        "objective": objective,
        "window_days": window_days,
        "allowed_seconds": round(allowed, 1),
        "burnt_percent": round(100 * downtime / allowed, 1),
    }


def changes(runs):
    """[{at, host, record, what, state, instead, command}]: what was changed, the earliest first, and whether it still is so.

    A state is one of `taken back`, `in force` (`command` takes its run back, or `instead` says why none does) and `for good`
    (`instead` says what else helps, if anything does). What undo.yml changed is told as what it took back.
    """
    undos = [run.events for run in runs if run.is_undo and not run.only_looked]
    back = set().union(*map(way_back.taken_back, undos))
    newest = _newest(runs)
    done = [(run, event, call) for run in runs if not run.is_undo for event in run.changes for call in event["calls"]]
    stuck = {newest[run.record]: entry for run, _event, call in done for entry in call["undo"] if "cannot" in entry}
    found = []
    for run, event, call in done:
        last = newest[run.record]
        command = f"ansible-playbook playbooks/undo.yml -e env={run.env} -e run={last}"
        state = _state(call, (own_name(last), "; ".join(call["what"])) in back, stuck.get(last), command)
        found.append(
            {"at": seconds_of(event), "host": event["host"], "record": run.record, "what": story.done(call), **state}
        )
    return found


def _newest(runs):
    """{record: that of the last run which went on with it}, by which undo.yml takes all of them back."""
    continued = {run.resumes: run.record for run in runs if run.resumes}
    found = {}
    for run in runs:
        last = run.record
        while last in continued:
            last = continued[last]
        found[run.record] = last
    return found


def _state(call, taken, stuck, command):
    if taken:
        return {"state": "taken back", "instead": "", "command": ""}
    if any("cannot" in entry for entry in call["undo"]):
        return {"state": "for good", "instead": _instead(stuck), "command": ""}
    if not call["undo"]:
        return {"state": "for good", "instead": "", "command": ""}
    if stuck:
        return {"state": "in force", "instead": _instead(stuck), "command": ""}
    return {"state": "in force", "instead": "", "command": command}


def _instead(entry):
    return f"{entry['cannot']}: {entry['instead']}"


def _commander(events, runs):
    """Who took it, as far as the record tells."""
    taken = incident_times.last(events, "acknowledged") or approvals.first_decision(events)
    taken = taken or incident_times.first(events, "opened") or {}
    return taken.get("by") or (runs[0].by if runs else "")


def _downtime(episodes, counted_by, times):
    """{seconds, how, requests, errors}; all but `how` None where nothing tells."""
    if counted_by:
        requests, errors, seconds = (sum(each[key] for each in episodes) for key in ("requests", "errors", "seconds"))
        return {"seconds": seconds, "how": counted_by, "requests": requests, "errors": errors}
    mitigated, noticed = times["mitigated"]["at"], times["detected"]["at"]
    if mitigated is None:
        return {"seconds": None, "how": "nothing tells", "requests": None, "errors": None}
    how = "from detection to mitigation, since nothing counted what users saw"
    return {"seconds": round(max(0, mitigated - noticed)), "how": how, "requests": None, "errors": None}
