# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A metric over time as an SVG that stands in a page: small enough for a phone, legible on white and on black."""

from __future__ import annotations

import io
import time

try:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
except ImportError:
    Figure = None

# Inches. A page shows it about as wide as a phone is, so a point is about a pixel there.
SIZE = (4.6, 1.9)
# The one grey with enough contrast on white and on black (4.5 to 1, WCAG 2.1, 1.4.3).
INK = "#767676"
CALM, ALARMING, BAND = "#2f7fd0", "#d64545", "#8a8a8a"
MARKS = {"deployment": "#b07a00", "alarm": ALARMING}
# A longer gap than so many points means that nothing is known of it: the line stops there.
GAP = 2.5
TICKS = 5
ROUND_SECONDS = (60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)


def chart(metric, marks, begin, end, bad=()):
    """The SVG element of one metric, as metrics_assess returns it, from `begin` to `end` (epoch seconds).

    The band is what is usual; values since it became abnormal are drawn in another colour.

    Args:
        marks: [(number, epoch seconds, kind)] on the time axis; those outside it are left out.
        bad: [(begin, end)] in epoch seconds of what is shaded, such as the minutes in which users saw errors.
    """
    settings = {
        "svg.fonttype": "none",  # text stays text: it can be searched, and takes the font of the page
        "svg.hashsalt": f"{metric['name']} {metric['of']}",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _draw(axes, metric)
        for first, last in [(max(begin, first), min(end, last)) for first, last in bad if last > begin and first < end]:
            axes.axvspan(first, last, color=ALARMING, alpha=0.13, linewidth=0)
        axes.set_xlim(begin, end)
        axes.set_xticks(*ticks(begin, end))
        axes.set_ylim(_bottom(metric), _top(axes, metric))
        axes.locator_params(axis="y", nbins=4)
        axes.spines[["top", "right"]].set_visible(False)
        for number, at, kind in marks:
            if begin <= at <= end:
                colour = MARKS.get(kind, INK)
                axes.axvline(at, color=colour, linewidth=1, linestyle="--")
                axes.annotate(
                    str(number), (at, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=colour
                )
        written = io.StringIO()
        figure.savefig(
            written, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    # Without the prologue of a file of its own.
    return "<svg" + written.getvalue().partition("<svg")[2]


def _draw(axes, metric):
    low, high = metric["usual"]
    if high is not None:
        axes.axhspan(low if low is not None else 0, high, color=BAND, alpha=0.16, linewidth=0)
    for part in unbroken(metric["series"], GAP * metric["every"]):
        axes.plot(*zip(*part, strict=True), color=CALM, linewidth=1.5, marker="." if len(part) == 1 else None)
        out = [point for point in part if metric["since"] is not None and point[0] >= metric["since"]]
        if out:
            axes.plot(*zip(*out, strict=True), color=ALARMING, linewidth=2, marker="." if len(out) == 1 else None)


def _bottom(metric):
    return min(0, *(value for at, value in metric["series"]), 0)


def _top(axes, metric):
    """Room above the highest value; a flat line at 0 has an axis, too."""
    highest = max((value for at, value in metric["series"]), default=0)
    return max(axes.get_ylim()[1], 1.05 * highest) or 1


def unbroken(series, gap):
    """Pure: the parts of [[at, value], ...] between which more than `gap` seconds are missing."""
    parts = []
    for point in series:
        if not parts or point[0] - parts[-1][-1][0] > gap:
            parts.append([])
        parts[-1].append(point)
    return parts


def ticks(begin, end):
    """Pure: (positions, labels) at round times of the day, UTC, few enough for a phone."""
    step = next((each for each in ROUND_SECONDS if (end - begin) / each <= TICKS), ROUND_SECONDS[-1])
    first = int(-(-begin // step) * step)
    places = list(range(first, int(end) + 1, step))
    return places, [time.strftime("%H:%M", time.gmtime(at)) for at in places]
