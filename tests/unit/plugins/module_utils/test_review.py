# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The review of an incident: its times and what they are taken from, what it cost, what is still in force, what is left open."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import review, story
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import TEN
from ansible_collections.sre.runbooks.tests.unit.story_of_an_incident import (
    BACK,
    EVENTS,
    INCIDENT,
    OPEN,
    SAID,
    SCALE,
    TRIAGE,
    at,
    back,
    call,
    measured,
    started,
    step,
)

LATER = TEN + 7200
NOTHING = measured(episodes=[], counted_by="", alarms=[], metrics=[])


def reviewed(events=EVENTS, seen=None, **said):
    return review.review(events, seen or measured(), SAID | said, LATER)


def without(*kinds):
    return [event for event in EVENTS if event["event"] not in kinds]


def times(found):
    return {name: moment["at"] and round(moment["at"] - TEN) for name, moment in found["times"].items()}


def test_the_times_that_people_said_and_users_felt():
    found = reviewed()
    assert times(found) == {"began": -120, "detected": 270, "acknowledged": 400, "mitigated": 961, "resolved": 1800}
    assert found["times"]["detected"]["how"] == "as said by who opened it"
    assert found["lengths"] == {
        "duration": 1920.0,
        "to_detect": 390.0,
        "to_acknowledge": 130.0,
        "to_mitigate": 691.0,
        "to_resolve": 1530.0,
    }
    assert (found["title"], found["severity"], found["commander"]) == ("Checkout answers 503", "P1", "ben@bastion")


def test_what_nobody_said_is_taken_from_the_record_and_says_so():
    found = reviewed(without("opened", "acknowledged", "closed"), NOTHING)
    assert times(found) == {"began": None, "detected": 300, "acknowledged": 480, "mitigated": 961, "resolved": 961}
    assert found["times"]["acknowledged"]["how"] == "nobody acknowledged it; the first run began"
    assert found["times"]["resolved"]["how"] == "when the run ended"
    assert found["title"] == INCIDENT


def test_a_mitigation_that_a_person_marked_counts_and_an_open_incident_goes_on():
    found = reviewed([*without("closed"), at(1000, "mitigated", BACK, by="ben", text="served again")])
    assert times(found)["mitigated"] == 1000 and found["is_open"]
    assert found["lengths"]["duration"] == 7320.0 and found["lengths"]["to_resolve"] is None
    assert "Is it over? It was not closed when this was written." in found["questions"]


def test_downtime_and_budget_are_of_this_incident_only():
    before = {"since": TEN - 7000, "until": TEN - 6000, "seconds": 1000, "requests": 9, "errors": 9}
    found = reviewed(seen=measured(episodes=[before, *measured()["episodes"]]))
    assert found["downtime"]["seconds"] == 1080 and found["downtime"]["errors"] == 10380
    # 18 of 43.2 minutes.
    assert found["budget"] == {"objective": 99.9, "window_days": 30, "allowed_seconds": 2592.0, "burnt_percent": 41.7}


def test_without_a_count_downtime_lasts_from_detection_to_mitigation_and_says_so():
    found = reviewed(seen=NOTHING)
    assert found["downtime"]["seconds"] == 691 and "nothing counted" in found["downtime"]["how"]
    nothing_known = reviewed(without("run_ended"), NOTHING)
    assert nothing_known["downtime"]["seconds"] is None and nothing_known["budget"] is None


@pytest.mark.parametrize(("percent", "days"), [(100, 30), (0, 30), (99.9, 0)])
def test_an_objective_that_leaves_no_budget_is_refused(percent, days):
    with pytest.raises(Refusal, match="slo_"):
        review.refuse_objective(percent, days)


def test_errors_are_looked_for_long_before_anybody_noticed():
    begin, end = review.window(EVENTS, LATER)
    assert begin == TEN + 270 - 3 * 3600 and end == TEN + 1800 + 300
    assert review.window(without("closed"), LATER)[1] == LATER


def undone(record, what, *, check=False):
    """A run of undo.yml."""
    name = "2025-11-21T110000Z-undo-prod"
    return [
        started(3600, name, "undo", check_mode=check),
        step(3601, name, "Find what the run changed", "ok", verb="sre.runbooks.way_back"),
        at(
            3602, "preflight", name, step=f"1. Is it still as {record} left it", host="api-prod", state="ok", duration=1
        ),
        step(3604, name, f"1. Take back: {what}", calls=[call("set the desired count of regami-service to 2")]),
        at(3605, "run_ended", name, outcome="recovered", seconds=5),
    ]


def states(events):
    return [(each["what"].split()[0], each["state"]) for each in reviewed(events)["changes"]]


def test_what_is_in_force_names_the_command_that_takes_it_back():
    scaled, rolled = reviewed()["changes"]
    assert (scaled["state"], rolled["state"]) == ("in force", "in force")
    assert scaled["command"] == f"ansible-playbook playbooks/undo.yml -e env=prod -e run={SCALE}"


def test_what_undo_took_back_is_not_in_force_and_the_undo_is_no_change_of_its_own():
    what = "set the desired count of regami-service to 6"
    assert states([*EVENTS, *undone(SCALE, what)]) == [("set", "taken back"), ("roll", "in force")]
    assert states([*EVENTS, *undone(SCALE, what, check=True)]) == [("set", "in force"), ("roll", "in force")]
    assert states([*EVENTS, *undone(BACK, what)])[0] == ("set", "in force")


def test_a_run_that_another_went_on_with_is_taken_back_by_the_name_of_the_last():
    again = "2025-11-21T101200Z-emergency_scale-prod"
    more = [
        dict(started(705, again, "emergency_scale"), resumes=SCALE),
        at(710, "run_ended", again, outcome="recovered", seconds=5),
    ]
    found = reviewed([*EVENTS, *more])
    assert found["changes"][0]["command"].endswith(f"-e run={again}")
    assert (
        states([*EVENTS, *more, *undone(again, "set the desired count of regami-service to 6")])[0][1] == "taken back"
    )


def test_what_nothing_takes_back_says_what_to_do_instead_also_of_what_was_done_with_it():
    for_good = {"cannot": "a promotion is for good", "instead": "db_reprotect.yml"}
    calls = [call("promote regami-db-replica", for_good), call("repoint it", back()), call("end 3 sessions")]
    found = reviewed([*EVENTS, started(1000, "x", "db_failover"), step(1100, "x", "Fail over", calls=calls)])
    told = [(each["state"], each["instead"]) for each in found["changes"][-3:]]
    assert told == [
        ("for good", "a promotion is for good: db_reprotect.yml"),
        ("in force", "a promotion is for good: db_reprotect.yml"),
        ("for good", ""),
    ]


def test_a_run_that_only_looked_changed_nothing():
    looked = [
        started(1000, "x", "db_failover", check_mode=True),
        step(1100, "x", "Fail over", calls=[call("promote it", back())]),
    ]
    assert len(reviewed([*EVENTS, *looked])["changes"]) == 2


def test_the_questions_and_what_follows_from_them():
    found = reviewed()
    asked = "\n".join(found["questions"])
    assert "Users saw errors for 6 min before anybody noticed" in asked
    assert 'What stopped emergency_scale of prod at "Smoke tests": health with the database: answered 503?' in asked
    assert "Who should have heard by statuspage, and did not (opened)?" in asked
    titles = [each["title"] for each in found["actions"]]
    assert "Grant cloudtrail:LookupEvents to the role of the runbooks" in titles
    assert "Keep this cause from coming back: a deployment without the new column" in titles
    assert "Keep in code, or take back: set the desired count of regami-service to 6" in titles
    assert {each["kind"] for each in found["actions"]} == {"bug", "monitoring", "prevention", "documentation"}


def test_what_was_sent_again_was_heard():
    again = at(900, "told", BACK, channel="statuspage", message="opened", ok=True, why="")
    assert "statuspage" not in "\n".join(reviewed([*EVENTS, again])["questions"])


def test_a_run_that_was_killed_is_asked_about():
    killed = [event for event in EVENTS if not (event["event"] == "run_ended" and event["record"] == BACK)]
    assert f"Why did rollback_deployment of prod ({BACK}) not end?" in "\n".join(reviewed(killed)["questions"])


def test_the_story_tells_what_people_runs_users_and_alarms_did_in_order():
    found = reviewed()
    lines = [(round(line["at"] - TEN), line["kind"], line["what"]) for line in found["story"]]
    assert lines[0] == (-120, "users", "users see errors")
    assert (300, "incident", "anna@bastion opened the incident: Checkout answers 503, P1") in lines
    assert (311, "told", "statuspage did not hear: 503 from its API, three times") in lines
    assert (640, "change", "set the desired count of regami-service to 6") in lines
    assert (700, "failure", "Smoke tests failed on api-prod: health with the database: answered 503") in lines
    assert (701, "failure", "emergency_scale of prod ended: failed, after 101 s") in lines
    assert [line[0] for line in lines] == sorted(line[0] for line in lines)
    assert not any("incident_open" in line[2] for line in lines)
    assert [run.playbook for run in story.runs(EVENTS)] == ["triage", "emergency_scale", "rollback_deployment"]


def test_what_was_proposed_and_who_approved_it_is_told_and_counts_as_taking_it():
    wanted = {
        "env": "prod",
        "host": "api-prod",
        "playbook": "rollback_deployment",
        "remediate": False,
        "because": "errors",
    }
    proposed = at(485, "proposed", TRIAGE, proposal="back-1", **wanted)
    decided = [
        at(600 + after, "approved", BACK, proposal="back-1", by=by) for after, by in ((0, "the inventory"), (5, "jane"))
    ]
    unasked = [event for event in EVENTS if event["event"] != "acknowledged"]
    found = reviewed(sorted([*unasked, proposed, *decided], key=lambda event: event["time"]))
    told = [line["what"] for line in found["story"]]
    assert (
        "proposed: ansible-playbook playbooks/rollback_deployment.yml -e env=prod --limit api-prod, since errors"
        in told
    )
    assert "jane approved back-1" in told
    assert found["times"]["acknowledged"] == {"at": TEN + 605, "how": "by jane, who approved back-1"}
    assert found["commander"] == "jane"


def test_a_message_is_told_once_with_all_places_that_heard_it():
    def told(after, channel, place="", ok=True):
        said = {"title": "INCIDENT P1", "message": "Service: api", "moment": "opened", "why": "" if ok else "no answer"}
        return at(after, "told", OPEN, channel=channel, place=place, ok=ok, **said)

    heard = [
        told(312, "slack", "#incidents"),
        told(313, "pagerduty"),
        told(314, "statuspage"),
        told(315, "mail", ok=False),
    ]
    lines = [line["what"] for line in reviewed([*EVENTS, *heard])["story"] if line["kind"] == "told"]
    assert lines[2:] == [
        "slack #incidents, pagerduty heard: INCIDENT P1",
        "the status page says: Service: api",
        "mail did not hear: no answer",
    ]
