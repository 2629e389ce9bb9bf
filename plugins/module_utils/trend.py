# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long recoveries took, one after the other, as an SVG of a page; and what such a drawing is made of."""

from __future__ import annotations

from dataclasses import dataclass

from .page import text
from .timeline import spoken

# About a phone's width, so that a unit is about a pixel there.
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 460, 180, 48, 8, 22, 18
# Legible on white and on black (4.5 to 1, WCAG 2.1, 1.4.3), as the charts of an investigation have it.
INK, GOOD, BAD = "#767676", "#2f7fd0", "#d64545"


@dataclass(frozen=True)
class Point:
    """One of a trend. `seconds` is None where it was not recovered; a `hollow` one is of another kind than the rest."""

    date: str
    seconds: float | None
    hollow: bool


def trend(points, target=None, word="target"):
    """The seconds until each was recovered, the target dashed where there is one; a cross at the top is one that was not."""
    known = [each.seconds for each in points if each.seconds is not None]
    most = 1.15 * max([target or 0, *known]) or 1
    ground, across = HEIGHT - BOTTOM, (WIDTH - LEFT) / (len(points) + 1)

    def place(number, seconds):
        return LEFT + (number + 1) * across, ground - seconds / most * (ground - TOP)

    drawn = []
    if target:
        level = place(0, target)[1]
        drawn += [
            line(LEFT, level, WIDTH, level, dashed=True),
            label(WIDTH, level - 4, f"{word} {spoken(target)}", "end"),
        ]
    path = [place(number, each.seconds) for number, each in enumerate(points) if each.seconds is not None]
    drawn.append(f'<polyline fill="none" stroke="{GOOD}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in path)}"/>')
    for number, each in enumerate(points):
        x, y = place(number, most if each.seconds is None else each.seconds)
        if each.seconds is None:
            drawn.append(label(x, y + 10, "\u00d7", "middle", BAD))
        else:
            filled = "none" if each.hollow else GOOD
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" stroke="{GOOD}" fill="{filled}"/>')
    drawn.append(label(LEFT, HEIGHT - 6, points[0].date))
    if len(points) > 1:
        drawn.append(label(WIDTH, HEIGHT - 6, points[-1].date, "end"))
    return drawing("seconds until recovered", [*axes(_short(most)), *drawn])


def _short(seconds):
    """As `spoken`, so that it has room beside an axis."""
    if seconds < 1000:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.0f} h"


def axes(top):
    """Elements of the two axes; `top` is what stands at the upper end."""
    ground = HEIGHT - BOTTOM
    return [
        line(LEFT, TOP, LEFT, ground),
        line(LEFT, ground, WIDTH, ground),
        label(LEFT - 4, TOP + 8, top, "end"),
        label(LEFT - 4, ground, "0", "end"),
    ]


def line(x, y, to_x, to_y, dashed=False):
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{INK}"{dashes}/>'


def label(x, y, words, anchor="start", colour=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text(words)}</text>'


def drawing(name, parts):
    """The SVG element of `parts`; `name` is what is read out of it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width: 44rem" role="img" aria-label="{text(name)}" font-size="12">'
        + "".join(parts)
        + "</svg>"
    )
