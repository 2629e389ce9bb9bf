# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The draft of a post-mortem in Markdown: mangu "Post-Incident Report" with its five parts, the head of courtcase "Resolution
Notification", the timeline as ec2-asg "Update Incident Timeline" writes it.

https://github.github.com/gfm/
"""

from __future__ import annotations

import re
import time

from .timeline import spoken

TO_WRITE = "_To be written._"
# So many lines of what a run found; its record has the rest.
MOST_NOTES = 8


def post_mortem(review, page, evidence):
    """The draft.

    Args:
        review: as `review.review` returns it.
        page: link to the same as an HTML page.
        evidence: of `review.evidence`.
    """
    parts = (
        f"# {plain(review['title'])}",
        f"Post-mortem draft of {review['incident']}, made from its record. [The same as a page, with charts]({page}). What you write "
        "in here stays: a later review goes to a file beside it.",
        table(("", ""), [(f"**{name}**", plain(value)) for name, value in head(review)]),
        f"## Summary\n\n{plain(summary(review))}",
        f"## Timeline\n\n{_timeline(review['story'])}",
        f"## Root cause\n\n{_cause(review)}",
        f"## Impact\n\n{bullets([*impact(review), *review['losses']])}\n\nUsers and features: {TO_WRITE}",
        f"## Resolution\n\n{_resolution(review)}",
        f"## Action items\n\n{_actions(review['actions'])}",
        f"## Open questions\n\n{bullets(review['questions'], '- [ ]') or 'None that the record leaves.'}",
        f"## Evidence\n\n{_evidence(evidence)}",
        *([f"## Not seen\n\n{bullets(review['blind'])}"] if review["blind"] else ()),
    )
    return "\n\n".join(parts) + "\n"


def head(review):
    """[(name, value)] of what a reader looks for first."""
    times, lengths = review["times"], review["lengths"]
    yield "Incident", review["incident"]
    yield "Severity", review["severity"] or "not said"
    yield "Service", f"{review['service']} ({review['environment']})"
    yield "Incident commander", review["commander"] or "not said"
    for label, name, since in (
        ("Began", "began", None),
        ("Detected", "detected", "to_detect"),
        ("Acknowledged", "acknowledged", "to_acknowledge"),
        ("Mitigated", "mitigated", "to_mitigate"),
        ("Resolved", "resolved", "to_resolve"),
    ):
        after = f"after {spoken(lengths[since])}, " if since and lengths[since] is not None else ""
        at = f"{moment(times[name]['at'])} UTC" if times[name]["at"] else "not known"
        yield label, f"{at} ({after}{times[name]['how']})"
    yield "Duration", spoken(lengths["duration"]) + (" so far" if review["is_open"] else "")
    yield "Downtime", f"{length(review['downtime']['seconds'])} ({review['downtime']['how']})"
    if review["budget"]:
        yield "Error budget", budget(review["budget"])


def summary(review):
    """Two sentences that can be read out."""
    lengths, errors = review["lengths"], review["downtime"]["errors"]
    seen = f" {errors} of {review['downtime']['requests']} requests failed." if errors is not None else ""
    then = [
        f"{what} after {spoken(lengths[key])}"
        for what, key in (("taken", "to_acknowledge"), ("mitigated", "to_mitigate"), ("closed", "to_resolve"))
        if lengths[key] is not None
    ]
    after = f" Once noticed, it was {', '.join(then)}." if then else ""
    return f"{review['service']} in {review['environment']}: {review['title']}.{seen}{after}"


def impact(review):
    """What users lost by it, a line each."""
    downtime = review["downtime"]
    if downtime["errors"] is not None:
        yield f"{downtime['errors']} of {downtime['requests']} requests failed in {length(downtime['seconds'])}"
    else:
        yield f"Downtime: {length(downtime['seconds'])} ({downtime['how']})"
    if review["budget"]:
        yield f"Error budget: {budget(review['budget'])}"


def budget(found):
    """The error budget as a sentence."""
    allowed = spoken(found["allowed_seconds"])
    return (
        f"{found['objective']:g} % over {found['window_days']} days allows {allowed}; this incident used "
        f"{found['burnt_percent']:g} % of it"
    )


def undo_state(change):
    """Whether a change is still in force, and what is to be done about it."""
    then = change["instead"] or change["command"]
    return f"{change['state']}: {then}" if then else change["state"]


def length(seconds):
    return "not known" if seconds is None else spoken(seconds)


def moment(at):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def plain(value):
    """Text of others as text of Markdown: one line, and nothing in it is markup, an element or a cell of its own."""
    line = " ".join(str(value).split())
    line = re.sub(r"([\\`*\[\]|~])", r"\\\1", line)
    # An underscore within a word is no emphasis.
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", line)
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line).replace("<", "&lt;")
    # What would begin a heading, a list or a quotation where a line begins.
    return re.sub(r"^(\d*)([.)]|#+|[-+>])(?=\s|$)", r"\1\\\2", line)


def bullets(lines, mark="-"):
    return "\n".join(f"{mark} {plain(line)}" for line in lines)


def table(heads, rows):
    """A table of cells that are Markdown already."""
    ruled = [heads, tuple("---" for _head in heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ruled)


def _timeline(lines):
    """A heading for each day, where there are several."""
    days = {}
    for line in lines:
        day, clock = moment(line["at"]).split()
        days.setdefault(day, []).append(f"- **{clock} UTC**: {plain(line['what'])}")
    return "\n\n".join(f"### {day}\n\n" + "\n".join(told) for day, told in days.items())


def _cause(review):
    said = ": ".join(filter(None, (review["cause"], review["text"])))
    # Of a playbook that looked and then mended the last look.
    looked = {run.playbook: run for run in review["runs"] if run.verdict}
    found = [f"{run.name}: {note}" for run in looked.values() for note in run.verdict[:MOST_NOTES]]
    hints = f"\n\nWhat the runs found:\n\n{bullets(found)}" if found else ""
    return f"{plain(said) or TO_WRITE}{hints}"


def _resolution(review):
    if not review["changes"]:
        return f"No run changed anything. {TO_WRITE}"
    rows = [
        (moment(each["at"]).split()[1], plain(each["what"]), plain(each["record"]), plain(undo_state(each)))
        for each in review["changes"]
    ]
    return table(("UTC", "What was changed", "Run", "Since then"), rows)


def _actions(actions):
    rows = [(each["kind"], plain(each["title"]), plain(each["why"]), "", "") for each in actions]
    return table(("Kind", "What", "Why", "Owner", "Due"), rows)


def _evidence(evidence):
    lines = []
    for whose, files in evidence:
        links = ", ".join(f"[{plain(name)}](<{link}>)" for name, link in files)
        lines.append(f"- {plain(whose)}{': ' if links else ''}{links}")
    return "\n".join(lines)
