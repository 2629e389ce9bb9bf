# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an investigation found, as a page: the verdict first, then what a person looks at to believe it."""

from __future__ import annotations

import time

from .figures import figures
from .page import listed, page, section, tag, text

# What is numbered on the time axis, the newest. All changes are listed; a chart with fifty lines shows nothing.
MOST_MARKS = 9
MARKED = ("deployment", "alarm", "database", "scaling")
MOST_PATTERNS = 30


def investigation(found, now):
    """The HTML of the page.

    Args:
        found: the options of investigation_page.
        now: epoch seconds.
    """
    marks = numbered(found["changes"], found["alarms"])
    return page(
        found["title"],
        _head(found, now),
        section("Why", listed(found["evidence"]), *_causes(found["causes"])),
        section("Run next", *_next(found["next"])),
        section("Metrics", *figures(found["metrics"], [(number, *event[:2]) for event, number in marks.items()])),
        section("Errors in the logs", *_patterns(found["patterns"])),
        section("Changes and alarms", _changes(found["changes"], found["alarms"], marks)),
        section("Not seen", listed(found["blind"])),
    )


def numbered(changes, alarms):
    """Pure: {(at, kind, what): number} of what is marked in the charts, numbered as time goes."""
    events = sorted(each for each in _events(changes, alarms) if each[1] in MARKED)
    return {event: number for number, event in enumerate(events[-MOST_MARKS:], 1)}


def _events(changes, alarms):
    return [
        *((each["at"], each["kind"], _what(each)) for each in changes),
        *((each["since"], "alarm", f"alarm {each['name']} is {each['state']}: {each['why']}") for each in alarms),
    ]


def _what(change):
    return f"{change['what']} by {change['who']}" if change["who"] else change["what"]


def _head(found, now):
    badge = tag("span", text(found["severity"]), "badge bad") if found["severity"] else ""
    where = " · ".join(filter(None, (found["environment_name"], time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)))))
    return f"{tag('h1', text(found['title']))}\n{tag('p', f'{badge} {text(where)}')}"


def _causes(causes):
    """The likeliest opened, the others folded."""
    for number, each in enumerate(causes):
        name = each["cause"].replace("_", " ")
        lines = [
            *(tag("li", text(line), "bad") for line in each["evidence_for"]),
            *(tag("li", f"against: {text(line)}", "good") for line in each["evidence_against"]),
        ]
        fix = each.get("fix") or {}
        command = tag("pre", text(fix["command"])) if fix.get("command") else ""
        yield (
            f"<details{'' if number else ' open'}>"
            f"<summary>{tag('strong', text(name))} <small>{100 * each['score']:.0f} of 100</small></summary>"
            f"{tag('ul', ''.join(lines))}{command}</details>"
        )


def _next(following):
    if following.get("because"):
        yield tag("p", text(following["because"]))
    if following.get("command"):
        yield tag("pre", text(following["command"]))


def _patterns(patterns):
    for each in patterns[:MOST_PATTERNS]:
        new = tag("span", "new", "badge bad") + " " if each["new"] else ""
        seen = (
            f"{each['count']} times, {_clock(each['first'])} to {_clock(each['last'])}, {', '.join(each['log_groups'])}"
        )
        yield f"<details><summary>{new}{tag('code', text(each['pattern']))}<br><small>{text(seen)}</small></summary>"
        yield f"{tag('pre', text(each['example']))}</details>"
    if len(patterns) > MOST_PATTERNS:
        yield tag("p", f"and {len(patterns) - MOST_PATTERNS} patterns more")


def _changes(changes, alarms, marks):
    """The newest first, with their numbers in the charts."""
    rows = []
    for event in sorted(_events(changes, alarms), reverse=True):
        number = tag("strong", marks[event], "mark") if event in marks else ""
        cells = (tag("td", _clock(event[0])), tag("td", number), tag("td", text(event[2])))
        rows.append(tag("tr", "".join(cells)))
    return tag("table", "\n".join(rows)) if rows else ""


def _clock(at):
    return time.strftime("%H:%M:%S", time.gmtime(at))
