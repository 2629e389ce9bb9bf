# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One incident over several runs, on one controller and on two that share nothing but a bucket."""

from __future__ import annotations

import json
import os
import signal

import pytest
from resources import differences, steady
from runbook import Runbook, read_timeline
from world import World

from ansible_collections.sre.runbooks.plugins.module_utils import incidents, record
from ansible_collections.sre.runbooks.plugins.module_utils.records import Records


@pytest.fixture
def elsewhere(any_world: World, tmp_path) -> Runbook:
    """A controller that has none of this one's records."""
    return Runbook(any_world.sandbox, tmp_path / "elsewhere")


def test_two_controllers_at_work_on_one_incident_lose_no_event(any_world: World, elsewhere: Runbook, tmp_path):
    state = any_world.sandbox.state
    bucket = {"record_bucket": state["evidence_bucket"], "record_bucket_region": "us-east-1"}
    here = Runbook(any_world.sandbox, tmp_path / "here")
    opened = here.run("incident_open", title="Checkout answers 503", severity="P1", **bucket)
    assert "NOTED" in opened.output
    (incident,) = {event["incident"] for event in opened.timeline if event["event"] == "opened"}

    # Both at once; the second knows of the incident by the bucket alone, and reads as well as writes.
    both = [
        here.start("incident_note", text="the partner knows", **bucket),
        elsewhere.start("triage", "--check", **bucket),
    ]
    results = [running.wait() for running in both]
    assert [result.returncode for result in results] == [0, 0], results
    assert {"event": "joined", "incident": incident} == {
        key: event[key] for event in results[1].timeline if event["event"] == "joined" for key in ("event", "incident")
    }

    third = tmp_path / "third"
    third.mkdir()
    connection = ("us-east-1", state["endpoint_url"], {"aws_access_key_id": "a", "aws_secret_access_key": "b"})
    assert Records(dict(bucket, records=str(third)), connection).fetch(incident) == []
    found = incidents.merged(incidents.runs(third))
    written = [event for result in (opened, *results) for event in result.timeline]
    assert sorted(json.dumps(event, sort_keys=True) for event in written) == sorted(
        json.dumps({key: value for key, value in event.items() if key != "record"}, sort_keys=True) for event in found
    )
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)


def test_alerts_of_one_moment_open_one_incident(any_world: World, tmp_path):
    here = Runbook(any_world.sandbox, tmp_path)
    held = record.take_turn(tmp_path, 0.0)
    alerts = [
        here.start("alert", alert="none", title=title) for title in ("5xx of the API", "no host answers", "queue grows")
    ]
    for alert in alerts:
        alert.until(lambda run: run.timeline)
    record.end_turn(held)
    results = [alert.wait() for alert in alerts]
    assert [result.returncode for result in results] == [0, 0, 0], results
    logged = [event for result in results for event in result.timeline if event["event"] in incidents.LOGGED]
    assert sorted(event["event"] for event in logged) == ["noted", "noted", "opened"]
    assert len({event["incident"] for event in logged}) == 1


def test_what_a_killed_run_could_not_deliver_the_next_one_does(any_world: World, tmp_path):
    """The first has a bucket that is not there, and its controller is lost with all that runs there."""
    here, state = Runbook(any_world.sandbox, tmp_path / "here"), any_world.sandbox.state
    running = here.start("incident_open", title="a", record_bucket="no-such-bucket", record_bucket_region="us-east-1")
    running.until(lambda run: any(event["event"] == "opened" for event in run.timeline))
    lost = running.kill().folder
    _host, pid, _start = json.loads((lost / "delivered.json").read_text())["by"].split(":")
    os.kill(int(pid), signal.SIGKILL)
    bucket = {"record_bucket": state["evidence_bucket"], "record_bucket_region": "us-east-1"}
    noted = here.run("incident_note", text="b", **bucket)
    assert noted.returncode == 0, noted.output
    assert json.loads((lost / "delivered.json").read_text())["whole"]
    assert len(read_timeline(lost)) >= 3


@pytest.mark.soak
def test_a_run_of_one_controller_is_taken_back_on_another(world: World, tmp_path):
    state = world.sandbox.state
    bucket = {"record_bucket": state["evidence_bucket"], "record_bucket_region": "us-east-1"}
    here, elsewhere = (Runbook(world.sandbox, tmp_path / name) for name in ("here", "elsewhere"))
    before = steady(world)

    def differs() -> list[str]:
        return [each for each in differences(before, steady(world)) if "/objects/runs/" not in each]

    scaled = here.run("emergency_scale", capacity="+50%", **bucket)
    assert scaled.returncode == 0 and differs() != []
    back = elsewhere.run("undo", **bucket)
    assert (back.returncode, back.report["outcome"]) == (0, "recovered"), back.output
    assert f"takes back {scaled.folder.name}." in "\n".join(back.report["notes"])
    assert differs() == []


@pytest.mark.soak
def test_an_alert_that_is_over_while_a_run_goes_on_ends_the_incident_once(world: World, tmp_path):
    """On two controllers; whichever of the two ends last closes it, and writes the review."""
    bucket = {"record_bucket": world.sandbox.state["evidence_bucket"], "record_bucket_region": "us-east-1"}
    here, elsewhere = (Runbook(world.sandbox, tmp_path / name) for name in ("here", "elsewhere"))
    said = {"alert": "high_error_rate", "title": "errors", "review_folder": str(tmp_path / "reviews"), **bucket}
    opened = here.run("alert", **said)
    (incident,) = {event["incident"] for event in opened.timeline if event["event"] == "opened"}
    running = elsewhere.start("emergency_scale", capacity="+1", review_folder=said["review_folder"], **bucket)
    running.until(lambda run: any(event["event"] == "joined" for event in run.timeline))
    ends = [here.run("alert", resolved=True, **said), running.wait()]
    assert [end.returncode for end in ends] == [0, 0], ends
    assert [event["incident"] for end in ends for event in end.timeline if event["event"] == "closed"] == [incident]
    assert (tmp_path / "reviews" / f"{incident}.md").exists()
