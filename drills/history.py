# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All drills, and whether they go better: read from their results, drawn as one page."""

from __future__ import annotations

import contextlib
import json
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from .collection import page, record, trend
from .report import HTML, RESULT, table
from .scenario import KINDS

PAGE = "history.html"
# Courtcase "Regular Drills": monthly.
OVERDUE_SECONDS = 31 * 86400
ROWS = 50
BY_ITSELF = "auto"


def read(folder: Path) -> list[dict[str, Any]]:
    """The results of all drills, with their `folder`, in the order in which they were held. What cannot be read is left out."""
    found = []
    for path in sorted(folder.glob(f"*/{RESULT}")):
        with contextlib.suppress(ValueError, OSError):
            found.append(json.loads(path.read_text()) | {"folder": path.parent.name})
    return sorted(found, key=lambda each: each["times"]["broke"])


def write(folder: Path, now: float) -> Path:
    record.write(str(folder / PAGE), html(read(folder), now))
    return folder / PAGE


def overdue(results: list[dict[str, Any]], now: float) -> list[str]:
    """Pure: a line for each kind that was not practised by people for a month."""
    lines = []
    for kind in KINDS:
        held = [each["times"]["broke"] for each in results if each["kind"] == kind and each["by"] != BY_ITSELF]
        if not held:
            lines.append(f"{kind}: never practised by a person")
        elif now - max(held) > OVERDUE_SECONDS:
            lines.append(f"{kind}: last practised {(now - max(held)) / 86400:.0f} days ago")
    return lines


def html(results: list[dict[str, Any]], now: float) -> str:
    """Pure."""
    by_scenario = sorted(results, key=lambda each: each["scenario"])
    charts = [_chart(name, list(own)) for name, own in groupby(by_scenario, key=lambda each: each["scenario"])]
    rows = [(_day(each), _linked(each)) for each in results[: -ROWS - 1 : -1]]
    return page.page(
        "Drills",
        page.tag("h1", "Drills"),
        page.section("To be practised", page.listed(overdue(results, now))),
        page.section("Time to recover", page.tag("div", "".join(charts), "charts") if charts else ""),
        page.section("The last ones", table(rows) if rows else ""),
    )


def _linked(result: dict[str, Any]) -> str:
    seconds, points = result["recovery_seconds"], result["score"]["points"]
    how = result["outcome"] if seconds is None else f"recovered in {seconds:g} s"
    words = page.text(f", {points:g} points, {how}, by {result['by']} ({result['where']})")
    return f'<a href="{page.text(result["folder"])}/{HTML}">{page.text(result["scenario"])}</a>{words}'


def _chart(name: str, results: list[dict[str, Any]]) -> str:
    drills = [trend.Point(_day(each), each["recovery_seconds"], each["by"] == BY_ITSELF) for each in results]
    words = f"{name}: seconds until recovered; a ring is a run without a person, a cross was not recovered"
    return page.tag(
        "figure", trend.trend(drills, results[-1]["target_seconds"]) + page.tag("figcaption", page.text(words))
    )


def _day(result: dict[str, Any]) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(result["times"]["broke"]))
