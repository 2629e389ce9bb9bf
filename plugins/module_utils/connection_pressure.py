# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds the connections of a database, and which relief comes first: mangu 3.1, courtcase 4, ec2-asg 2.

The order is that of what it costs: ending sessions that hold what they do not use, new tasks for those that have leaked
them, and a reboot with more connections only where work that is really done fills them.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from . import rds, rds_parameters, sessions
from .errors import Unreachable
from .outage import DATABASE_IS_DOWN
from .postgres import NoSlot

NONE, KILL, RESTART, RAISE, FAILOVER, OPEN, WAIT, UNKNOWN = (
    "none",
    "kill",
    "restart",
    "raise",
    "failover",
    "security_groups",
    "wait",
    "unknown",
)
EVENTS_SHOWN, GROUPS_SHOWN, CHAINS_SHOWN = 10, 8, 3


@dataclass(frozen=True)
class Limits:
    """From when on a person would act.

    Attributes:
        free_percent: fewer free slots than that, of a hundred that any role may take, are too few.
        idle_in_transaction, query, blocked: seconds that a session may be idle in a transaction, run one statement, and wait
            for a lock.
        database: whose sessions may be ended; those of others are somebody else's.
    """

    free_percent: float
    idle_in_transaction: float
    query: float
    blocked: float
    database: str


@dataclass(frozen=True)
class Observed:
    """All that was looked at.

    Attributes:
        instance: `rds.instance()`.
        seen: sessions.Seen, or the exception that says why there is none; None where nobody may log in.
        ingress: lines, who is let in on the database's port; None where the security groups could not be read.
        connections, memory: [(time, value)] of the metrics DatabaseConnections and FreeableMemory, oldest first.
        events: [(datetime, text)] of the instance, oldest first.
        value: max_connections as its parameter group has it.
        class_memory: bytes; None where not known.
    """

    instance: dict
    seen: object
    ingress: tuple | None
    connections: list = field(default_factory=list)
    memory: list = field(default_factory=list)
    events: list = field(default_factory=list)
    value: str = ""
    class_memory: int | None = None

    @property
    def limit(self):
        """max_connections; None where nothing tells."""
        if isinstance(self.seen, sessions.Seen):
            return self.seen.max_connections
        return rds_parameters.number(self.value, self.class_memory)


@dataclass(frozen=True)
class Decision:
    """The word of what to do next, why, whether connections are short, and for `kill` the filters of pg_kill_queries."""

    act: str
    because: str
    short: bool = False
    kill: tuple = ()


def decide(observed, limits):
    """Pure: what to do next about what was observed."""
    instance, seen = observed.instance, observed.seen
    name, status = instance["id"], instance["status"]
    if status in DATABASE_IS_DOWN:
        return Decision(FAILOVER, f"{name} is {status}")
    if status in rds.PASSING and status not in rds.SERVING and status != "backing-up":
        return Decision(WAIT, f"{name} is {status}, which passes by itself")
    if observed.ingress == ():
        return Decision(
            OPEN, f"no rule of {', '.join(instance['security_groups'])} lets anyone in on port {instance['port']}"
        )
    if isinstance(seen, sessions.Seen):
        return _of_sessions(seen, limits)
    if isinstance(seen, NoSlot):
        return Decision(RESTART, f"every connection of {name} is taken, the reserved ones too", short=True)
    if isinstance(seen, Unreachable):
        return Decision(FAILOVER, f"{name} is {status} and does not answer: {seen}")
    return _of_metrics(observed, limits, "nobody may log in" if seen is None else str(seen))


def _of_sessions(seen, limits):
    usable = max(1, seen.max_connections - seen.reserved_for_superusers - seen.reserved_for_entitled)
    free = 100 * seen.free / usable
    short = free < limits.free_percent
    told = f"{seen.used} of {seen.max_connections} connections are taken, {seen.free} are free for any role"
    kill = tuple(_to_kill(seen, limits, short))
    if not short and not kill:
        return Decision(NONE, f"{told}, and nobody waits long for a lock")
    if kill:
        return Decision(
            KILL, f"{told}; {'; '.join(why for why, _filter in kill)}", short, tuple(each for _w, each in kill)
        )
    idle = sum((each.state or "").startswith("idle") and each.protection is None for each in seen.sessions)
    if idle >= usable * limits.free_percent / 100:
        return Decision(RESTART, f"{told}; {idle} of them are idle, as where an application has forgotten them", short)
    return Decision(RAISE, f"{told}, and only {idle} are idle: there is more work than connections", short)


def _to_kill(seen, limits, short):
    """Yields (why, filter) for sessions that may be ended and hold what others need."""
    mine = [each for each in seen.sessions if each.protection is None and each.database == limits.database]
    stuck = sum(bool(each.blocked_by) and (each.query_seconds or 0) >= limits.blocked for each in seen.sessions)
    heads = {chain.head for chain in sessions.found_chains(seen)}
    if stuck and any(each.pid in heads for each in mine):
        yield (
            f"{stuck} wait for a lock since {limits.blocked:.0f} s and more",
            {"only_blocking": True, "min_transaction_seconds": limits.blocked},
        )
    if not short:
        return
    idle = [each for each in mine if (each.state or "").startswith("idle in transaction")]
    idle = [each for each in idle if (each.idle_seconds or 0) >= limits.idle_in_transaction]
    if idle:
        yield (
            f"{len(idle)} are idle in a transaction since {limits.idle_in_transaction:.0f} s and more",
            {"min_idle_in_transaction_seconds": limits.idle_in_transaction},
        )
    slow = [each for each in mine if (each.query_seconds or 0) >= limits.query]
    if slow:
        yield f"{len(slow)} run a statement for {limits.query:.0f} s and more", {"min_query_seconds": limits.query}


def _of_metrics(observed, limits, why):
    """Where PostgreSQL itself could not be asked."""
    name = observed.instance["id"]
    if not observed.connections or observed.limit is None:
        return Decision(UNKNOWN, f"{name} was not asked ({why}), and no metric tells how many connections it has")
    used = observed.connections[-1][1]
    told = f"{used:.0f} of {observed.limit} connections are taken by the metric DatabaseConnections ({why})"
    short = 100 * (observed.limit - used) / observed.limit < limits.free_percent
    return Decision(RESTART if short else NONE, told, short)


def more_connections(observed):
    """How many to raise max_connections to: twice as many, as far as the class has the memory; None where it has not."""
    if observed.limit is None or observed.class_memory is None:
        return None
    wanted = min(2 * observed.limit, rds_parameters.most_connections(observed.class_memory))
    return wanted if wanted > observed.limit else None


def findings(observed):
    """All that was seen, a line each."""
    yield from _of_instance(observed)
    if isinstance(observed.seen, sessions.Seen):
        yield from _of_seen(observed.seen)
    elif observed.seen is not None:
        yield str(observed.seen)
    if observed.ingress is not None:
        told = "; ".join(observed.ingress) or "nobody"
        yield f"security groups let in on port {observed.instance['port']}: {told}"
    for moment, text in observed.events[-EVENTS_SHOWN:]:
        yield f"event {moment.astimezone(datetime.UTC):%H:%M:%S} UTC: {text}"


def _of_instance(observed):
    instance = observed.instance
    yield (
        f"{instance['id']} is {instance['status']}, a {instance['instance_class']}, max_connections "
        f"{observed.limit or 'unknown'} by {instance['parameter_group']} ({instance['parameters_applied']})"
    )
    if instance["pending"]:
        yield f"{instance['id']} waits for its maintenance window with: {', '.join(sorted(instance['pending']))}"
    if observed.connections:
        values = [value for _time, value in observed.connections]
        yield f"DatabaseConnections: {values[-1]:.0f} now, {max(values):.0f} at most and {min(values):.0f} at least in an hour"
    if observed.memory:
        yield f"FreeableMemory: {observed.memory[-1][1] / 2**30:.1f} GiB"


def _of_seen(seen):
    told = sessions.diagnosis(seen)
    reserved = seen.reserved_for_superusers + seen.reserved_for_entitled
    yield f"{seen.used} of {seen.max_connections} connections are taken ({reserved} are reserved), {seen.free} are free"
    for group in told["connections"]["groups"][:GROUPS_SHOWN]:
        yield f"  {group['count']} {group['state'] or 'hidden'}: {group['user']}, {group['application'] or 'no application name'}"
    for chain in told["blocking_chains"][:CHAINS_SHOWN]:
        head = chain["head"] or {}
        yield f"{chain['waiting']} wait for {chain['what']} {head.get('user', '')}: {head.get('query', '')}".rstrip(
            ": "
        )
    for each in told["prepared_transactions"]:
        yield f"prepared transaction {each['gid']} of {each['owner']} holds its locks for {each['seconds']} s"
