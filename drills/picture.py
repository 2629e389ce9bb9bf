# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a page of a drill shows as SVG: how users were served, second by second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .collection import trend

# Marks that are nearer to each other share a label.
NEAR = 16
TICKS = 6
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def requests(series: Sequence[Sequence[int]], marks: Iterable[tuple[int, float]]) -> str:
    """[[second, answered, failed], ...] as bars, failed ones on top in red; `marks`: (number, second)."""
    first, last = series[0][0], series[-1][0] + 1
    most = max(max(good + bad for _second, good, bad in series), 1)
    ground = trend.HEIGHT - trend.BOTTOM
    across = (trend.WIDTH - trend.LEFT - trend.RIGHT) / (last - first)
    up = (ground - trend.TOP) / most
    drawn = []
    for second, good, bad in series:
        x, width = trend.LEFT + (second - first) * across, max(across * 0.9, 0.3)
        for number, base, colour in ((good, 0, trend.GOOD), (bad, good, trend.BAD)):
            if number:
                y = ground - (base + number) * up
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{number * up:.1f}" fill="{colour}"/>'
                )
    for numbers, x in labels([(number, trend.LEFT + (second - first) * across) for number, second in marks]):
        drawn.append(
            trend.line(x, trend.TOP, x, ground, dashed=True) + trend.label(x, trend.TOP - 5, numbers, "middle")
        )
    step = next((each for each in STEPS if (last - first) / each <= TICKS), STEPS[-1])
    for second in range(math.ceil(first / step) * step, last + 1, step):
        x, anchor = trend.LEFT + (second - first) * across, "middle" if second < last - step / 3 else "end"
        drawn.append(trend.label(x, trend.HEIGHT - 6, f"{second} s", anchor))
    return trend.drawing("requests a second, answered and failed", [*trend.axes(f"{most}/s"), *drawn])


def labels(marks: Iterable[tuple[int, float]]) -> list[tuple[str, float]]:
    """Pure: (text, x) for (number, x) in the order of x, those that would stand on each other as one."""
    found: list[tuple[list[int], float]] = []
    for number, x in marks:
        if found and x - found[-1][1] < NEAR:
            found[-1][0].append(number)
        else:
            found.append(([number], x))
    return [(",".join(map(str, numbers)), x) for numbers, x in found]
