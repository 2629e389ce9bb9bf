# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at two services, as readiness.yml leaves it: verdicts of each level, and estimates."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.sre.runbooks.plugins.module_utils import estimates, readiness
from ansible_collections.sre.runbooks.plugins.module_utils.past_runs import Recovery
from ansible_collections.sre.runbooks.plugins.module_utils.readiness import (
    NOT_READY,
    READY,
    RISK,
    UNKNOWN,
    Finding,
    Verdict,
)

NOW = 1_795_327_200.0  # 2026-11-22 06:00
SLOW = Finding(
    "web-prod", "db_failover", RISK, "recovery_time", "db_failover",
    "takes 41 min (median of the last 6, the slowest 55 min), and 30 min are promised",
    "find in its records what it waits for, then hold a drill: make drill SCENARIO=db_failover",
)  # fmt: skip
BEHIND = (
    "regami-db-replica-in-the-other-region-with-a-long-name is 300 s behind, and a switchover takes 60 s at most",
    "wait until it has caught up, or say -e max_lag_seconds=300",
)


def behind(scenario: str) -> Finding:
    return Finding(
        "api-prod",
        scenario,
        NOT_READY,
        "rds_promote_replica",
        "regami-db-replica-in-the-other-region-with-a-long-name",
        *BEHIND,
    )


SILENT = Finding(
    "api-prod",
    "cache_failure",
    UNKNOWN,
    "elasticache_recover",
    "regami-cache",
    "us-east-1 did not answer",
    "look again",
)
SAID = [
    Verdict("api-prod", "cache_failure", UNKNOWN, (SILENT,)),
    Verdict(
        "api-prod", "db_failover", NOT_READY, (behind("db_failover"),), "takes 41 s, 63 s at most, 30 min promised"
    ),
    Verdict("api-prod", "region_evacuation", NOT_READY, (behind("region_evacuation"),)),
    Verdict("api-prod", "traffic", READY),
    Verdict("web-prod", "db_failover", RISK, (SLOW,), "takes 41 min, 55 min at most, slower lately, 30 min promised"),
    Verdict("web-prod", "traffic", READY),
]
PROMISE = estimates.Promise(1800, 60, "regami-api", ("staging",), 90)


def _estimate(*seconds: float) -> estimates.Estimate:
    return estimates.estimate(
        [
            Recovery(
                "db_failover",
                NOW - (len(seconds) - number) * 20 * estimates.DAY,
                each,
                "prod",
                loss=4.0,
                drill=number % 3 == 0,
            )
            for number, each in enumerate(seconds)
        ],
        PROMISE,
    )


ESTIMATES = {
    ("api-prod", "db_failover"): _estimate(63, 44, 41, 38, 40),
    ("web-prod", "db_failover"): _estimate(1100, 1300, 1500, 2460, 3300, 3000),
    ("api-prod", "region_evacuation"): estimates.Estimate(promised=1800),
}


def leave(folder: Path, said: list[Verdict]) -> None:
    """What readiness_report leaves in a record."""
    (folder / readiness.FILE).write_text(json.dumps({"verdicts": readiness.as_data(said)}))
