# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of what controllers decide, and what of it their timelines have."""

from __future__ import annotations

import time

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import decisions, record
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken
from ansible_collections.sre.runbooks.tests.unit.record_store import Store

OPENED, NOTED = {"event": "opened", "incident": "it"}, {"event": "noted", "incident": "it", "text": "token=abc"}


@pytest.fixture
def store():
    return Store()


def test_each_is_later_than_the_one_before_however_clocks_differ(store, monkeypatch):
    ahead, behind = (decisions.Decisions(store.bucket(), "prod") for _controller in range(2))
    now = time.time()
    monkeypatch.setattr(decisions.time, "time", lambda: now + 90)
    ahead.read(0)
    ahead.add(ahead.stamped([OPENED, NOTED]), "run.1")
    monkeypatch.setattr(decisions.time, "time", lambda: now)
    behind.read(0)
    behind.add(behind.stamped([NOTED]), "run.2")
    found = behind.read(0)
    assert [event["record"] for event in found] == ["run.1", "run.1", "run.2"]
    times = [event["time"] for event in found]
    assert times == sorted(set(times)) and times[0] >= record.now(now + 89)


def test_who_has_not_read_the_last_one_may_not_add(store):
    one, other = (decisions.Decisions(store.bucket(), "prod") for _controller in range(2))
    for each in (one, other):
        assert each.read(0) == []
    one.add(one.stamped([OPENED]), "run.1")
    with pytest.raises(Overtaken):
        other.add(other.stamped([OPENED]), "run.2")
    other.read(0)
    other.add(other.stamped([NOTED]), "run.2")
    assert sorted(store.objects) == ["decided/prod/000000.json", "decided/prod/000001.json"]
    other.read(0)
    assert store.gets.count("decided/prod/000000.json") == 2, "once by each, and once as it was refused"


def test_no_secret_is_decided_and_what_is_old_is_not_read(store):
    mine = decisions.Decisions(store.bucket(), "prod")
    mine.read(0)
    mine.add(mine.stamped([NOTED]), "run.1")
    assert b"abc" not in store.objects["decided/prod/000000.json"]
    later = decisions.Decisions(store.bucket(), "prod")
    assert later.read(time.time() + 60) == []
    later.add(later.stamped([NOTED]), "run.1")
    assert len(store.objects) == 2, "it follows what was not read, too"


def test_a_timeline_is_completed_with_what_it_does_not_have_yet():
    decided = [dict(OPENED, record="a", decision="1"), dict(NOTED, record="b", decision="2")]
    runs = {"a": [{"event": "joined"}, dict(OPENED, decision="1")]}
    found = decisions.completed(runs, decided)
    assert found == {"a": runs["a"], "b": [decided[1]]}
