# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a recovery will take and how much it will lose, by what the last ones took, against what is promised. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from .readiness import RISK, Finding
from .timeline import spoken

# So many of the last recoveries are the estimate, and fewer are none.
LAST, FEWEST = 10, 3
# The later half took so many times the earlier one, or the other way round: it has changed.
CHANGED = 1.25
DAY = 86400
# What `make drill SCENARIO=` breaks so that each scenario is practised; the kind is what drill.yml takes on a real environment.
DRILLS = {
    "db_failover": ("db_failover", "database"),
    "kill_queries": ("connections", "database"),
    "region_evacuation": ("region_outage", "outage"),
    "rollback_deployment": ("bad_deployment", "outage"),
}


@dataclass(frozen=True)
class Promise:
    """What the inventory says of a service; None where it promises nothing.

    Attributes:
        service: its name.
        held_in: environments whose drills count beside those in its own.
        within_days: where too few recoveries are known, one must be so new.
    """

    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    service: str = ""
    held_in: tuple = ()
    within_days: int | None = None


def promise_of(said):
    """The Promise of what `readiness_assess` says is promised."""
    return Promise(said.get("rto_seconds"), said.get("rpo_seconds"), **said.get("drills") or {})


@dataclass(frozen=True)
class Estimate:
    """Of one scenario of one host. Times in seconds; what is not measured is None.

    Attributes:
        series: [(epoch seconds, seconds, is a drill)] of all recoveries of the last year, the oldest first.
        trend: slower, quicker, or nothing.
    """

    series: tuple = ()
    usual: float | None = None
    slowest: float | None = None
    trend: str = ""
    loss: float | None = None
    largest_loss: float | None = None
    promised: float | None = None
    promised_loss: float | None = None

    def is_too_slow(self):
        return bool(self.usual and self.promised and self.usual > self.promised)

    def loses_too_much(self):
        return self.loss is not None and self.promised_loss is not None and self.loss > self.promised_loss

    def words(self):
        """How long it takes; nothing where that is not measured."""
        if self.usual is None:
            return ""
        lately = f", {self.trend} lately" if self.trend else ""
        promised = f", {spoken(self.promised)} promised" if self.promised else ""
        return f"takes {spoken(self.usual)}, {spoken(self.slowest)} at most{lately}{promised}"


def of_all(asked, promised, recoveries, env):
    """{(host, scenario): (Estimate, Promise)} of what has recovered, or could be practised.

    Args:
        asked, promised: of `readiness`, by host.
        recoveries: [Recovery] of `past_runs`.
    """
    known = {}
    for host, scenarios in asked.items():
        promise = promise_of(promised.get(host, {}))
        for scenario in scenarios:
            mine = about(recoveries, host, env, scenario, promise)
            if mine or scenario in DRILLS:
                known[host, scenario] = (estimate(mine, promise), promise)
    return known


def risks(known, now, is_complete):
    """[Finding] of all that `of_all` has; nothing is said of what was never measured unless the records are all known."""
    return [
        finding
        for (host, scenario), (found, promise) in known.items()
        if is_complete or found.usual is not None
        for finding in judge(host, scenario, found, promise, now)
    ]


def about(recoveries, host, env, scenario, promise):
    """Those of `recoveries` that tell of this scenario of this host, the oldest first."""

    def concerns(each):
        if each.playbook != scenario:
            return False
        if each.drill:
            return each.env in (env, *promise.held_in) and (not each.services or promise.service in each.services)
        return each.env == env and (not each.hosts or host in each.hosts)

    return sorted((each for each in recoveries if concerns(each)), key=lambda each: each.at)


def estimate(mine, promise):
    """The Estimate by the recoveries `mine`, the oldest first."""
    promised = {"promised": promise.rto_seconds, "promised_loss": promise.rpo_seconds}
    series = tuple((each.at, each.seconds, each.drill) for each in mine)
    if len(mine) < FEWEST:
        return Estimate(series, **promised)
    seconds = [each.seconds for each in mine][-LAST:]
    losses = [each.loss for each in mine if each.loss is not None][-LAST:]
    if losses:
        promised |= {"loss": median(losses), "largest_loss": max(losses)}
    return Estimate(series, median(seconds), max(seconds), trend(seconds), **promised)


def trend(seconds):
    """How the later half compares with the earlier one; nothing where they are too few or alike."""
    half = len(seconds) // 2
    if half < FEWEST:
        return ""
    before, after = median(seconds[:half]), median(seconds[-half:])
    if after > CHANGED * before:
        return "slower"
    return "quicker" if before > CHANGED * after else ""


def judge(host, scenario, found, promise, now):
    """[Finding] where an estimate is above what is promised, or nothing is known of it although something is.

    Args:
        found: the Estimate.
        now: epoch seconds.
    """
    if found.usual is None:
        return _unmeasured(host, scenario, found, promise, now)
    told = []
    measured = f"(median of the last {min(LAST, len(found.series))}, the slowest {spoken(found.slowest)})"
    if found.is_too_slow():
        because = f"takes {spoken(found.usual)} {measured}, and {spoken(promise.rto_seconds)} are promised"
        fix = f"find in its records what it waits for, then {_drill(scenario)}; or promise less (rto_seconds)"
        told.append(Finding(host, scenario, RISK, "recovery_time", scenario, because, fix))
    if found.loses_too_much():
        because = (
            f"loses {spoken(found.loss)} of the newest data (median, at most {spoken(found.largest_loss)}), "
            f"and {spoken(promise.rpo_seconds)} are promised"
        )
        fix = f"find why the replica is behind, then {_drill(scenario)}; or promise less (rpo_seconds)"
        told.append(Finding(host, scenario, RISK, "data_loss", scenario, because, fix))
    return told


def _unmeasured(host, scenario, found, promise, now):
    if not (promise.rto_seconds and promise.within_days and scenario in DRILLS):
        return []
    # What truly happened says as much as a drill.
    if any(now - at < promise.within_days * DAY for at, _seconds, _drill in found.series):
        return []
    because = (
        f"{spoken(promise.rto_seconds)} are promised and nobody knows: {len(found.series) or 'no'} recoveries on record, "
        f"none of the last {promise.within_days} days"
    )
    return [Finding(host, scenario, RISK, "recovery_time", scenario, because, _drill(scenario))]


def _drill(scenario):
    if scenario not in DRILLS:
        return "practise it"
    name, kind = DRILLS[scenario]
    return f"hold a drill: make drill SCENARIO={name}, or with SCENARIO={kind} ENV=... on a real environment"
