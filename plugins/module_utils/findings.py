# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the record of an incident leaves open, and what follows from it: questions for the people, action items for the tracker.

Each rule is a function of the review that yields findings; nothing is asked that the record answers. They are kept as few as a
post-mortem meeting can talk about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .masking import snippet
from .metrics import clock
from .timeline import spoken

# Seconds within which users' errors should be noticed, and somebody should be at it: regami "Escalation Matrix", P1.
NOTICED_WITHIN, TAKEN_WITHIN = 300, 900
# Errors are counted by the minute: those of the minute in which it was closed may have been before that.
MINUTE = 60
# Of the error budget: one incident that used more needs an action item against its cause.
# https://sre.google/workbook/error-budget-policy/
MUCH_PERCENT = 20
# A title that a tracker takes: Jira's summary has 255 characters.
LONGEST = 250
# ec2-asg "Create Jira Tickets" has these four kinds.
BUG, MONITORING, DOCUMENTATION, PREVENTION = "bug", "monitoring", "documentation", "prevention"
UNFENCED = "UNFENCED"
_PERMISSION = re.compile(r"missing permission ([\w-]+:\w+)")


@dataclass(frozen=True)
class Finding:
    """A question, an action item {kind, title, why}, or both."""

    question: str = ""
    kind: str = ""
    title: str = ""
    why: str = ""


def findings(review, events):
    """([question], [{kind, title, why}]) of a review, as `review.review` has it, and the events of the incident."""
    found = [each for rule in RULES for each in rule(review, events)]
    questions = [each.question for each in found if each.question]
    actions = [{"kind": each.kind, "title": each.title, "why": each.why} for each in found if each.title]
    return list(dict.fromkeys(questions)), [each for n, each in enumerate(actions) if each not in actions[:n]]


def _cause(review, _events):
    if not review["cause"]:
        yield Finding("What is the root cause? The record names none.")
    elif review["cause"] == "unknown":
        yield Finding("What is the root cause? Nobody knew it when this was closed.")


def _still_open(review, _events):
    if review["is_open"]:
        yield Finding("Is it over? It was not closed when this was written.")
    elif review["episodes"] and review["episodes"][-1]["until"] - MINUTE >= review["times"]["resolved"]["at"]:
        yield Finding("Why was it closed while users still saw errors?")


def _noticed_late(review, _events):
    late = review["lengths"]["to_detect"]
    if late is not None and late > NOTICED_WITHIN:
        yield Finding(
            f"Users saw errors for {spoken(late)} before anybody noticed: which alarm should have rung?",
            MONITORING,
            f"Have an alarm ring within {spoken(NOTICED_WITHIN)} of what users saw",
            f"it took {spoken(late)} to notice",
        )


def _began_unknown(review, _events):
    if review["times"]["began"]["at"] is None:
        yield Finding(
            "When did it begin for users, and how many of them did it meet? No load balancer has counted errors."
        )


def _taken_late(review, _events):
    late = review["lengths"]["to_acknowledge"]
    if late is None:
        yield Finding("Who took it, and when?")
    elif late > TAKEN_WITHIN:
        yield Finding(
            f"It took {spoken(late)} until somebody was at it: was the right person called?",
            PREVENTION,
            "Check who is called for this service, and how soon the next one is",
            f"acknowledged after {spoken(late)}",
        )


def _failed_runs(review, _events):
    for run in review["runs"]:
        if run.outcome == "failed" and run.failures:
            event = run.failures[0]
            step, why = event["step"].rpartition(" : ")[2], snippet(event.get("message") or "", 200)
            yield Finding(
                f'What stopped {run.name} at "{step}": {why}?', BUG, f"Mend what stopped {run.name}: {step}", why
            )
        elif run.outcome == "failed":
            yield Finding(f"Why did {run.name} end without having verified what it changed?")
        elif run.outcome is None:
            yield Finding(f"Why did {run.name} ({run.record}) not end? Its last step was at {clock(run.last)} UTC.")


def _still_in_force(review, _events):
    """A change made in an emergency is either wanted for good, and then belongs into code, or taken back."""
    todo = {}
    for each in review["changes"]:
        if each["state"] == "in force":
            why = each["instead"] or f"take it back with: {each['command']}"
            todo.setdefault(("Keep in code, or take back", each["record"], why), []).append(each["what"])
        elif each["state"] == "for good" and each["instead"]:
            todo.setdefault(("Complete what nothing takes back", each["record"], each["instead"]), []).append(
                each["what"]
            )
    for (what, _record, why), done in todo.items():
        yield Finding(kind=PREVENTION, title=snippet(f"{what}: {'; '.join(done)}", LONGEST), why=why)


def losses(events):
    """What the runs said of writes that may be lost, and of a primary that is not fenced."""
    notes = dict.fromkeys(note for event in events if event["event"] == "step" for note in event.get("notes", ()))
    return [note for note in notes if "are lost" in note or "accepted a loss" in note or note.startswith(UNFENCED)]


def _fence_and_loss(review, _events):
    for note in review["losses"]:
        if note.startswith(UNFENCED):
            yield Finding(kind=PREVENTION, title="Fence the old primary before it takes writes", why=note)
        else:
            yield Finding(f"Which writes are lost, and whom must we tell? The run said: {note}")


def _not_told(_review, events):
    """Who did not hear in the end: what was sent again later counts as heard."""
    told = {}
    for event in events:
        if event["event"] == "told":
            told[event["channel"], event["message"]] = event
    for (channel, message), event in told.items():
        if not event["ok"]:
            yield Finding(
                f"Who should have heard by {channel}, and did not ({message})?",
                BUG,
                f"Make {channel} reachable",
                snippet(event.get("why") or message, 200),
            )


def _blind(review, events):
    lines = list(review["blind"])
    lines += [note for event in events if event["event"] == "step" for note in event.get("notes", ())]
    missing = dict.fromkeys(name for line in lines for name in _PERMISSION.findall(line))
    for name in missing:
        yield Finding(
            kind=MONITORING, title=f"Grant {name} to the role of the runbooks", why="they could not see for want of it"
        )


def _budget(review, _events):
    budget = review["budget"]
    if budget and budget["burnt_percent"] > MUCH_PERCENT:
        yield Finding(
            kind=PREVENTION,
            title=f"Keep this cause from coming back: {review['cause'] or 'still to be found'}",
            why=f"it used {budget['burnt_percent']:g} % of the error budget of {budget['window_days']} days",
        )


def _afterwards(review, _events):
    """Regami "Post-Incident Procedures" and courtcase's resolution: what follows each incident."""
    yield Finding(
        kind=PREVENTION,
        title="Hold a blameless post-mortem, and put its findings into this draft",
        why="after each incident",
    )
    ran = sorted({run.playbook for run in review["runs"] if run.changes})
    yield Finding(
        kind=DOCUMENTATION,
        title="Write what was learnt into the runbooks",
        why=f"of {', '.join(ran)}" if ran else "no playbook mended it: should there be one?",
    )


RULES = (
    _still_open,
    _cause,
    _began_unknown,
    _noticed_late,
    _taken_late,
    _failed_runs,
    _fence_and_loss,
    _not_told,
    _budget,
    _still_in_force,
    _blind,
    _afterwards,
)
