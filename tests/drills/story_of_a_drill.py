# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a drill as it is kept: a wrong turn, a change by hand, two writes lost, and recovered later than promised."""

from __future__ import annotations

BROKE = 1_780_000_000.0
DAY = 86400
RESULT = {
    "scenario": "db_failover",
    "kind": "database",
    "title": "The primary database is gone",
    "by": "engineer",
    "where": "sandbox",
    "what": "primary-killed",
    "helps": ["db_failover"],
    "outcome": "recovered",
    "why": "",
    "times": {"broke": BROKE, "paged": BROKE + 2, "acted": BROKE + 80, "recovered": BROKE + 150, "ended": BROKE + 155},
    "recovery_seconds": 148.0,
    "target_seconds": 60,
    "users": {
        "requests": 900,
        "failed_requests": 300,
        "error_seconds": 140,
        "rto_seconds": 147.3,
        "acknowledged_writes": 500,
        "lost_writes": 2,
    },
    "requests": [[second, 20, 0] if second < 0 or second > 147 else [second, 0, 10] for second in range(-15, 156)],
    "turns": [
        {
            "playbook": "service_outage",
            "began": BROKE + 80,
            "ended": BROKE + 99,
            "verdict": "wrong",
            "why": "changed <it>",
        },
        {"playbook": "db_failover", "began": BROKE + 110, "ended": BROKE + 152, "verdict": "right", "why": ""},
    ],
    "wrong_turns": 1,
    "by_hand": ["ecs:UpdateService us-east-1"],
    "score": {"time": 25.6, "data": 28, "turns": 10, "points": 64},
}
