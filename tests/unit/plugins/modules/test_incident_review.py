# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""incident_review: what it reads, where it writes, and what it says to an incident that is not there."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import charts
from ansible_collections.sre.runbooks.plugins.modules import incident_review
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from ansible_collections.sre.runbooks.tests.unit.story_of_an_incident import BACK, EVENTS, INCIDENT


@pytest.fixture
def records(tmp_path):
    """The records of the incident's runs, each of which joined it, and one of a run that belongs to none."""
    lines = {}
    for event in EVENTS:
        lines.setdefault(event["record"], []).append({key: value for key, value in event.items() if key != "record"})
    for name, events in lines.items():
        folder = tmp_path / "incidents" / name
        folder.mkdir(parents=True)
        joined = dict(time=events[0]["time"], event="joined", incident=INCIDENT, env="prod")
        told = [events[0], joined, *events[1:]]
        (folder / "timeline.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    (tmp_path / "incidents" / BACK / "investigation.html").write_text("a page")
    return tmp_path / "incidents"


def write(records, check=False, **more):
    given = {
        "records": str(records),
        "dest": str(records.parent / "docs"),
        "environment_name": "prod",
        "region": "us-east-1",
    }
    return run_main(incident_review.main, check, **given | more)


def test_the_newest_incident_is_written_for_its_owner_only_and_changes_no_service(records):
    planned = write(records, True)
    assert [each["do"] for each in planned["steps"]] == ["write", "write"] and not (records.parent / "docs").exists()
    told = write(records, slo_availability_percent=99.9)
    draft, page = records.parent / "docs" / f"{INCIDENT}.md", records.parent / "docs" / f"{INCIDENT}.html"
    assert (told["draft"], told["page"], told["changed"]) == (str(draft), str(page), False)
    assert stat.S_IMODE(draft.stat().st_mode) == stat.S_IMODE(page.stat().st_mode) == 0o600
    assert f"](<../incidents/{BACK}/investigation.html>)" in draft.read_text()
    assert f'href="{INCIDENT}.md"' in page.read_text()
    assert told["budget"]["burnt_percent"] == 26.7 and told["times"]["began"]["at"] is None
    assert write(records, slo_availability_percent=99.9)["steps"] == []


def test_a_draft_in_which_somebody_wrote_is_left_alone_and_the_note_says_where_the_new_one_is(records):
    draft = records.parent / "docs" / f"{INCIDENT}.md"
    write(records)
    draft.write_text(draft.read_text().replace("_To be written._", "Two customers.", 1))
    again = write(records, slo_availability_percent=99.9)
    assert "Two customers." in draft.read_text()
    assert again["edited"] == [str(draft)] and again["draft"].endswith(f"{INCIDENT}.2.md")
    assert f"{draft} is left alone, since somebody has written in it" in again["notes"]
    assert f'href="{INCIDENT}.2.md"' in (records.parent / "docs" / f"{INCIDENT}.html").read_text()


def test_a_run_that_belongs_to_no_incident(records):
    told = write(records, record=f"incidents/{BACK}/")
    assert (told["incident"], told["draft"]) == (BACK, str(records.parent / "docs" / f"{BACK}.md"))
    assert [each["what"] for each in told["changes"]] == ["roll regami-service back to regami-api:6"]


def test_what_looks_like_a_secret_is_not_in_it(records):
    note = {
        "time": EVENTS[-1]["time"],
        "event": "noted",
        "by": "ben",
        "text": "url postgresql://api:hunter2-Zq7@db/regami",
    }
    with (records / BACK / "timeline.jsonl").open("a") as timeline:
        timeline.write(json.dumps(note) + "\n")
    told = write(records)
    written = [Path(told[key]).read_text() for key in ("draft", "page")]
    assert all("url postgresql" in text and "hunter2" not in text for text in written)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"incident": "2025-11-21-checkout"}, f"knows no incident 2025-11-21-checkout (there are: {INCIDENT})"),
        ({"environment_name": "staging"}, f"(there are: {INCIDENT}): say -e incident=ID"),
        ({"record": "yesterday"}, "has no record yesterday: say -e run=NAME"),
        ({"slo_availability_percent": 100}, "slo_availability_percent=100 is no objective"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(records, given, complaint):
    assert complaint in write(records, **given)["msg"]


def test_a_folder_that_cannot_be_written(records):
    (records.parent / "docs").write_text("a file")
    assert "docs cannot be read: Not a directory; name another dest" in write(records)["msg"]


def test_a_missing_library_is_named(records, monkeypatch):
    monkeypatch.setattr(charts, "Figure", None)
    assert "matplotlib" in write(records)["msg"]


def test_the_plan_writes_only_what_is_new():
    told = dict.fromkeys(incident_review.RETURNED) | {
        "downtime": {"errors": None, "seconds": None, "how": "nothing tells"}
    }
    told |= {"draft": "a.md", "page": "a.html", "edited": [], "actions": [], "files": {"a.html": "text"}}
    told |= {"blind": ["metrics in us-east-1: missing permission cloudwatch:GetMetricData"]}
    plan = incident_review.IncidentReview.plan(told, {})
    assert [step.what for step in plan.steps] == ["write a.html"]
    lacks = "the review lacks metrics in us-east-1: missing permission cloudwatch:GetMetricData"
    assert plan.notes[-3:] == (lacks, "post-mortem draft: a.md", "page: a.html")
