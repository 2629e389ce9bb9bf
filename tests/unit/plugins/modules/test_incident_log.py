# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of incident_log: what it has the callback write, and when it has it write nothing."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import record
from ansible_collections.sre.runbooks.plugins.modules import incident_log
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

OPEN = {"environment_name": "prod", "event": "opened", "title": "Checkout answers 503", "severity": "P1"}


def log(records, arguments, check=False):
    return run_main(incident_log.main, check, records=str(records), **arguments)


def said(event, **arguments):
    return {"environment_name": "prod", "event": event, **arguments}


def written(records, name, entries):
    (records / name).mkdir()
    for entry in entries:
        record.append(records / name, **entry)


def test_what_is_opened_is_written_into_and_closed(tmp_path):
    opened = log(tmp_path, OPEN)
    assert not opened["changed"]
    (entry,) = opened["entries"]
    assert (entry["event"], entry["severity"]) == ("opened", "P1")
    written(tmp_path, f"{record.now()}-1", [{"event": "joined", "incident": opened["incident"], "env": "prod"}, entry])
    noted = log(tmp_path, said("noted", text="the partner knows"))
    assert noted["incident"] == opened["incident"]
    assert noted["notes"] == [f"{opened['incident']}: noted: the partner knows"]
    closed = log(tmp_path, said("closed", cause="a certificate"))
    assert closed["logged"]["cause"] == "a certificate"
    written(tmp_path, f"{record.now()}-2", closed["entries"])
    refused = log(tmp_path, said("noted", text="late"))
    assert refused["msg"].startswith("no incident is open in prod: open one")


def test_in_check_mode_nothing_is_written(tmp_path):
    planned = log(tmp_path, OPEN, check=True)
    assert planned["entries"] == []
    assert "opened: Checkout answers 503 (P1)" in planned["notes"][0]


ALERT = {"environment_name": "prod", "event": "alerted", "title": "5xx above 1 %", "detected": "2026-11-22T02:58:00Z"}


def opened_by_alert(records):
    """Its ID."""
    opened = log(records, dict(ALERT, severity="P1", alert="5xx"))
    (entry,) = opened["entries"]
    assert (entry["event"], entry["incident"], entry["severity"]) == ("opened", "2026-11-22-5xx-above-1", "P1")
    assert (opened["logged"]["moment"], opened["logged"]["by"]) == ("opened", "monitoring")
    name = opened["incident"]
    written(records, f"{record.now()}-1", [{"event": "joined", "incident": name, "env": "prod"}, entry])
    return name


def test_first_alert_opens_and_the_next_is_a_note(tmp_path):
    nothing = log(tmp_path, dict(ALERT, event="alert_over"))
    assert (nothing["entries"], nothing["logged"]) == ([], None)
    name = opened_by_alert(tmp_path)
    again = log(tmp_path, ALERT)
    assert again["logged"] is None, "who is at work is told nothing new"
    over = log(tmp_path, dict(ALERT, event="alert_over", alert="5xx"))
    assert (over["logged"]["moment"], over["logged"]["text"]) == ("updated", "alert over: 5xx above 1 %")
    for noted, text in ((again, "alert: 5xx above 1 %"), (over, "alert over: 5xx above 1 %")):
        (note,) = noted["entries"]
        assert (note["event"], note["incident"], note["text"], note["by"]) == ("noted", name, text, "monitoring")
    closed = log(tmp_path, said("closed", cause="a bad build"))
    written(tmp_path, f"{record.now()}-2", closed["entries"])
    assert log(tmp_path, ALERT)["incident"] == "2026-11-22-5xx-above-1-2"


def test_with_its_last_alert_an_incident_is_over_where_that_is_asked_for(tmp_path):
    over = dict(ALERT, event="alert_over", alert="5xx", title="5xx is below 1 %", closes=True)
    name = opened_by_alert(tmp_path)
    (entry,) = log(tmp_path, dict(ALERT, title="p99 above 3 s"))["entries"]
    written(tmp_path, f"{record.now()}-2", [{"event": "joined", "incident": name, "env": "prod"}, entry])
    first = log(tmp_path, over)
    assert [each["event"] for each in first["entries"]] == ["noted"]
    assert "the incident stays open: still on: p99 above 3 s" in first["entries"][0]["text"]
    assert first["logged"] is None, "one alert less is no news either"
    written(tmp_path, f"{record.now()}-3", [{"event": "joined", "incident": name, "env": "prod"}, *first["entries"]])
    last = log(tmp_path, dict(over, alert="", title="p99 above 3 s"))
    assert [each["event"] for each in last["entries"]] == ["noted", "closed"]
    told = {"moment": "closed", "by": "monitoring", "text": "the last alert is over: p99 above 3 s"}
    assert {key: last["logged"][key] for key in told} == told
    planned = log(tmp_path, dict(over, alert="", title="p99 above 3 s"), check=True)
    assert (planned["entries"], planned["logged"]["moment"]) == ([], "closed")


def test_a_worse_alert_makes_the_incident_worse(tmp_path):
    order = ["P0", "P1", "P2"]
    name = opened_by_alert(tmp_path)
    worse = log(tmp_path, dict(ALERT, title="no host answers", severity="P0", severities=order))
    assert (worse["logged"]["moment"], worse["logged"]["worse"]) == ("updated", True)
    assert worse["logged"]["text"] == "alert: no host answers, which makes it P0"
    assert worse["incident_opened"]["severity"] == "P0" and worse["incident_opened"]["title"] == ALERT["title"]
    joined = {"event": "joined", "incident": name, "env": "prod"}
    written(tmp_path, f"{record.now()}-2", [joined, *worse["entries"]])
    again = log(tmp_path, dict(ALERT, title="p99", severity="P1", severities=order))
    assert (again["logged"], again["incident_opened"]["severity"]) == (None, "P0")
    over = log(tmp_path, dict(ALERT, event="alert_over", title="no host answers", severity="P0", severities=order))
    assert over["incident_opened"]["severity"] == "P0" and "severity" not in over["entries"][0]
