# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a run ends by what it found."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import readiness, record
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules import readiness_gate
from ansible_collections.sre.runbooks.tests.unit.a_look import SAID, leave
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

plan = readiness_gate.ReadinessGate.plan
REFUSED, PASSED, UNREACHABLE = "refused", "passed", "unreachable"


@pytest.mark.parametrize(
    ("level", "fail_on", "end"),
    [
        ("ready", "risk", PASSED),
        ("risk", "not_ready", PASSED),
        ("risk", "risk", REFUSED),
        ("cannot_tell", "not_ready", UNREACHABLE),
        ("cannot_tell", "risk", UNREACHABLE),
        ("not_ready", "not_ready", REFUSED),
        ("not_ready", "risk", REFUSED),
    ],
)
def test_the_plan_ends_the_run_by_its_level(level, fail_on, end):
    asked = ({"level": level, "bad": ["db_failover"]}, {"environment_name": "prod", "fail_on": fail_on})
    if end == REFUSED:
        with pytest.raises(Refusal, match=f"prod is {readiness.WORDS[level]} for db_failover"):
            plan(*asked)
        return
    returned = plan(*asked).returned
    assert (returned["level"], returned.get("unreachable", False)) == (level, end == UNREACHABLE)


def test_it_ends_by_the_verdicts_of_its_own_run(tmp_path, monkeypatch):
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(tmp_path))
    outcome = run_main(readiness_gate.main, environment_name="prod", region="us-west-2")
    assert outcome["failed"] and "readiness_report comes first" in outcome["msg"]
    leave(tmp_path, SAID)
    outcome = run_main(readiness_gate.main, environment_name="prod", region="us-west-2")
    assert outcome["msg"].startswith("prod is not ready for db_failover, region_evacuation: ")
    assert outcome["level"] == "not_ready"
