# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The likely cause of an incident, with what speaks for it and against it. All of it pure; `cause_rules` are the rules.

Each clue removes a share of the doubt that is left, or of the belief that is there: two clues of 0.6 leave 0.16 of doubt. What
could not be looked at is no clue, neither way; it lowers the confidence. Where nothing is believed enough, or two causes alike,
the answer is "unknown", which sends nobody the wrong way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from . import error_kinds, outage
from .cloudwatch import PERIOD
from .metrics import clock

UNKNOWN = "unknown"
# Where a clue is read. Without one of these so much of the confidence is gone.
LOGS, METRICS, CHANGES, TASKS, DATABASE, DEPENDENCIES = (
    "logs",
    "metrics",
    "changes",
    "tasks",
    "database",
    "dependencies",
)
BLINDNESS = {LOGS: 0.25, METRICS: 0.15, CHANGES: 0.15, TASKS: 0.1, DATABASE: 0.05, DEPENDENCIES: 0.05}
# The best must be believed so much, and by so much more than the second.
ENOUGH, AHEAD = 0.5, 0.15
# A cause that is believed takes so much of the belief in what it brings about, unless that is believed by so much more.
EXPLAINED, BEHIND = 0.75, 0.25
# Minutes: so long before the trouble a change may have been to be taken for its cause, and is it without a doubt.
LOOK_BACK, AT_ONCE = 60, 10
# Seconds by which clocks differ.
SKEW = 3
# Whether there is trouble: none is to be seen, what there was has ended, or it lasts.
NONE, OVER, ON = "none", "over", "on"
# Errors have ended when so many more should have come by now, and for so many seconds none did: a line is late by some.
SHOULD_HAVE_COME, QUIET = 5, 5
# After so many it is worth waiting for the rest of them.
HUSH = 2
# What users feel.
FELT = ("error_percent", "p50", "p95", "p99")
# Errors that go on as they always did are no news: where no others are, they speak for a cause, but too softly to name it alone.
NO_NEWS = 0.25
# A kind of error with less than this of all the new errors began none of them.
FEWEST = 0.05


@dataclass(frozen=True)
class Said:
    """Something that was said of the trouble.

    Attributes:
        text: for people, masked; `example`: longer, where there is one: libraries name the cause last.
        share: of all that was said at the same place, 0 to 1.
        since: epoch seconds; None where it does not tell.
        count: how often, `streams`: by how many tasks or hosts; 0 where that is not known. `busiest`: {stream, count} of the one
            that said it most.
        new: whether it was said only after the newest deployment began; None where that is not known.
        where: LOGS, TASKS, ...
    """

    text: str
    share: float = 1.0
    since: float | None = None
    count: int = 0
    streams: int = 0
    busiest: dict = field(default_factory=dict)
    new: bool | None = None
    where: str = LOGS
    example: str = ""

    @property
    def kind(self):
        return error_kinds.kind_of(f"{self.text} {self.example}")

    @property
    def is_mere_warning(self):
        return self.kind is None and self.text.startswith("WARN")

    @property
    def is_silence(self):
        return error_kinds.is_silence(f"{self.text} {self.example}")


@dataclass(frozen=True)
class Signals:
    """All that was looked at, at `now` (epoch seconds).

    Attributes:
        metrics: entries of `metrics.judge`; patterns: of `log_patterns.grouped`.
        changes: changes.Change, oldest first; revision: what `changes.told` says of it.
        release, released, rollout: what the newest deployment brings, when it began, and why it failed (None where not).
        stops: ((epoch seconds, why, whether it was a task of the newest deployment) of each task that failed.
        targets: {target, state, reason} of each; running: how many tasks run.
        complaints: what fails of what users ask, a line each.
        dependencies: entries of `dependencies.assess`.
        database: outage.Database; sessions: sessions.Seen. None where not looked at.
        related: names and ids of what the service needs, which a change may name.
        unseen: {one of BLINDNESS: lines that say what could not be read there, and why}.
    """

    now: float
    metrics: tuple = ()
    patterns: tuple = ()
    changes: tuple = ()
    revision: dict = field(default_factory=dict)
    release: str = ""
    released: float | None = None
    rollout: str | None = None
    stops: tuple = ()
    targets: tuple = ()
    running: int = 0
    complaints: tuple = ()
    dependencies: tuple = ()
    database: outage.Database | None = None
    sessions: object = None
    related: tuple = ()
    unseen: dict = field(default_factory=dict)

    # Every clue asks for these: they are worked out once.
    @cached_property
    def errors(self):
        """[Said] of the logs: the errors that came up, each with its share of them; all errors where none did."""
        return self._logged(lambda each: not each.is_mere_warning)

    @cached_property
    def lines(self):
        """The same with warnings that name no cause, such as that of a request that was slow."""
        return self._logged(lambda each: True)

    @cached_property
    def _surging(self):
        return [each for each in self.patterns if each["surge"] is not None]

    @property
    def news(self):
        """How much the errors of the logs tell of this trouble, 0 to 1."""
        return 1.0 if self._surging else NO_NEWS

    @property
    def all_errors(self):
        """What a share of them is a share of, for people."""
        return "the new errors" if self._surging else "the errors, none of which is new"

    def _logged(self, is_meant):
        said = [each for each in map(_said, self._surging or self.patterns) if is_meant(each)]
        total = sum(each.count for each in said)
        return [replace(each, share=self.news * each.count / total) for each in said if each.count >= FEWEST * total]

    @cached_property
    def said(self):
        """[Said] of all places."""
        why = [Said(why, since=at, where=TASKS) for at, why, _ours in self.stops]
        return [*self.errors, *why, *(Said(line, where=TASKS) for line in self.complaints)]

    def metric(self, *names):
        """The abnormal entries of these metrics."""
        return [each for each in self.metrics if each["name"] in names and each["abnormal"]]

    @property
    def onset(self):
        """When the trouble began, as near as anything tells (epoch seconds); None where none is to be seen."""
        return self._onset[0]

    @cached_property
    def _onset(self):
        """(moment, seconds by which it may be early): a log says when to the second, a metric in whole minutes."""
        felt = min((each["since"] for each in self.metric(*FELT)), default=None)
        logged = min((each.since for each in self.errors or self.lines), default=None) if self._surging else None
        if logged is not None and (felt is None or logged < felt + PERIOD):
            return logged, SKEW
        if felt is not None:
            return felt, PERIOD
        if self.stops:
            return min(at for at, _why, _ours in self.stops), SKEW
        # More is asked for than usual and the processors are busy with it: nobody suffers yet.
        rush = any(each["usual"][1] is not None and each["now"] > each["usual"][1] for each in self.metric("requests"))
        strained = self.metric("service_cpu", "instance_cpu") if rush else ()
        return min((each["since"] for each in strained), default=None), PERIOD

    @property
    def trouble(self):
        """NONE, OVER or ON, as far as can be seen. Errors that go on as always are trouble only where no metric can be read."""
        lasts = (
            self.complaints
            or any(each["ok"] is False for each in self.dependencies)
            or (self.database and self.database.answers is False)
            or (self.sessions and not self.sessions.free)
        )
        if self.onset is None:
            return ON if lasts or (self.patterns and METRICS in self.unseen) else NONE
        return OVER if self.ended is not None and not lasts else ON

    @property
    def ended(self):
        """When the errors ended (epoch seconds); None while they come, or where there were none."""
        last = max((each["last"] for each in self._surging), default=None)
        if last is None or not all(_has_ended(each, self.now) for each in self._surging):
            return None
        return None if any(_is_felt_after(last, each, self.now) for each in self.metric(*FELT)) else last

    @property
    def hush(self):
        """Seconds until it can be told whether the errors, silent for a moment, have ended; 0 where it can be told, or they come."""
        open_ones = [each for each in self._surging if not _has_ended(each, self.now)]
        if any(_missing(each, self.now) < SHOULD_HAVE_COME or self.now - each["last"] < HUSH for each in open_ones):
            return 0.0
        return max((QUIET - (self.now - each["last"]) for each in open_ones), default=0.0)

    def before(self, moment):
        """How surely something at `moment` (epoch seconds) came shortly before the trouble, 0 to 1. A cause is not late."""
        onset, early = self._onset
        seconds = (self.now if onset is None else onset) - moment
        if seconds < -early or seconds > 60 * LOOK_BACK:
            return 0.0
        return 1.0 if seconds <= 60 * AT_ONCE else 0.5


def _said(pattern):
    """The Said of an entry of `log_patterns.grouped`."""
    return Said(
        pattern["pattern"],
        since=pattern["surge"] or pattern["first"],
        count=pattern["count"],
        streams=pattern["streams"],
        busiest=pattern["busiest"],
        new=pattern["new"],
        example=pattern["example"],
    )


def _missing(pattern, now):
    """How many more should have come since the last."""
    return (now - pattern["last"]) * pattern["count"] / max(pattern["last"] - pattern["surge"], 1)


def _has_ended(pattern, now):
    return now - pattern["last"] >= QUIET and _missing(pattern, now) >= SHOULD_HAVE_COME


def _is_felt_after(last, metric, now):
    """Whether CloudWatch tells of a minute after the one of the last error. An error is one whenever it is counted, but the first
    requests that new tasks answer are slow: that is told by a whole minute only."""
    newest = max(at for at, _value in metric["series"])
    return newest > last and (metric["name"] == "error_percent" or newest + PERIOD <= now)


@dataclass(frozen=True)
class Evidence:
    """What a clue has found: the sentence with its figures, and how much of the clue's weight it has, 0 to 1."""

    text: str
    strength: float = 1.0


@dataclass(frozen=True)
class Clue:
    """One thing that speaks for or against a cause.

    Attributes:
        where: one of BLINDNESS: what it is read from.
        weight: the share of the doubt (against: of the belief) that it removes, 0 to 1.
        look: Signals -> Evidence, or None where it is not there.
    """

    where: str
    weight: float
    look: Callable


@dataclass(frozen=True)
class Cause:
    """A cause that a runbook knows, with its sections.

    Attributes:
        name: the key that programs read; `title`: for people.
        brings: names of causes whose signs it brings about.
        advice: what a person does about it, where no playbook does.
        playbook, arguments: the playbook that mends it, and its variables besides env.
    """

    name: str
    title: str
    source: str
    speaks_for: tuple
    against: tuple = ()
    brings: tuple = ()
    playbook: str = ""
    arguments: str = ""
    advice: str = ""

    def command(self, environment):
        return " ".join(f"ansible-playbook playbooks/{self.playbook}.yml -e env={environment} {self.arguments}".split())


@dataclass(frozen=True)
class Judged:
    """One cause as the signals have it; `score` is how far it is believed, 0 to 1."""

    cause: Cause
    score: float
    evidence_for: tuple = ()
    evidence_against: tuple = ()


@dataclass(frozen=True)
class Verdict:
    """The name of the likely cause or UNKNOWN, how sure that is (0 to 1), why, every cause for which anything speaks, when it began
    (epoch seconds), and whether it lasts: NONE, OVER or ON."""

    cause: str
    confidence: float
    because: str
    causes: tuple
    onset: float | None
    trouble: str


def judge(signals, rules):
    """Pure: which of `rules` is the cause of what `signals` tell."""
    if signals.trouble == NONE:
        blind = ", as far as could be seen" if signals.unseen else ""
        return Verdict(UNKNOWN, 0.0, f"nothing of the service is abnormal{blind}", (), None, NONE)
    alone = {cause.name: _alone(cause, signals) for cause in rules}
    judged = [_among(each, alone) for each in alone.values()]
    judged = sorted((each for each in judged if each.evidence_for), key=lambda each: -each.score)
    cause, because = _decided(judged)
    best = judged[0].score if judged else 0.0
    seen = 1 - sum(BLINDNESS[where] for where in signals.unseen)
    return Verdict(cause, round(best * max(seen, 0.0), 2), because, tuple(judged), signals.onset, signals.trouble)


def _alone(cause, signals):
    """How far the clues of a cause are believed, whatever else may be the matter."""
    found = [(clue, clue.look(signals)) for clue in cause.speaks_for]
    doubt = 1.0
    for clue, evidence in found:
        doubt *= 1 - clue.weight * (evidence.strength if evidence else 0)
    score, contrary = 1 - doubt, [(clue, clue.look(signals)) for clue in cause.against]
    for clue, evidence in contrary:
        score *= 1 - clue.weight * (evidence.strength if evidence else 0)
    return Judged(
        cause,
        round(score, 3),
        tuple(evidence.text for _clue, evidence in found if evidence),
        tuple(evidence.text for _clue, evidence in contrary if evidence),
    )


def _among(judged, others):
    """The same beside the other causes: what one of them brings about is its sign, and not another cause."""
    believed = [
        each
        for each in others.values()
        if judged.cause.name in each.cause.brings and each.score >= ENOUGH and each.score >= judged.score - BEHIND
    ]
    if not believed or not judged.evidence_for:
        return judged
    best = max(believed, key=lambda each: each.score)
    why = f"{best.cause.title} brings this about: {best.evidence_for[0]}"
    score = round(judged.score * (1 - EXPLAINED * best.score), 3)
    return Judged(judged.cause, score, judged.evidence_for, (*judged.evidence_against, why))


def _decided(judged):
    """(name or UNKNOWN, why)."""
    if not judged:
        return UNKNOWN, "nothing that was seen speaks for any cause"
    best = judged[0]
    if best.score < ENOUGH:
        return UNKNOWN, f"too little speaks for any cause; most for {best.cause.title}: {best.evidence_for[0]}"
    if len(judged) > 1 and best.score - judged[1].score < AHEAD:
        second = judged[1]
        return UNKNOWN, (
            f"{best.cause.title} and {second.cause.title} are alike: {best.evidence_for[0]}; {second.evidence_for[0]}"
        )
    return best.cause.name, f"{best.cause.title}: {'; '.join(best.evidence_for)}"


def since(moment):
    """For people; nothing where it is not known."""
    return f" since {clock(moment)} UTC" if moment is not None else ""
