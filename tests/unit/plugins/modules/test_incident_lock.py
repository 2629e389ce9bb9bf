# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan of incident_lock: who gets the lease, who is refused, and what a release may touch."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.incident_lock import IncidentLock

NOW = 1_000_000.0
ME = {"holder": "jo@bastion", "run": "bastion:10:77"}
KIM = {"holder": "kim@other", "run": "other:5:9", "token": 3, "acquired": NOW - 30, "expires": NOW + 30}


def plan(item, state="held", force=False, token=None):
    observed = {"item": item, "me": ME, "now": NOW, "token": token, "describe": lambda item: f"{item['holder']} has it"}
    return IncidentLock.plan(observed, {"name": "regami-api", "state": state, "force": force})


def test_free_lease_is_taken():
    (step,) = plan(None).steps
    assert (step.do, step.before, step.after) == ("take", "free", "jo@bastion")


def test_held_lease_is_refused_with_its_holder():
    with pytest.raises(Refusal, match="kim@other has it"):
        plan(KIM)


def test_force_takes_it_and_says_from_whom():
    result = plan(KIM, force=True)
    assert result.steps[0].before == "kim@other"
    assert result.notes == ("lease regami-api taken from kim@other by force",)
    assert result.after["token"] == 4


def test_release_gives_back_only_what_is_ours():
    assert plan(KIM, state="released", token=2).steps == ()
    assert plan(None, state="released", token=3).steps == ()
    assert [step.do for step in plan(KIM, state="released", token=3).steps] == ["release"]
