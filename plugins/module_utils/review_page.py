# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The review of an incident as a page: what it cost, the timeline drawn, the metrics, what happened and what is to be done."""

from __future__ import annotations

import time

from .charts import ticks
from .figures import figures
from .masking import snippet
from .page import listed, page, section, tag, text
from .post_mortem import budget, length, moment, summary, undo_state
from .story import LONGEST
from .timeline import seconds_of, spoken

# Of a drawing: units across, and the least width of what takes no time.
WIDE, THIN = 1000, 5
# Seconds that are drawn at the least; shorter than that, minutes have no place on the axis.
SHORTEST = 240
# An incident is often closed long after it was over: what follows more than so many times as long is not drawn.
LONG_AFTER = 4
# What is numbered in a chart: so many at the most, and none nearer to another than this share of it, or nobody could read them.
MOST_MARKS, APART = 9, 30
# The colours of the charts, by the kind of a line of the story.
MARKED = {"incident": "incident", "alarm": "alarm", "change": "deployment"}
VALUES = (("at worst", "worst"), ("at the end", "now"), ("before", "before"), ("a week ago", "week_ago"))
KEY = "Red are errors and failures, green is what changed something. The shade is the time in which users saw errors."
COLOURS = {"failure": "bad", "users": "bad", "alarm": "bad", "incident": "mark", "change": "good", "served": "good"}


def review_page(review, draft, evidence):
    """The HTML.

    Args:
        review: as `review.review` returns it.
        draft: link to the draft in Markdown.
        evidence: of `review.evidence`.
    """
    begin, end = axis(review)
    numbers = numbered(review["story"], (end - begin) / APART)
    marks = [
        (number, review["story"][place]["at"], MARKED[review["story"][place]["kind"]])
        for place, number in numbers.items()
    ]
    bad = [(each["since"], each["until"]) for each in review["episodes"]]
    return page(
        review["title"],
        _head(review, draft),
        tag("div", "\n".join(_facts(review)), "facts"),
        section("Timeline", *drawn(review)),
        section("Metrics", *figures([_worst(each) for each in review["metrics"]], marks, "events below", VALUES, bad)),
        section(
            "Root cause",
            tag("p", text(": ".join(filter(None, (review["cause"], review["text"]))) or "still to be found")),
        ),
        section("What happened", _story(review["story"], numbers)),
        section("What was changed", _changes(review["changes"])),
        section("Open questions", listed(review["questions"])),
        section("Action items", _actions(review["actions"])),
        section("What the runs found", *_notes(review["runs"])),
        section("Evidence", _evidence(evidence)),
        section("Not seen", listed(review["blind"])),
    )


def numbered(story, apart):
    """Pure: {place in the story: number} of what is marked in the charts, as time goes; none within `apart` seconds of another."""
    places = []
    for place, line in enumerate(story):
        if line["kind"] in MARKED and not (places and line["at"] - story[places[-1]]["at"] < apart):
            places.append(place)
    return {place: number for number, place in enumerate(places[:MOST_MARKS], 1)}


def axis(review):
    """Pure: (begin, end) in epoch seconds of what is drawn."""
    known = [moment["at"] for name, moment in review["times"].items() if moment["at"] and name != "resolved"]
    known += [run.began for run in review["runs"]] + [run.last for run in review["runs"]]
    known += [each["until"] for each in review["episodes"]]
    begin, acted = min(known), max(known)
    over = review["times"]["resolved"]["at"]
    end = over if over and over - begin <= LONG_AFTER * max(acted - begin, SHORTEST) else acted
    missing = max(0, SHORTEST - (end - begin)) / 2
    return begin - missing - 0.02 * (end - begin), end + missing + 0.02 * (end - begin)


def drawn(review):
    """A row for what users saw, for each phase and for each run, whose steps are folded in it, all on one axis."""
    begin, end = axis(review)
    times = {name: each["at"] for name, each in review["times"].items()}
    bad = [(each["since"], each["until"]) for each in review["episodes"]]

    def row(label, spans, css, name="div"):
        lasted = spoken(sum(last - first for first, last in spans))
        told = tag("span", f"{text(label)} <small>{lasted}</small>", "label")
        return tag(name, told + _track(label, spans, css, bad, begin, end), "row")

    yield tag("p", tag("small", KEY))
    yield _scale(begin, end)
    if bad:
        yield row("Users saw errors", bad, "bad")
    for label, first, last, css in (
        ("Not noticed yet", "began", "detected", "bad"),
        ("Noticed, not mitigated yet", "detected", "mitigated", "mark"),
        ("Mitigated, not closed yet", "mitigated", "resolved", "good"),
    ):
        if times[first] and times[last] and times[first] < times[last]:
            yield row(label, [(times[first], times[last])], css)
    for run in review["runs"]:
        steps = [
            row(
                event["step"].rpartition(" : ")[2],
                [(seconds_of(event) - event["duration"], seconds_of(event))],
                _colour(event["state"]),
            )
            for event in run.worth_a_line
        ]
        colour = "bad" if run.outcome in (None, "failed") else "good"
        summary_row = row(f"{run.name}: {run.end}", [(run.began, run.last)], colour, "summary")
        folded = " open" if run.changes or run.outcome in (None, "failed") else ""
        yield f"<details{folded}>{summary_row}{''.join(steps)}</details>"


def _colour(state):
    return {"changed": "good", "failed": "bad", "unreachable": "bad"}.get(state, "calm")


def _scale(begin, end):
    """The times of the axis, none of them beyond its ends."""
    labels = []
    for at, label in zip(*ticks(begin, end), strict=True):
        share = 100 * (at - begin) / (end - begin)
        labels.append(f'<span style="left:{share:.2f}%;transform:translateX(-{share:.0f}%)">{label}</span>')
    return f'<div class="row"><small class="label">UTC</small><small class="scale">{"".join(labels)}</small></div>'


def _track(label, spans, css, bad, begin, end):
    """The drawing of a row: what users saw shaded, the bars above it."""

    def box(first, last, css, top, high):
        left, right = (WIDE * (min(max(at, begin), end) - begin) / (end - begin) for at in (first, last))
        return f'<rect class="{css}" x="{left:.1f}" y="{top}" width="{max(right - left, THIN):.1f}" height="{high}"/>'

    drawn = [f'<rect class="ground" x="0" y="5" width="{WIDE}" height="1"/>']
    drawn += [box(first, last, "bad shade", 0, 11) for first, last in bad]
    drawn += [box(first, last, css, 1, 9) for first, last in spans]
    when = ", ".join(f"{_clock(first)} to {_clock(last)}" for first, last in spans)
    described = f'role="img" aria-label="{text(label)}: {when} UTC"'
    return f'<svg class="track" viewBox="0 0 {WIDE} 11" preserveAspectRatio="none" {described}>{"".join(drawn)}</svg>'


def _head(review, draft):
    badges = tag("span", text(review["severity"]), "badge bad") if review["severity"] else ""
    state = tag("span", "open" if review["is_open"] else "resolved", f"badge {'bad' if review['is_open'] else 'good'}")
    began = review["times"]["began"]["at"] or review["times"]["detected"]["at"]
    where = f"{review['service']} · {review['environment']} · {moment(began)} UTC · {review['incident']}"
    lines = (
        tag("h1", text(review["title"])),
        tag("p", f"{badges} {state} {text(where)}"),
        tag("p", text(summary(review))),
        tag("p", tag("small", f'<a href="{text(draft)}">the draft of the post-mortem</a>')),
    )
    return "\n".join(lines)


def _facts(review):
    """The numbers, each with what it is taken from."""
    lengths, times, downtime = review["lengths"], review["times"], review["downtime"]
    yield _fact("Duration", length(lengths["duration"]), "so far" if review["is_open"] else "")
    yield _fact("Downtime", length(downtime["seconds"]), downtime["how"])
    if downtime["errors"] is not None:
        yield _fact("Failed requests", f"{downtime['errors']}", f"of {downtime['requests']}")
    if review["budget"]:
        yield _fact("Error budget used", f"{review['budget']['burnt_percent']:g} %", budget(review["budget"]))
    for label, name, key in (
        ("To detect", "detected", "to_detect"),
        ("To acknowledge", "acknowledged", "to_acknowledge"),
        ("To mitigate", "mitigated", "to_mitigate"),
        ("To resolve", "resolved", "to_resolve"),
    ):
        at = f"{_clock(times[name]['at'])} UTC, " if times[name]["at"] else ""
        yield _fact(label, length(lengths[key]), f"{at}{times[name]['how']}")


def _fact(name, value, how):
    return tag("div", f"<small>{text(name)}</small><br><strong>{text(value)}</strong><br><small>{text(how)}</small>")


def _worst(metric):
    """With the value farthest from what was before: of most metrics the highest, of requests perhaps the lowest."""
    before = metric["before"] or 0
    values = [value for _at, value in metric["series"]]
    return dict(metric, worst=max(values, key=lambda value: abs(value - before)) if values else None)


def _story(story, numbers):
    rows = []
    for place, line in enumerate(story):
        number = tag("strong", numbers[place], "mark") if place in numbers else ""
        what = tag("span", text(line["what"]), COLOURS.get(line["kind"], ""))
        rows.append(tag("tr", tag("td", _clock(line["at"])) + tag("td", number) + tag("td", what)))
    return tag("table", "\n".join(rows))


def _changes(changes):
    rows = []
    for each in changes:
        css = "good" if each["state"] == "taken back" else ""
        cell = f"{text(each['what'])}<br>{tag('small', text(undo_state(each)), css)}<br>{tag('small', text(each['record']))}"
        rows.append(tag("tr", tag("td", _clock(each["at"])) + tag("td", cell)))
    return tag("table", "\n".join(rows)) if rows else ""


def _actions(actions):
    lines = [
        tag(
            "li",
            f"{tag('span', text(each['kind']), 'badge')} {text(each['title'])}<br><small>{text(each['why'])}</small>",
        )
        for each in actions
    ]
    return tag("ul", "".join(lines)) if lines else ""


def _notes(runs):
    for run in runs:
        if run.notes:
            notes = [snippet(note, LONGEST) for note in run.notes]
            yield f"<details><summary>{text(run.name)} <small>{text(run.record)}</small></summary>{listed(notes)}</details>"


def _evidence(evidence):
    lines = []
    for whose, files in evidence:
        links = ", ".join(f'<a href="{text(link)}">{text(name)}</a>' for name, link in files)
        lines.append(tag("li", f"{text(whose)}{'<br>' if links else ''}{links}"))
    return tag("ul", "".join(lines)) if lines else ""


def _clock(at):
    return time.strftime("%H:%M:%S", time.gmtime(at))
