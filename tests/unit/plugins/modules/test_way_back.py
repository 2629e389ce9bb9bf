# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""way_back: where it looks, where it writes, and what it says to a run that is not there."""

from __future__ import annotations

import json
import stat

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import record
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.records import Records
from ansible_collections.sre.runbooks.plugins.modules.way_back import WayBack

EVENTS = (
    {"event": "run_started", "playbook": "scale", "env": "prod", "resumes": None},
    {
        "event": "step",
        "step": "Set it",
        "host": "api",
        "lease": {"name": "api", "table": "locks", "region": "us-west-2"},
        "calls": [
            {
                "verb": "sre.runbooks.set",
                "arguments": {"to": 3},
                "what": ["set it to 3"],
                "undo": [{"verb": "sre.runbooks.set", "arguments": {"to": 2}}],
            }
        ],
    },
    {"event": "run_ended"},
)


def found(tmp_path, monkeypatch, **params):
    (tmp_path / "2-undo-prod").mkdir()
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(tmp_path / "2-undo-prod"))
    return way_back(**params).observe()


def way_back(**params):
    verb = WayBack.__new__(WayBack)
    nothing = dict.fromkeys(("record", "records", "record_bucket", "record_bucket_region", "dest"))
    verb.params = nothing | {"environment_name": "prod"} | params
    verb.records = Records(verb.params, (None, None, {}))
    return verb


def test_the_tasks_are_written_beside_the_record_of_this_run_for_its_owner_only(tmp_path, monkeypatch):
    (tmp_path / "1-scale-prod").mkdir()
    (tmp_path / "1-scale-prod" / "timeline.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    seen = found(tmp_path, monkeypatch)
    path = tmp_path / "2-undo-prod" / "undo.yml"
    assert seen["tasks_file"] == str(path) and stat.S_IMODE(path.stat().st_mode) == 0o600
    plan = WayBack.plan(seen, {})
    assert plan.returned["run_leases"]["api"]["region"] == "us-west-2"
    assert (plan.returned["record"], plan.returned["changes"]) == ("1-scale-prod", ["set it to 3"])


@pytest.mark.parametrize(
    ("params", "sentence"), [({}, "changed anything: nothing to take back"), ({"record": "me"}, "me is no record")]
)
def test_a_run_that_is_not_there(tmp_path, monkeypatch, params, sentence):
    with pytest.raises(Refusal, match=sentence):
        found(tmp_path, monkeypatch, **params)


def test_without_the_callback_there_is_no_record(monkeypatch):
    monkeypatch.delenv(record.FOLDER_VARIABLE, raising=False)
    with pytest.raises(Refusal, match="enable the callback"):
        way_back().observe()
