# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill as Markdown and as a page, both from the same lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import picture, turns
from .collection import masking, page, record
from .score import DATA, TIME, TURNS

RESULT, MARKDOWN, HTML = "result.json", "report.md", "report.html"
# So long until the first command is a page that nobody looked at.
PROMPT_SECONDS = 60
GOOD_POINTS, BAD_POINTS = 80, 50


@dataclass(frozen=True)
class Story:
    """The lines of a report."""

    heading: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    course: tuple[tuple[float, str], ...]
    lessons: tuple[str, ...]


def write(folder: Path, result: dict[str, Any]) -> None:
    """All three files, mode 0600; what looks like a secret is masked."""
    result = masking.kept(result)
    told = story(result)
    record.write(str(folder / RESULT), json.dumps(result, indent=1) + "\n")
    record.write(str(folder / MARKDOWN), markdown(told))
    record.write(str(folder / HTML), html(told, result))


def story(result: dict[str, Any]) -> Story:
    """Pure."""
    points, users, times = result["score"], result["users"], result["times"]
    seconds = result["recovery_seconds"]
    ended = f"recovered in {seconds:g} s" if seconds is not None else result["outcome"]
    reason = f": {result['why']}" if result["why"] else ""
    facts = [
        ("what broke", result["what"]),
        ("what helps", ", ".join(f"{name}.yml" for name in result["helps"])),
        (
            "time to recover",
            _beside(seconds, f", target {result['target_seconds']:g} s; {points['time']:g} of {TIME} points"),
        ),
        ("time to the first run", _beside(_between(times["paged"], times["acted"]), " after the page")),
        ("first sign", _beside(_between(times["broke"], times["paged"]), " after it broke")),
        *(_data(users, points) if points["data"] is not None else []),
        ("wrong turns", f"{result['wrong_turns']}; {points['turns']:g} of {TURNS} points"),
        (
            "failed requests",
            f"{_known(users['failed_requests'])} of {_known(users['requests'])}, in {_known(users['error_seconds'])} different seconds",
        ),
        ("by", result["by"]),
    ]
    course = [
        (times["broke"], f"{result['what']}: it breaks"),
        (times["paged"], "page"),
        (times["recovered"], "all is well from here on"),
        (times["ended"], f"end: {result['outcome']}{reason}"),
        *((turn["began"], _run(turn)) for turn in result["turns"]),
    ]
    return Story(
        heading=f"Drill: {result['title']}",
        verdict=f"{points['points']} points, {ended}{reason}",
        facts=tuple(facts),
        course=tuple(sorted((at, text) for at, text in course if at is not None)),
        lessons=tuple(lessons(result)),
    )


def _data(users: dict[str, Any], points: dict[str, Any]) -> Iterable[tuple[str, str]]:
    lost, acknowledged = _known(users["lost_writes"]), _known(users["acknowledged_writes"])
    yield "writes lost", f"{lost} of {acknowledged} acknowledged; {points['data']:g} of {DATA} points"
    if users["rto_seconds"] is not None:
        yield "longest without an acknowledged write", f"{users['rto_seconds']:.1f} s"


def lessons(result: dict[str, Any]) -> Iterable[str]:
    """Pure: what to take from it, a line each."""
    helps = " or ".join(f"playbooks/{name}.yml" for name in result["helps"])
    times, seconds = result["times"], result["recovery_seconds"]
    if seconds is None:
        yield f"It was not recovered. {helps} is what helps; practise it with `make drill SCENARIO={result['scenario']}`."
    elif seconds > result["target_seconds"]:
        yield f"It took {seconds - result['target_seconds']:.0f} s more than the target."
    waited = _between(times["paged"], times["acted"])
    if waited is not None and waited > PROMPT_SECONDS:
        yield f"The first run began {waited:.0f} s after the page. `triage.yml` names what to run next within seconds."
    for turn in result["turns"]:
        if turn["verdict"] == turns.WRONG:
            yield f"Wrong turn: {turn['playbook']}.yml {turn['why']}. `undo.yml` takes it back; {helps} was what helps."
    lost = result["users"]["lost_writes"]
    if lost:
        yield f"{lost} acknowledged writes are gone: these are customers who were told that their data is safe."
    if lost is None and result["score"]["data"] is not None:
        yield "Nobody could tell whether acknowledged writes are gone."
    if result["by_hand"]:
        yield f"Changed by hand, without plan, gate, record and undo: {', '.join(result['by_hand'])}."


def _run(turn: dict[str, Any]) -> str:
    took = "" if turn["ended"] is None else f", {turn['ended'] - turn['began']:.1f} s"
    why = f" ({turn['why']})" if turn["why"] else ""
    return f"{turn['playbook']}.yml: {turn['verdict']}{why}{took}"


def _between(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(0.0, round(other - one, 1))


def _beside(seconds: float | None, words: str) -> str:
    return "never" if seconds is None else f"{seconds:g} s{words}"


def _known(value: Any) -> Any:
    return "unknown" if value is None else value


# ---- how it is written ---------------------------------------------------------------------------------------------


def markdown(told: Story) -> str:
    """Pure."""
    origin = told.course[0][0]
    parts = [
        f"# {told.heading}",
        f"**{told.verdict}**",
        "| | |\n|---|---|\n" + "\n".join(f"| {name} | {_cell(value)} |" for name, value in told.facts),
        "## Course",
        "| UTC | after | |\n|---|---|---|\n"
        + "\n".join(f"| {_clock(at)} | {at - origin:.1f} s | {_cell(text)} |" for at, text in told.course),
        *(["## What to take from it", "\n".join(f"- {line}" for line in told.lessons)] if told.lessons else []),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def html(told: Story, result: dict[str, Any]) -> str:
    """Pure: one file that needs no network."""
    points, origin = result["score"]["points"], told.course[0][0]
    css = "good" if points >= GOOD_POINTS else "bad" if points < BAD_POINTS else "mark"
    marks = [(number, at - origin) for number, (at, _text) in enumerate(told.course, 1)]
    drawn = page.tag(
        "figure",
        picture.requests(result["requests"], marks)
        + page.tag("figcaption", "Users' requests a second: answered in blue, failed in red; seconds since it broke."),
    )
    rows = [
        (page.text(f"{number}. {_clock(at)}"), page.text(f"{at - origin:.1f} s: {text}"))
        for number, (at, text) in enumerate(told.course, 1)
    ]
    return page.page(
        told.heading,
        page.tag("h1", page.text(told.heading)),
        page.tag("p", page.tag("span", page.text(told.verdict), f"badge {css}")),
        page.section("How it went", page.listed(f"{name}: {value}" for name, value in told.facts)),
        page.section("What users felt", drawn if any(good or bad for _second, good, bad in result["requests"]) else ""),
        page.section("Course", table(rows)),
        page.section("What to take from it", page.listed(told.lessons)),
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Of HTML: what does not wrap, and beside it what does, so that it fits a phone."""
    return page.tag("table", "".join(page.tag("tr", "".join(page.tag("td", cell) for cell in row)) for row in rows))


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at))
