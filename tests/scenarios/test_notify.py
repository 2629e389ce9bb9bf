# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who must hear of an incident hears of it in order, and no run waits for a notifier; stand-ins speak the real protocols."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runbook import Result, Runbook
from world import World

from ansible_collections.sre.runbooks.tests.unit.notifier_services import COMPONENT, PERSON, SECRETS, Illness, Services

ROUTE = {
    "slack": ["#incidents"],
    "incident_channel": True,
    "pagerduty": "critical",
    "statuspage": {"components": {COMPONENT: "major_outage"}},
    "mail": [PERSON],
    "jira": True,
    "update_minutes": 30,
}
INCIDENT = "2026-11-21-api-down"
OWN = f"#inc-{INCIDENT}"
# Seconds that a notifier may take.
WITHIN = 2.0
PLANTED = "planted-Zq7-word"


@pytest.fixture
def services() -> Iterator[Services]:
    there = Services()
    yield there
    there.close()


@pytest.fixture
def runbook(untouched: World, tmp_path: Path) -> Runbook:
    """With records of its own, so that no other test joins this incident."""
    return Runbook(untouched.sandbox, tmp_path / "incidents")


def told(run: Result, ok: bool) -> set[str]:
    return {event["channel"] for event in run.timeline if event["event"] == "told" and event["ok"] is ok}


def heads(services: Services, place: str) -> list[str]:
    """First lines of what stands in a channel of Slack, the oldest first."""
    return [text.splitlines()[0].strip("*") for text in reversed(services.slack.texts(place))]


def test_an_incident_whose_notifiers_fail_in_the_middle(
    untouched: World, runbook: Runbook, services: Services, tmp_path: Path
) -> None:
    """Opened, a run while all of them are slow, broken or refusing, and closed when they are well again."""
    theirs = tmp_path / "templates"
    theirs.mkdir()
    (theirs / "closed.j2").write_text(
        "OVER: {{ notify_title }}\nit was {{ notify_cause }}, said {{ notify_jira.token }}\n"
    )
    (theirs / "opened.j2").write_text("{{ this is no template")
    who: dict[str, Any] = {
        **services.inventory,
        "notify_routes": {"P0": ROUTE},
        "notify_within": WITHIN,
        "notify_templates": str(theirs),
        "incident": INCIDENT,
        "review_folder": str(tmp_path / "reviews"),
    }
    opened = runbook.run(
        "incident_open", "-vvv", title="API is down", severity="P0", impact=f"password={PLANTED}", **who
    )
    assert (opened.returncode, told(opened, False)) == (0, set()), opened.output
    assert heads(services, OWN) == heads(services, "#incidents") == ["INCIDENT P0: API is down"]
    assert services.pagerduty.alerts == {INCIDENT: "triggered"}
    assert "Next update: " in services.slack.texts(OWN)[0]

    services.ill = {"slack": Illness("slow"), "pagerduty": Illness("broken"), "statuspage": Illness("refusing")}
    run = runbook.run("kill_queries", "-vvv", **who)
    assert run.returncode == 0, run.output
    assert told(run, False) == {"slack", "pagerduty", "statuspage"}
    events = [(event["event"], event.get("verb") or event.get("channel")) for event in run.timeline]
    begun, heard = events.index(("step", "sre.runbooks.incident_notify")), events.index(("told", "slack"))
    assert begun < heard, "the run waited for a notifier"
    assert run.report["recovery_seconds"] < run.seconds - WITHIN, "what is told at the end counts as recovery"
    assert untouched.lease() is None or untouched.lease()["run"] == "released"

    services.ill.clear()
    closed = runbook.run(
        "incident_close", "-vvv", cause="a bad query", action_items=[f"Limit queries of {PERSON}"], **who
    )
    assert (closed.returncode, told(closed, False)) == (0, set()), closed.output
    mine = heads(services, OWN)
    assert [line.partition(" (late")[0] for line in mine[1:]] == [
        "End queries and sessions of the database: begun for regami-api in sandbox",
        "End queries and sessions of the database: noop for regami-api in sandbox",
        "OVER: API is down",
    ]
    assert heads(services, "#incidents")[1:] == ["OVER: API is down"]
    # Somebody was paged, nobody was told that it is being worked on, and it is over.
    assert services.of("pagerduty") == [f"trigger {INCIDENT}", f"resolve {INCIDENT}"]
    assert [what.split()[1] for what in services.of("statuspage")] == ["investigating", "resolved"]
    assert [letter["Subject"] for letter in services.letters] == ["INCIDENT P0: API is down", "OVER: API is down"]
    tickets = [each["summary"] for each in services.jira.issues]
    # Who did not hear in the end is told in the review as well.
    assert tickets[0] == "Limit queries of ********" and "Write what was learnt into the runbooks" in tickets

    records = [path for path in runbook.incidents.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in records} == {0o600}
    reviews = [path for path in (tmp_path / "reviews").rglob("*") if path.is_file()]
    written = {str(path): path.read_text() for path in [*records, *reviews]}
    said = dict(enumerate(services.bodies))
    printed = {name: each.output for name, each in (("open", opened), ("run", run), ("close", closed))}
    for secret in (*SECRETS.values(), PLANTED, PERSON, *untouched.secrets()):
        for texts in (written, printed, said):
            found = [where for where, text in texts.items() if secret in text]
            # PagerDuty's key is a part of its event.
            assert found == [] or (secret, texts) == (SECRETS["pagerduty"], said), (secret, found)
