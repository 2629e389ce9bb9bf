# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mangu's thresholds as rules: what breaks them, what does not yet, what is only not known, and what to run next."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import outage, triage
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.triage import Seen

LEVELS = ["P0", "P1", "P2", "P3"]
MANGU = [
    {"signal": "data_loss", "at_least": 1, "severity": "P0"},
    {"signal": "failed_checks", "at_least": 3, "severity": "P0"},
    {"signal": "error_percent", "above": 1, "for_minutes": 5, "severity": "P1"},
    {"signal": "restarts", "above": 3, "for_minutes": 10, "severity": "P1"},
    {"signal": "p99", "above": 3, "for_minutes": 10, "severity": "P2"},
    {"signal": "service_memory", "above": 85, "for_minutes": 15, "severity": "P2"},
]
NOW = 1763719200 + 3600


def measured(name, values, of="regami-alb", unit="", abnormal=False):
    """An entry of metrics.judge whose last minute goes on."""
    series = [[NOW - 60 * (len(values) - number), value] for number, value in enumerate(values)]
    return {
        "name": name,
        "of": of,
        "unit": unit,
        "every": 60,
        "now": values[-1] if values else None,
        "series": series,
        "abnormal": abnormal,
        "why": f"{name} is abnormal",
    }


def judge(rules=None, levels=None, **seen):
    levels = levels or LEVELS
    return triage.judge(triage.rules(rules or MANGU, levels), levels, Seen(now=NOW, **seen))


def severity(*metrics, **counts):
    return judge(measured=metrics, counts=counts).severity


@pytest.mark.parametrize(
    ("metrics", "counts", "expected"),
    [
        ((measured("error_percent", [0.5] * 30),), {}, None),
        ((measured("error_percent", [0] * 25 + [2] * 5),), {}, "P1"),
        ((measured("error_percent", [0] * 26 + [2] * 4),), {}, None),
        ((measured("error_percent", [2] * 29 + [0]),), {}, None),
        ((measured("p99", [0.1] * 20 + [3.1] * 10),), {}, "P2"),
        ((measured("p99", [0.1] * 21 + [3.1] * 9),), {}, None),
        ((measured("service_memory", [86] * 15),), {}, "P2"),
        ((measured("service_memory", [85] * 15),), {}, None),
        ((), {"failed_checks": 3}, "P0"),
        ((), {"failed_checks": 2}, None),
        ((), {"data_loss": 1}, "P0"),
        ((), {"restarts": [(NOW - 60 * minute, "exit code 1") for minute in range(4)]}, "P1"),
        ((), {"restarts": [(NOW - 60 * minute, "exit code 1") for minute in (1, 2, 3, 11)]}, None),
        ((measured("p99", [9] * 30),), {"failed_checks": 3}, "P0"),
    ],
)
def test_the_thresholds(metrics, counts, expected):
    assert severity(*metrics, **counts) == expected


def test_what_has_not_lasted_long_enough_is_said_and_is_no_severity_yet():
    verdict = judge(measured=(measured("p99", [0.1] * 27 + [4] * 3, unit="s"),))
    (finding,) = verdict.findings
    assert (verdict.severity, finding.severity) == (None, None)
    assert finding.text == "p99 of regami-alb is 4 s, above 3 for 3 of 10 min, since 10:57 UTC"


def test_the_worst_of_several_load_balancers_counts():
    good, bad = measured("error_percent", [0] * 30), measured("error_percent", [50] * 30, of="admin-alb")
    assert judge(measured=(good, bad)).findings[0].text.startswith("error_percent of admin-alb is 50")


def test_a_rule_that_nothing_tells_of_is_named_and_not_taken_for_kept():
    assert judge(counts={"failed_checks": 0}, measured=(measured("p99", []),)).unjudged == (
        "data_loss at least 1 (P0)",
        "error_percent above 1 (P1)",
        "restarts above 3 (P1)",
        "p99 above 3 (P2)",
        "service_memory above 85 (P2)",
    )


def test_a_team_has_its_own_words_and_levels():
    rules = [{"signal": "requests", "below": 10, "for_minutes": 2, "severity": "Sev2"}]
    verdict = judge(rules, ["Sev1", "Sev2"], measured=(measured("requests", [900] * 10 + [1, 2]),))
    assert verdict.severity == "Sev2"


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"signal": "memory", "above": 1, "severity": "P1"}, "no signal memory .there are: service_memory"),
        ({"signal": "p99", "above": 1, "severity": "Sev1"}, "p99 is Sev1, which is no severity"),
    ],
)
def test_a_rule_that_would_never_be_broken_is_refused(rule, complaint):
    with pytest.raises(Refusal, match=complaint):
        triage.rules([rule], LEVELS)


def next_step(**seen):
    return triage.next_step(judge(**seen), Seen(now=NOW, **seen), 60)


BROKEN = {"counts": {"failed_checks": 3}, "details": {"failed_checks": ("health: answered 503",)}}
FULL = ("ERROR write: No space left on device",)
SLOW = measured("p99", [9] * 30)


@pytest.mark.parametrize(
    ("seen", "command"),
    [
        ({}, "recovery_validation.yml -e env=prod"),
        ({**BROKEN, "silent": True}, "db_failover.yml -e env=prod"),
        ({**BROKEN, "decision": outage.FAILOVER, "because": "the database is failed"}, "db_failover.yml -e env=prod"),
        (
            {**BROKEN, "decision": outage.FAILOVER, "because": "it does not answer (FATAL: sorry, too many clients)"},
            "db_connections.yml -e env=prod",
        ),
        ({**BROKEN, "log": ("ERROR remaining connection slots are reserved",)}, "db_connections.yml -e env=prod"),
        ({**BROKEN, "log": FULL, "has_disks": True}, "disk_full.yml -e env=prod"),
        # There is no disk of ours to clean.
        ({**BROKEN, "log": FULL}, "high_error_rate.yml -e env=prod"),
        ({**BROKEN, "decision": outage.ROLLBACK, "because": "x"}, "rollback_deployment.yml -e env=prod"),
        ({"measured": (SLOW,), "release": "a:7", "released": NOW - 600}, "rollback_deployment.yml -e env=prod"),
        ({**BROKEN, "decision": outage.RESTART, "because": "x"}, "service_outage.yml -e env=prod"),
        ({"measured": (SLOW, measured("db_cpu", [99], abnormal=True))}, "kill_queries.yml -e env=prod"),
        ({"measured": (measured("service_memory", [91] * 20),)}, "performance_degradation.yml -e env=prod"),
        ({"measured": (SLOW,)}, "performance_degradation.yml -e env=prod"),
        ({"measured": (SLOW, measured("error_percent", [9] * 30))}, "high_error_rate.yml -e env=prod"),
        # It is busy, and nobody minds.
        ({"measured": (measured("service_cpu", [70], abnormal=True),)}, "recovery_validation.yml -e env=prod"),
        # Long deployed, and the leak of an old release is no reason to go back.
        (
            {"measured": (SLOW,), "release": "a:7", "released": NOW - 7200},
            "performance_degradation.yml -e env=prod",
        ),
    ],
)
def test_the_one_playbook_to_run_next(seen, command):
    assert next_step(**seen).command("prod") == f"ansible-playbook playbooks/{command}"


def test_a_service_of_which_little_is_to_be_seen_is_not_called_well():
    assert "that could be judged" in next_step(blind=("metrics: denied",)).because


def test_every_playbook_that_it_names_is_there():
    named = {"db_failover", "disk_full", "rollback_deployment", "service_outage", "recovery_validation"}
    named |= {playbook for _signals, playbook in triage.BY_METRICS}
    there = {path.stem for path in (Path(__file__).parents[4] / "playbooks").glob("*.yml")}
    assert named <= there
