# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metrics of a page: a chart each, on one time axis, with what happened numbered in it."""

from __future__ import annotations

from .charts import chart
from .metrics import shown
from .page import tag, text

# What is said of each value in words, and its key in the metric.
LATELY = (("now", "now"), ("before", "before"), ("a week ago", "week_ago"))


def figures(metrics, numbers, of="changes and alarms below", values=LATELY, bad=()):
    """HTML of the charts in the order of `metrics`; none of what was silent.

    Args:
        metrics: as metrics_assess returns them.
        numbers: [(number, epoch seconds, kind)] of what is marked in each.
        of: what the numbers are those of, for people.
        values: [(when, key)] of the values that are told in words.
        bad: [(begin, end)] in epoch seconds of what is shaded in each.
    """
    known = [each for each in metrics if each["series"]]
    if not known:
        return
    begin = min(each["series"][0][0] for each in known)
    end = max(begin + each["every"] if len(each["series"]) == 1 else each["series"][-1][0] for each in known)
    yield tag("p", tag("small", f"UTC. The band is what is usual; the numbers are those of the {text(of)}."))
    yield tag("div", "\n".join(_figure(each, numbers, begin, end, values, bad) for each in known), "charts")


def _figure(metric, marks, begin, end, values, bad):
    name = f"{metric['name'].replace('_', ' ')} of {metric['of']}"
    then = [f"{when} {shown(metric[key], metric['unit'])}" for when, key in values if metric[key] is not None]
    why = tag("span", text(metric["why"]), "bad") + "<br>" if metric["abnormal"] else ""
    drawn = chart(metric, marks, begin, end, bad).replace("<svg", f'<svg role="img" aria-label="{text(name)}"', 1)
    return tag(
        "figure", f"<figcaption><strong>{text(name)}</strong><br>{why}{text(', '.join(then))}</figcaption>{drawn}"
    )
