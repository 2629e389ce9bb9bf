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
    written(tmp_path, f"{record.now()}-2", closed["entries"])
    refused = log(tmp_path, said("noted", text="late"))
    assert refused["msg"].startswith("no incident is open in prod: open one")


def test_in_check_mode_nothing_is_written(tmp_path):
    planned = log(tmp_path, OPEN, check=True)
    assert planned["entries"] == []
    assert "opened: Checkout answers 503 (P1)" in planned["notes"][0]


def test_first_alert_opens_and_the_next_is_a_note(tmp_path):
    alert = {
        "environment_name": "prod",
        "event": "alerted",
        "title": "5xx above 1 %",
        "detected": "2026-11-22T02:58:00Z",
    }
    assert log(tmp_path, dict(alert, event="alert_over"))["entries"] == []
    opened = log(tmp_path, dict(alert, severity="P1"))
    (entry,) = opened["entries"]
    assert (entry["event"], entry["incident"], entry["severity"]) == ("opened", "2026-11-22-5xx-above-1", "P1")
    written(tmp_path, f"{record.now()}-1", [{"event": "joined", "incident": opened["incident"], "env": "prod"}, entry])
    for event, text in (("alerted", "alert: 5xx above 1 %"), ("alert_over", "alert over: 5xx above 1 %")):
        (note,) = log(tmp_path, dict(alert, event=event))["entries"]
        assert (note["event"], note["incident"], note["text"]) == ("noted", opened["incident"], text)
    closed = log(tmp_path, said("closed", cause="a bad build"))
    written(tmp_path, f"{record.now()}-2", closed["entries"])
    assert log(tmp_path, alert)["incident"] == "2026-11-22-5xx-above-1-2"
