# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What incident_log and run_approval decide on controllers that share nothing but a bucket, at the same moment and with answers lost."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import (
    alerts,
    incidents,
    record,
    record_bucket,
    record_mirror,
)
from ansible_collections.sre.runbooks.plugins.module_utils.records import Records
from ansible_collections.sre.runbooks.plugins.modules import incident_log, run_approval
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from ansible_collections.sre.runbooks.tests.unit.record_store import Store

ALERT = {"event": "alerted", "title": "5xx above 1 %", "alert": "5xx", "detected": "2026-11-22T02:58:00Z"}
OVER = dict(ALERT, event="alert_over", closes=True)
RUN_OVER = {"event": "run_over", "closes": True}
ROLLBACK = {"playbook": "rollback_deployment", "host": "api-prod", "because": "errors since the deployment"}


class Controller:
    """One that has a folder of records for itself; each of its runs is a pod's process, and nobody else's."""

    def __init__(self, folder, store, monkeypatch):
        folder.mkdir()
        self.folder, self.store, self.monkeypatch, self.runs = folder, store, monkeypatch, 0

    def begin(self, playbook="alert", incident=None):
        """A run of it, by its folder."""
        self.runs += 1
        own = self.folder / f"2026-11-22T03{self.runs:02}00Z-{playbook}-prod"
        own.mkdir()
        process = f"{self.folder.name}:{self.runs}:1"
        record.append(own, event="run_started", playbook=playbook, env="prod", by="jane", run=process)
        if incident:
            record.append(own, event="joined", incident=incident, env="prod")
        self.deliver(own)
        return own

    def deliver(self, own):
        """The bucket has all of its timeline."""
        events = record.events(own)
        for number, event in enumerate(events):
            for key, body in record_bucket.objects_of(
                record_bucket.run_key(own.name, events[0]["run"]), number, event
            ).items():
                self.store.bucket().put(key, body)

    def asks(self, main, own=None, mirrored=True, **said):
        """The result of a verb in a run of its own, or in `own`; the timeline is written as the callback does it."""
        own = own or self.begin()
        self.monkeypatch.setenv(record.FOLDER_VARIABLE, str(own))
        result = run_main(main, environment_name="prod", record_bucket="records", **said)
        for entry in result.get("entries", ()):
            if entry.get("incident") and not incidents.joined(record.events(own)):
                at = {"time": entry["time"]} if "time" in entry else {}
                record.append(own, event="joined", incident=entry["incident"], env="prod", **at)
            record.append(own, **entry)
        if mirrored:
            self.deliver(own)
        return result

    def runs_of(self, incident):
        options = {"records": str(self.folder), "record_bucket": "records", "record_bucket_region": None}
        records = Records(dict(options, environment_name="prod"), ("us-west-2", None, {}))
        records.known()
        return records.runs_of(incident)[0]

    def logs(self, said, own=None, **more):
        return self.asks(incident_log.main, own, **said, **more)


@pytest.fixture
def store(monkeypatch):
    store = Store()
    monkeypatch.setattr(Records, "bucket", lambda self: store.bucket())
    monkeypatch.setattr(record_mirror, "begin", lambda *_given: None)
    monkeypatch.setattr(record_bucket, "PAUSES", (0, 0, 0))
    return store


@pytest.fixture
def here(store, tmp_path, monkeypatch):
    return Controller(tmp_path / "here", store, monkeypatch)


@pytest.fixture
def there(store, tmp_path, monkeypatch):
    return Controller(tmp_path / "there", store, monkeypatch)


def kinds(result):
    return [entry["event"] for entry in result["entries"]]


def own_key(run):
    """What tells a run from those of the same name on other controllers."""
    return record_bucket.run_key(run.name, record.events(run)[0]["run"]).rpartition(".")[2]


def moment(result):
    return (result["logged"] or {}).get("moment")


def test_of_two_alerts_of_one_moment_one_is_the_incident_and_the_other_joins_it(here, there, store):
    first = {}
    store.meanwhile = lambda: first.update(there.logs(dict(ALERT, title="no host answers", alert="up"), mirrored=False))
    second = here.logs(ALERT)
    assert (kinds(first), moment(first)) == (["opened"], "opened")
    assert (kinds(second), second["incident"], second["logged"]) == (["noted"], first["incident"], None)


def test_an_answer_that_was_lost_makes_nobody_believe_that_another_one_won(here, there, store):
    store.answers = ["lost"]
    assert kinds(here.logs(ALERT)) == ["opened"]
    store.answers = ["unheard", "ConditionalRequestConflict", "lost"]
    again = there.logs(dict(ALERT, title="p99", alert="p99"))
    assert (kinds(again), again["failed"]) == (["noted"], False)
    assert len([key for key in store.objects if key.startswith("decided/")]) == 2


def test_what_another_one_wrote_while_the_answer_was_lost_counts(here, there, store):
    first = {}

    def sent_again():
        store.meanwhile = lambda: first.update(there.logs(dict(ALERT, title="p99", alert="p99")))

    store.answers, store.meanwhile = ["unheard"], sent_again
    second = here.logs(ALERT)
    assert (kinds(first), kinds(second)) == (["opened"], ["noted"])


def test_a_bucket_that_takes_nothing_stops_nobody_and_that_is_told(here, store):
    store.answers = ["unheard"] * 3
    result = here.logs(ALERT)
    assert kinds(result) == ["opened"]
    assert "another controller may have decided otherwise" in result["notes"][-1]
    run = here.begin()
    store.is_down = True
    second = here.logs(dict(ALERT, title="p99", alert="p99"), run, mirrored=False)
    assert kinds(second) == ["noted"] and "the records in records cannot be had" in "".join(second["notes"])


def test_what_is_in_the_timeline_and_was_decided_after_all_counts_once(here, there, store):
    store.answers = ["lost", "unheard", "unheard"]
    here.logs(ALERT)
    over = there.logs(OVER)
    assert (kinds(over), moment(over)) == (["noted", "closed"], "closed")
    assert alerts.firing(incidents.merged(there.runs_of(over["incident"]))) == {}


def test_what_a_lost_controller_decided_is_known_by_the_decision_alone(here, there):
    name = here.logs(ALERT, mirrored=False)["incident"]
    assert there.logs(dict(ALERT, title="p99", alert="p99"))["incident"] == name
    over = there.logs(OVER)
    assert over["entries"][0]["text"].endswith("stays open: still on: p99")
    assert kinds(there.logs(dict(OVER, alert="p99"))) == ["noted", "closed"]


def test_a_run_that_ends_after_the_last_alert_closes_the_incident(here, there):
    name = here.logs(ALERT)["incident"]
    run = there.begin("rollback_deployment", name)
    over = here.logs(OVER)
    assert kinds(over) == ["noted"]
    assert over["logged"]["text"].endswith("rollback_deployment-prod." + own_key(run) + " is still under way")
    ended = there.logs(RUN_OVER, run)
    assert (kinds(ended), moment(ended)) == (["run_over", "closed"], "closed")
    assert ended["logged"]["text"] == "all alerts are over, and nothing is under way or proposed any more"


def test_the_last_alert_that_ends_after_the_run_closes_the_incident(here, there):
    name = here.logs(ALERT)["incident"]
    ended = there.logs(RUN_OVER, there.begin("rollback_deployment", name))
    assert (kinds(ended), ended["logged"]) == (["run_over"], None)
    assert ended["notes"] == [f"{name}: stays open: still on: 5xx above 1 %"]
    over = here.logs(OVER)
    assert (kinds(over), moment(over)) == (["noted", "closed"], "closed")
    assert over["logged"]["text"] == "the last alert is over: 5xx above 1 %"


@pytest.mark.parametrize("first", ["alert", "run"])
def test_an_alert_and_a_run_that_are_over_in_one_moment_close_it_once(here, there, store, first):
    name = here.logs(ALERT)["incident"]
    run = there.begin("rollback_deployment", name)
    alert = here.begin()
    ends = [lambda: here.logs(OVER, alert, mirrored=False), lambda: there.logs(RUN_OVER, run, mirrored=False)]
    if first == "run":
        ends.reverse()
    results = []
    store.meanwhile = lambda: results.append(ends[0]())
    results.append(ends[1]())
    assert ["closed" in kinds(result) for result in results] == [False, True]
    assert [moment(result) == "closed" for result in results] == [False, True]


def test_a_run_says_once_that_it_is_over_and_nothing_of_what_it_was_told(here):
    name = here.logs(ALERT)["incident"]
    run = here.begin("high_error_rate", name)
    assert kinds(here.logs(RUN_OVER, run)) == ["run_over"]
    assert kinds(here.logs(RUN_OVER, run)) == []
    other = here.begin("triage", name)
    here.logs(OVER)
    closed = here.logs(dict(RUN_OVER, cause="memory_leak", text="it was said to the run"), other)
    assert kinds(closed) == ["run_over", "closed"]
    assert not {"cause", "text"} & closed["entries"][1].keys()
    assert kinds(here.logs(RUN_OVER, here.begin("triage", name))) == []


def test_what_a_person_opened_does_not_end_with_a_run(here):
    name = here.logs({"event": "opened", "title": "checkout"})["incident"]
    assert kinds(here.logs(RUN_OVER, here.begin("rollback_deployment", name))) == []


def test_an_alert_that_begins_as_the_incident_is_closed_opens_another_one(here, there, store):
    name = here.logs(ALERT)["incident"]
    store.meanwhile = lambda: there.logs(OVER)
    again = here.logs(dict(ALERT, title="p99 above 3 s", alert="p99"))
    assert (kinds(again), moment(again)) == (["opened"], "opened")
    assert again["incident"] != name


def test_a_proposal_of_one_controller_is_decided_on_another_once(here, there, store):
    name = here.logs(ALERT)["incident"]
    looked = here.begin("triage", name)
    proposal = here.asks(run_approval.main, looked, mirrored=False, **ROLLBACK)["proposal"]
    same = there.asks(run_approval.main, there.begin("triage", name), **ROLLBACK)
    assert (same["proposal"]["id"], same["entries"]) == (proposal["id"], [])
    assert same["proposal"]["incident"] == name
    decisions = {}

    def decide(who, state, by):
        return who.asks(run_approval.main, state=state, proposal=proposal["id"], by=by)

    store.meanwhile = lambda: decisions.update(first=decide(there, "denied", "joe"))
    second = decide(here, "approved", "jane")
    assert decisions["first"]["proposal"]["state"] == "denied"
    assert second["failed"] and f"{proposal['id']} was denied by joe already" in second["msg"]


def test_a_proposal_elsewhere_keeps_the_incident_open_and_its_denial_ends_it(here, there):
    name = here.logs(ALERT)["incident"]
    looked = here.begin("triage", name)
    proposal = here.asks(run_approval.main, looked, mirrored=False, **ROLLBACK)["proposal"]["id"]
    here.logs(RUN_OVER, looked)
    over = there.logs(OVER)
    assert f"{proposal} is waiting, and has not begun" in over["logged"]["text"]
    denial = there.begin("approve")
    there.asks(run_approval.main, denial, state="denied", proposal=proposal, by="joe")
    closed = there.logs(RUN_OVER, denial)
    assert moment(closed) == "closed"
