# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs of a contest as figures, and as a table for people."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from statistics import median

from .contest import Contest
from .race import Run


def summary(contest: Contest, runs: list[Run]) -> dict:
    """Medians in seconds, how ours compares to what was promised, and the contest's own figures."""
    seconds = _medians(contest, runs, lambda run: run.seconds)
    counted = _medians(contest, runs, lambda run: run.seconds - run.unavoidable_seconds)
    ours, limits = counted.get(contest.ours.name), []
    start = counted.get(contest.start.name) if contest.start else 0.0
    for other, limit in contest.limits.items():
        if ours and other in counted and start is not None:
            ratio = round(ours / (counted[other] + start), 3)
            limits.append({"to": other, "ratio": ratio, "limit": limit, "kept": ratio <= limit})
    unavoidable = _medians(contest, runs, lambda run: run.unavoidable_seconds)
    if any(unavoidable.values()):
        limits = [dict(each, unavoidable_seconds=unavoidable[contest.ours.name]) for each in limits]
    return {"seconds": seconds, "limits": limits, **contest.figures(seconds)}


def _medians(contest: Contest, runs: list[Run], figure: Callable[[Run], float]) -> dict[str, float]:
    """{contestant: the middle of `figure`}, of those that took part."""
    own = {each.name: [figure(run) for run in runs if run.contestant == each.name] for each in contest.contestants}
    return {name: round(median(values), 3) for name, values in own.items() if values}


def print_contest(contest: Contest, runs: list[Run], figures: dict) -> None:
    names = list(figures["seconds"])
    width = max(len(name) for name in names)
    ours = figures["seconds"].get(contest.ours.name)
    print(f"\n{contest.name:{width}}  seconds     min - max      cpu  AWS calls  to ours")
    for name in names:
        own = [run for run in runs if run.contestant == name]
        times, middle = [run.seconds for run in own], figures["seconds"][name]
        cpu, calls = (median(getattr(run, key) for run in own) for key in ("cpu_seconds", "calls"))
        to_ours = f"{middle / ours:7.2f}" if ours else ""
        print(
            f"{name:{width}}  {middle:7.2f}  {min(times):5.2f} - {max(times):5.2f}  {cpu:7.2f}  {calls:9.0f}  {to_ours}"
        )
    for limit in figures["limits"]:
        verdict = "kept" if limit["kept"] else "MISSED"
        beside = f" and {contest.start.name}" if contest.start else ""
        took = limit.get("unavoidable_seconds")
        without = f", both without what AWS takes ({took:.2f} s of ours)" if took else ""
        print(f"ours to {limit['to']}{beside}{without}: {limit['ratio']:.2f}, limit {limit['limit']}: {verdict}")
    for name, value in figures.items():
        if name not in ("seconds", "limits"):
            print(f"{name.replace('_', ' ')}: {value}")


def found_compiled() -> str:
    """Of which packages Python finds compiled modules on this machine as it is."""
    found = []
    for name in ("ansible", "awscli", "botocore"):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and Path(importlib.util.cache_from_source(spec.origin)).exists():
            found.append(name)
    return ", ".join(found) or "none"
