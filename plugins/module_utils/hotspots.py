# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a slow service is hot, and what helps: courtcase scenario 3, mangu 3.2, ec2-asg scenario 1. Pure.

One process, one task, instance or pod, all of them, or the database: each is helped by something else, and what helps the one
makes another worse. Where nothing that was seen tells, that is the answer.
"""

from __future__ import annotations

import fnmatch
import statistics
from dataclasses import dataclass, field

from .instance_processes import shown

# One that is hot among others stands out where those are below this share of the limit.
COOL = 0.6
# A process that has this share of what its instance uses is why it is busy.
MOST_OF_IT = 0.5


@dataclass(frozen=True)
class Part:
    """One task, instance or pod of the service.

    Attributes:
        kind, name: what it is, and which.
        cpu, memory: percent of what it may have; None where nothing tells.
        survey: instance_processes.Survey of an instance that was asked.
        restarts: how often its containers were started again.
    """

    kind: str
    name: str
    cpu: float | None = None
    memory: float | None = None
    survey: object = None
    restarts: int = 0


@dataclass(frozen=True)
class Database:
    """What is known of the database; None where nothing is.

    Attributes:
        cpu: percent.
        free, most: connections that any role may still take, and how many there may be.
        blocked: sessions that wait for another one.
        longest: (seconds, statement) of what runs, the longest first.
    """

    name: str
    cpu: float | None = None
    free: int | None = None
    most: int | None = None
    blocked: int = 0
    longest: tuple = ()


@dataclass(frozen=True)
class Limits:
    """Above these something is hot: percent, percent, seconds, seconds; and what counts as short of connections, percent."""

    cpu: float = 80
    memory: float = 85
    p99: float = 3
    query: float = 60
    free_connections: float = 10


@dataclass(frozen=True)
class Seen:
    """What was looked at.

    Attributes:
        slow: what of the response times is out, a line; None where they are as they should be, or not known.
        latency_known: whether anything is known of them.
        parts: [Part] of the service.
        average, busiest: {cpu, memory} of the service and of its busiest task, where single tasks are not known.
        tasks: how many tasks it has.
        busier: what says that more is asked of it than usual, a line; None where that is not so.
        database: Database, None where the service has none or nothing is known.
        own: names of the processes that the service consists of, as a shell matches them.
    """

    slow: str | None = None
    latency_known: bool = True
    parts: tuple = ()
    average: dict = field(default_factory=dict)
    busiest: dict = field(default_factory=dict)
    tasks: int = 0
    busier: str | None = None
    database: Database | None = None
    own: tuple = ()


@dataclass(frozen=True)
class Hottest:
    """The verdict.

    Attributes:
        action: none, end_process, restart, scale, resize, database or unknown.
        resource: processes, processors, memory, database, or "" where nothing is hot.
        where: which process, part or database.
        why: a sentence.
        arguments: what the action needs to know besides the service itself.
    """

    action: str
    resource: str = ""
    where: str = ""
    why: str = ""
    arguments: dict = field(default_factory=dict)


def hottest(seen, limits):
    """Pure: where it is hot, and what helps."""
    for look in (_stranger, _database, _one_of_many, _memory, _load):
        found = look(seen, limits)
        if found is not None:
            return found
    if seen.slow:
        return Hottest(
            "unknown", why=f"{seen.slow}, and nothing that was looked at is busy: it waits for something else"
        )
    if not seen.latency_known and not any(_known(each) for each in seen.parts) and not seen.average:
        return Hottest("unknown", why="nothing is known of its response times, nor of what it uses")
    return Hottest("none", why="nothing is busier than it may be")


def _stranger(seen, limits):
    """A process that is no part of the service and takes what the service needs."""
    surveyed = [each for each in seen.parts if each.survey and not each.survey.trouble]
    for part in sorted(surveyed, key=lambda each: -(each.cpu or 0)):
        survey = part.survey
        # Of what other instances run too nobody knows that it is a stranger; with no other one, the inventory may.
        common = {name for other in surveyed if other is not part for name in other.survey.commands}
        for process in survey.processes:
            known = any(fnmatch.fnmatchcase(process["command"], pattern) for pattern in seen.own)
            strange = (seen.own or len(surveyed) > 1) and not known and process["command"] not in common
            if not strange or not process["may_end"]:
                continue
            eats = _eats(part, process, limits)
            if eats:
                return Hottest(
                    "end_process",
                    "processes",
                    f"process {process['pid']} ({process['command']}) on {part.name}",
                    f"{part.name} is at {eats}, most of it by {shown(process)}, which "
                    + ("is no process of the service" if seen.own else "runs on no other instance"),
                    {"instance_id": part.name, "pid": process["pid"], "started": process["started"]},
                )
    return None


def _eats(part, process, limits):
    """What of an instance that is short of it goes to a process, for people; None where it is not why."""
    survey = part.survey
    if _is_over(part.cpu, limits.cpu) and process["cpu"] >= MOST_OF_IT * survey.cpu * survey.cpus:
        return f"{part.cpu:g} % of its processors"
    if (
        _is_over(part.memory, limits.memory)
        and survey.bytes
        and process["rss"] >= MOST_OF_IT * survey.bytes * part.memory / 100
    ):
        return f"{part.memory:g} % of its memory"
    return None


def _database(seen, limits):
    """What waits for a database is slow however much there is of it, and more of it makes that worse."""
    database = seen.database
    if database is None or not (seen.slow or _is_over(database.cpu, limits.cpu)):
        return None
    name = database.name
    long = [each for each in database.longest if each[0] >= limits.query]
    if database.blocked:
        who = f"{database.blocked} sessions of {name} wait for others"
        return Hottest("database", "database", name, who, {"playbook": "kill_queries", "extra": "-e kill=blocking"})
    if long:
        why = f"{len(long)} statements of {name} run for {limits.query:g} s and more, the longest for {long[0][0]:.0f} s: {long[0][1]}"
        extra = f"-e older_than={limits.query:g}"
        return Hottest("database", "database", name, why, {"playbook": "kill_queries", "extra": extra})
    if database.most and database.free is not None and database.free * 100 <= limits.free_connections * database.most:
        why = f"{database.free} of {database.most} connections of {name} are free"
        return Hottest("database", "database", name, why, {"playbook": "db_connections", "extra": ""})
    if _is_over(database.cpu, limits.cpu):
        why = f"the processors of {name} are at {database.cpu:g} %, with no statement that runs for long"
        extra = "-e steps=resize -e db_instance_class=CLASS"
        return Hottest("database", "database", name, why, {"playbook": "db_connections", "extra": extra})
    return None


def _one_of_many(seen, limits):
    """One that is hot while the others are not is not short of anything: something in it went wrong."""
    for measure, limit, resource in (("cpu", limits.cpu, "processors"), ("memory", limits.memory, "memory")):
        known = [(getattr(each, measure), each) for each in seen.parts if getattr(each, measure) is not None]
        hot = [each for each in known if each[0] >= limit]
        others = [value for value, _part in known if value < limit]
        if hot and len(hot) <= len(others) and statistics.median(others) <= COOL * limit:
            value, worst = max(hot, key=lambda each: each[0])
            why = (
                f"{worst.kind} {worst.name} is at {value:g} % of its {resource}, "
                f"{len(others)} others are at {statistics.median(others):g} %"
            )
            return Hottest("restart", resource, f"{worst.kind} {worst.name}", why, {worst.kind: worst.name})
        average, most = seen.average.get(measure), seen.busiest.get(measure)
        if not known and average is not None and _is_over(most, limit) and average <= COOL * limit and seen.tasks > 1:
            why = f"one of {seen.tasks} tasks is at {most:g} % of its {resource}, all together at {average:g} %"
            return Hottest("restart", resource, f"one of {seen.tasks} tasks, and nothing tells which", why)
    return None


def _memory(seen, limits):
    """All of them near what they may have: the next ones would be so too."""
    value = _of_all(seen, "memory")
    if not _is_over(value, limits.memory):
        return None
    why = f"{_all(seen)} at {value:g} % of the memory they may have: more of them would be so too"
    return Hottest("resize", "memory", _all(seen), why)


def _load(seen, limits):
    """All of them busy: the work is more than they can do."""
    value = _of_all(seen, "cpu")
    if not _is_over(value, limits.cpu):
        return None
    asked = seen.busier or "no more is asked of it than usual: if it was deployed lately, look at that too"
    return Hottest("scale", "processors", _all(seen), f"{_all(seen)} at {value:g} % of their processors; {asked}")


def _of_all(seen, measure):
    """Percent of a measure that most of them are at; None where nothing tells."""
    values = [getattr(each, measure) for each in seen.parts if getattr(each, measure) is not None]
    return statistics.median(values) if values else seen.average.get(measure)


def _all(seen):
    count = len(seen.parts) or seen.tasks
    kind = seen.parts[0].kind if seen.parts else "task"
    return f"the only {kind}" if count == 1 else f"all {count} {kind}s"


def _known(part):
    return part.cpu is not None or part.memory is not None


def _is_over(value, limit):
    return value is not None and value >= limit


def findings(seen):
    """All that was seen, a line each, the hottest first."""
    lines = [
        seen.slow or ("response times are as they should be" if seen.latency_known else "response times are not known")
    ]
    lines += [seen.busier] if seen.busier else []
    for part in sorted(seen.parts, key=lambda each: -(each.cpu or 0)):
        restarts = f", restarted {part.restarts} times" if part.restarts else ""
        lines.append(
            f"{part.kind} {part.name}: {_percent('processors', part.cpu)}, {_percent('memory', part.memory)}{restarts}"
        )
        processes = part.survey.processes if part.survey else ()
        lines += [f"  {shown(process)}" for process in processes]
    if not seen.parts and seen.average:
        average, most = seen.average, seen.busiest
        lines.append(
            f"{seen.tasks} tasks: {_percent('processors', average.get('cpu'))}, the busiest {_percent('', most.get('cpu'))}; "
            f"{_percent('memory', average.get('memory'))}, the fullest {_percent('', most.get('memory'))}"
        )
    if seen.database is not None:
        lines += _told(seen.database)
    return lines


def _told(database):
    connections = f", {database.free} of {database.most} connections free" if database.most else ""
    blocked = f", {database.blocked} sessions wait for others" if database.blocked else ""
    return [
        f"database {database.name}: {_percent('processors', database.cpu)}{connections}{blocked}",
        *(f"  {seconds:.0f} s: {text}" for seconds, text in database.longest),
    ]


def _percent(what, value):
    return f"{what} {'unknown' if value is None else f'{value:g} %'}".strip()
