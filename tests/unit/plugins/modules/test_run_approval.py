# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of run_approval: what is proposed once, what needs nobody, and which decisions count."""

from __future__ import annotations

import json
import time

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import record
from ansible_collections.sre.runbooks.plugins.modules import run_approval
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

ROLLBACK = {"playbook": "rollback_deployment", "host": "api-prod", "because": "errors since the deployment"}


class Records:
    """A folder of records into which what the verb returns is written, as the callback does."""

    def __init__(self, folder):
        self.folder, self.run = folder, 0

    def __call__(self, *, check=False, **arguments):
        result = run_main(
            run_approval.main, check, **{"environment_name": "prod", "records": str(self.folder), **arguments}
        )
        if result.get("entries"):
            self.run += 1
            run = self.folder / f"{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}-{self.run}"
            run.mkdir()
            for entry in result["entries"]:
                record.append(run, **entry)
        return result

    def age(self, minutes):
        """As if all of it had been written so long ago."""
        for timeline in self.folder.glob("*/timeline.jsonl"):
            events = record.events(timeline.parent)
            aged = [dict(event, time=record.now(time.time() - 60 * minutes)) for event in events]
            timeline.write_text("".join(json.dumps(event) + "\n" for event in aged))


@pytest.fixture
def verb(tmp_path):
    return Records(tmp_path)


def test_what_is_proposed_waits_and_is_proposed_once(verb):
    first = verb(**ROLLBACK)["proposal"]
    assert first["state"] == "waiting"
    assert first["command"] == "ansible-playbook playbooks/rollback_deployment.yml -e env=prod --limit api-prod"
    again = verb(**ROLLBACK)
    assert (again["proposal"]["id"], again["entries"]) == (first["id"], [])
    assert verb(**dict(ROLLBACK, host="web-prod"))["proposal"]["id"] != first["id"]


def test_what_only_looks_needs_nobody(verb):
    looks = verb(playbook="high_error_rate", host="api-prod")
    assert (looks["proposal"]["state"], looks["entries"]) == ("looks", [])
    mends = verb(playbook="high_error_rate", host="api-prod", remediate=True)["proposal"]
    assert mends["state"] == "waiting"
    assert mends["command"].endswith(" -e remediate=true")


def test_the_inventory_approves_once(verb):
    """What did not help is for a person."""
    allowed = dict(ROLLBACK, may_run=["rollback_deployment"])
    proposed = verb(**allowed)
    assert (proposed["proposal"]["state"], proposed["proposal"]["by"]) == ("approved", "the inventory")
    assert [entry["event"] for entry in proposed["entries"]] == ["proposed", "approved"]
    assert verb(**allowed)["proposal"]["state"] == "waiting"
    verb.age(61)
    assert verb(**allowed)["proposal"]["state"] == "approved"


@pytest.mark.parametrize("state", ["approved", "denied"])
def test_first_decision_counts(verb, state):
    proposal = verb(**ROLLBACK)["proposal"]["id"]
    decided = verb(state=state, proposal=proposal, by="jane")
    assert (decided["proposal"]["state"], decided["proposal"]["by"]) == (state, "jane")
    assert decided["proposal"]["because"] == ROLLBACK["because"]
    late = verb(state="approved", proposal=proposal, by="joe")
    assert late["failed"]
    assert late["msg"] == f"{proposal} was {state} by jane already; nothing was changed"


def test_decisions_that_are_refused(verb):
    assert "there is no proposal db_failover-1" in verb(state="approved", proposal="db_failover-1", by="jane")["msg"]
    proposal = verb(**ROLLBACK)["proposal"]["id"]
    elsewhere = verb(state="approved", proposal=proposal, by="jane", environment_name="secondary")
    assert "is for env=prod, not secondary" in elsewhere["msg"]
    verb.age(61)
    assert "may no longer be right" in verb(state="approved", proposal=proposal, by="jane")["msg"]
    assert verb(**ROLLBACK)["proposal"]["id"] != proposal


def test_check_mode_notes_nothing(verb):
    assert verb(check=True, **ROLLBACK)["entries"] == []
