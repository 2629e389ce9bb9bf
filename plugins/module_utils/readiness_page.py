# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a look at all gates came to, as a page: what would refuse and what to do first, what is ready last."""

from __future__ import annotations

import time

from . import readiness
from .page import listed, page, section, tag, text
from .timeline import spoken
from .trend import Point, trend

CSS = {readiness.READY: "good", readiness.RISK: "mark", readiness.UNKNOWN: "mark", readiness.NOT_READY: "bad"}
# Opened when the page is. Of hundreds of services nobody reads more at once.
OPEN = 5


def readiness_page(env, said, estimates, now, notes=()):
    """The HTML of the page.

    Args:
        said: [Verdict].
        estimates: {(host, scenario): Estimate}.
        now: epoch seconds.
        notes: what could not be seen, a line each.
    """
    hosts = readiness.by_host(said)
    flagged = {host: its for host, its in hosts.items() if any(each.findings for each in its)}
    ready = {
        host: [each.scenario for each in its if each.level == readiness.READY] for host, its in sorted(hosts.items())
    }
    return page(
        f"Readiness of {env}",
        _head(env, said, now),
        section(
            "What stands in the way", *(_host(*each, number < OPEN) for number, each in enumerate(flagged.items()))
        ),
        section("Ready", listed([f"{host}: {', '.join(its)}" for host, its in ready.items() if its])),
        section("Time to recover", *_figures(estimates)),
        section("Not seen", *(tag("p", text(note)) for note in notes)),
    )


def _head(env, said, now):
    level = readiness.worst(each.level for each in said)
    counts = ", ".join(
        f"{count} {readiness.WORDS[each]}" for each, count in reversed(readiness.counted(said).items()) if count
    )
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    return tag("h1", text(f"Readiness of {env}")) + tag("p", f"{_badge(level)} {text(f'{when} · scenarios: {counts}')}")


def _badge(level):
    return tag("span", text(readiness.WORDS[level]), f"badge {CSS[level]}")


def _host(host, its, is_open):
    """One service: its reasons, the worst first, each with the scenarios that it stands in the way of and what to do."""
    level = readiness.worst(each.level for each in its)
    lines = []
    for finding, scenarios in readiness.reasons(its):
        where = f"{finding.resource}: " if finding.resource and finding.resource not in finding.because else ""
        mend = tag("p", f"→ {text(finding.fix)}") if finding.fix else ""
        about = tag("small", text(f"{', '.join(scenarios)} · {finding.check}"))
        lines.append(tag("li", f"{_badge(finding.level)} {text(where + finding.because)}{mend}{about}"))
    summary = f"<summary>{tag('strong', text(host))} {_badge(level)}</summary>"
    return f"<details{' open' if is_open else ''}>{summary}{tag('ul', ''.join(lines))}</details>"


def _figures(estimates):
    measured = {key: each for key, each in estimates.items() if each.series}
    if measured:
        yield tag("p", tag("small", "Each recovery of the last year; a ring is a drill, counted from the page."))
        yield tag("div", "".join(_figure(*key, each) for key, each in measured.items()), "charts")
    unknown = {}
    for (host, scenario), each in estimates.items():
        if each.usual is None and not each.series:
            unknown.setdefault(scenario, []).append(host)
    for scenario, hosts in unknown.items():
        some = ", ".join(hosts[:OPEN]) + (f" and {len(hosts) - OPEN} more" if len(hosts) > OPEN else "")
        yield tag("p", text(f"Not measured: {scenario} of {some}."))


def _figure(host, scenario, found):
    points = [Point(time.strftime("%Y-%m-%d", time.gmtime(at)), seconds, drill) for at, seconds, drill in found.series]
    lost = f"; may lose {spoken(found.loss)}, {spoken(found.largest_loss)} at most" if found.loss is not None else ""
    css = "bad" if found.is_too_slow() or found.loses_too_much() else ""
    caption = (
        tag("strong", text(f"{scenario} of {host}"))
        + "<br>"
        + tag("span", text((found.words() or "not measured: too few") + lost), css)
    )
    return tag("figure", tag("figcaption", caption) + trend(points, found.promised, "promised"))
