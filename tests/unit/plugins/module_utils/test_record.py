# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on disk when a run dies, and what never gets there."""

from __future__ import annotations

import json
import multiprocessing

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import masking, record


def lines(folder):
    return [json.loads(line) for line in (folder / "timeline.jsonl").read_text().splitlines()]


def test_each_event_is_on_disk_when_append_returns(tmp_path):
    record.append(tmp_path, event="step", step="promote")
    (event,) = lines(tmp_path)
    assert (event["event"], event["step"]) == ("step", "promote")
    assert event["time"].endswith("Z")
    assert (tmp_path / "timeline.jsonl").stat().st_mode & 0o777 == 0o600


def _write(folder, name):
    for number in range(200):
        record.append(folder, event=name, number=number, padding="x" * 500)


def test_processes_that_write_at_once_do_not_mix_their_lines(tmp_path):
    writers = [multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path, name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events = lines(tmp_path)
    assert len(events) == 800
    assert [event["number"] for event in events if event["event"] == "a"] == list(range(200))


def test_report_is_whole_or_not_there(tmp_path):
    record.write_report(tmp_path, {"outcome": "recovered"})
    assert json.loads((tmp_path / "report.json").read_text()) == {"outcome": "recovered"}
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("text", "kept", "gone"),
    [
        ("postgresql://regami:hunter22@db:5432/regami", "@db:5432/regami", "hunter22"),
        ("DATABASE_PASSWORD=hunter22 next", "next", "hunter22"),
        ('{"password": "hunter22", "id": 7}', '"id": 7', "hunter22"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization", "abcdefgh12345678"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key ******** used", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_secrets_do_not_get_there(text, kept, gone):
    shown = masking.kept({"nested": [text]})["nested"][0]
    assert kept in shown
    assert gone not in shown


def test_ordinary_words_stay():
    text = "promote regami-db-replica, backups kept 7 days; arn:aws:rds:us-west-2:123456789012:db:regami-db-replica"
    assert masking.kept(text) == text


def test_killed_run_is_found_and_finished_one_is_not(tmp_path):
    assert record.unfinished(tmp_path / "none", "-db_failover-prod") is None
    killed = tmp_path / "2026-01-01T000000Z-db_failover-prod"
    killed.mkdir()
    assert record.unfinished(tmp_path, "-db_failover-prod") == killed.name
    assert record.unfinished(tmp_path, "-db_failover-secondary") is None
    # Who looks at the plan first goes on with it all the same.
    plan = tmp_path / "2026-01-01T000001Z-db_failover-prod"
    plan.mkdir()
    record.append(plan, event="run_started", check_mode=True)
    (plan / "report.json").write_text("{}")
    assert record.unfinished(tmp_path, "-db_failover-prod") == killed.name
    (killed / "report.json").write_text("{}")
    assert record.unfinished(tmp_path, "-db_failover-prod") is None


PASSED, BROKEN = [{"name": "health", "ok": True}], [{"name": "health", "ok": False}]


@pytest.mark.parametrize(
    ("failed", "check_mode", "changed", "verification", "expected"),
    [
        (False, False, True, PASSED, "recovered"),
        (False, False, False, PASSED, "noop"),
        (False, True, True, [], "planned"),
        (True, False, True, PASSED, "failed"),
        (True, True, True, [], "failed"),
        (False, False, True, [], "failed"),
        (False, False, True, BROKEN, "failed"),
    ],
)
def test_outcome(failed, check_mode, changed, verification, expected):
    assert record.outcome(failed, check_mode, changed, verification) == expected


def test_how_a_run_has_gone_so_far() -> None:
    def step(second: int, state: str, **other: object) -> dict:
        return {"time": f"2026-11-21T08:00:{second:02}.000Z", "event": "step", "state": state, **other}

    start = {"time": "2026-11-21T08:00:00.000Z", "event": "run_started", "by": "jane@bastion"}
    lease = step(1, "changed", lease={"name": "api"})
    assert record.so_far([]) == {"outcome": "noop", "why": "", "seconds": 0, "by": ""}
    by = {"by": "jane@bastion"}
    assert record.so_far([start, lease, step(4, "ok")]) == {"outcome": "noop", "why": "", "seconds": 4, **by}
    assert record.so_far([start, lease, step(5, "changed")])["outcome"] == "recovered"
    assert record.so_far([start, step(5, "changed"), step(6, "ignored", message="x")])["outcome"] == "recovered"
    failed = record.so_far([start, step(5, "changed"), step(9, "failed", message="it lags")])
    assert failed == {"outcome": "failed", "why": "it lags", "seconds": 9, **by}
