# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What reaches the bucket of records, and when."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import record, record_mirror
from ansible_collections.sre.runbooks.plugins.module_utils.lease import run_id


class Bucket:
    """Takes nothing while it is down."""

    def __init__(self):
        self.objects, self.down = {}, False

    def put(self, key, body):
        if self.down:
            raise OSError("no route")
        self.objects[key] = body

    def lines(self):
        return [json.loads(body)["event"] for key, body in sorted(self.objects.items()) if "/0" in key]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "2026-11-22T030000Z-triage-prod"
    folder.mkdir()
    record.append(folder, event="run_started", run=run_id(os.getpid()))
    return folder


def end(folder):
    record.append(folder, event="run_ended", outcome="noop")
    record.write_report(folder, {"outcome": "noop"})


def claim(folder, by=None):
    mark = {"lines": 0, "whole": False, "by": by or run_id(os.getpid())}
    (folder / record_mirror.MARK).write_text(json.dumps(mark))


def test_each_event_is_an_object_as_it_happens_and_the_report_in_the_end(folder):
    bucket, turns = Bucket(), []
    claim(folder)

    def happens(_seconds):
        turns.append(bucket.lines())
        if len(turns) == 1:
            record.append(folder, event="joined", incident="2026-11-22-x")
        else:
            end(folder)

    record_mirror.deliver(bucket, str(folder), sleep=happens)
    assert turns == [["run_started"], ["run_started", "joined"]]
    assert bucket.lines() == ["run_started", "joined", "run_ended"]
    kinds = sorted(key.split("/")[0] + "/" + key.rpartition("/")[2][:6] for key in bucket.objects)
    assert [kind for kind in kinds if "/0" not in kind] == ["incidents/2026-1", "runs/report"]
    assert record_mirror.is_whole(folder)


def test_a_bucket_that_was_down_gets_all_of_it_later(folder):
    bucket = Bucket()
    bucket.down = True
    claim(folder)

    def comes_back(_seconds):
        assert bucket.objects == {}
        bucket.down = False
        end(folder)

    record_mirror.deliver(bucket, str(folder), sleep=comes_back)
    assert bucket.lines() == ["run_started", "run_ended"]


def test_what_a_lost_controller_left_is_delivered_first(folder):
    lost = folder.parent / "2026-11-22T020000Z-triage-prod"
    lost.mkdir()
    gone = run_id(os.getpid()).rpartition(":")[0] + ":1"
    record.append(lost, event="run_started", run=gone)
    claim(lost, gone)
    claim(folder)
    end(folder)
    bucket = Bucket()
    record_mirror.deliver(bucket, str(folder))
    assert next(iter(bucket.objects)).startswith(f"runs/{lost.name}.")
    assert record_mirror.is_whole(lost)
    assert list(record_mirror.undelivered(folder.parent)) == []


def test_a_record_that_is_for_no_bucket_is_not_waited_for(folder):
    assert record_mirror.is_whole(folder) is None
