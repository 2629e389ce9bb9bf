# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What speaks for each cause and what against: the rules that `causes.judge` weighs.

The causes are those of regami runbook 4 ("Common Causes and Solutions", "Check External Dependencies"), mangu 3.1 to 3.5, courtcase
scenarios 1 to 4 and ec2-asg 1 to 3, with what on-call people of these services met besides. Weights are shares of the doubt that a
clue removes: 0.8 and more for what names the cause, 0.5 for what fits it and few others, less for what fits many.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter

from . import changes, error_kinds, outage
from .causes import CHANGES, DATABASE, DEPENDENCIES, LOGS, METRICS, TASKS, Cause, Clue, Evidence, since
from .metrics import clock, shown

# Percent of a task's memory, from which on it is short, and below which it is not; points by which a leak grows.
MEMORY_SHORT, MEMORY_ENOUGH, MEMORY_GROWS = 85, 70, 10
# Times as many requests as usual.
SPIKE = 1.5
# Seconds that a statement runs, or waits for a lock, before it is slow; sessions that may be idle in a transaction.
SLOW_SECONDS, IDLE_SESSIONS = 3.0, 3
# Percent of the connections that any role may take, taken.
CONNECTIONS_SHORT = 90
# So many errors must be there, and such a share of them be of one task, to say that it is the one.
ERRORS_OF_ONE, ALL_OF_ONE = 5, 0.8
SHOWN = 2
# A change of something that nothing says the service needs has so much of the weight: others have their work, too.
UNRELATED = 0.3


# --- clues of the logs, of stopped tasks and of failed checks


def _kind(kind, places=(LOGS, TASKS)):
    """Lines of this kind; what is half of all errors or more counts fully."""

    def look(signals):
        lines = [each for each in signals.said if each.kind == kind and each.where in places]
        if not lines:
            return None
        logged = [each for each in lines if each.where == LOGS]
        share = sum(each.share for each in logged)
        strength = min(1.0, 2 * share) if logged else 0.7
        if not logged:
            return Evidence(f"{lines[0].text}", strength)
        first = max(logged, key=lambda each: each.count)
        text = f"{sum(each.count for each in logged)} x {first.example or first.text}"
        text += f", {share / signals.news:.0%} of {signals.all_errors}"
        return Evidence(f"{text}{since(min(each.since for each in logged))}", strength)

    return look


def _other_kinds(*kinds):
    """Errors of none of these kinds, which are somebody else's."""

    def look(signals):
        others = [each for each in signals.errors if each.kind is not None and each.kind not in kinds]
        share = sum(each.share for each in others)
        if share < 0.3:
            return None
        most = max(others, key=lambda each: each.share)
        return Evidence(f"{share:.0%} of the new errors name something else: {most.text}", share)

    return look


def _silence(signals):
    lines = [each for each in signals.said if each.is_silence]
    share = sum(each.share for each in lines if each.where == LOGS)
    if not lines or (share and share < 0.2):
        return None
    first = lines[0]
    return Evidence(
        f"no answer at all, as where packets are dropped: {first.text}{since(first.since)}", min(1.0, 2 * share) or 0.7
    )


def _refusals(signals):
    lines = [each for each in signals.errors if re.search(r"refused|Errno 111", each.text, re.IGNORECASE)]
    share = sum(each.share for each in lines)
    return Evidence(f"connections are refused, so packets arrive: {lines[0].text}", share) if share > 0.3 else None


# --- clues of tasks and targets


def _stops_for_memory(signals):
    killed = [(at, why) for at, why, _ours in signals.stops if error_kinds.kind_of(why) == error_kinds.MEMORY]
    if not killed:
        return None
    return Evidence(f"{len(killed)} tasks were killed for memory, first at {clock(min(killed)[0])} UTC: {killed[0][1]}")


def _new_tasks_fail(signals):
    # What is killed for memory failed for that, whatever it runs.
    ours = [
        (at, why)
        for at, why, ours in signals.stops
        if ours and at >= (signals.released or 0) and error_kinds.kind_of(why) != error_kinds.MEMORY
    ]
    if signals.rollout:
        return Evidence(f"the deployment of {signals.release} failed: {signals.rollout}")
    if len(ours) < 2:
        return None
    return Evidence(f"{len(ours)} tasks of {signals.release} failed one after the other: {ours[0][1]}")


def _one_task(signals):
    """Nearly all errors of one stream, where several tasks share the work."""
    name, count, total = _busiest(signals)
    if signals.running < 2 or count < ERRORS_OF_ONE or count < ALL_OF_ONE * total:
        return None
    return Evidence(
        f"{count} of {total} of {signals.all_errors} come from 1 of {signals.running} tasks or hosts: {name}",
        signals.news * count / total,
    )


def part(signals):
    """The id of the task or instance that nearly all errors come from, as the log driver names streams; "" where there is none."""
    return _busiest(signals)[0].rpartition("/")[2] if _one_task(signals) else ""


def _many_tasks(signals):
    name, count, total = _busiest(signals)
    streams = max((each.streams for each in signals.lines), default=0)
    if streams < 2 or total < ERRORS_OF_ONE or count >= ALL_OF_ONE * total:
        return None
    return Evidence(f"the errors come from {streams} tasks or hosts, {count} of {total} from {name}")


def _busiest(signals):
    """(stream, its new errors, all new errors)."""
    lines, of_stream = signals.lines, Counter()
    for each in lines:
        if each.busiest:
            of_stream[each.busiest["stream"]] += each.busiest["count"]
    name, count = of_stream.most_common(1)[0] if of_stream else ("", 0)
    return name, count, sum(each.count for each in lines)


def _one_target(signals):
    bad = [each for each in signals.targets if each["state"] == "unhealthy"]
    if len(bad) != 1 or len(signals.targets) < 2:
        return None
    return Evidence(f"1 of {len(signals.targets)} targets is not healthy: {bad[0]['target']} ({bad[0]['reason']})")


def _target_timeouts(signals):
    bad = [each for each in signals.targets if "timed out" in each["reason"].lower() or "Timeout" in each["reason"]]
    return Evidence(f"{len(bad)} targets do not answer their health check: {bad[0]['reason']}") if bad else None


# --- clues of metrics


def _abnormal(*names):
    def look(signals):
        found = signals.metric(*names)
        return Evidence(found[0]["why"]) if found else None

    return look


def _spike(signals):
    """More requests than usual, from before the trouble on."""
    for each in signals.metric("requests"):
        usual = each["before"] if each["before"] is not None else each["week_ago"]
        if each["now"] > (usual or 0) * SPIKE and (signals.onset is None or each["since"] <= signals.onset + 120):
            return Evidence(f"{each['why']}: {each['now'] / usual:.1f} times as many" if usual else each["why"])
    return None


def _usual_traffic(signals):
    known = [each for each in signals.metrics if each["name"] == "requests" and each["usual"][1] is not None]
    if not known or any(each["now"] is None or each["now"] > each["usual"][1] for each in known):
        return None
    each = known[0]
    return Evidence(f"there are not more requests than usual: {shown(each['now'], each['unit'])}")


def _memory_grows(signals):
    for each in signals.metrics:
        values = [value for _at, value in each["series"]] if each["name"] == "service_memory" else []
        if len(values) < 3 or each["now"] is None:
            continue
        steps = [later - earlier for earlier, later in itertools.pairwise(values)]
        grown = values[-1] - min(values)
        if grown >= MEMORY_GROWS and sum(step > 0 for step in steps) >= 0.7 * len(steps):
            text = f"memory of {each['of']} grew from {min(values):.0f} to {values[-1]:.0f} % in {len(values)} min"
            return Evidence(text, 1.0 if values[-1] >= MEMORY_ENOUGH else 0.6)
    return None


def _memory_short(signals):
    short = [
        each for each in signals.metrics if each["name"] == "service_memory" and (each["now"] or 0) >= MEMORY_SHORT
    ]
    return Evidence(f"memory of {short[0]['of']} is at {short[0]['now']:.0f} %") if short else None


def _memory_enough(signals):
    known = [each for each in signals.metrics if each["name"] == "service_memory" and each["now"] is not None]
    if not known or any(each["now"] >= MEMORY_ENOUGH for each in known) or _stops_for_memory(signals):
        return None
    return Evidence(f"memory of {known[0]['of']} is at {known[0]['now']:.0f} %, and nothing was killed for it")


def _worse(signals):
    """More errors or slower answers since a deployment."""
    worse = [
        each
        for each in signals.metric("error_percent", "p50", "p95", "p99")
        if signals.released is not None and signals.before(signals.released) and each["since"] >= signals.released - 60
    ]
    return Evidence(f"since the deployment {worse[0]['why']}", signals.before(signals.released)) if worse else None


# --- clues of changes


def _deployed(signals):
    if signals.released is None:
        return None
    strength = signals.before(signals.released)
    if not strength:
        return None
    age = (signals.now - signals.released) / 60
    changed = signals.revision.get("lines")
    what = f": {'; '.join(changed[:SHOWN])}" if changed else ""
    onset = f", and the trouble began at {clock(signals.onset)}" if signals.onset is not None else ""
    return Evidence(
        f"{signals.release} was deployed {age:.0f} min ago at {clock(signals.released)} UTC{onset}{what}", strength
    )


def _not_deployed(signals):
    if signals.released is None or signals.before(signals.released):
        return None
    if signals.onset is not None and signals.released > signals.onset:
        return Evidence(
            f"the trouble began at {clock(signals.onset)} UTC, before {signals.release} was deployed at {clock(signals.released)}"
        )
    return Evidence(f"nothing was deployed shortly before: {signals.release} runs since {clock(signals.released)} UTC")


def _same_definition(signals):
    if signals.revision.get("lines") != []:
        return None
    return Evidence(f"{signals.revision['to']} is the same as {signals.revision['from']}, the last good one")


def _new_defects(signals):
    """Errors of the code itself that were not there before the deployment."""
    new = [each for each in signals.errors if each.kind in (error_kinds.EXCEPTION, None) and each.new]
    share = sum(each.share for each in new)
    if not new:
        return None
    count, most = sum(each.count for each in new), max(new, key=lambda each: each.count)
    return Evidence(f"{count} x new since the deployment: {most.text}", min(1.0, 2 * share))


def _changed(pattern):
    """A write of the API shortly before the trouble; one that names what the service needs counts fully."""

    def look(signals):
        found = [
            (
                signals.before(each.at) * (1.0 if any(name in each.what for name in signals.related) else UNRELATED),
                each.at,
                each,
            )
            for each in signals.changes
            if pattern.search(each.what)
        ]
        strength, _at, change = max(found, default=(0.0, 0.0, None))
        if not strength:
            return None
        who = f" by {change.who}" if change.who else ""
        return Evidence(f"{change.what}{who} at {clock(change.at)} UTC", strength)

    return look


# --- clues of the database and of other dependencies


def _down(kinds, faults=None, besides=()):
    """A dependency of these kinds that does not serve (of these faults, or of any besides some)."""

    def look(signals):
        for each in signals.dependencies:
            fault = each.get("fault")
            if (
                each["kind"] in kinds
                and each["ok"] is False
                and (not faults or fault in faults)
                and fault not in besides
            ):
                return Evidence(f"{each['name']} is down: {each['reason']}")
        return None

    return look


def _up(*kinds):
    """All dependencies of these kinds serve, from where this runs."""

    def look(signals):
        known = [each for each in signals.dependencies if each["kind"] in kinds and each["ok"] is not None]
        if not known or not all(each["ok"] for each in known):
            return None
        return Evidence(f"{' and '.join(each['name'] for each in known)} answer{'s' if len(known) == 1 else ''}")

    return look


def _database_down(signals):
    database = signals.database
    if database is None or (database.status not in outage.DATABASE_IS_DOWN and database.answers is not False):
        return None
    return Evidence(f"the database {database.name} is {database.status}{': ' if database.why else ''}{database.why}")


def _storage_full(signals):
    database = signals.database
    full = database is not None and database.status == "storage-full"
    return Evidence(f"the database {database.name} is storage-full") if full else None


def _clients(signals):
    return [each for each in signals.sessions.sessions if each.is_client] if signals.sessions else []


def _connections_short(signals):
    seen = signals.sessions
    if seen is None:
        return None
    usable = max(1, seen.max_connections - seen.reserved_for_superusers - seen.reserved_for_entitled)
    if 100 * (usable - seen.free) < CONNECTIONS_SHORT * usable:
        return None
    return Evidence(f"{seen.used} of {seen.max_connections} connections are taken, {seen.free} are free for any role")


def _idle_in_transaction(signals):
    idle = [each for each in _clients(signals) if (each.state or "").startswith("idle in transaction")]
    if len(idle) < IDLE_SESSIONS:
        return None
    return Evidence(f"{len(idle)} sessions are idle in a transaction and keep their connections")


def _slow_statement(signals):
    slow = [
        each
        for each in _clients(signals)
        if (each.query_seconds or 0) >= SLOW_SECONDS and each.protection is None and not each.blocked_by
    ]
    waiting = [each for each in _clients(signals) if each.blocked_by and (each.query_seconds or 0) >= SLOW_SECONDS]
    if waiting:
        return Evidence(f"{len(waiting)} sessions wait for a lock, up to {max(e.query_seconds for e in waiting):.0f} s")
    if not slow:
        return None
    return Evidence(f"{len(slow)} statements run for up to {max(each.query_seconds for each in slow):.0f} s")


def _quick_database(signals):
    if signals.sessions is None or _slow_statement(signals):
        return None
    return Evidence(f"no statement in the database runs for {SLOW_SECONDS:g} s")


CAUSES = (
    Cause(
        "bad_deployment",
        "a bad deployment",
        "regami runbooks 2 and 4, mangu 3.4, courtcase scenario 2 step 5",
        speaks_for=(
            Clue(CHANGES, 0.4, _deployed),
            Clue(LOGS, 0.75, _new_defects),
            Clue(TASKS, 0.75, _new_tasks_fail),
            Clue(METRICS, 0.35, _worse),
        ),
        against=(
            Clue(CHANGES, 0.95, _not_deployed),
            Clue(CHANGES, 0.7, _same_definition),
            Clue(LOGS, 0.7, _other_kinds(error_kinds.EXCEPTION)),
        ),
        brings=("unhandled_exception", "bad_host"),
        playbook="rollback_deployment",
    ),
    Cause(
        "slow_query",
        "a slow query",
        "mangu 3.1, courtcase scenario 3",
        speaks_for=(
            Clue(LOGS, 0.65, _kind(error_kinds.SLOW)),
            Clue(DATABASE, 0.7, _slow_statement),
            Clue(METRICS, 0.45, _abnormal("db_cpu")),
            Clue(METRICS, 0.2, _abnormal("p50", "p95", "p99")),
        ),
        against=(
            Clue(DATABASE, 0.4, _quick_database),
            Clue(LOGS, 0.5, _other_kinds(error_kinds.SLOW, error_kinds.POOL, error_kinds.UNREACHED)),
        ),
        brings=("pool_exhausted",),
        playbook="high_error_rate",
        arguments="-e cause=slow_query -e remediate=true",
    ),
    Cause(
        "memory_leak",
        "a memory leak",
        'regami runbook 4 "Memory Leak", mangu 3.2',
        speaks_for=(
            Clue(TASKS, 0.75, _stops_for_memory),
            Clue(METRICS, 0.65, _memory_grows),
            Clue(METRICS, 0.4, _memory_short),
            Clue(LOGS, 0.6, _kind(error_kinds.MEMORY, (LOGS,))),
        ),
        against=(Clue(METRICS, 0.7, _memory_enough),),
        brings=("dependency_down", "unhandled_exception", "bad_host", "bad_deployment"),
        playbook="high_error_rate",
        arguments="-e cause=memory_leak -e remediate=true",
        advice="find what keeps growing: more memory only gains time",
    ),
    Cause(
        "pool_exhausted",
        "a connection pool that is exhausted",
        'regami runbook 4 "Database Connection Pool Exhausted", ec2-asg scenario 2',
        speaks_for=(
            Clue(LOGS, 0.75, _kind(error_kinds.POOL)),
            Clue(DATABASE, 0.5, _connections_short),
            Clue(DATABASE, 0.45, _idle_in_transaction),
            Clue(DEPENDENCIES, 0.5, _down(("postgresql",), ("exhausted",))),
            Clue(METRICS, 0.35, _abnormal("db_connections")),
        ),
        brings=("dependency_down",),
        playbook="db_connections",
        arguments="-e remediate=true",
    ),
    Cause(
        "redis_down",
        "Redis, which is down",
        "mangu 3.3, regami runbook 4 step 5",
        speaks_for=(Clue(LOGS, 0.75, _kind(error_kinds.REDIS)), Clue(DEPENDENCIES, 0.8, _down(("redis",)))),
        against=(Clue(DEPENDENCIES, 0.6, _up("redis")),),
        brings=("dependency_down", "unhandled_exception", "bad_deployment"),
        advice="look at the cluster of ElastiCache; mangu 3.3 reboots its node, or bypasses it by a variable of the task",
    ),
    Cause(
        "s3_denied",
        "S3, which denies access",
        "mangu 3.5, regami runbook 4 step 5",
        speaks_for=(
            Clue(LOGS, 0.8, _kind(error_kinds.S3_DENIED)),
            Clue(CHANGES, 0.4, _changed(changes.PERMISSIONS)),
            Clue(DEPENDENCIES, 0.7, _down(("s3",), ("denied",))),
        ),
        # This asks with the permissions of this run, and not with the task's.
        against=(Clue(DEPENDENCIES, 0.15, _up("s3")),),
        brings=("dependency_down", "unhandled_exception", "bad_deployment"),
        advice="give the role of the task, or the bucket's policy, back what was taken",
    ),
    Cause(
        "bad_host",
        "one bad host or task",
        'ec2-asg "For Application Crash" and scenario 1',
        speaks_for=(Clue(LOGS, 0.7, _one_task), Clue(TASKS, 0.6, _one_target)),
        against=(Clue(LOGS, 0.7, _many_tasks),),
        brings=("dependency_down", "unhandled_exception"),
        playbook="high_error_rate",
        arguments="-e cause=bad_host -e remediate=true",
    ),
    Cause(
        "network_rule",
        "a rule of the network",
        'ec2-asg "For Network Issue", courtcase scenario 4 step 3',
        speaks_for=(
            Clue(CHANGES, 0.6, _changed(changes.NETWORK)),
            Clue(LOGS, 0.45, _silence),
            Clue(TASKS, 0.4, _target_timeouts),
            Clue(DEPENDENCIES, 0.5, _down(("postgresql", "redis", "s3", "url"), ("silent", "filtered"))),
        ),
        against=(
            Clue(LOGS, 0.6, _refusals),
            Clue(LOGS, 0.7, _other_kinds(error_kinds.UNREACHED, error_kinds.REDIS, error_kinds.POOL)),
        ),
        brings=("redis_down", "dependency_down", "pool_exhausted"),
        playbook="network_diagnosis",
    ),
    Cause(
        "throttled_api",
        "an API that throttles",
        "regami runbook 4 step 5",
        speaks_for=(
            Clue(LOGS, 0.85, _kind(error_kinds.THROTTLED)),
            Clue(DEPENDENCIES, 0.7, _down(("s3", "url"), ("throttled",))),
        ),
        brings=("dependency_down", "unhandled_exception", "bad_deployment"),
        advice="ask that API less, or its owner for a higher limit",
    ),
    Cause(
        "traffic_spike",
        "more traffic than usual",
        "regami runbook 3, mangu 3.2",
        speaks_for=(
            Clue(METRICS, 0.7, _spike),
            Clue(METRICS, 0.3, _abnormal("service_cpu", "instance_cpu")),
            Clue(METRICS, 0.2, _abnormal("p95", "p99")),
        ),
        against=(Clue(METRICS, 0.9, _usual_traffic),),
        brings=("pool_exhausted", "slow_query", "throttled_api", "dependency_down"),
        playbook="emergency_scale",
        arguments="-e capacity=+50%",
    ),
    Cause(
        "disk_full",
        "a full disk",
        "ec2-asg scenario 3",
        speaks_for=(Clue(LOGS, 0.85, _kind(error_kinds.DISK)), Clue(DATABASE, 0.9, _storage_full)),
        brings=("dependency_down", "unhandled_exception", "bad_host", "bad_deployment"),
        playbook="disk_full",
    ),
    Cause(
        "certificate_expired",
        "a certificate that has expired",
        "regami runbook 4 step 5",
        speaks_for=(
            Clue(LOGS, 0.85, _kind(error_kinds.CERTIFICATE)),
            Clue(DEPENDENCIES, 0.8, _down(("url", "postgresql", "redis"), ("certificate_expired",))),
        ),
        brings=("dependency_down", "unhandled_exception", "bad_deployment"),
        advice="renew it, or ask its owner to",
    ),
    Cause(
        "dependency_down",
        "a dependency that is down",
        "regami runbook 4 steps 3 and 5, mangu 3.1, courtcase scenario 4",
        speaks_for=(
            Clue(LOGS, 0.6, _kind(error_kinds.UNREACHED)),
            Clue(DATABASE, 0.8, _database_down),
            Clue(
                DEPENDENCIES,
                0.7,
                _down(
                    ("postgresql", "s3", "url"),
                    besides=("certificate_expired", "throttled", "denied", "exhausted", "tls"),
                ),
            ),
        ),
        brings=("bad_deployment", "unhandled_exception"),
        advice="service_outage.yml says whether it is the database; of any other dependency its owner has to know",
    ),
    Cause(
        "unhandled_exception",
        "an exception that the code does not handle",
        'regami runbook 4 "Unhandled Exceptions"',
        speaks_for=(Clue(LOGS, 0.6, _kind(error_kinds.EXCEPTION)),),
        advice="the stack trace says where; a hotfix, or the endpoint switched off, as in mangu 3.4",
    ),
)
NAMES = tuple(cause.name for cause in CAUSES)
