# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole verb incident_notify, its plan included, against stand-ins that speak the protocols of the notifiers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import background, notices, record
from ansible_collections.sre.runbooks.plugins.module_utils.records import Records
from ansible_collections.sre.runbooks.plugins.modules import incident_notify
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from ansible_collections.sre.runbooks.tests.unit.notifier_services import (
    COMPONENT,
    PERSON,
    SECRETS,
    Illness,
    Services,
)

INCIDENT = "2026-11-21-api-down"
OWN = f"#inc-{INCIDENT}"
ROUTE = {
    "slack": ["#incidents"],
    "incident_channel": True,
    "pagerduty": "critical",
    "statuspage": {"impact": "critical", "components": {COMPONENT: "major_outage"}},
    "mail": [PERSON, "team@regami.test"],
    "jira": True,
}
EVERYBODY = ["slack", "slack", "pagerduty", "statuspage", "mail"]
PUBLIC = "Problems with the API\n"


@pytest.fixture
def services() -> Iterator[Services]:
    there = Services()
    yield there
    there.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of a run that has joined the incident."""
    there = tmp_path / "incidents" / "run"
    begin(there)
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(there))
    return there


def begin(folder: Path, resumes: str | None = None, incident: str | None = INCIDENT) -> None:
    folder.mkdir(parents=True)
    record.append(str(folder), event="run_started", resumes=resumes)
    if incident:
        record.append(str(folder), event="joined", incident=incident)


@pytest.fixture
def tell(services: Services, folder: Path) -> Callable[..., dict]:
    def call(moment: str, check: bool = False, **arguments: object) -> dict:
        reached = {name.removeprefix("notify_"): how for name, how in services.inventory.items()}
        given = {
            "moment": moment,
            "incident": INCIDENT,
            "service": "regami-api",
            "severity": "P0",
            "route": ROUTE,
            "internal": f"P0 {moment}: api <does> not answer\nby {PERSON}, password=hunter2",
            "public": PUBLIC + f"{moment}.",
            "region": "us-east-1",
            "within": 1.5,
            **reached,
            **arguments,
        }
        outcome = run_main(incident_notify.main, check, **given)
        assert not outcome.get("failed"), outcome
        assert not outcome["changed"] and outcome["undo"] == []
        return outcome

    return call


def told(folder: Path) -> list[dict]:
    return [event for event in record.events(str(folder)) if event["event"] == "told"]


def test_an_incident_from_its_beginning_to_its_end(tell: Callable, services: Services, folder: Path) -> None:
    for moment in notices.MOMENTS:
        outcome = tell(moment, action_items=["Alarm on lag\nNobody saw it", "Drill it"])
        assert [each for each in outcome["told"] if not each["ok"]] == []
    assert services.of("pagerduty") == [
        f"{action} {INCIDENT}" for action in ("trigger", "acknowledge", "acknowledge", "resolve")
    ]
    assert services.pagerduty.alerts == {INCIDENT: "resolved"}
    assert services.of("statuspage") == [
        "POST investigating",
        "PATCH investigating",
        "PATCH identified",
        "PATCH identified",
        "PATCH monitoring",
        "PATCH monitoring",
        "PATCH resolved",
    ]
    (page,) = services.statuspage.incidents
    assert (page["name"], page["impact_override"]) == ("Problems with the API", "critical")
    assert page["incident_updates"][0]["body"] == "closed."
    assert services.statuspage.component == "operational"
    mine, all_hands = (
        [text.split()[1].rstrip(":") for text in reversed(services.slack.texts(place))] for place in (OWN, "#incidents")
    )
    assert mine == list(notices.MOMENTS)
    assert all_hands == ["opened", "updated", "mitigated", "closed"]
    assert services.slack.named(OWN)["guests"] == ["U0123ONCALL"]
    assert [(each["summary"], each["labels"][0]) for each in services.jira.issues] == [
        ("Alarm on lag", INCIDENT),
        ("Drill it", INCIDENT),
    ]
    assert [letter["Subject"].split()[1] for letter in services.letters] == [
        "opened:",
        "updated:",
        "mitigated:",
        "closed:",
    ]
    first, *replies = services.letters
    assert {letter["References"] for letter in replies} == {first["Message-ID"]}
    assert {each["ok"] for each in told(folder)} == {True}


def test_no_secret_and_nobodys_address_is_said_or_written(tell: Callable, services: Services, folder: Path) -> None:
    outcome = tell("opened", public=f"Problems with the API\n{SECRETS['jira']}")
    said, written = "".join(services.bodies), (folder / "timeline.jsonl").read_text()
    assert "&lt;does&gt; not answer" in said
    for place, text in (("said", said), ("written", written), ("returned", json.dumps(outcome))):
        for secret in (*SECRETS.values(), PERSON, "hunter2"):
            # PagerDuty's key goes into the event itself, and recipients only on the envelope.
            assert secret not in text or (place, secret) == ("said", SECRETS["pagerduty"]), (place, secret)


def test_check_mode_says_what_it_would_tell(tell: Callable, services: Services, folder: Path) -> None:
    outcome = tell("opened", True)
    assert (
        outcome["steps"][0]["what"]
        == f"tell slack {OWN}, slack #incidents, pagerduty, statuspage, mail: P0 opened: api <does> not answer"
    )
    assert services.calls == [] and told(folder) == []


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (
            "refusing",
            {
                "slack": "check notify_slack.token",
                "pagerduty": "Invalid routing key",
                "statuspage": "check notify_statuspage.token",
                "mail": "550",
            },
        ),
        ("broken", {"slack": "503", "pagerduty": "503", "statuspage": "503", "mail": "451"}),
        (
            "limited",
            {
                "slack": "asks to wait 30 s",
                "pagerduty": "asks to wait 30 s",
                "statuspage": "asks to wait 30 s",
                "mail": "451",
            },
        ),
    ],
)
def test_what_does_not_arrive_is_noted_and_sent_again(
    tell: Callable, services: Services, folder: Path, kind: str, why: dict[str, str]
) -> None:
    services.ill = {name: Illness(kind) for name in why}
    outcome = tell("opened")
    assert sorted(each["channel"] for each in outcome["told"] if not each["ok"]) == sorted(EVERYBODY)
    for each in outcome["told"]:
        assert why[each["channel"]] in each["why"]
        assert any(each["why"] in note and note.startswith("not told yet: ") for note in outcome["notes"])
    assert services.told == []
    services.ill.clear()
    again = tell("updated", public="")
    assert all(each["ok"] for each in again["told"])
    assert services.of("pagerduty") == [f"trigger {INCIDENT}"]
    assert services.of("statuspage") == ["POST investigating"]
    assert [text.split()[1].rstrip(":") for text in reversed(services.slack.texts("#incidents"))] == [
        "opened",
        "updated",
    ]
    count = len(services.told)
    tell("opened")
    assert len(services.told) == count


def test_all_of_them_down_takes_no_longer_than_one(tell: Callable, services: Services) -> None:
    services.ill = {name: Illness("slow") for name in EVERYBODY}
    began = time.monotonic()
    outcome = tell("opened", within=0.6)
    assert time.monotonic() - began < 3
    assert {each["ok"] for each in outcome["told"]} == {False}
    assert [each["why"] for each in outcome["told"] if "no answer" not in each["why"]] == []


def test_a_notifier_that_asks_to_wait_a_moment_is_asked_again(tell: Callable, services: Services) -> None:
    services.ill = {name: Illness("limited", times=1, seconds=1) for name in ("pagerduty", "statuspage")}
    outcome = tell("opened", within=4)
    assert all(each["ok"] for each in outcome["told"])


def test_nothing_is_said_twice_where_the_answer_was_lost(tell: Callable, services: Services) -> None:
    """Each first answer that says that it was done is lost."""
    for moment in ("opened", "closed"):
        services.ill = {
            name: Illness("loses answers", times=1) for name in ("slack", "pagerduty", "statuspage", "jira")
        }
        route = {**ROUTE, "incident_channel": False}
        outcome = tell(moment, within=6, route=route, action_items=["Drill it"])
        assert all(each["ok"] for each in outcome["told"])
        assert {illness.times for name, illness in services.ill.items() if name != "jira"} == {0}
    assert len(services.slack.texts("#incidents")) == 2
    assert services.pagerduty.alerts == {INCIDENT: "resolved"}
    assert services.of("statuspage") == ["POST investigating", "PATCH resolved"]
    assert services.of("jira") == ["OPS-1 Drill it"]


def test_an_incident_of_the_page_that_a_person_has_made_is_taken_over(tell: Callable, services: Services) -> None:
    services.statuspage.incidents = [
        {"id": "p7", "name": "Problems with the API", "status": "investigating", "metadata": {}, "incident_updates": []}
    ]
    tell("opened")
    assert len(services.statuspage.incidents) == 1
    tell("opened", incident="2026-11-22-another")
    assert len(services.statuspage.incidents) == 2


def test_a_channel_that_is_there_already_is_joined(tell: Callable, services: Services) -> None:
    services.slack._made(OWN.lstrip("#"), is_member=False)
    assert all(each["ok"] for each in tell("opened")["told"])
    assert len(services.slack.texts(OWN)) == 1


def test_a_channel_without_the_app_says_what_to_do(tell: Callable, services: Services) -> None:
    outcome = tell("opened", route={"slack": ["#leadership", "#incidents"]})
    assert {each["place"]: each["ok"] for each in outcome["told"]} == {"#leadership": False, "#incidents": True}
    assert (
        "not told yet: slack #leadership: Slack answered not_in_channel to chat.postMessage: invite the app to it"
        in outcome["notes"]
    )


def test_a_notifier_that_is_not_set_up_says_so(tell: Callable) -> None:
    outcome = tell("opened", pagerduty=None, route={"pagerduty": "critical"})
    assert outcome["notes"] == [
        "not told yet: pagerduty: pagerduty is not set up: give notify_pagerduty in the inventory"
    ]


def test_a_severity_without_a_route_says_so(tell: Callable) -> None:
    assert tell("opened", route={})["notes"] == ["nobody hears of severity P0: give it a route in notify_routes"]


def test_a_password_never_goes_in_the_clear(tell: Callable, services: Services) -> None:
    server = {**services.inventory["notify_mail"], "user": "robot", "password": SECRETS["mail"]}
    outcome = tell("opened", route={"mail": [PERSON]}, mail=server)
    assert outcome["told"][0]["why"] == "the password would go in the clear: set notify_mail.security"
    assert services.letters == []


def test_the_background_holds_nothing_up_and_the_end_waits_for_it(
    tell: Callable, services: Services, folder: Path
) -> None:
    """With a terminal or a pipe that nobody but this process may hold open."""
    services.ill = {"slack": Illness("slow", times=1, seconds=0.8)}
    read, write = os.pipe()
    began = time.monotonic()
    outcome = tell("started", background=True, within=5)
    assert time.monotonic() - began < 0.7
    assert outcome["told"] == []
    os.close(write)
    os.set_blocking(read, True)
    assert os.read(read, 1) == b"", "the background holds a pipe of the run open"
    os.close(read)
    ended = tell("ended", within=5)
    assert ended["waited_seconds"] > 0
    assert [text.split()[1].rstrip(":") for text in reversed(services.slack.texts(OWN))] == ["started", "ended"]
    assert background.wait(str(folder), 0)
    assert {each["ok"] for each in told(folder)} == {True}


def test_the_next_run_says_what_a_killed_one_has_not(
    tell: Callable, services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.ill = {"pagerduty": Illness("broken")}
    tell("opened", within=0.2)
    services.ill.clear()
    following = folder.parent / "run2"
    begin(following)
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(following))
    tell("started")
    assert services.of("pagerduty") == [f"trigger {INCIDENT}", f"acknowledge {INCIDENT}"]
    elsewhere = folder.parent / "run3"
    begin(elsewhere, incident="2026-11-22-another")
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(elsewhere))
    tell("opened", incident="2026-11-22-another")
    assert services.of("pagerduty")[2:] == ["trigger 2026-11-22-another"]


def test_without_a_record_it_is_told_all_the_same(
    tell: Callable, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(record.FOLDER_VARIABLE)
    assert all(each["ok"] for each in tell("opened", background=True)["told"])


def test_what_another_controller_could_not_tell_is_told_by_this_one(
    tell: Callable, services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.ill = {"slack": Illness("broken")}
    tell("opened", route={"slack": ["#incidents"]})
    (owed,) = told(folder)
    theirs, ours = folder.parent / "another.0a1b2c3d", folder.parent / "this"
    folder.rename(folder.parent.parent / "bucket")
    begin(ours)
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(ours))

    def fetch(_records: Records, incident: str) -> list[str]:
        assert incident == INCIDENT
        if not theirs.exists():
            (folder.parent.parent / "bucket").rename(theirs)
        return []

    monkeypatch.setattr(Records, "fetch", fetch)
    services.ill.clear()
    tell("started", route={"slack": ["#incidents"]}, background=True)
    assert not theirs.exists(), "what repairs something asks no bucket"
    tell("updated", route={"slack": ["#incidents"]})
    assert [event["title"] for event in told(ours) if event["id"] == owed["id"]] == [owed["title"]]
    assert "P0 opened" in "".join(services.slack.texts("#incidents"))
