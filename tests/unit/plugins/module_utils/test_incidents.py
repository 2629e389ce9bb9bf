# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which runs are one incident, and which one a run joins."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import incidents
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal

CHECKOUT, SEARCH = "2026-11-22-checkout", "2026-11-22-search"


def at(minute, event, **more):
    return {"time": f"2026-11-22T03:{minute:02}:00.000Z", "event": event, **more}


def began(minute, name, env="prod"):
    joined = at(minute, "joined", incident=name, env=env)
    return [joined, at(minute, "opened", incident=name, env=env, title="Checkout", severity="P1")]


def known(*of_runs):
    return incidents.known({str(number): events for number, events in enumerate(of_runs)})


def wanted(event="noted", **more):
    options = ("incident", "title", "severity", "service", "detected", "text", "cause")
    return {"environment_name": "prod", "event": event, "severities": [], **dict.fromkeys(options), **more}


def entry(seen, *given, **more):
    return incidents.entry(seen, wanted(*given, **more), "2026-11-22T03:30:00.000Z", "jane@bastion")


def test_an_open_incident_of_the_environment_is_joined():
    seen = known(began(0, CHECKOUT), began(1, "2026-11-22-other", env="staging"))
    assert incidents.choose(seen, "prod", None) == (CHECKOUT, None)
    assert incidents.choose(seen, "secondary", None) == (None, None)


def test_a_closed_one_is_not_and_may_be_opened_by_no_second_name():
    closed = [at(5, "joined", incident=CHECKOUT), at(5, "closed", incident=CHECKOUT)]
    seen = known(began(0, CHECKOUT), closed)
    assert incidents.choose(seen, "prod", None) == (None, None)
    with pytest.raises(Refusal, match="was closed at 2026-11-22T03:05"):
        entry(seen, "opened", title="x", incident=CHECKOUT)
    assert entry(seen, "closed", incident=CHECKOUT) == (CHECKOUT, None)


def test_of_several_the_newest_is_joined_and_the_others_are_told():
    joined, note = incidents.choose(known(began(0, CHECKOUT), began(1, SEARCH)), "prod", None)
    assert joined == SEARCH
    assert CHECKOUT in note


def test_a_slip_of_the_pen_is_refused_only_where_there_is_something_else():
    with pytest.raises(Refusal, match=f"there are: {CHECKOUT}"):
        incidents.choose(known(began(0, CHECKOUT)), "prod", "2026-11-22-chekout")
    assert incidents.choose({}, "prod", "2026-11-22-elsewhere") == ("2026-11-22-elsewhere", None)
    with pytest.raises(Refusal, match="is no name of an incident"):
        incidents.choose({}, "prod", "INC 17")


def test_an_incident_is_opened_once():
    name, event = entry(
        {}, "opened", title="Checkout answers 503!", detected="2026-11-21T23:58:00+01:00", severity="P1"
    )
    assert name == "2026-11-21-checkout-answers-503"
    assert event["detected"] == "2026-11-21T22:58:00.000Z"
    assert event["by"] == "jane@bastion"
    assert entry(known(began(0, CHECKOUT)), "opened", title="Checkout", incident=CHECKOUT) == (CHECKOUT, None)


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"event": "opened"}, "an incident needs a title"),
        ({"event": "opened", "title": "x", "detected": "yesterday"}, "detected=yesterday is no time"),
        (
            {"event": "opened", "title": "x", "severity": "P9", "severities": ["P1", "P2"]},
            "severity=P9 is none of the team's; there are: P2, P1",
        ),
        ({"event": "noted"}, "a note needs words"),
        ({"event": "noted", "text": "x"}, "no incident is open in prod"),
    ],
)
def test_what_is_missing_is_said(given, refused):
    with pytest.raises(Refusal, match=refused):
        incidents.entry({}, wanted(**given), "2026-11-22T03:30:00.000Z", "jane@bastion")


def test_runs_of_two_controllers_are_merged_by_time_and_each_keeps_its_order():
    """The clock of the first was set back in between."""
    first = [at(1, "step", step="a"), at(5, "step", step="b"), at(4, "step", step="c")]
    second = [at(2, "step", step="d"), at(6, "step", step="e")]
    merged = incidents.merged({"one": first, "two": second})
    assert [event["step"] for event in merged] == ["a", "d", "b", "c", "e"]
    assert merged[1]["record"] == "two"


def test_timelines_are_read_as_far_as_they_were_written(tmp_path):
    for name, events in {
        "2026-11-22T0300Z-triage-prod": began(0, CHECKOUT),
        "2026-11-01T0300Z-triage-prod": began(0, SEARCH),
    }.items():
        (tmp_path / name).mkdir()
        lines = "".join(json.dumps(event) + "\n" for event in [at(0, "run_started"), *events])
        (tmp_path / name / "timeline.jsonl").write_text(lines + '{"time": "2026-')
    (tmp_path / "evidence").mkdir()
    found = incidents.runs(tmp_path, ("joined", "opened"), since="2026-11-20")
    assert [[event["event"] for event in events] for events in found.values()] == [["joined", "opened"]]
    assert len(incidents.of(incidents.runs(tmp_path), CHECKOUT)) == 1


def test_what_messages_say_of_an_incident() -> None:
    before = incidents.Incident("a", "prod", "Checkout fails", "P1")
    opened = {"event": "opened", "title": "Login fails", "severity": "P0", "detected": "2026-11-21T22:58:00.000Z"}
    assert incidents.summary(before) == {"title": "Checkout fails", "severity": "P1", "detected": ""}
    assert incidents.summary(None, opened) == {key: opened[key] for key in ("title", "severity", "detected")}
    assert incidents.summary(before, {"event": "noted", "text": "x"})["title"] == "Checkout fails"
    assert incidents.summary(None) == {"title": "", "severity": "", "detected": ""}
