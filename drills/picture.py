# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a page of a drill shows as SVG: how users were served, second by second, and how drills went, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .collection import page

# About a phone's width, so that a unit is about a pixel there.
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 460, 180, 38, 8, 22, 18
# Marks that are nearer to each other share a label.
NEAR = 16
# Legible on white and on black (4.5 to 1, WCAG 2.1, 1.4.3), as the charts of an investigation have it.
INK, GOOD, BAD = "#767676", "#2f7fd0", "#d64545"
TICKS = 6
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


@dataclass(frozen=True)
class Drill:
    """One of a trend. `seconds` is None where it was not recovered."""

    date: str
    seconds: float | None
    auto: bool


def requests(series: Sequence[Sequence[int]], marks: Iterable[tuple[int, float]]) -> str:
    """[[second, answered, failed], ...] as bars, failed ones on top in red; `marks`: (number, second)."""
    first, last = series[0][0], series[-1][0] + 1
    most = max(max(good + bad for _second, good, bad in series), 1)
    across = (WIDTH - LEFT - RIGHT) / (last - first)
    up = (HEIGHT - BOTTOM - TOP) / most
    ground = HEIGHT - BOTTOM
    drawn = []
    for second, good, bad in series:
        x, width = LEFT + (second - first) * across, max(across * 0.9, 0.3)
        for number, base, colour in ((good, 0, GOOD), (bad, good, BAD)):
            if number:
                y = ground - (base + number) * up
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{number * up:.1f}" fill="{colour}"/>'
                )
    for numbers, x in labels([(number, LEFT + (second - first) * across) for number, second in marks]):
        drawn.append(_line(x, TOP, x, ground, dashed=True) + _text(x, TOP - 5, numbers, "middle"))
    step = next((each for each in STEPS if (last - first) / each <= TICKS), STEPS[-1])
    for second in range(math.ceil(first / step) * step, last + 1, step):
        drawn.append(
            _text(
                LEFT + (second - first) * across,
                HEIGHT - 6,
                f"{second} s",
                "middle" if second < last - step / 3 else "end",
            )
        )
    return _svg("requests a second, answered and failed", [*_axes(ground, f"{most}/s"), *drawn])


def labels(marks: Iterable[tuple[int, float]]) -> list[tuple[str, float]]:
    """Pure: (text, x) for (number, x) in the order of x, those that would stand on each other as one."""
    found: list[tuple[list[int], float]] = []
    for number, x in marks:
        if found and x - found[-1][1] < NEAR:
            found[-1][0].append(number)
        else:
            found.append(([number], x))
    return [(",".join(map(str, numbers)), x) for numbers, x in found]


def trend(drills: Sequence[Drill], target: float) -> str:
    """The seconds until each was recovered, the target dashed; a cross at the top is one that was not."""
    known = [each.seconds for each in drills if each.seconds is not None]
    most = 1.15 * max([target, *known])
    ground, across = HEIGHT - BOTTOM, (WIDTH - LEFT) / (len(drills) + 1)

    def place(number: int, seconds: float) -> tuple[float, float]:
        return LEFT + (number + 1) * across, ground - seconds / most * (ground - TOP)

    level = place(0, target)[1]
    drawn = [_line(LEFT, level, WIDTH, level, dashed=True), _text(WIDTH, level - 4, f"target {target:g} s", "end")]
    path = [place(number, each.seconds) for number, each in enumerate(drills) if each.seconds is not None]
    drawn.append(f'<polyline fill="none" stroke="{GOOD}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in path)}"/>')
    for number, each in enumerate(drills):
        x, y = place(number, most if each.seconds is None else each.seconds)
        if each.seconds is None:
            drawn.append(_text(x, y + 10, "×", "middle", BAD))  # noqa: RUF001 a cross
        else:
            filled = "none" if each.auto else GOOD
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" stroke="{GOOD}" fill="{filled}"/>')
    drawn.append(_text(LEFT, HEIGHT - 6, drills[0].date))
    if len(drills) > 1:
        drawn.append(_text(WIDTH, HEIGHT - 6, drills[-1].date, "end"))
    return _svg("seconds until recovered", [*_axes(ground, f"{most:.0f} s"), *drawn])


def _axes(ground: float, top: str) -> list[str]:
    return [
        _line(LEFT, TOP, LEFT, ground),
        _line(LEFT, ground, WIDTH, ground),
        _text(LEFT - 4, TOP + 8, top, "end"),
        _text(LEFT - 4, ground, "0", "end"),
    ]


def _line(x: float, y: float, to_x: float, to_y: float, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{INK}"{dashes}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{page.text(text)}</text>'


def _svg(label: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width: 44rem" role="img" aria-label="{page.text(label)}" font-size="12">'
        + "".join(parts)
        + "</svg>"
    )
