# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a look at the gates of all scenarios says of each: ready, ready with a risk, not ready, or cannot tell.

The gates are those of the verbs themselves: readiness.yml runs the steps of each scenario in check mode, and this reads what
came of it in the timeline of that run.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace

from .errors import Refusal, because_and_fix
from .record import FOLDER_VARIABLE
from .verb import ASKED, UNANSWERED

# The variable under which the tasks of a scenario run.
SCENARIO = "readiness_of"
# Where a run leaves its verdicts, in its record.
FILE = "readiness.json"
# From the best to the worst. A gate that is closed is sure, whatever else could not be seen.
READY, RISK, UNKNOWN, NOT_READY = "ready", "risk", "cannot_tell", "not_ready"
LEVELS = (READY, RISK, UNKNOWN, NOT_READY)
WORDS = {READY: "ready", RISK: "ready with a risk", UNKNOWN: "cannot tell", NOT_READY: "not ready"}
# Hosts that a line of the table names.
SPOKEN_OF = 3
# Lines of it on how long something takes.
MOST_MEASURED = 10
# How notes of verbs begin that tell of a gate which an override holds open, or of a danger that stays.
RISKY = ("override ", "ACCEPTED", "accepted: ", "UNFENCED")
# And how those begin that tell of a gate which has learned nothing.
NOT_CHECKED = "NOT CHECKED: "

# The scenarios that move the service to its peer. They take the same steps, which are asked once, under the name of MOVE.
MOVES = ("db_failover", "region_evacuation")
MOVE = "move"


@dataclass(frozen=True)
class Found:
    """One reason that no gate knows, as the check of one subject finds it; it concerns the scenarios of that subject."""

    level: str
    resource: str
    because: str
    fix: str
    scenarios: tuple | None = None  # where it concerns others

    def told(self, check, scenarios):
        """As results tell it, once for each of its scenarios that are among `scenarios`."""
        said = {key: getattr(self, key) for key in ("level", "resource", "because", "fix")}
        return [
            dict(said, check=check, scenario=each)
            for each in scenarios
            if self.scenarios is None or each in self.scenarios
        ]


@dataclass(frozen=True)
class Finding:
    """One reason why a scenario is not simply ready; `scenario` is "" where it concerns all of the host."""

    host: str
    scenario: str
    level: str
    check: str
    resource: str
    because: str
    fix: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is said of one scenario of one host, and why; `measured` is how long it takes, in words."""

    host: str
    scenario: str
    level: str
    findings: tuple = ()
    measured: str = ""


def _of_each(events):
    """The events, one that tells of several scenarios once for each."""
    for event in events:
        for scenario in MOVES if event.get("scenario") == MOVE else (event.get("scenario", ""),):
            yield dict(event, scenario=scenario)


def findings(events):
    """[Finding] of what the verbs of a run answered, in the order of the timeline."""
    found, stopped = [], set()
    for event in _of_each(events):
        if event["event"] not in ("step", "preflight"):
            continue
        here = (event["host"], event["scenario"])
        for each in event.get("readiness", {}).get("findings", []):
            found.append(Finding(host=event["host"], **each))
        # After the first stop the steps that follow lack what it would have told them.
        is_first, why = here not in stopped, event.get("stopped")
        if event["state"] in ("failed", "ignored", "unreachable"):
            found += _of_stop(event, here) if is_first or why else []
            stopped.add(here)
        elif why == ASKED:
            stopped.add(here)
        if here[1]:
            found += _of_notes(event, here)
    return list(dict.fromkeys(found))


def _of_stop(event, here):
    why = event.get("stopped")
    message = event.get("message", "").removesuffix("; nothing was changed")
    _before, lacks, variable = message.rpartition("Error while resolving value for ")
    if why is None and (lacks or "undefined" in message):
        # Ansible itself could not go on.
        return [Finding(*here, NOT_READY, event["step"], "", variable, "fill in the inventory")]
    because, fix = because_and_fix(message)
    # A condition of the steps that does not hold refuses as a verb does.
    level = UNKNOWN if why == UNANSWERED else NOT_READY
    check = event["verb"].rpartition(".")[2] if why else event["step"]
    return [Finding(*here, level, check, event.get("resource", ""), because, fix)]


def _of_notes(event, here):
    where = (event.get("verb", event["step"]).rpartition(".")[2], event.get("resource", ""))
    for note in event.get("notes", []):
        if note.startswith(RISKY):
            yield Finding(*here, RISK, *where, note)
        elif note.startswith(NOT_CHECKED):
            yield Finding(*here, UNKNOWN, *where, *because_and_fix(note.removeprefix(NOT_CHECKED)))


def asked(events):
    """{host: [scenario]} of what a run was to look at."""
    return {
        event["host"]: event["readiness"]["scenarios"]
        for event in events
        if event.get("readiness", {}).get("scenarios") is not None
    }


def promised(events):
    """{host: what is promised of it} of each host that the run looked at."""
    return {event["host"]: event["readiness"].get("promised", {}) for event in events if "readiness" in event}


def verdicts(events, more=(), measured=None):
    """[Verdict] of each scenario of each host that the run looked at, as they stand in the timeline.

    Args:
        more: [Finding] of what is known besides.
        measured: {(host, scenario): how long it takes, in words}.
    """
    found = [*findings(events), *more]
    answered = {(event["host"], event["scenario"]) for event in _of_each(events) if event.get("verb")}
    looked_at = asked(events)
    # Of a host that the guard has stopped nothing else is known.
    looked_at |= {each.host: [""] for each in found if each.host not in looked_at}
    return [
        replace(
            _verdict(host, scenario, found, (host, scenario) in answered),
            measured=(measured or {}).get((host, scenario), ""),
        )
        for host, scenarios in looked_at.items()
        for scenario in scenarios
    ]


def _verdict(host, scenario, found, is_answered):
    mine = [each for each in found if each.host == host and each.scenario in ("", scenario)]
    if not is_answered and not mine:
        mine = [
            Finding(
                host, scenario, UNKNOWN, "steps", "", "no verb of this scenario was asked", "say which resources it has"
            )
        ]
    return Verdict(host, scenario, worst(each.level for each in mine), tuple(mine))


def worst(levels):
    return max(levels, key=LEVELS.index, default=READY)


def table(said):
    """Lines for a terminal: the worst first, below it why; scenarios and hosts of which the same is said have one line; then how long what takes."""
    scenarios, hosts = {}, {}
    for each in said:
        why = tuple(replace(finding, host="", scenario="") for finding in each.findings)
        scenarios.setdefault((each.host, each.level, why), []).append(each.scenario or "all")
    for (host, level, why), names in scenarios.items():
        hosts.setdefault((level, tuple(names), why), []).append(host)
    rows = [(_named(there), WORDS[level], *row) for (level, *row), there in _worst_first(hosts)]
    widths = [max((len(row[at]) for row in rows), default=0) for at in (0, 1)]
    for named, level, names, findings_of_all in rows:
        yield f"{named:{widths[0]}}  {level:{widths[1]}}  {', '.join(names)}"
        for finding in findings_of_all:
            where = f"{finding.resource}: " if finding.resource and finding.resource not in finding.because else ""
            mend = f": {finding.fix}" if finding.fix else ""
            yield f"    {finding.check}: {where}{finding.because}{mend}"
    measured = [f"    {each.host} {each.scenario}: {each.measured}" for each in said if each.measured]
    yield from ["time to recover", *measured[:MOST_MEASURED]] if measured else []
    yield from [f"    and {len(measured) - MOST_MEASURED} more on the page"] if len(measured) > MOST_MEASURED else []


def _worst_first(hosts):
    return sorted(hosts.items(), key=lambda row: -LEVELS.index(row[0][0]))


def _named(hosts):
    if len(hosts) <= SPOKEN_OF:
        return ", ".join(hosts)
    return f"{', '.join(hosts[: SPOKEN_OF - 1])} and {len(hosts) - SPOKEN_OF + 1} more"


def counted(said):
    """{level: how many scenarios}, each level in it, the best first."""
    found = Counter(each.level for each in said)
    return {level: found[level] for level in LEVELS}


def reasons(said, levels=LEVELS):
    """[(Finding, scenarios)] of one host: each of these levels once, whatever scenarios it stands in the way of, the worst first."""
    told = {}
    for verdict in said:
        for each in verdict.findings:
            if each.level in levels:
                told.setdefault(replace(each, scenario=""), []).append(verdict.scenario)
    return sorted(told.items(), key=lambda item: -LEVELS.index(item[0].level))


def by_host(said):
    """{host: [Verdict]}, those that are worst first."""
    hosts = {}
    for each in said:
        hosts.setdefault(each.host, []).append(each)
    return dict(sorted(hosts.items(), key=lambda item: (-LEVELS.index(worst(each.level for each in item[1])), item[0])))


def of_this_run():
    """[Verdict] that the run has come to. Raises Refusal where it has come to none."""
    said = written(os.environ.get(FOLDER_VARIABLE, ""))
    if not said:
        raise Refusal("this run has no verdicts: readiness_report comes first")
    return said


def as_data(said):
    """The same for machines."""
    return [asdict(each) for each in said]


def written(folder):
    """[Verdict] that a run has left in its record; [] where it looked at none."""
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8") as data:
            told = json.load(data)["verdicts"]
    except OSError:
        return []
    return [Verdict(**dict(each, findings=tuple(Finding(**finding) for finding in each["findings"]))) for each in told]
