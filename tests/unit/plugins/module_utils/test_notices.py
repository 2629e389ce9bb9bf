# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who hears what, and what is still owed."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import notices, record

INCIDENT = "2026-11-21-api-down"
AT = 1_800_000_000.0
ROUTE = {
    "slack": ["#incidents", "#leadership"],
    "incident_channel": True,
    "pagerduty": "critical",
    "statuspage": {"impact": "major", "components": {"c1": "major_outage"}},
    "mail": ["jane@example.com"],
    "jira": True,
}
PUBLIC = "Problems with the API\nWe are looking."


def asked(
    moment: str, route: dict | None = None, at: float = AT, incident: str | None = INCIDENT, **other: object
) -> list:
    """Its notices, by ROUTE unless another one is given."""
    subject = {"key": f"run/{moment}", "incident": incident, "service": "api", "at": record.now(at)}
    given = {"internal": "P0: api is down\nImpact: all", "public": PUBLIC, **other}
    return notices.wanted(
        moment, route or ROUTE, given["internal"], given["public"], subject, given.get("action_items", ())
    )


def places(found: list) -> list[str]:
    return [notice.name() for notice in found]


@pytest.mark.parametrize(
    ("moment", "heard"),
    [
        (
            "opened",
            [
                "slack #inc-2026-11-21-api-down",
                "slack #incidents",
                "slack #leadership",
                "pagerduty",
                "statuspage",
                "mail",
            ],
        ),
        ("started", ["slack #inc-2026-11-21-api-down", "pagerduty", "statuspage"]),
        ("updated", ["slack #inc-2026-11-21-api-down", "slack #incidents", "slack #leadership", "statuspage", "mail"]),
        ("ended", ["slack #inc-2026-11-21-api-down", "statuspage"]),
        (
            "closed",
            [
                "slack #inc-2026-11-21-api-down",
                "slack #incidents",
                "slack #leadership",
                "pagerduty",
                "statuspage",
                "mail",
            ],
        ),
    ],
)
def test_who_hears_of_a_moment(moment: str, heard: list[str]) -> None:
    assert places(asked(moment)) == heard


def test_an_incident_that_becomes_worse_pages_again_and_is_open_for_those_who_did_not_hear_of_it() -> None:
    mild = {"slack": ["#incidents"], "pagerduty": "warning"}
    before = {notice.id for notice in asked("opened", mild)}
    assert places(
        [notice for notice in asked("opened", {**mild, "pagerduty": "critical"}) if notice.id not in before]
    ) == ["pagerduty"]
    assert "slack #incidents" not in places([notice for notice in asked("opened") if notice.id not in before])


def test_a_run_outside_of_an_incident_is_told_to_channels_only() -> None:
    assert places(asked("started", incident=None)) == ["slack #incidents", "slack #leadership"]


def test_runs_are_told_to_all_channels_where_the_incident_has_none() -> None:
    assert "slack #incidents" in places(asked("started", {**ROUTE, "incident_channel": False}))


def test_nothing_is_published_without_a_public_text() -> None:
    assert "statuspage" not in places(asked("updated", public=" "))


def test_what_each_service_is_told() -> None:
    pager, page = ({each.channel: each.details for each in asked(moment)} for moment in ("opened", "closed"))
    assert pager["pagerduty"] == {"action": "trigger", "severity": "critical", "source": "api", "dedup_key": INCIDENT}
    assert pager["statuspage"]["status"] == "investigating"
    assert page["statuspage"]["components"] == {"c1": "operational"}


def test_an_action_item_is_known_by_its_text() -> None:
    first, second = (
        [each for each in asked("closed", action_items=items) if each.channel == "jira"]
        for items in (["Alarm on lag\nBecause nobody saw it", "Drill it"], ["Drill it"])
    )
    assert [each.title for each in first] == ["Alarm on lag", "Drill it"]
    assert second[0].id == first[1].id and second[0].details == first[1].details


def test_no_secret_and_no_address_is_told() -> None:
    (first, *_others) = asked("opened", internal="By jane.doe@example.com\npassword: hunter2\npostgres://u:pw@host/db")
    text = first.title + first.text
    for secret in ("jane", "example.com", "hunter2", "pw@"):
        assert secret not in text


def test_channel_names_are_those_that_slack_takes() -> None:
    assert notices.channel_of("2026-11-21-API down! " + "x" * 90) == ("inc-2026-11-21-api-down-" + "x" * 90)[:80]


def event(kind: str, notice: notices.Notice, at: float, **outcome: object) -> dict:
    return {"time": record.now(at), "event": kind, **notice.event(), **outcome}


def test_what_did_not_arrive_is_owed_until_it_does() -> None:
    slack = asked("opened")[1]
    failed = [event("telling", slack, AT), event("told", slack, AT + 10, ok=False, why="down")]
    assert notices.owed(failed, AT + 11) == [slack]
    being_sent_again = [*failed, event("telling", slack, AT + 20)]
    assert notices.owed(being_sent_again, AT + 25) == []
    assert notices.owed([*being_sent_again, event("told", slack, AT + 26, ok=True, why="")], AT + 100) == []


def test_what_a_killed_run_was_saying_is_owed_after_a_while() -> None:
    slack = asked("opened")[1]
    begun = [event("telling", slack, AT)]
    assert notices.owed(begun, AT + 5) == []
    assert notices.owed(begun, AT + notices.LOST_AFTER + 1) == [slack]


def test_the_oldest_comes_first() -> None:
    early, later = asked("opened")[1], asked("updated", at=AT + 60)[1]
    events = [event("told", later, AT + 61, ok=False, why=""), event("told", early, AT + 1, ok=False, why="")]
    assert notices.owed(events, AT + 100) == [early, later]


@pytest.mark.parametrize(
    ("channel", "moment", "later", "is_pointless"),
    [
        ("pagerduty", "opened", "closed", True),
        ("pagerduty", "opened", "started", False),
        ("pagerduty", "started", "closed", True),
        ("statuspage", "opened", "started", True),
        ("slack", "opened", "closed", False),
        ("mail", "opened", "closed", False),
    ],
)
def test_what_something_later_has_made_pointless_is_not_said(
    channel: str, moment: str, later: str, is_pointless: bool
) -> None:
    def only(found: list) -> notices.Notice:
        return next(each for each in found if each.channel == channel and not each.place.startswith("#inc"))

    missing, after = only(asked(moment)), only(asked(later, at=AT + 60))
    assert notices.in_force([missing], [after]) == ([] if is_pointless else [missing])
    assert notices.in_force([after], [missing]) == [after]


def test_old_messages_say_that_they_are_old() -> None:
    slack, pager = asked("opened")[1], next(each for each in asked("opened") if each.channel == "pagerduty")
    assert notices.late(slack, AT + 5) == slack
    assert notices.late(slack, AT + 600).title == "P0: api is down (late: of 08:00 UTC)"
    assert notices.late(pager, AT + 600) == pager


def test_which_records_concern_a_run() -> None:
    runs = {
        "one": [
            {"event": "run_started", "resumes": None},
            {"event": "joined", "incident": INCIDENT},
            {"event": "step", "n": 1},
        ],
        "two": [{"event": "run_started", "resumes": "three"}, {"event": "step", "n": 2}],
        "three": [{"event": "run_started", "resumes": None}, {"event": "step", "n": 3}],
    }

    def steps(own: str, incident: str | None) -> list[int]:
        return [event["n"] for event in notices.related(runs, own, incident) if event["event"] == "step"]

    assert steps("two", INCIDENT) == [1, 2]
    assert steps("two", None) == [3, 2]
    assert steps("unknown", None) == []
