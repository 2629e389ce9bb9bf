# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the next recovery will take, from records and drills as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import estimates, past_runs
from ansible_collections.sre.runbooks.plugins.module_utils.estimates import DAY, Promise

NOW = 1_795_300_000.0
PROMISE = Promise(60, 30, "regami-api", ("staging",), 90)


def took(seconds, days_ago=1.0, **more):
    given = {"playbook": "db_failover", "env": "prod", "hosts": ("api-prod",), **more}
    return past_runs.Recovery(at=NOW - days_ago * DAY, seconds=seconds, **given)


def drilled(seconds, env="staging", services=("regami-api",), **more):
    return took(seconds, env=env, hosts=(), services=services, drill=True, **more)


def judged(*recoveries, promise=PROMISE, scenario="db_failover"):
    mine = estimates.about(recoveries, "api-prod", "prod", scenario, promise)
    found = estimates.estimate(mine, promise)
    return found, estimates.judge("api-prod", scenario, found, promise, NOW)


def test_what_is_quick_enough_is_no_risk():
    found, told = judged(took(40, 3), took(50, 2), took(59, 1))
    assert (found.usual, found.slowest, told) == (50, 59, [])
    assert found.words() == "takes 50 s, 59 s at most, 60 s promised"


def test_what_usually_takes_longer_than_promised_is_a_risk_and_says_what_to_do():
    _found, (risk,) = judged(took(61, 3), took(50, 2), took(90, 1))
    assert (risk.level, risk.check, risk.scenario) == ("risk", "recovery_time", "db_failover")
    assert risk.because == "takes 61 s (median of the last 3, the slowest 90 s), and 60 s are promised"
    assert "make drill SCENARIO=db_failover" in risk.fix


def test_one_slow_recovery_of_many_is_shown_and_no_risk():
    found, told = judged(*(took(40, days) for days in range(2, 6)), took(3000, 1))
    assert (found.slowest, told) == (3000, [])


def test_what_loses_more_than_promised_is_a_risk():
    _found, (risk,) = judged(*(took(40, days, loss=loss) for days, loss in ((3, 10), (2, 45), (1, 31))))
    assert (risk.check, risk.because) == (
        "data_loss",
        "loses 31 s of the newest data (median, at most 45 s), and 30 s are promised",
    )


def test_only_the_last_ten_count_and_what_got_slower_says_so():
    found, _told = judged(took(9000, 300), *(took(40 if days > 5 else 55, days) for days in range(1, 11)))
    assert (found.slowest, found.trend) == (55, "slower")
    assert len(found.series) == 11


@pytest.mark.parametrize(
    ("seconds", "word"), [([40] * 6, ""), ([60] * 3 + [40] * 3, "quicker"), ([40, 40, 90, 90], "")]
)
def test_a_trend_needs_a_difference_and_enough_of_both(seconds, word):
    assert estimates.trend(seconds) == word


def test_two_are_no_measure_and_no_risk_while_one_of_them_is_new():
    found, told = judged(took(40, 2), took(50, 1))
    assert (found.words(), told) == ("", [])


def test_a_promise_that_nobody_has_tried_lately_is_a_risk():
    _found, (risk,) = judged(took(40, 91))
    assert risk.because == "60 s are promised and nobody knows: 1 recoveries on record, none of the last 90 days"
    assert "make drill SCENARIO=db_failover" in risk.fix
    _found, (risk,) = judged()
    assert "no recoveries on record" in risk.because


@pytest.mark.parametrize(
    "promise",
    [Promise(None, 30, "regami-api", (), 90), Promise(60)],
    ids=["nothing promised", "no drill asked for"],
)
def test_without_a_promise_nothing_has_to_be_known(promise):
    assert judged(promise=promise)[1] == []


def test_of_what_no_drill_practises_none_is_asked_for():
    assert judged(scenario="traffic")[1] == []


def test_a_drill_counts_where_the_inventory_says_so_and_for_its_own_service():
    known = [
        drilled(40),
        drilled(41, services=()),
        drilled(42, env="sandbox"),
        drilled(43, services=("other",)),
        drilled(44, "prod"),
    ]
    assert [each.seconds for each in estimates.about(known, "api-prod", "prod", "db_failover", PROMISE)] == [40, 41, 44]


def test_recoveries_of_other_hosts_environments_and_playbooks_do_not_count():
    known = [
        took(40, hosts=("other",)),
        took(41, env="secondary"),
        took(42, playbook="kill_queries"),
        took(43, hosts=()),
    ]
    assert [each.seconds for each in estimates.about(known, "api-prod", "prod", "db_failover", PROMISE)] == [43]


def test_of_records_that_could_not_all_be_read_nothing_is_said_to_be_unknown():
    asked, promised = {"api-prod": ["db_failover"]}, {"api-prod": {"rto_seconds": 60, "drills": {"within_days": 90}}}
    known = estimates.of_all(asked, promised, [], "prod")
    assert estimates.risks(known, NOW, is_complete=False) == []
    assert len(estimates.risks(known, NOW, is_complete=True)) == 1


def report(**more):
    return {
        "playbook": "db_failover",
        "env": "prod",
        "started": "2026-11-20T06:00:00Z",
        "outcome": "recovered",
        "recovery_seconds": 41.5,
        "possible_loss_seconds": 2,
        "hosts": ["api-prod"],
        "resumes": None,
        **more,
    }


def write(folder: Path, name: str, text: dict, file: str = "report.json") -> None:
    (folder / name).mkdir()
    (folder / name / file).write_text(json.dumps(text))


def test_recoveries_are_read_from_the_records(tmp_path):
    write(tmp_path, "2026-11-20T060000Z-db_failover-prod", report())
    write(tmp_path, "2026-11-20T060000Z.1-db_failover-prod", report(recovery_seconds=42.5, hosts=["web-prod"]))
    # Failed, only planned, gone on with, of another environment or playbook, of years ago, killed, and no record at all.
    write(tmp_path, "2026-11-20T070000Z-db_failover-prod", report(outcome="failed"))
    write(tmp_path, "2026-11-20T080000Z-db_failover-prod", report(outcome="planned"))
    write(tmp_path, "2026-11-20T090000Z-db_failover-prod", report(resumes="2026-11-20T080000Z-db_failover-prod"))
    write(tmp_path, "2026-11-20T100000Z-db_failover-prod-eu", report(env="prod-eu"))
    write(tmp_path, "2026-11-20T110000Z-triage-prod", report(playbook="triage"))
    write(tmp_path, "2024-11-20T110000Z-db_failover-prod", report())
    (tmp_path / "2026-11-20T120000Z-db_failover-prod").mkdir()
    (tmp_path / "evidence").mkdir()
    found = past_runs.read_runs(str(tmp_path), ["db_failover"], "prod", NOW)
    assert [(each.seconds, each.loss, each.hosts) for each in found] == [
        (42.5, 2, ("web-prod",)),
        (41.5, 2, ("api-prod",)),
    ]
    assert past_runs.read_runs(str(tmp_path / "nowhere"), ["db_failover"], "prod", NOW) == []


class Bucket:
    """With the same run, and one of another controller."""

    def runs(self):
        return ["2026-11-20T060000Z-db_failover-prod.0a1b2c3d", "2026-11-21T060000Z-db_failover-prod.0a1b2c3d"]

    def reports(self, runs):
        assert runs == ["2026-11-21T060000Z-db_failover-prod.0a1b2c3d"]
        return [json.dumps(report(recovery_seconds=50.0))]


def test_a_run_that_is_here_and_in_the_bucket_is_one(tmp_path):
    write(tmp_path, "2026-11-20T060000Z-db_failover-prod", report())
    (found,) = past_runs.read_bucket(Bucket(), str(tmp_path), ["db_failover"], "prod", NOW)
    assert found.seconds == 50.0


def test_drills_are_read_from_their_results(tmp_path):
    turns = [{"playbook": "db_failover", "verdict": "right"}, {"playbook": "service_outage", "verdict": "wrong"}]
    result = {
        "turns": turns,
        "recovery_seconds": 148.0,
        "where": "staging",
        "times": {"broke": NOW - DAY},
        "services": ["regami-api"],
    }
    write(tmp_path, "one", result, "result.json")
    write(tmp_path, "two", dict(result, recovery_seconds=None), "result.json")
    write(tmp_path, "old", dict(result, times={"broke": NOW - 400 * DAY}), "result.json")
    write(tmp_path, "of an older form", {"turns": 3}, "result.json")
    assert past_runs.read_drills(str(tmp_path), NOW) == [drilled(148.0)]
