# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How severe an incident is, by a team's own rules, and what to run next: mangu "Severity Assessment" and "Alert Thresholds"."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from . import metrics, outage
from .errors import Refusal, near

# What rules may be about besides metrics, and what each counts.
FAILED_CHECKS, RESTARTS, SERVING, DATA_LOSS = "failed_checks", "restarts", "serving", "data_loss"
COUNTS = {
    FAILED_CHECKS: "failed checks in a row",
    RESTARTS: "tasks that failed",
    SERVING: "tasks or pods that serve",
    DATA_LOSS: "signs of lost data",
}
# Words of PostgreSQL, of its drivers and of kernels that name a cause by themselves.
NO_CONNECTION_LEFT = ("too many clients", "too many connections", "remaining connection slots")
NO_SPACE_LEFT = ("no space left on device", "disk quota exceeded")
# What to do where only metrics tell: (signals, playbook), the database before what waits for it, what fails before what is slow.
BY_METRICS = (
    (("db_connections",), "db_connections"),
    (("db_cpu",), "kill_queries"),
    (("service_memory", "service_cpu", "instance_cpu"), "performance_degradation"),
    (("error_percent",), "high_error_rate"),
    (("p99", "p95", "p50"), "performance_degradation"),
)


@dataclass(frozen=True)
class Rule:
    """From when on something is how severe. One of `above`, `at_least`, `below` is the limit.

    Attributes:
        signal: a name of metrics.NAMES or of COUNTS.
        for_minutes: so long every value of a metric must have been out; restarts are counted within them.
        severity: one of the team's words.
    """

    signal: str
    severity: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    for_minutes: float = 0

    def is_out(self, value):
        return (
            (self.above is not None and value > self.above)
            or (self.at_least is not None and value >= self.at_least)
            or (self.below is not None and value < self.below)
        )

    @property
    def reached_at(self):
        """The smallest count that is out, of a rule that has an upper limit; 0 for any other."""
        return math.ceil(self.at_least or 0) if self.above is None else math.floor(self.above) + 1

    @property
    def limit(self):
        """In words."""
        limits = (("above", self.above), ("at least", self.at_least), ("below", self.below))
        return next(f"{word} {value:g}" for word, value in limits if value is not None)


@dataclass(frozen=True)
class Seen:
    """What was looked at, at `now` (epoch seconds).

    Attributes:
        measured: entries of `metrics.judge`.
        counts: {name of COUNTS: number}; one that is not known is not there. Restarts are (epoch seconds, why) of each.
        details: {name of COUNTS: lines that say more}.
        decision, because: what `outage.decide` said; None where nobody could look.
        blind: what could not be seen, a line each.
        log: what the logs say, a line for each kind of error.
        silent: the region does not answer at all.
        has_disks: it runs on instances whose disks can be cleaned.
        release, released: what the newest deployment brings, and when it began (epoch seconds); None where nothing tells.
    """

    now: float
    measured: tuple = ()
    counts: dict = field(default_factory=dict)
    details: dict = field(default_factory=dict)
    decision: str | None = None
    because: str = ""
    blind: tuple = ()
    log: tuple = ()
    silent: bool = False
    has_disks: bool = False
    release: str = ""
    released: float | None = None


@dataclass(frozen=True)
class Finding:
    """A rule that something is out of. `severity` is None while that has not lasted long enough."""

    rule: Rule
    severity: str | None
    text: str


@dataclass(frozen=True)
class Triage:
    """The verdict. `severity` is None where no rule is broken; `unjudged` names the rules that could not be judged."""

    severity: str | None
    findings: tuple
    unjudged: tuple


@dataclass(frozen=True)
class Next:
    """The one playbook to run next, and why."""

    playbook: str
    because: str

    def command(self, environment):
        return f"ansible-playbook playbooks/{self.playbook}.yml -e env={environment}"


def rules(given, severities):
    """[Rule] of what the inventory says.

    Raises:
        Refusal: a signal or a severity that there is not; such a rule would never be broken.
    """
    known = (*metrics.NAMES, *COUNTS)
    for rule in given:
        if rule["signal"] not in known:
            raise Refusal(f"triage rules: there is no signal {rule['signal']} ({near(rule['signal'], known)})")
        if rule["severity"] not in severities:
            raise Refusal(
                f"triage rules: {rule['signal']} is {rule['severity']}, which is no severity "
                f"({near(rule['severity'], severities)}): name it in severities, worst first"
            )
    return [Rule(**rule) for rule in given]


def judge(team_rules, severities, seen):
    """Pure: how severe it is, worst findings first.

    Args:
        severities: the team's words, worst first.
    """
    findings, unjudged = [], []
    for rule in team_rules:
        found = _counted(rule, seen) if rule.signal in COUNTS else _measured(rule, seen)
        if found is None:
            unjudged.append(f"{rule.signal} {rule.limit} ({rule.severity})")
        else:
            findings += found
    order = [*severities, None]
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Triage(findings[0].severity if findings else None, tuple(findings), tuple(unjudged))


def _counted(rule, seen):
    """Findings of a rule about a count; None where it is not known."""
    if rule.signal not in seen.counts:
        return None
    value, details = seen.counts[rule.signal], seen.details.get(rule.signal, ())
    if rule.signal == RESTARTS:
        recent = [(at, why) for at, why in value if seen.now - at <= 60 * rule.for_minutes]
        value, details = len(recent), tuple(dict.fromkeys(why for _at, why in recent))
    if not rule.is_out(value):
        return []
    within = f" within {rule.for_minutes:g} min" if rule.signal == RESTARTS else ""
    said = f": {'; '.join(details[: outage.REASONS_SHOWN])}" if details else ""
    return [Finding(rule, rule.severity, f"{value:g} {COUNTS[rule.signal]}{within}, {rule.limit}{said}")]


def _measured(rule, seen):
    """Findings of a rule about a metric; None where nothing was measured lately."""
    of_it = [each for each in seen.measured if each["name"] == rule.signal and each["now"] is not None]
    if not of_it:
        return None
    findings = []
    for each in of_it:
        points = dict(each["series"])
        since = metrics.lasting(points, rule.is_out, each["every"])
        if since is None:
            continue
        minutes = (max(points) + each["every"] - since) / 60
        lasted = minutes >= rule.for_minutes
        wanted = "" if lasted else f" of {rule.for_minutes:g}"
        text = (
            f"{rule.signal} of {each['of']} is {metrics.shown(each['now'], each['unit'])}, {rule.limit} "
            f"for {minutes:.0f}{wanted} min, since {metrics.clock(since)} UTC"
        )
        findings.append(Finding(rule, rule.severity if lasted else None, text))
    return findings


def next_step(verdict, seen, recent_minutes):
    """Pure: what to run next. What is surely the cause comes before what only might be.

    Args:
        recent_minutes: a deployment is taken for the cause so long after it began.
    """
    words = " ".join((seen.because, *(line for lines in seen.details.values() for line in lines), *seen.log)).lower()
    checks = "; ".join(seen.details.get(FAILED_CHECKS, ())[: outage.REASONS_SHOWN])
    crowded = any(each in words for each in NO_CONNECTION_LEFT)
    if seen.silent and seen.counts.get(FAILED_CHECKS):
        return Next("db_failover", f"the region does not answer, and users are not served: {checks}")
    if seen.decision == outage.FAILOVER and not crowded:
        return Next("db_failover", seen.because)
    if seen.decision == outage.ROLLBACK:
        return Next("rollback_deployment", seen.because)
    if seen.decision == outage.SCALE:
        return Next("service_outage", seen.because)
    age = None if seen.released is None else (seen.now - seen.released) / 60
    if verdict.severity and age is not None and age <= recent_minutes:
        why = verdict.findings[0].text
        return Next("rollback_deployment", f"{seen.release} was deployed {age:.0f} min ago: {why}")
    if crowded:
        return Next("db_connections", f"the database has no connection left: {seen.because or checks}")
    if seen.has_disks and any(each in words for each in NO_SPACE_LEFT):
        return Next("disk_full", f"a disk is full: {seen.because or checks}")
    if seen.decision == outage.RESTART:
        return Next("service_outage", seen.because)
    return _by_metrics(verdict, seen)


def _by_metrics(verdict, seen):
    """Where the service itself says nothing."""
    if verdict.severity:
        abnormal = {each["name"]: each["why"] for each in seen.measured if each["abnormal"]}
        out = {finding.rule.signal: finding.text for finding in verdict.findings} | abnormal
        for signals, playbook in BY_METRICS:
            for name in signals:
                if name in out:
                    return Next(playbook, out[name])
    if verdict.severity or seen.decision == outage.UNKNOWN:
        why = seen.because if seen.decision == outage.UNKNOWN else verdict.findings[0].text
        return Next("high_error_rate", f"nothing tells the cause yet: {why}")
    judged = "that could be judged " if verdict.unjudged or seen.blind else ""
    return Next("recovery_validation", f"no rule {judged}is broken; it proves whether all is well")
