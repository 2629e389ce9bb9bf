# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is down, why, and what to do about it: the decision of alchemorsel 1 and of courtcase's scenarios 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass

# What an RDS instance says of itself when nobody can use it. `modifying`, `backing-up` and their like serve.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/accessing-monitoring.html
DATABASE_IS_DOWN = (
    "deleting",
    "failed",
    "inaccessible-encryption-credentials",
    "incompatible-network",
    "incompatible-option-group",
    "incompatible-parameters",
    "incompatible-restore",
    "insufficient-capacity",
    "restore-error",
    "stopped",
    "stopping",
    "storage-full",
)
# Below so many requests a share of errors says nothing.
FEWEST_REQUESTS = 10
# So many reasons are told; the first ones are enough to act on.
REASONS_SHOWN = 3

NONE, ROLLBACK, RESTART, SCALE, FAILOVER, UNKNOWN = "none", "rollback", "restart", "scale", "failover", "unknown"


@dataclass(frozen=True)
class Workload:
    """What runs a service, in ECS or in Kubernetes.

    Attributes:
        name: for people.
        wanted, running, serving: how many tasks or pods it is told to have, has, and has that are healthy.
        release: what the newest deployment brings, for people.
        released: when that began, in seconds since the epoch; None where nothing tells.
        rollout: why that deployment failed, None where it did not.
        rolling: whether it goes on.
        failures: why its tasks did not stay up, in the last hour or so; why its pods do not, now.
        waiting: why others do not serve, though nothing of them failed.
        starting: how many of them began a moment ago and do not serve yet.
        restart_helps: whether new ones may do better than those of `failures`. ECS has tried that with each of them;
            Kubernetes starts the same pod again, after longer and longer pauses.
    """

    name: str
    wanted: int
    running: int
    serving: int
    release: str
    released: float | None
    rollout: str | None = None
    rolling: bool = False
    failures: tuple = ()
    waiting: tuple = ()
    starting: int = 0
    restart_helps: bool = False


@dataclass(frozen=True)
class Database:
    """The database of a service. `answers` is None where nobody asked it."""

    name: str
    status: str
    answers: bool | None = None
    why: str = ""


@dataclass(frozen=True)
class Observed:
    """All that was looked at, at `now` (seconds since the epoch).

    `complaints` are the checks that failed, as lines; `errors` is the share of requests that ended in an error, in percent,
    None where too few were counted.
    """

    workload: Workload
    now: float
    complaints: tuple = ()
    errors: float | None = None
    database: Database | None = None


@dataclass(frozen=True)
class Decision:
    """What to do (one of the words above), and the sentence that says why."""

    act: str
    because: str


def decide(observed, count, recent_minutes, max_error_percent):
    """Pure: what to do about what was observed.

    Args:
        observed: Observed.
        count: how many tasks or pods the service is to have at least.
        recent_minutes: a deployment is taken for the cause so long after it began.
        max_error_percent: more errors than that are an outage, although checks pass.
    """
    work, down = observed.workload, _database_is_down(observed.database)
    errors = observed.errors if observed.errors is not None and observed.errors > max_error_percent else None
    hurts = list(observed.complaints) + ([f"{errors:.0f} % of the requests end in an error"] if errors else [])
    enough = min(work.wanted, count)
    # A rolling update may take some away before the new ones serve.
    short = work.wanted < count or (work.serving < enough and not (work.rolling and work.serving))
    # A task that failed once and was replaced is past; one of a deployment that goes on is the first of many.
    if not hurts and not short and not work.rollout and not (work.rolling and work.failures):
        return Decision(NONE, f"every check passes and {_serving(work)}")
    if down:
        return Decision(FAILOVER, f"{down}; {_all(hurts) or _serving(work)}")
    if work.wanted < count:
        return Decision(SCALE, f"{work.name} is told to have {work.wanted}, the inventory says {count}")
    why = _all([*([work.rollout] if work.rollout else []), *work.failures, *work.waiting, *hurts]) or _serving(work)
    age = None if work.released is None else (observed.now - work.released) / 60
    if age is not None and age <= recent_minutes:
        return Decision(ROLLBACK, f"{work.release} was deployed {age:.0f} min ago: {why}")
    if work.failures and not work.restart_helps:
        # They are restarted all the time, and what they ran yesterday they run today: something around them changed.
        return Decision(
            UNKNOWN,
            f"{work.name} fails although nothing was deployed within {recent_minutes} min: {_all(work.failures)}",
        )
    if not work.failures and work.serving < enough <= work.serving + work.starting:
        # They were started by somebody, a run of this that was killed perhaps: all that is left is to wait for them.
        return Decision(SCALE, f"{_serving(work)} and {work.starting} have only just begun")
    if work.failures or work.serving < work.running or errors or (hurts and not work.serving):
        return Decision(RESTART, f"nothing was deployed within {recent_minutes} min, but {why}; {_serving(work)}")
    if hurts:
        return Decision(
            UNKNOWN,
            f"{_serving(work)} and the database is up, so it is the way to them (name, certificate, load balancer): {_all(hurts)}",
        )
    return Decision(UNKNOWN, f"{_serving(work)}; ECS or Kubernetes may be out of room: {why}")


def findings(observed):
    """All that was seen, a line each, what is wrong first."""
    work, database = observed.workload, observed.database
    yield from observed.complaints
    yield f"{_serving(work)}, {work.running} run"
    if work.released is not None:
        goes_on = ", which goes on" if work.rolling else ""
        yield f"{work.release} was deployed {(observed.now - work.released) / 60:.0f} min ago{goes_on}"
    if work.rollout:
        yield f"{work.release}: {work.rollout}"
    yield from work.failures
    yield from work.waiting
    if observed.errors is not None:
        yield f"{observed.errors:.1f} % of the requests ended in an error"
    if database is not None:
        answers = {True: "answers", False: "does not answer", None: "was not asked"}[database.answers]
        yield f"the database {database.name} is {database.status} and {answers}{': ' if database.why else ''}{database.why}"


def _database_is_down(database):
    """Why the database is down, None where it is not, or where that is not known."""
    if database is None:
        return None
    if database.status in DATABASE_IS_DOWN:
        return f"the database {database.name} is {database.status}"
    if database.answers is False:
        return f"the database {database.name} does not answer ({database.why})"
    return None


def _serving(work):
    return f"{work.serving} of {work.wanted} of {work.name} serve"


def _all(lines):
    more = len(lines) - REASONS_SHOWN
    return "; ".join(lines[:REASONS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
