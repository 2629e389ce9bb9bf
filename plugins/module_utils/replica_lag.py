# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much a promotion would lose: pure functions on what was observed. Units are seconds.

RDS publishes ReplicaLag and DatabaseConnections once a minute; ReplicaLag is -1 when replication is broken, and grows
while the source is idle or dead. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PostgreSQL.Replication.ReadReplicas.Monitor.html
"""

from __future__ import annotations

from dataclasses import dataclass

# A CloudWatch datapoint of RDS covers this many seconds from its time stamp on.
PERIOD = 60
# Older than this the metric says nothing about now: three periods and the usual delay of publishing.
STALE_AFTER = 240


@dataclass(frozen=True)
class Lag:
    """`seconds` is None where it cannot be known; `why` says from what it is known, or why not."""

    seconds: float | None
    why: str


def replication_lag(replica, primary, metric, now):
    """Lag while the primary is alive.

    Args:
        replica, primary: `Database.facts()`, or None where it does not answer.
        metric: ReplicaLag as [(time, value)], oldest first.
        now: seconds since the epoch.
    """
    if replica is not None and not replica["in_recovery"]:
        return Lag(0.0, "it is not in recovery")
    if replica is not None and primary is not None:
        if replica["lsn"] is not None and replica["lsn"] >= primary["lsn"]:
            return Lag(0.0, "the replica has replayed all that the primary has written")
        if not replica["streaming"]:
            return Lag(None, "the replica is not receiving from its primary")
        if replica["replayed_at"] is None:
            return Lag(None, "the replica has replayed nothing yet")
        return Lag(max(0.0, replica["now"] - replica["replayed_at"]), "asked of the replica")
    if replica is not None and not replica["streaming"]:
        return Lag(None, "the replica is not receiving from its primary")
    return metric_lag(metric, now)


def metric_lag(metric, now):
    """Lag by CloudWatch alone."""
    if not metric:
        return Lag(None, "CloudWatch has no ReplicaLag for it")
    time, value = metric[-1]
    if value < 0:
        return Lag(None, "CloudWatch reports ReplicaLag -1: replication is broken")
    if now - time > STALE_AFTER:
        return Lag(None, f"the last ReplicaLag is {now - time:.0f} s old")
    return Lag(float(value), "CloudWatch ReplicaLag")


def possible_loss(replica, metric, primary_seen, now):
    """An upper bound for the seconds of writes that are lost when a dead primary's replica is promoted.

    All that was committed after the last commit the replica has, up to the last moment at which the primary is known to
    have lived, may be gone. Without such a moment the bound runs up to now. An idle primary makes it larger than the truth,
    never smaller.

    Args:
        primary_seen: time stamp of the primary's own newest datapoint, or None.
    """
    alive_until = min(now, primary_seen + PERIOD) if primary_seen is not None else now
    if replica is not None and replica["replayed_at"] is not None:
        return Lag(max(0.0, alive_until - replica["replayed_at"]), "last commit that the replica has replayed")
    known = [(time, value) for time, value in metric if value >= 0]
    if not known:
        return Lag(None, metric_lag(metric, now).why)
    time, value = known[-1]
    return Lag(max(0.0, alive_until - (time - value)), "CloudWatch ReplicaLag")
