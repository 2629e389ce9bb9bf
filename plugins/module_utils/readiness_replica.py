# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far the replica was behind over the last day: at any of these minutes the primary might have been lost.

How far it is behind now, and whether it could be promoted at all, the verbs of the failover ask themselves.
"""

from __future__ import annotations

import statistics

from . import cloudwatch, rds
from .readiness import MOVES, NOT_READY, RISK, UNKNOWN, Found
from .timeline import spoken

CHECK, SCENARIOS = "replica_lag", MOVES
DAY = 86400
# Name of the metric, and how many of its units are a second.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
# https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Aurora.AuroraMonitoring.Metrics.html
OF_RDS, OF_AURORA = ("ReplicaLag", 1), ("AuroraReplicaLag", 1000)


def looks(aws, wanted, now):
    """{replica: call}; the call gives the highest lag in seconds of each minute (-1: broken), None where there is no replica."""
    standby, promised = wanted["standby"], wanted["rpo_seconds"]
    name = standby and standby["db_instance"]
    return {name: lambda: _day(aws, name, standby["region"], now)} if name and promised is not None else {}


def _day(aws, name, region, now):
    replica = rds.describe(aws, name, region)
    if replica is None or not replica["source"]:
        return None  # the promotion says so
    metric, units = OF_AURORA if (replica["engine"] or "").startswith("aurora") else OF_RDS
    # Of a minute in which it was broken the maximum might hide that.
    most, least = (
        cloudwatch.Metric("AWS/RDS", metric, statistic, (("DBInstanceIdentifier", name),))
        for statistic in ("Maximum", "Minimum")
    )
    seen = cloudwatch.read(aws, region, [most, least], now - DAY, now)
    return [-1.0 if seen[least].get(minute, 0) < 0 else value / units for minute, value in seen[most].items()]


def judge(seen, wanted, now):
    """Pure: what the lag of the day says of `rpo_seconds`."""
    promised = wanted["rpo_seconds"]
    for name, lags in seen.items():
        if lags is None:
            continue
        if not lags:
            because = "CloudWatch has no lag of the last day, so nobody knows what a failover would have lost"
            yield Found(UNKNOWN, name, because, "look whether it replicates, and since when")
            continue
        known, broken = [each for each in lags if each >= 0], sum(each < 0 for each in lags)
        if broken:
            because = f"its replication was broken for {broken} of the last day's {len(lags)} minutes that are known"
            yield Found(RISK, name, because, "look at its RDS events, and at what its source kept of the log meanwhile")
        if known and max(known) > promised:
            usual = statistics.median(known)
            because = f"over the last day it was {spoken(usual)} behind (p50), at most {spoken(max(known))}; rpo_seconds promises {promised:g} s"
            fix = "find out what it waited for (writes in bulk, long queries on it, its class), or promise less"
            yield Found(NOT_READY if usual > promised else RISK, name, because, fix)
