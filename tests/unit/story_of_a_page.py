# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the reading verbs found when a bad build was deployed at two minutes to ten."""

from __future__ import annotations

TEN = 1763719200  # 2025-11-21 10:00 UTC
BEGAN = TEN - 120


def _metric(name, of, unit, values, usual, limit_why=""):
    series = [[TEN - 60 * (len(values) - number), value] for number, value in enumerate(values)]
    return {
        "name": name,
        "of": of,
        "region": "us-east-1",
        "unit": unit,
        "every": 60,
        "now": values[-1],
        "before": values[0],
        "week_ago": values[0],
        "usual": usual,
        "abnormal": bool(limit_why),
        "since": BEGAN if limit_why else None,
        "why": limit_why,
        "series": series,
    }


METRIC = _metric(
    "p99",
    "regami-alb",
    "s",
    [0.2, 0.21, 0.19] * 9 + [0.2, 4.1, 4.4],
    [None, 0.42],
    "p99 of regami-alb is 4.4 s, above 3 s since 09:58 UTC",
)
FOUND = {
    "title": "Why api answers with errors",
    "environment_name": "prod",
    "severity": "P1",
    "evidence": ["P1: error_percent of regami-alb is 48 %, above 1 for 6 min, since 09:58 UTC"],
    "causes": [
        {
            "cause": "bad_deployment",
            "score": 0.91,
            "evidence_for": ["regami-api:7 began 1 min before the errors", "KeyError: 'tenant' is new since then"],
            "evidence_against": ["service_cpu is as usual"],
            "fix": {
                "playbook": "rollback_deployment",
                "command": "ansible-playbook playbooks/rollback_deployment.yml -e env=prod",
            },
        },
        {
            "cause": "traffic_spike",
            "score": 0.1,
            "evidence_for": [],
            "evidence_against": ["requests are as usual"],
            "fix": None,
        },
    ],
    "next": {
        "playbook": "rollback_deployment",
        "command": "ansible-playbook playbooks/rollback_deployment.yml -e env=prod",
        "because": "regami-api:7 was deployed 3 min ago: 48 % of the requests end in an error",
    },
    "metrics": [
        METRIC,
        _metric("requests", "regami-alb", "a minute", [1200, 1180, 1240] * 10, [540, 1890]),
        _metric("service_memory", "regami-service-with-a-name-that-is-long", "%", [41.0] * 30, [None, 71.5]),
        _metric("db_connections", "regami-db-primary", "", [31, 30, 32] * 10, [None, 58]),
    ],
    "alarms": [
        {
            "name": "regami-5xx",
            "region": "us-east-1",
            "state": "ALARM",
            "since": TEN - 60.0,
            "why": "Threshold Crossed: 1 datapoint [12.0] was greater than the threshold (1.0).",
        }
    ],
    "patterns": [
        {
            "pattern": "ERROR POST /v<n>/rows KeyError: 'tenant'",
            "count": 412,
            "first": BEGAN + 2.4,
            "last": TEN - 1.0,
            "example": "ERROR POST /v1/rows KeyError: 'tenant' " + "x" * 300,
            "log_groups": ["/ecs/regami-api"],
            "streams": 2,
            "new": True,
        },
        {
            "pattern": "WARNING slow answer of partner-<n>",
            "count": 3,
            "first": TEN - 1700.0,
            "last": TEN - 300.0,
            "example": "WARNING slow answer of partner-4",
            "log_groups": ["/ecs/regami-api"],
            "streams": 1,
            "new": False,
        },
    ],
    "changes": [
        {
            "at": BEGAN - 2.0,
            "kind": "write",
            "what": "ecs:UpdateService of regami-service",
            "who": "assumed-role/deploy/anna",
        },
        {
            "at": BEGAN - 1.0,
            "kind": "deployment",
            "what": "deployment of regami-api:7 to regami-service began",
            "who": "",
        },
    ],
    "blind": ["CloudTrail: missing permission cloudtrail:LookupEvents in us-east-1"],
}


def story(**other):
    return dict(FOUND, **other)
