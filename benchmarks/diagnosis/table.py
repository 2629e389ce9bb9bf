# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cause was taken for which, and what those that were not recognised lacked."""

from __future__ import annotations

from collections import Counter

from .incidents import Outcome

UNKNOWN = "unknown"
SHOWN = 2


def confusion(outcomes: list[Outcome]) -> list[str]:
    """A line for each cause that was played, a column for each that was named; `.` is none."""
    counts = Counter((each.cause, each.named) for each in outcomes)
    rows = list(dict.fromkeys(each.cause for each in outcomes))
    others = sorted({each.named for each in outcomes} - {*rows, UNKNOWN})
    columns = [*rows, *others, UNKNOWN]
    width = max(map(len, rows))
    heads = [f"{' ' * width}  " + "  ".join(f"{number:>2}" for number in range(1, len(columns) + 1))]
    body = [f"{row:<{width}}  " + "  ".join(f"{counts[row, column] or '.':>2}" for column in columns) for row in rows]
    return [*heads, *body, "", *(f"{number:>4} {name}" for number, name in enumerate(columns, 1))]


def totals(outcomes: list[Outcome]) -> dict[str, int]:
    right = sum(each.is_right for each in outcomes)
    unknown = sum(each.cannot_tell for each in outcomes)
    return {"right": right, "cannot tell": unknown, "wrong": len(outcomes) - right - unknown}


def misjudged(outcomes: list[Outcome]) -> list[str]:
    """Of each: what was named, how surely, and what spoke for that and for the true cause."""
    lines = []
    for each in outcomes:
        if each.is_right:
            continue
        lines.append(f"{each.cause}, seed {each.seed}: {each.named} ({each.confidence:.2f}); users felt {each.felt}")
        true = [found for found in each.causes if found["cause"] == each.cause]
        for found in [*each.causes[:SHOWN], *(found for found in true if found not in each.causes[:SHOWN])]:
            lines.append(f"    {found['cause']} {found['score']:.2f}")
            lines += [f"        for: {text}" for text in found["evidence_for"]]
            lines += [f"        against: {text}" for text in found["evidence_against"]]
    return lines
