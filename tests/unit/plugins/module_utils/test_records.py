# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records of two controllers that share a bucket: who finds which run, and under which name."""

from __future__ import annotations

import os

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import incidents, record, record_mirror, way_back
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.lease import run_id
from ansible_collections.sre.runbooks.plugins.module_utils.record_bucket import own_name
from ansible_collections.sre.runbooks.plugins.module_utils.records import Records
from ansible_collections.sre.runbooks.tests.unit.record_store import Store

BACK, SCALE = "2026-11-22T030000Z-rollback_deployment-prod", "2026-11-22T031000Z-emergency_scale-prod"
CALL = {
    "verb": "sre.runbooks.set",
    "arguments": {},
    "what": ["set it"],
    "undo": [{"verb": "sre.runbooks.set", "arguments": {"to": 1}}],
}


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def controller(store, tmp_path, monkeypatch):
    """A function that makes the Records of a controller."""
    monkeypatch.setattr(Records, "bucket", lambda self: store.bucket())

    def make(name):
        (tmp_path / name).mkdir(exist_ok=True)
        said = {"records": str(tmp_path / name), "record_bucket": "records", "record_bucket_region": None}
        return Records(said, ("us-west-2", None, {}))

    return make


def ran(records, name, process, *events, ended=True):
    """A run of a controller, which the bucket has as well."""
    folder = f"{records.folder}/{name}"
    (playbook, env) = name.split("-")[3:]
    os.mkdir(folder)
    record.append(folder, event="run_started", playbook=playbook, env=env, run=process, by="jane", resumes=None)
    for event in events:
        record.append(folder, **event)
    if ended:
        record.append(folder, event="run_ended", outcome="recovered")
        record.write_report(folder, {"outcome": "recovered"})
    record.write(f"{folder}/{record_mirror.MARK}", '{"lines": 0, "whole": false, "by": ""}')
    sleeps = []

    def sleep(_seconds):
        sleeps.append(1)
        if len(sleeps) > 1:
            raise KeyboardInterrupt

    try:
        record_mirror._deliver(records.bucket(), folder, sleep)
    except KeyboardInterrupt:
        assert not ended


def changed():
    return {"event": "step", "step": "Set it", "host": "api", "state": "changed", "calls": [CALL]}


HERE, THERE = run_id(os.getpid()), "elsewhere:17:3"


def test_the_last_run_of_an_environment_is_that_of_whatever_controller(controller):
    here, there = controller("here"), controller("there")
    ran(here, BACK, HERE, changed())
    ran(there, SCALE, THERE, changed())
    ran(there, "2026-11-22T032000Z-triage-prod", THERE)
    ran(there, "2026-11-22T033000Z-emergency_scale-staging", THERE, changed())
    found = way_back.newest(here, "prod")
    assert own_name(found) == SCALE and found != SCALE
    assert way_back.newest(there, "prod") == SCALE, "its own has the name of its folder"
    back = way_back.way_back(here, SCALE, "prod")
    assert (back["record"], back["calls"][0]["what"]) == (found, ["set it"])


def test_a_run_that_goes_on_elsewhere_is_read_again_and_one_that_has_ended_is_not(controller, store):
    here, there = controller("here"), controller("there")
    ran(there, BACK, THERE, changed())
    ran(there, SCALE, THERE, ended=False)
    for _time in range(2):
        assert len(here.run(SCALE)[1]) == 1
        name, events = here.run(BACK)
    assert [event["event"] for event in events] == ["run_started", "step", "run_ended"]
    assert sum(own_name(key.split("/")[1]) == BACK for key in store.gets) == 4, "three lines and the report, once"
    assert here.run(name) == (name, events)
    with pytest.raises(Refusal, match="did not end"):
        way_back.way_back(here, SCALE, "prod")


def test_two_of_the_same_name_are_told_apart(controller):
    here, there, third = controller("here"), controller("there"), controller("third")
    ran(there, SCALE, THERE)
    ran(third, SCALE, "third:17:3")
    with pytest.raises(Refusal, match=rf"several controllers began {SCALE}: say one of {SCALE}\.\w+, {SCALE}\.\w+"):
        here.run(SCALE)


def test_a_bucket_that_does_not_answer_hides_no_run_of_another_controller(controller, store):
    here = controller("here")
    ran(here, BACK, HERE, changed())
    store.is_down = True
    with pytest.raises(Refusal, match=r"the records in records cannot be had: .*nothing was changed"):
        way_back.newest(here, "prod")
    assert way_back.way_back(here, BACK, "prod")["record"] == BACK, "its own it has"
    runs, notes = here.runs_of("it")
    assert runs == {} and "may be missing" in notes[0]


def test_all_runs_of_an_incident_are_had(controller):
    here, there = controller("here"), controller("there")
    joined = {"event": "joined", "incident": "it", "env": "prod"}
    ran(here, BACK, HERE, joined)
    ran(there, SCALE, THERE, joined, {"event": "telling", "id": "a"})
    runs, notes = here.runs_of("it")
    assert notes == [] and sorted(map(own_name, runs)) == [BACK, SCALE]
    (telling,) = [event for event in incidents.merged(runs) if event["event"] == "telling"]
    assert own_name(telling["record"]) == SCALE


def test_who_only_joined_an_incident_knows_that_it_is_open_and_when_it_was_closed(controller, store):
    here, there = controller("here"), controller("there")
    opened = {"event": "opened", "incident": "it", "env": "prod", "title": "5xx"}
    joined = {"event": "joined", "incident": "it", "env": "prod"}
    ran(here, BACK, HERE, joined, opened)
    ran(there, SCALE, THERE, joined)
    for records in (here, there):
        (seen,) = incidents.open_ones(records.known()[0], "prod")
        assert (seen.id, seen.title) == ("it", "5xx")
    ran(there, "2026-11-22T032000Z-incident_close-prod", THERE, joined, {"event": "closed", "incident": "it"})
    assert [incidents.open_ones(records.known()[0], "prod") for records in (here, there)] == [[], []]
